"""Trains on two devices and on one, for test_distribution.py.

A program of its own, because a machine's processor becomes two devices only before TensorFlow starts.

    python replicas.py DIRECTORY FLAGS

writes DIRECTORY/library.json, the library by itself, and the runs none and mirrored of experiments.run by --strategy.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf
import witness

import pineat_tf as pt
from experiments import datasets, distribution, networks, run
from pineat_tf.attacks import parts

NUM_ROUNDS, BATCH = 4, 16


def two_devices() -> None:
    """Makes two devices of the processor; graphs stay as they are traced, as in conftest.py."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    (processor,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)


def dist_step(strategy) -> list:
    """One step of Dist from 0 at gradients 1 and 3, one row a replica."""

    def step():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        gradient, zero = tf.gather([[[1.0]], [[3.0]]], replica), tf.zeros((1, 1))
        return parts.DistStep(0.1)(zero, gradient, zero, tf.constant(0))

    moved = tf.function(strategy.run)(step)
    return [value.numpy().item() for value in strategy.experimental_local_results(moved)]


def parts_of_batches(strategy) -> list:
    """The labels 0 .. 7 in two batches of 4: of each round, of each replica."""
    split = datasets.types.Split(np.zeros((8, 1, 1, 1), np.float32), np.arange(8))
    batches = datasets.training_batches(split, batch_size=4, seed=0, first_round=0, num_rounds=2)
    rounds = distribution.parts(batches, 4, strategy)
    replicas = [[part.numpy().tolist() for part in strategy.experimental_local_results(y)] for _, y in rounds]
    return [[y.numpy().tolist() for _, y in batches], replicas]


def refused(batch_size: int, strategy) -> str:
    """What is said of a batch size."""
    try:
        distribution.check_batch_size(batch_size, strategy)
    except ValueError as error:
        return str(error)
    return ""


def linear(images, classes, batch_size: int, l2: float = 0.0) -> dict:
    """Logits x W + b from W = b = 0, trained by SGD at rate 1 on one batch after the other."""
    layer = keras.layers.Dense(
        2, kernel_initializer="zeros", kernel_regularizer=keras.regularizers.L2(l2) if l2 else None
    )
    network = keras.Sequential([keras.Input((1,)), layer])
    if l2:
        network.set_weights([np.ones((1, 2), np.float32), np.zeros(2, np.float32)])
    model = pt.AdversarialTraining(network, attack=None, companions=pt.companions.NaturalCompanions(), ratio="0/1")
    model.compile(optimizer=keras.optimizers.SGD(1.0), metrics=["accuracy"])
    x, y = np.asarray(images, np.float32)[:, None], np.asarray(classes)
    history = model.fit(x, y, batch_size=batch_size, shuffle=False, verbose=0, validation_data=(x, y)).history
    return {"weights": [weight.tolist() for weight in network.get_weights()], "history": history}


def digits(
    attack, objective, ratio: str, companions, *, network: str = "mlp", rows: int | None = None, **options
) -> dict:
    """A real training on scikit-learn's digits."""
    keras.utils.set_random_seed(0)
    split = datasets.load("digits").train
    rows = rows or NUM_ROUNDS * BATCH
    x, y = split.images[:rows], split.labels[:rows]
    model = pt.AdversarialTraining(
        build(network), attack=attack, objective=objective, companions=companions, ratio=ratio, seed=3, **options
    )
    model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9), metrics=["accuracy"])
    history = model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0).history
    weights = np.concatenate([weight.ravel() for weight in model.network.get_weights()])
    return {"weights": weights.tolist(), "history": history}


def build(network: str) -> keras.Model:
    """A network for the digits."""
    if network == "batch_norm":
        layers = [keras.layers.Flatten(), keras.layers.BatchNormalization(synchronized=True), keras.layers.Dense(10)]
        return keras.Sequential([keras.Input((8, 8, 1)), *layers])
    return networks.build(network, input_shape=(8, 8, 1), num_classes=10, width=1)


def cases() -> dict:
    """Every training by name."""
    ball = {"epsilon": 0.1, "step_size": 0.03, "num_steps": 2}
    diff = pt.attacks.trades_kl(**ball, start_stddev=0.05)  # far enough that rounding turns no gradient's sign
    cross_entropy, trades = pt.objectives.CrossEntropy(), pt.objectives.Trades(beta=1.0)
    pgd_l2 = pt.attacks.pgd(**ball, norm="l2")
    pineat = pt.companions.ReverseSymmetry(epsilon=0.1)
    split = pt.companions.ReverseSymmetry(epsilon=0.1, decomposition="split")
    return {
        "linear_ragged": lambda: linear([0, 0, 0, 0, 1, 2, 3], [0, 0, 1, 1, 0, 0, 0], 4),
        "linear_one_row_left": lambda: linear([0, 0, 0, 0, 2], [0, 0, 1, 1, 0], 4),
        "linear_l2": lambda: linear([0, 0, 0, 0], [0, 0, 1, 1], 4, l2=0.125),
        "diff": lambda: digits(diff, trades, "1/1", pineat),
        "ikl_awp": lambda: digits(
            pgd_l2,
            pt.objectives.IKL(num_classes=10, period=3),
            "1/1",
            pineat,
            network="batch_norm",
            weight_perturbation=pt.perturbations.AWP(gamma=0.05),
            ramp=(0, 6),
        ),
        "ragged": lambda: digits(pgd_l2, cross_entropy, "1/2", split, network="batch_norm", rows=37),
    }


def library(path: str) -> None:
    """Runs every case on one device and on two."""
    strategy = distribution.strategy("mirrored")
    results = {
        "dist_step": dist_step(strategy),
        "parts": parts_of_batches(strategy),
        "refused": [refused(batch_size, strategy) for batch_size in (4, 5)],
    }
    for name, case in cases().items():
        one = case()
        with strategy.scope():
            results[name] = {"one": one, "two": case()}
    with strategy.scope():
        network = witness.watched_network()
        x, y, attack = np.zeros((8, 6, 6, 1), np.float32), np.zeros(8, np.int64), pt.attacks.fgsm(epsilon=0.1)
        results["changed"] = sorted(witness.changed_during(network, lambda: witness.fit(network, x, y, attack), x, y))
    with open(path, "w", encoding="utf-8") as file:
        json.dump(results, file)


def runner(directory: str, *flags: str) -> None:
    """Runs the command in `directory`/none and `directory`/mirrored."""
    for name in ("none", "mirrored"):
        code = run.main(["run", *flags, f"--strategy={name}", f"--output_dir={directory}/{name}"])
        if code:
            sys.exit(code)


if __name__ == "__main__":
    two_devices()
    library(f"{sys.argv[1]}/library.json")
    runner(*sys.argv[1:])
