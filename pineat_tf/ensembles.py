"""Attacks as `robustness` takes them: one, several, or what makes one of a radius; all are made before any runs."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pineat_tf.checks import briefly, can_be_called, check_bounds, check_choice, check_positive
from pineat_tf.threat import FROM_ATTACK, ThreatModel
from pineat_tf.types import Attack, Bounds

__all__ = ["AttackAt", "Ensemble", "make_ensemble"]

AttackAt = Callable[[float], Attack]
"""Makes the attack of a radius: `lambda epsilon: apgd(epsilon=epsilon)`."""

_NAMES = {
    "AutoPGD": "apgd",
    "DeepFool": "deepfool",
    "FastAdaptiveBoundary": "fab",
    "GradientAttack": "gradient",
    "SquareAttack": "square",
}


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Attacks of one threat model.

    Attributes:
        attacks: by name, the attack at each radius.
        radii: rising.
        norm: "linf" or "l2".
        bounds: the pixel range, or None for no limits.
        left_out: a sentence for each attack that does not fit the network or its images.
    """

    attacks: dict[str, tuple[Attack, ...]]
    radii: tuple[float, ...]
    norm: str
    bounds: Bounds | None
    left_out: tuple[str, ...] = ()

    @property
    def threat(self) -> dict[str, Any]:
        """The largest radius, norm and range, as arguments."""
        return {"epsilon": self.radii[-1], "norm": self.norm, "bounds": self.bounds}

    def fitting(self, num_classes: int, image_rank: int) -> "Ensemble":
        """Leaves out, with a reason, what does not work for so many classes or for images of so many axes.

        Raises:
            ValueError: if none is left.
        """
        reasons = {name: _unfit(made[0], num_classes, image_rank) for name, made in self.attacks.items()}
        left_out = tuple(f"{name!r} was left out: it needs {why}." for name, why in reasons.items() if why)
        attacks = {name: made for name, made in self.attacks.items() if not reasons[name]}
        if not attacks:
            raise ValueError(f"No attack fits this network. Received: {' '.join(left_out)} Give e.g. `attacks.apgd`.")
        return dataclasses.replace(self, attacks=attacks, left_out=left_out)


def make_ensemble(
    attacks: Any, epsilons: Sequence[float] | float | None, norm: str | None, bounds: Bounds | str | None
) -> Ensemble:
    """Makes every attack at every radius, all of one norm and range.

    Args:
        attacks: as for `robustness`.
        epsilons: radii > 0, or None for that of the attacks.
        norm: "linf" or "l2", or None for that of the attacks.
        bounds: the pixel range, None for no limits, or "attack" for that of the attacks.

    Raises:
        ValueError: if radii, norms or ranges contradict one another, or something is no attack.
    """
    if norm is not None:
        check_choice("norm", norm, ("linf", "l2"))
    if isinstance(bounds, str):
        check_choice("bounds", bounds, (FROM_ATTACK,))
    else:
        check_bounds(bounds)
    named = _named(attacks)
    radii = _checked_radii(_radii_of(named) if epsilons is None else epsilons)
    made = {name: tuple(_made(name, attack, epsilon) for epsilon in radii) for name, attack in named.items()}
    models = {name: ThreatModel.of(at_radii[0]) for name, at_radii in made.items()}
    norms = {name: model.norm for name, model in models.items() if model.norm is not None}
    ranges = {name: model.bounds for name, model in models.items() if not isinstance(model.bounds, str)}
    norm = _said_once("norm", norm, norms, "linf")
    return Ensemble(made, radii, norm, _range(bounds, ranges))


def _named(attacks: Any) -> dict[str, Any]:
    """By name, functions from a radius to the attack."""
    if not isinstance(attacks, (Mapping, list, tuple)):
        attacks = [attacks]
    if not attacks:
        raise ValueError(
            "There must be at least one attack. Received: `attacks` is empty. Give e.g. `attacks.auto_attack()`."
        )
    if isinstance(attacks, Mapping):
        return {str(name): attack for name, attack in attacks.items()}
    named: dict[str, Any] = {}
    for attack in attacks:
        name = _name(attack)
        same = sum(known == name or known.startswith(f"{name}_") for known in named)
        named[f"{name}_{same + 1}" if same else name] = attack
    return named


def _name(attack: Any) -> str:
    name: str = getattr(attack, "__name__", type(attack).__name__)
    return "attack" if name == "<lambda>" else _NAMES.get(name, name)


