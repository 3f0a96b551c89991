"""What a search may change of a run: an axis a line, with how its values are drawn and which flags they set."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments import options
from experiments.config import OBJECTIVES, OF_BOUNDS, ExperimentConfig

Draw = Callable[[Any, str], Any]
Flags = dict[str, Any]


class Axis(NamedTuple):
    """One thing that a search may change.

    Attributes:
        draw: a value, by a trial, under the name of the axis.
        flags: what the value sets in a run that has its values of the axes before this one.
        applies: whether it has an effect in such a run.
    """

    draw: Draw
    flags: Callable[[ExperimentConfig, Any], Flags]
    applies: Callable[[ExperimentConfig], bool] = lambda config: True


def settings(base: ExperimentConfig, names: tuple[str, ...], trial: Any) -> Flags:
    """The flags of a trial that depart from the base.

    Args:
        base: what the axes leave alone.
        names: of the axes.
        trial: of Optuna, which draws the values or has drawn them.

    Raises:
        ValueError: if there can be no such run.
    """
    config = base
    for name, axis in AXES.items():
        if name in names and axis.applies(config):
            config = dataclasses.replace(config, **axis.flags(config, axis.draw(trial, name)))
    config = options.settled(config, base)  # e.g. label smoothing, where an objective that was drawn has none
    return {name: value for name, value in config.to_dict().items() if value != getattr(base, name)}


def _one_of(*values: Any) -> Draw:
    return lambda trial, name: trial.suggest_categorical(name, values)


def _between(low: float, high: float, *, log: bool = False) -> Draw:
    return lambda trial, name: _short(trial.suggest_float(name, low, high, log=log))


def _short(value: float) -> float:
    """A value as a person would write it in a flag file."""
    return float(f"{value:.3g}")


def _flag(name: str) -> Callable[[ExperimentConfig, Any], Flags]:
    return lambda config, value: {name: value}


def _attacked(config: ExperimentConfig) -> bool:
    return config.variant != "natural"


def _has_companions(config: ExperimentConfig) -> bool:
    return config.variant not in ("natural", "original")


def _has_bounds(config: ExperimentConfig) -> bool:
    return _attacked(config) and config.objective in OF_BOUNDS


def _mixes_bounds(config: ExperimentConfig) -> bool:
    return _attacked(config) and config.objective in OF_BOUNDS[1:]


def _has_smoothing(config: ExperimentConfig) -> bool:
    return not (_attacked(config) and config.objective)


def _attack(config: ExperimentConfig, value: str) -> Flags:
    if value == "none":
        return {"variant": "natural"}
    return {"attack": value, "variant": config.variant if _attacked(config) else "original"}


def _steps(config: ExperimentConfig, value: int) -> Flags:
    """All steps together go as far as those of the flags do."""
    return {"num_steps": value, "step_size": _short(config.step_size * config.num_steps / value)}


def _objective(config: ExperimentConfig, value: str) -> Flags:
    if value in ("cross_entropy", "trades"):
        return {"attack": "diff" if value == "trades" else "pgd", "objective": ""}
    ramp = {"ibp_ramp": config.ibp_ramp or (0.1, 0.5)} if value in OF_BOUNDS else {}
    return {"attack": "pgd", "objective": value, **ramp}


def _ramp(config: ExperimentConfig, end: float) -> Flags:
    return {"epsilon_ramp": (0.0, end) if end else ()}


def _learning_rate(config: ExperimentConfig, factor: float) -> Flags:
    return {"learning_rates": tuple(_short(factor * rate) for rate in config.learning_rates)}


def _batch_size(config: ExperimentConfig, factor: float) -> Flags:
    """As many images are seen as before, by other numbers of updates."""
    size = max(1, round(factor * config.batch_size))
    if size == config.batch_size:
        return {}
    return {"batch_size": size, "schedule_scale": _short(config.schedule_scale * config.batch_size / size)}


def _length(config: ExperimentConfig, share: float) -> Flags:
    return {"schedule_scale": _short(share * config.schedule_scale)}


AXES = {
    "attack": Axis(_one_of("pgd", "none"), _attack),
    "objective": Axis(_one_of("cross_entropy", "trades", *filter(None, OBJECTIVES)), _objective, _attacked),
    "steps": Axis(lambda trial, name: trial.suggest_int(name, 2, 10), _steps, _attacked),
    "epsilon_ramp": Axis(_one_of(0.0, 0.25, 0.5), _ramp, _attacked),
    "companions": Axis(_one_of("original", "pineat", "advnat", "advran"), _flag("variant"), _attacked),
    "ratio": Axis(_one_of("1/1", "1/2", "1/4", "2/1", "3/1"), _flag("ratio"), _has_companions),
    "awp": Axis(_one_of(0.0, 0.001, 0.0025, 0.005, 0.01), _flag("awp_gamma"), _attacked),
    "certified_share": Axis(_between(0.02, 0.6, log=True), _flag("ibp_share"), _mixes_bounds),
    "natural_weight": Axis(_between(0.0, 0.95), _flag("ibp_natural_weight"), _has_bounds),
    "pad": Axis(lambda trial, name: trial.suggest_int(name, 0, 2), _flag("augment_pad")),
    "flip": Axis(_one_of(False, True), _flag("augment_flip")),
    "batch_size": Axis(_one_of(0.25, 0.5, 1.0, 2.0), _batch_size),
    "learning_rate": Axis(_between(0.3, 3.0, log=True), _learning_rate),
    "length": Axis(_between(0.25, 1.0, log=True), _length),
    "label_smoothing": Axis(_between(0.0, 0.3), _flag("label_smoothing"), _has_smoothing),
    "ema": Axis(_one_of(0.0, 0.99, 0.995, 0.999), _flag("ema_momentum")),
}
"""The axes, in the order in which they are drawn. None of them says which images a run has."""
