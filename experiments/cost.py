"""What runs will cost before they begin: passes counted, seconds measured on this machine."""

from collections.abc import Sequence

from experiments import method, pipeline
from experiments.config import ExperimentConfig


def forwards(config: ExperimentConfig) -> int:
    """Passes of a training in units of one forward pass of one image."""
    return config.rounds * method.round_cost(config).forwards * config.batch_size


def gradient_passes(config: ExperimentConfig) -> int:
    """Gradient passes of a training, each over one batch."""
    return config.rounds * method.round_cost(config).gradients


def estimate(configs: Sequence[ExperimentConfig]) -> str:
    """A line that says what runs will cost, with the time they take after a few real rounds of the first of each kind.

    Runs at once share the machine, so the time counts them one after the other, as they do with all of it.

    Args:
        configs: at least one.
    """
    kinds: dict[tuple, ExperimentConfig] = {}
    for config in configs:
        kinds.setdefault(_kind(config), config)
    speeds = {kind: speed for kind, config in kinds.items() if (speed := _speed(config))}
    known = [(config, speeds[_kind(config)]) for config in configs if _kind(config) in speeds]
    training = sum(speed.training(config, config.rounds) for config, speed in known)
    evaluation = sum(speed.evaluation(config) for config, speed in known)
    passes = sum(gradient_passes(config) for config in configs)
    unknown = f" {len(configs) - len(known)} of them cannot be measured." if len(known) < len(configs) else ""
    return (
        f"{len(configs)} runs to do: {passes:,} gradient passes of a batch each; at the measured speed about "
        f"{pipeline.minutes(training)} of training and {pipeline.minutes(evaluation)} of evaluation on this machine."
        f"{unknown}{max(map(pipeline.precision_note, configs))}"
    )


def _speed(config: ExperimentConfig) -> pipeline.Speed | None:
    """The measured speed; None of a run that cannot be, which says so itself when it is begun."""
    try:
        return pipeline.speed(config)
    except (ValueError, OSError):
        return None


def _kind(config: ExperimentConfig) -> tuple:
    names = ("dataset", "network", "width", "precision", "batch_size", "train_size", "test_size")
    return tuple(getattr(config, name) for name in names)