def _is_attack(name: str, value: Any) -> bool:
    """Tells an attack from a function that makes one of a radius."""
    if not callable(value):
        raise ValueError(
            f"{name!r} must be an attack, or make one of a radius. Received: {briefly(value)}. "
            "Give e.g. `attacks.auto_attack()`."
        )
    return can_be_called(value, None, None, None, seed=0)


def _made(name: str, attack: Any, epsilon: float) -> Any:
    """The attack of a radius, which is its own where it has one."""
    if not _is_attack(name, attack):
        if can_be_called(attack, epsilon):
            attack = attack(epsilon)
        elif can_be_called(attack, epsilon=epsilon):
            attack = attack(epsilon=epsilon)
        else:
            raise ValueError(
                f"{name!r} must be an attack, called as `attack(logits_fn, x, y, seed=...)`, or make one of a radius. "
                f"Received: {attack!r} with arguments {inspect.signature(attack)}. Give e.g. "
                "`lambda epsilon: attacks.apgd(epsilon=epsilon)`."
            )
        if not callable(attack) or not _is_attack(name, attack):
            raise ValueError(f"{name!r} must make an attack of a radius. Received: it made {attack!r}.")
    own = ThreatModel.of(attack).epsilon
    if own is not None and not np.isclose(own, epsilon, rtol=1e-6, atol=0):
        raise ValueError(
            f"{name!r} has a radius of its own, {own:g}. Received: epsilons with {epsilon:g}. Leave out `epsilons`, or "
            "give what makes the attack of a radius, e.g. `lambda epsilon: attacks.apgd(epsilon=epsilon)`."
        )
    return attack


def _radii_of(named: Mapping[str, Any]) -> tuple[float, ...]:
    own = {name: ThreatModel.of(attack).epsilon if _is_attack(name, attack) else None for name, attack in named.items()}
    radii = {float(epsilon) for epsilon in own.values() if epsilon is not None}
    if len(radii) != 1 or any(not _is_attack(name, attack) for name, attack in named.items()):
        raise ValueError(
            "`epsilons` is needed unless all attacks have one radius of their own. "
            f"Received: {own}. Give the radii to measure at, e.g. epsilons=[8 / 255]."
        )
    return tuple(radii)


def _said_once(what: str, asked: Any, said: Mapping[str, Any], default: Any) -> Any:
    values = list(said.values()) + ([] if asked is None else [asked])
    if any(value != values[0] for value in values):
        raise ValueError(
            f"`{what}` must be the same for all attacks and `robustness`. Received: {what}={asked!r}, attacks {said}. "
            f"Leave out `{what}`, and give all attacks one."
        )
    return values[0] if values else default


def _range(asked: Bounds | str | None, said: Mapping[str, Bounds | None]) -> Bounds | None:
    """The pixel range: an attack without limits has those of the others, as its images are brought back."""
    limits = {name: tuple(map(float, bounds)) for name, bounds in said.items() if bounds is not None}
    if asked is None and limits:
        raise ValueError(
            f"`bounds` must be the same for all attacks and `robustness`. Received: bounds=None, attacks {limits}. "
            "Leave out `bounds`, or give the attacks `bounds=None` too."
        )
    wanted = None if asked is None or isinstance(asked, str) else tuple(map(float, asked))
    default = (0.0, 1.0) if isinstance(asked, str) and not said else None
    found: Bounds | None = _said_once("bounds", wanted, limits, default)
    return found


def _unfit(attack: Any, num_classes: int, image_rank: int) -> str:
    while isinstance(attack, functools.partial):
        attack = attack.func
    least = getattr(attack, "min_classes", 2)
    if num_classes < least:
        return f"{least} classes or more, and the network has {num_classes}"
    if getattr(attack, "image_rank", None) not in (None, image_rank):
        return "images of shape (batch, height, width, channels), or with the channels first"
    return ""


def _checked_radii(epsilons: Sequence[float] | float) -> tuple[float, ...]:
    radii = tuple(float(epsilon) for epsilon in np.atleast_1d(np.asarray(epsilons, np.float64)))
    for epsilon in radii:
        check_positive("epsilons", epsilon, "They are radii on the scale of the pixels, e.g. [4 / 255, 8 / 255].")
    if not radii or len(set(radii)) < len(radii):
        raise ValueError(f"`epsilons` must be radii that differ, at least one. Received: epsilons={epsilons!r}.")
    return tuple(sorted(radii))
