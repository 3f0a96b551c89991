"""The cost of runs before they begin: passes counted, seconds measured on this machine."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from experiments import distribution, machine, method, session
from experiments.config import ExperimentConfig

_ROUNDS_MEASURED = 3


def forwards(config: ExperimentConfig) -> int:
    """Passes of a training in units of one forward pass of one image."""
    return config.rounds * method.round_cost(config).forwards * config.batch_size


def gradient_passes(config: ExperimentConfig) -> int:
    """Gradient passes of a training, each over one batch."""
    return config.rounds * method.round_cost(config).gradients


class Speed(NamedTuple):
    """The speed of this machine.

    Attributes:
        forwards: forward passes of an image a second.
        images: how many images there are to evaluate.
    """

    forwards: float
    images: int

    def training(self, config: ExperimentConfig, rounds: int) -> float:
        """Seconds that so many rounds take."""
        return rounds * method.round_cost(config).forwards * config.batch_size / self.forwards

    def evaluation(self, config: ExperimentConfig) -> float:
        """Seconds that the evaluation takes."""
        return self.images * method.evaluation_forwards(config) / self.forwards


def measure(run: session.Session) -> Speed:
    """Trains a few real rounds and takes them back."""
    model, config, first_round = run.model, run.config, run.rounds_done
    rounds = min(_ROUNDS_MEASURED, run.plan.rounds - first_round)
    variables = model.variables + model.optimizer.variables
    before = [variable.numpy() for variable in variables]
    train = distribution.train_function(model)
    batches = iter(run.batches(first_round, first_round + rounds + 1))
    train(batches)  # traces
    start = time.monotonic()
    for _ in range(rounds):
        train(batches)
    seconds = (time.monotonic() - start) / rounds
    for variable, value in zip(variables, before):
        variable.assign(value)
    model.reset_metrics()
    per_round = method.round_cost(config).forwards * config.batch_size
    return Speed(per_round / seconds, len(run.data.train.labels) + len(run.data.test.labels))


def estimate(run: session.Session) -> str:
    """Says what is left of a run and how long that takes."""
    config, rounds = run.config, run.plan.rounds - run.rounds_done
    speed = measure(run)
    training, updates = speed.training(config, rounds), rounds * run.plan.updates_per_round
    return (
        f"{config.run_dir}: {rounds:,} rounds of {config.round_ratio} = {updates:,} updates, "
        f"{rounds * method.round_cost(config).gradients:,} gradient passes of {config.batch_size} images\n"
        f"measured {config.batch_size * updates / training:,.0f} images/s; estimated {minutes(training)} for training "
        f"and {minutes(speed.evaluation(config))} for evaluation{precision_note(config)}"
    )


def estimate_all(configs: Sequence[ExperimentConfig]) -> str:
    """Says what runs will cost, with the time they take after a few real rounds of the first of each kind.

    Runs at once share the machine, so the time counts them one after the other, as they do with all of it.

    Args:
        configs: at least one.
    """
    kinds: dict[tuple, ExperimentConfig] = {}
    for config in configs:
        kinds.setdefault(_kind(config), config)
    speeds, errors = {}, []
    for kind, config in kinds.items():
        try:
            speeds[kind] = measure(session.build(config, method.data(config)))
        except (ValueError, OSError) as error:  # the run says so itself when it is begun
            errors.append(" ".join(str(error).split()))
    known = [(config, speeds[_kind(config)]) for config in configs if _kind(config) in speeds]
    passes = sum(gradient_passes(config) for config in configs)
    said = [f"{len(configs)} runs to do: {passes:,} gradient passes of a batch each"]
    if known:
        training = sum(speed.training(config, config.rounds) for config, speed in known)
        evaluation = sum(speed.evaluation(config) for config, speed in known)
        said.append(
            f"at the measured speed about {minutes(training)} of training and {minutes(evaluation)} of evaluation on "
            "this machine"
        )
    if errors:
        said.append(f"{len(configs) - len(known)} runs cannot be measured ({errors[0].removesuffix('.')})")
    return "; ".join(said) + "." + max(map(precision_note, configs))


def precision_note(config: ExperimentConfig) -> str:
    """A line for the estimate if this machine computes the wanted precision slowly, else nothing."""
    if config.precision != "mixed_bfloat16" or not machine.emulates_bfloat16():
        return ""
    return (
        "\nThis CPU has no bfloat16 instructions: --precision=float32 is several times as fast here (in a sweep, in a "
        "flag file of your own: --overlay=study.flags,own.flags)."
    )


def minutes(seconds: float) -> str:
    """A duration in minutes, or in hours from 90 minutes on."""
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def print_estimate(configs: Sequence[ExperimentConfig]) -> None:
    """Prints `estimate_all` of at least one run."""
    leave_memory()
    print(estimate_all(configs), flush=True)


def leave_memory() -> None:
    """Has this process take only what it needs of the GPUs: an estimate would leave the runs nothing."""
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


def _kind(config: ExperimentConfig) -> tuple:
    kind = ("dataset", "network", "width", "precision", "batch_size", "train_size", "test_size")
    return tuple(getattr(config, name) for name in kind)
