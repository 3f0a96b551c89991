"""What the benchmark's engines do, and how they are asked: no framework is imported here.

Each engine is a process of its own that imports its own framework only: TensorFlow and PyTorch in one process end in a
segmentation fault.
"""

import dataclasses
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable

import numpy as np

TRAINING = {f"{attack} {variant}": dict(zip(("attack", "variant", "ratio"), (attack, *variant.split())))
            for attack in ("pgd", "dist", "diff")
            for variant in ("original", "pineat 1/1", "pineat 1/4")}  # fmt: skip
"""Flags of the paper's methods, by task."""
METHODS = {
    "trades": {"attack": "diff", "trades_beta": 6.0, "trades_detach": False},
    "awp": {"attack": "pgd", "awp_gamma": 0.01},
    "mart": {"attack": "pgd", "objective": "mart"},
    "score": {"attack": "diff", "objective": "score"},
    "ikl": {"attack": "diff", "objective": "ikl"},
    "ibp": {"objective": "ibp"},
    "mtl_ibp": {"attack": "pgd", "objective": "mtl_ibp"},
    "hat": {"attack": "diff", "variant": "scaled", "companion_scale": 2.0},
}
"""Flags of the methods beyond the paper's: timed for this library alone, as plain loops and peers know PGD."""
EVALUATION = ("evaluation pgd", "evaluation apgd")
MATMUL = "matmul"
EVALUATION_BATCH = 250
SHAPE, NUM_CLASSES = (28, 28, 1), 10

A_CORE_EACH, INTERLEAVED, STACKED = "pineat_tf a core each", "tf.function interleaved", "tf.function 16 stacked"
ENSEMBLES = (A_CORE_EACH, INTERLEAVED, STACKED)
"""Engines that train several networks at once: a process and a core each, as `--jobs` has it; one graph of as many
networks as there are cores; one network made of 16."""
OURS = ("pineat_tf", "tf.function", "tf eager", *ENSEMBLES)
"""Engines on TensorFlow."""
PEERS = {
    "pytorch": "torch", "pytorch compiled": "torch", "art": "adversarial-robustness-toolbox", "foolbox": "foolbox",
    "cleverhans": "cleverhans", "torchattacks apgd": "torchattacks", "pyautoattack apgd": "pyautoattack",
}  # fmt: skip
"""Engines on PyTorch, and the distribution on PyPI that each needs beside torch."""


@dataclasses.dataclass(frozen=True)
class Work:
    """What is done with one batch.

    Attributes:
        width: factor of the network's filters.
        precision: "float32" or "bfloat16".
        batch_size: number of images.
        num_steps: gradient steps of the attack.
        epsilon: radius of the L-inf ball on the [0, 1] pixel scale.
        step_size: of one step of PGD, on the same scale; APGD finds its own.
    """

    width: int
    precision: str
    batch_size: int = 100
    num_steps: int = 8
    epsilon: float = 0.1
    step_size: float = 0.02


EVALUATION_STEPS = 20
EVALUATION_STEP_SIZE = 2.5 * Work.epsilon / EVALUATION_STEPS


def batch(work: Work) -> tuple[np.ndarray, np.ndarray]:
    """The batch of the benchmark: uniform images `(batch, 28, 28, 1)` in [0, 1] and uniform labels `(batch,)`."""
    rng = np.random.default_rng(0)
    images = rng.random((work.batch_size, *SHAPE), dtype=np.float32)
    return images, rng.integers(0, NUM_CLASSES, work.batch_size)


def is_installed(engine: str) -> bool:
    """Whether the libraries of an engine are installed, found out without importing them."""
    if engine in OURS:
        return True
    try:
        for distribution in ("torch", PEERS[engine]):
            importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def engines() -> list[str]:
    """The engines whose libraries are installed."""
    return [name for name in (*OURS, *sorted(PEERS)) if is_installed(name)]


def module_of(engine: str) -> str:
    """The module whose process an engine is."""
    return "experiments.study.benchmark." + ("worker" if engine in OURS else "peer_worker")


def serve(make: Callable[[str], Callable[[int], int] | None]) -> None:
    """Serves jobs until standard input ends.

    It reads one line of JSON each, `{"task": ..., "seconds": ...}`, and answers each by a line
    `{"updates_per_second": ...}`, or null where the engine cannot do the task. A job runs as many rounds as fill its
    seconds, at least one; the first of a task also builds and compiles it, off the clock.

    Args:
        make: gives for a task what runs so many rounds of it and gives the units done, or None.
    """
    made = {}
    for line in sys.stdin:
        job = json.loads(line)
        if job["task"] not in made:
            made[job["task"]] = make(job["task"])
            if made[job["task"]]:
                made[job["task"]](1)  # builds and compiles
        run = made[job["task"]]
        print(json.dumps({"updates_per_second": _timed(run, job["seconds"]) if run else None}), flush=True)


def _timed(run: Callable[[int], int], seconds: float) -> float:
    """Units a second, over as many rounds as fill about `seconds`."""
    rounds = 1
    while True:  # the first time for an estimate, unless one round is long enough
        begun = time.perf_counter()
        units = run(rounds)
        taken = time.perf_counter() - begun
        if taken >= 0.6 * seconds:
            return units / taken
        rounds = max(1, round(rounds * seconds / taken))
