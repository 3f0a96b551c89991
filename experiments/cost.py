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
    speeds, errors = {}, []
    for kind, config in kinds.items():
        try:
            speeds[kind] = pipeline.speed(config)
        except (ValueError, OSError) as error:  # the run says so itself when it is begun
            errors.append(" ".join(str(error).split()))
    known = [(config, speeds[_kind(config)]) for config in configs if _kind(config) in speeds]
    passes = sum(gradient_passes(config) for config in configs)
    said = [f"{len(configs)} runs to do: {passes:,} gradient passes of a batch each"]
    if known:
        training = sum(speed.training(config, config.rounds) for config, speed in known)
        evaluation = sum(speed.evaluation(config) for config, speed in known)
        said.append(
            f"at the measured speed about {pipeline.minutes(training)} of training and {pipeline.minutes(evaluation)} "
            "of evaluation on this machine"
        )
    if errors:
        said.append(f"{len(configs) - len(known)} runs cannot be measured ({errors[0].removesuffix('.')})")
    return "; ".join(said) + "." + max(map(pipeline.precision_note, configs))


def _kind(config: ExperimentConfig) -> tuple:
    names = ("dataset", "network", "width", "precision", "batch_size", "train_size", "test_size")
    return tuple(getattr(config, name) for name in names)
