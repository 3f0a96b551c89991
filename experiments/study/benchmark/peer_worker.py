"""One process of another library, timed from outside.

It is begun in an environment that keeps TensorFlow out (`experiments.WITHOUT_TENSORFLOW`).
"""

import sys
from collections.abc import Callable

from experiments.study.benchmark import peers, work
from experiments.study.benchmark.work import Work


def make(name: str, width: int, precision: str, task: str) -> Callable[[int], int] | None:
    """What runs so many rounds of a task by the library of this name; None where it cannot do it."""
    if task == "pgd original" and name in peers.peers():
        return _repeated(peers.peers()[name](Work(width, precision)))
    if task not in work.EVALUATION or name.endswith("apgd") != task.endswith("apgd"):
        return None
    asked = Work(width, precision, work.EVALUATION_BATCH, work.EVALUATION_STEPS, step_size=work.EVALUATION_STEP_SIZE)
    return _repeated(peers.evaluators()[name](asked))


def _repeated(function: Callable | None) -> Callable[[int], int] | None:
    def run(rounds: int) -> int:
        for _ in range(rounds):
            function()
        return rounds

    return function and run


def main(name: str, width: str, precision: str) -> None:
    """Serves jobs until standard input ends."""
    work.serve(lambda task: make(name, int(width), precision, task))


if __name__ == "__main__":
    main(*sys.argv[1:])
