"""The threat model, said once: companions and queries take radius, norm and pixel range from the attack."""

import copy
import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import tensorflow as tf

from pineat_tf.checks import check_bounds, check_choice, check_epsilon, check_images
from pineat_tf.projections import Norm
from pineat_tf.types import Bounds

__all__ = ["FROM_ATTACK", "InBall", "InBallAndRange", "T", "ThreatModel", "adopt", "check_scale", "shrunk"]

T = TypeVar("T")

FROM_ATTACK = "attack"
"""What stands for a pixel range that is to be that of the attack: None would be no range at all."""

_DEFAULT_NORM, _DEFAULT_BOUNDS = "linf", (0.0, 1.0)
_WORDS_OF_0_1_0 = ("paper", "valid")  # by which `bounds` said whether to keep mirror images in the range of the pixels
_LENGTHS = ("epsilon", "step_size")
_GREY_LEVELS = 200.0  # a pixel range at least as wide counts whole grey levels


class ThreatModel(NamedTuple):
    """What an attack may do to an image.

    Attributes:
        epsilon: radius of the ball on the scale of the pixels, or None for no radius.
        norm: "linf" or "l2"; None where there is no radius.
        bounds: the pixel range, None for no limits, or "attack" where nothing is known of it.

    Example:
        >>> ThreatModel.of(pgd(epsilon=0.1, step_size=0.05, num_steps=2))
        ThreatModel(epsilon=0.1, norm='linf', bounds=(0.0, 1.0))
    """

    epsilon: float | None = None
    norm: str | None = None
    bounds: Bounds | str | None = FROM_ATTACK

    @classmethod
    def of(cls, attack: Any) -> "ThreatModel":
        """Reads the attributes `epsilon`, `norm` and `bounds`; a plain function, or None, has none of them.

        Raises:
            ValueError: if one of them is no radius, norm or range.
        """
        while True:
            inner = attack.func if isinstance(attack, functools.partial) else getattr(attack, "python_function", None)
            if inner is None:
                break
            attack = inner
        epsilon, bounds = getattr(attack, "epsilon", None), getattr(attack, "bounds", FROM_ATTACK)
        norm = None if epsilon is None else getattr(attack, "norm", None)
        if epsilon is not None:
            check_epsilon(epsilon)
        if not isinstance(bounds, str):
            check_bounds(bounds)
        return cls(epsilon, None if norm is None else Norm.of(norm).name, bounds)

    @property
    def limits(self) -> Bounds | None:
        """The pixel range, or None where there is none or nothing is known of it."""
        return None if isinstance(self.bounds, str) else self.bounds


@dataclasses.dataclass(frozen=True, kw_only=True)
class InBall:
    """Base of a strategy that stays in the ball of an attack.

    Attributes:
        epsilon: radius of the ball, > 0, on the scale of the pixels; None takes that of the attack.
        norm: of the ball, "linf" or "l2"; None takes that of the attack, and "linf" where there is no attack.

    Example:
        >>> adopt(InBall(), pgd(epsilon=0.1, step_size=0.05, num_steps=2)).epsilon
        0.1
    """

    epsilon: float | None = None
    norm: str | None = None

    def __post_init__(self) -> None:
        if self.epsilon is not None:
            check_epsilon(self.epsilon)
        if self.norm is not None:
            object.__setattr__(self, "norm", Norm.of(self.norm).name)

    def _ball(self) -> tuple[Norm, float]:
        """Norm and radius, once they are needed."""
        if self.epsilon is None:
            name = type(self).__name__
            raise ValueError(
                f"`epsilon` is needed where there is no attack to take it from. Received: {self!r}. Give e.g. "
                f"`{name}(epsilon=0.1)`, or the radius of an attack by `threat.adopt({name}(), attack)`, as "
                "`AdversarialTraining` does."
            )
        return Norm.of(self.norm or _DEFAULT_NORM), self.epsilon


@dataclasses.dataclass(frozen=True, kw_only=True)
class InBallAndRange(InBall):
    """Base of a strategy that stays in the ball and in the pixel range of an attack.

    Attributes:
        epsilon, norm: as in `InBall`.
        bounds: the pixel range `(smallest, largest)`, or None for no limits; "attack" takes that of the attack, and
            `(0.0, 1.0)` where nothing is known of it. Images outside it are refused.

    Example:
        >>> attack = pgd(epsilon=8, step_size=2, num_steps=2, bounds=(0, 255))
        >>> adopt(InBallAndRange(), attack).bounds
        (0, 255)
    """

    bounds: Bounds | str | None = FROM_ATTACK

    def __post_init__(self) -> None:
        super().__post_init__()
        if hasattr(self, "keep_in_range") and self.bounds in _WORDS_OF_0_1_0:
            object.__setattr__(self, "keep_in_range", self.bounds == "valid")
            object.__setattr__(self, "bounds", FROM_ATTACK)
        if isinstance(self.bounds, str):
            check_choice("bounds", self.bounds, (FROM_ATTACK,))
        else:
            check_bounds(self.bounds)
            object.__setattr__(self, "bounds", self.bounds and tuple(self.bounds))

    def _range(self) -> Bounds | None:
        return _DEFAULT_BOUNDS if isinstance(self.bounds, str) else self.bounds

    def _check_range(self, x: tf.Tensor) -> tf.Tensor:
        return check_images(x, self._range())


