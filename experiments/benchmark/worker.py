"""One process of one engine, timed from outside: threads are a setting of the process, so engines cannot share one.

It reads jobs from standard input, one line of JSON each, `{"task": ..., "seconds": ...}`, and answers each by a line
`{"updates_per_second": ...}`, or null where the engine cannot do the task. A job runs as many rounds as fill its
seconds, at least one; the first of a task also builds and compiles it, off the clock.
"""

import json
import sys
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

import pineat_tf as pt
from experiments import datasets, method
from experiments.benchmark import baselines, peers
from experiments.benchmark.counts import network_of
from experiments.benchmark.peers import Work
from experiments.config import ExperimentConfig

TRAINING = {f"{attack} {variant}": (attack, *variant.split()) for attack in ("pgd", "dist", "diff")
            for variant in ("original", "pineat 1/1", "pineat 1/4")}  # fmt: skip
EVALUATION = ("evaluation pgd", "evaluation apgd")
MATMUL = "matmul"
EVALUATION_BATCH = 250
_MATMUL_SIZE = 4096


def config_of(task: str, width: int, precision: str) -> ExperimentConfig:
    """The experiment behind a training task."""
    attack, variant, *ratio = TRAINING[task]
    work = Work(width, precision)
    return ExperimentConfig(
        attack=attack, variant=variant, ratio=(ratio or ["1/1"])[0], width=width,
        precision="mixed_bfloat16" if precision == "bfloat16" else precision,
        dataset="fmnist", network="fmnist_vgg", adam_epsilon=1e-10, weight_decay=2e-6, batch_size=work.batch_size,
        epsilon=work.epsilon, step_size=work.step_size, num_steps=work.num_steps, eval_steps=baselines.EVALUATION_STEPS,
    )  # fmt: skip


class PineatTF:
    """This library, as the runner uses it: `fit` over the runner's batches."""

    def __init__(self, width: int, precision: str):
        pt.accelerate.set_threads()
        self.width, self.precision = width, precision

    def training(self, task: str) -> Callable[[int], int]:
        """Trains for so many rounds; gives the number of updates."""
        config = config_of(task, self.width, self.precision)
        model = method.trainer(config, network_of(config))
        images, labels = peers.batch(Work(self.width, self.precision, batch_size=1000))
        batches = datasets.training_batches(
            datasets.Split(images, labels), batch_size=config.batch_size, seed=0, first_round=0, num_rounds=1_000_000
        )

        def run(rounds: int) -> int:
            model.fit(batches, steps_per_epoch=rounds, verbose=0)
            return rounds * config.round_ratio.updates_per_round

        return run

    def evaluation(self, task: str) -> Callable[[int], int]:
        """Predicts so many batches under attack."""
        config = config_of("pgd original", self.width, self.precision)
        if task == "evaluation apgd":
            attack = pt.attacks.apgd(epsilon=config.epsilon, num_steps=config.eval_steps)
        else:
            attack = method.evaluation_attack(config)
        network = network_of(config)
        predict, data = pt.Predictor(pt.accelerate.compute_twin(network), attack), _evaluation_batch(network)

        def run(rounds: int) -> int:
            for _ in range(rounds):
                predict(data, batch_size=EVALUATION_BATCH)
            return rounds

        return run


class PlainTensorFlow:
    """The hand-written loops, with TensorFlow's own threads."""

    def __init__(self, width: int, precision: str, *, compiled: bool):
        self.width, self.precision, self.compiled = width, precision, compiled

    def training(self, task: str) -> Callable[[int], int] | None:
        """Trains for so many rounds by the original methods."""
        if not task.endswith("original"):
            return None
        config = config_of(task, self.width, self.precision)
        update = baselines.training(network_of(config), config.attack, self.compiled)
        return self._repeat(update, config.batch_size)

    def evaluation(self, task: str) -> Callable[[int], int] | None:
        """Predicts so many batches under PGD."""
        if task != "evaluation pgd":
            return None
        network = network_of(config_of("pgd original", self.width, self.precision))
        return self._repeat(baselines.evaluation(network, self.compiled), EVALUATION_BATCH)

    def matmul(self) -> Callable[[int], int]:
        """Multiplies two square matrices so many times; counts in units of 10^9 operations."""
        dtype = tf.bfloat16 if self.precision == "bfloat16" else tf.float32
        matrix = tf.cast(tf.random.stateless_normal((_MATMUL_SIZE, _MATMUL_SIZE), seed=(0, 0)), dtype)
        multiply = tf.function(lambda: tf.matmul(matrix, matrix)[0, 0], autograph=False)

        def run(rounds: int) -> int:
            for _ in range(rounds):
                float(multiply())
            return rounds * 2 * _MATMUL_SIZE**3 / 1e9

        return run

    def _repeat(self, function: Callable, batch_size: int) -> Callable[[int], int]:
        x, y = map(tf.constant, peers.batch(Work(self.width, self.precision, batch_size=batch_size)))

        def run(rounds: int) -> int:
            for _ in range(rounds):
                function(x, y)
            return rounds

        return run


class Peer:
    """Another library, by its name in `peers`."""

    def __init__(self, name: str, width: int, precision: str):
        self.name, self.width, self.precision = name, width, precision

    def training(self, task: str) -> Callable[[int], int] | None:
        """Trains for so many updates by PGD."""
        maker = peers.peers().get(self.name) if task == "pgd original" else None
        return maker and _repeated(maker(Work(self.width, self.precision)))

    def evaluation(self, task: str) -> Callable[[int], int] | None:
        """Predicts so many batches under attack."""
        maker = peers.evaluators().get(self.name)
        if maker is None or self.name.endswith("apgd") != task.endswith("apgd"):
            return None
        steps, step_size = baselines.EVALUATION_STEPS, baselines.EVALUATION_STEP_SIZE
        work = Work(self.width, self.precision, EVALUATION_BATCH, steps, step_size=step_size)
        return _repeated(maker(work))


def engines() -> dict[str, Callable]:
    """All engines by name, those whose library is missing left out."""
    ours = {
        "pineat_tf": PineatTF,
        "tf.function": lambda *args: PlainTensorFlow(*args, compiled=True),
        "tf eager": lambda *args: PlainTensorFlow(*args, compiled=False),
    }
    others = sorted({**peers.peers(), **peers.evaluators()})
    return ours | {name: lambda *args, name=name: Peer(name, *args) for name in others}


def _evaluation_batch(network: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    """Images with the network's own predictions as labels: APGD leaves alone what is misclassified from the start."""
    images, _ = peers.batch(Work(1, "float32", batch_size=EVALUATION_BATCH))
    return images, np.argmax(network.predict(images, verbose=0), axis=1)


def _repeated(function: Callable | None) -> Callable[[int], int] | None:
    def run(rounds: int) -> int:
        for _ in range(rounds):
            function()
        return rounds

    return function and run


def _make(engine, task: str) -> Callable[[int], int] | None:
    if task == MATMUL:
        return engine.matmul() if hasattr(engine, "matmul") else None
    return engine.training(task) if task in TRAINING else engine.evaluation(task)


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


def main(engine_name: str, width: str, precision: str) -> None:
    """Serves jobs until standard input ends."""
    engine = engines()[engine_name](int(width), precision)
    made = {}
    for line in sys.stdin:
        job = json.loads(line)
        if job["task"] not in made:
            made[job["task"]] = _make(engine, job["task"])
            if made[job["task"]]:
                made[job["task"]](1)  # builds and compiles
        run = made[job["task"]]
        print(json.dumps({"updates_per_second": _timed(run, job["seconds"]) if run else None}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
