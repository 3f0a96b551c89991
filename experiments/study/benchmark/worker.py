"""One process of an engine on TensorFlow, timed from outside: threads are a setting of the process."""

import sys
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

import pineat_tf as pt
from experiments import datasets, method
from experiments.config import ExperimentConfig
from experiments.study.benchmark import baselines, ensembles, work
from experiments.study.benchmark.counts import network_of
from experiments.study.benchmark.work import (
    EVALUATION,
    EVALUATION_BATCH,
    EVALUATION_STEPS,
    MATMUL,
    METHODS,
    TRAINING,
    Work,
)

_MATMUL_SIZE = 4096


def config_of(task: str, width: int, precision: str) -> ExperimentConfig:
    """The experiment behind a training task."""
    asked = Work(width, precision)
    of_task = {"variant": "original"} | (TRAINING | METHODS)[task]
    return ExperimentConfig(
        **of_task, width=width, precision="mixed_bfloat16" if precision == "bfloat16" else precision,
        dataset="fmnist", network="fmnist_vgg", adam_epsilon=1e-10, weight_decay=2e-6, batch_size=asked.batch_size,
        epsilon=asked.epsilon, step_size=asked.step_size, num_steps=asked.num_steps, eval_steps=EVALUATION_STEPS,
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
        images, labels = work.batch(Work(self.width, self.precision, batch_size=1000))
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
        x, y = map(tf.constant, work.batch(Work(self.width, self.precision, batch_size=batch_size)))

        def run(rounds: int) -> int:
            for _ in range(rounds):
                function(x, y)
            return rounds

        return run


class Ensemble(PlainTensorFlow):
    """Networks that train at once in one process by hand-written loops, each by batches of its own."""

    def __init__(self, width: int, precision: str, *, make: Callable, num: int, threads_an_operation: int):
        tf.config.threading.set_intra_op_parallelism_threads(threads_an_operation)
        super().__init__(width, precision, compiled=True)
        self.make, self.num = make, num

    def training(self, task: str) -> Callable[[int], int] | None:
        """Trains for so many rounds by PGD; gives the updates of all networks."""
        if task != "pgd original":
            return None
        networks = [network_of(config_of(task, self.width, self.precision)) for _ in range(self.num)]
        x, y = work.batch(Work(self.width, self.precision, batch_size=self.num * Work.batch_size))
        shape = self.num, Work.batch_size
        data = tf.constant(x.reshape(*shape, *work.SHAPE)), tf.constant(y.reshape(shape))
        update = self.make(networks, "pgd")

        def run(rounds: int) -> int:
            for _ in range(rounds):
                update(*data)
            return rounds * self.num

        return run

    def evaluation(self, task: str) -> None:
        """None: ensembles are timed at training alone."""


_ENGINES = {
    "pineat_tf": PineatTF,
    work.A_CORE_EACH: PineatTF,  # as many processes as cores
    work.INTERLEAVED: lambda *args: Ensemble(
        *args, make=ensembles.interleaved, num=len(pt.accelerate.cores()), threads_an_operation=1
    ),
    work.STACKED: lambda *args: Ensemble(*args, make=ensembles.stacked, num=16, threads_an_operation=0),
    "tf.function": lambda *args: PlainTensorFlow(*args, compiled=True),
    "tf eager": lambda *args: PlainTensorFlow(*args, compiled=False),
}


def _evaluation_batch(network: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    """Images with the network's own predictions as labels: APGD leaves alone what is misclassified from the start."""
    images, _ = work.batch(Work(1, "float32", batch_size=EVALUATION_BATCH))
    return images, np.argmax(network.predict(images, verbose=0), axis=1)


def _make(engine, task: str) -> Callable[[int], int] | None:
    if task == MATMUL:
        return engine.matmul() if hasattr(engine, "matmul") else None
    return engine.evaluation(task) if task in EVALUATION else engine.training(task)


def main(engine_name: str, width: str, precision: str) -> None:
    """Serves jobs until standard input ends."""
    engine = _ENGINES[engine_name](int(width), precision)
    work.serve(lambda task: _make(engine, task))


if __name__ == "__main__":
    main(*sys.argv[1:])