def adopt(strategy: T, attack: Callable | ThreatModel | None) -> T:
    """Completes companions or a query by the threat model of an attack.

    A strategy is a dataclass whose fields `epsilon=None`, `norm=None` and `bounds="attack"` are those not set; it may
    have any of the three. One of no limits (`bounds=None`) contradicts no range. A strategy around another has it in
    its field `objective`, which is completed as well. Plain functions, and fields of other names, stay as they are.

    Args:
        strategy: companions, a query, or a plain function.
        attack: what tells `epsilon`, `norm` and `bounds` by attributes of these names, as far as it has them.

    Returns:
        The strategy with the fields set that the attack knows of.

    Raises:
        ValueError: if the strategy says something else than the attack, or neither of them gives a radius.

    Example:
        >>> adopt(RandomCompanions(), ThreatModel(epsilon=0.1, norm="l2", bounds=(-1.0, 1.0)))
        RandomCompanions(epsilon=0.1, norm='l2', bounds=(-1.0, 1.0))
    """
    if not dataclasses.is_dataclass(strategy) or isinstance(strategy, type):
        return strategy
    threat, names = ThreatModel.of(attack), {field.name for field in dataclasses.fields(strategy) if field.init}
    filled = {}
    for name, value in threat._asdict().items():
        if name not in names or _is_unset(name, value):
            continue
        said = getattr(strategy, name)
        if _is_unset(name, said):
            filled[name] = value
        elif not _agree(said, value):
            raise ValueError(
                f"`{name}` of {type(strategy).__name__} contradicts that of the attack. Received: {name}={said!r}, "
                f"where the attack has {name}={value!r}. Leave `{name}` out of {type(strategy).__name__}, which takes "
                "it from the attack, or give both the same."
            )
    if "objective" in names:
        filled["objective"] = adopt(getattr(strategy, "objective"), attack)  # noqa: B009 (of any dataclass that has it)
    complete = dataclasses.replace(strategy, **filled) if filled else strategy
    if isinstance(complete, InBall) and complete.epsilon is None:
        raise ValueError(
            f"{type(strategy).__name__} takes its radius from the attack, which has none. Received: {strategy!r}, "
            f"attack={attack!r}. Give the radius itself, e.g. `{type(strategy).__name__}(epsilon=0.1)`; `dist` takes "
            "one as well, `dist(epsilon=0.1)`."
        )
    return complete


def shrunk(strategy: T, share: tf.Tensor) -> T:
    """A strategy whose radius and steps, and those of its parts, are a share of what they were, for one call.

    Args:
        strategy: an attack or companions; what is no dataclass stays as it is.
        share: in [0, 1], a float32 tensor.

    Example:
        >>> companions = shrunk(RandomCompanions(epsilon=0.1), tf.constant(0.5))(x, (), num=1, seed=0)
    """
    if not dataclasses.is_dataclass(strategy) or isinstance(strategy, type):
        return strategy
    smaller = copy.copy(strategy)
    for field in dataclasses.fields(strategy):
        value = getattr(strategy, field.name)
        if field.name in _LENGTHS and value is not None:
            value = share * value
        object.__setattr__(smaller, field.name, shrunk(value, share))
    return smaller


def check_scale(
    epsilon: float | None,
    bounds: Bounds | None,
    *,
    norm: str = "linf",
    step_size: float | None = None,
    num_steps: int = 1,
) -> None:
    """Warns of a radius or a step that cannot be meant on the scale of the pixels.

    Args:
        epsilon: radius of the ball, or None for no radius.
        bounds: the pixel range, or None for no limits, which leaves only radius and step to be compared.
        norm: "linf" or "l2" (where a radius may well be larger than the range).
        step_size: length of one step; None where the attack finds its own.
        num_steps: how many steps there are.

    Example:
        >>> check_scale(8 / 255, (0.0, 1.0))  # silent; with the bounds (0, 255) it warns
    """
    fault = _fault_of_steps(epsilon, step_size, num_steps) or _fault_of_radius(epsilon, bounds, norm)
    if fault:
        warnings.warn(
            f"On the scale of the pixels, {fault}. Radius and steps have the unit of the images: 8/255 for pixels in "
            "[0, 1] is 8 for pixels in [0, 255] and 16/255 for pixels in [-1, 1]; `bounds` say which.",
            UserWarning,
            stacklevel=3,
        )


def _fault_of_radius(epsilon: float | None, bounds: Bounds | None, norm: str) -> str | None:
    if epsilon is None or bounds is None:
        return None
    width, where = bounds[1] - bounds[0], f"pixels in [{bounds[0]:g}, {bounds[1]:g}]"
    smallest, largest = Norm.of(norm).plausible
    if epsilon > largest * width:
        return f"epsilon={epsilon:g} is more than the whole range of {where}"
    if width >= _GREY_LEVELS and epsilon < smallest * width:
        return f"epsilon={epsilon:g} is less than a grey level of {where}"
    return None


def _fault_of_steps(epsilon: float | None, step_size: float | None, num_steps: int) -> str | None:
    if epsilon is None or step_size is None:
        return None
    if step_size > 2.0 * epsilon:
        return f"a step of {step_size:g} leads out of any ball of radius epsilon={epsilon:g}"
    if num_steps * step_size < epsilon / 50.0:
        return f"{num_steps} steps of {step_size:g} hardly move an image in a ball of radius epsilon={epsilon:g}"
    return None


def _is_unset(name: str, value: Any) -> bool:
    return isinstance(value, str) and value == FROM_ATTACK if name == "bounds" else value is None


def _agree(one: Any, other: Any) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    if one is None or other is None:  # no limits
        return True
    return bool(np.allclose(one, other, rtol=1e-6, atol=0.0))
