"""Companions: the examples that replace a part of the adversarial ones, cheap to make from what is at hand.

The protocol is one call, `companions(x, adversarial, num=m, seed=0)`, and a plain function will do:

- `x`: natural images, shape `(batch, ...)`, floating point on the scale of the attack's `bounds`.
- `adversarial`: the n adversarial examples of each of them, a tuple of n tensors like `x`, empty for n = 0.
- `num`: m >= 0, how many companions of each image to make.
- `seed`: the whole of the draw's randomness, as `seeds.fold` takes it.
- Result: a tuple of m tensors like `x`, without gradient.

The kinds of this module are frozen dataclasses, which Keras can save. Radius, norm and pixel range are those of the
attack: fields that are not set are taken from it by `threat.adopt`, which `AdversarialTraining` calls, and one that
contradicts it is refused. That holds for every dataclass with fields of these names.
"""

import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from pineat_tf.checks import check_choice
from pineat_tf.projections import Norm, clip_to_bounds, in_single, rounded_towards
from pineat_tf.seeds import fold, uniform_like
from pineat_tf.serialization import serializable
from pineat_tf.threat import InBall, InBallAndRange
from pineat_tf.types import Seed, network_of

__all__ = [
    "NaturalCompanions",
    "NoCompanions",
    "RandomCompanions",
    "ReverseSymmetry",
    "ScaledNoise",
    "ShuffledSigns",
    "aggregate_noise",
    "reverse_symmetry",
]


def aggregate_noise(x: tf.Tensor, adversarial: Sequence[tf.Tensor]) -> tf.Tensor:
    """Sums the noises of the adversarial examples.

    Args:
        x: natural images, shape `(batch, ...)`.
        adversarial: n >= 1 tensors like `x`.

    Returns:
        `sum_i (adversarial_i - x)`, like `x`.

    Example:
        >>> noise = aggregate_noise(x, (x_adv, x_adv))  # twice x_adv - x

    Reference:
        PINEAT, section 3.3: the noise of x*_adv.
    """
    return tf.add_n([x_adv - x for x_adv in adversarial])


def reverse_symmetry(
    x: tf.Tensor,
    noise: tf.Tensor,
    parts: Sequence[tf.Tensor],
    *,
    epsilon: float | None = None,
    norm: str | Norm = "linf",
) -> tuple[tf.Tensor, ...]:
    """Decomposes the mirrored noise into parts that are given and a last one that completes the sum.

    Args:
        x: natural images, shape `(batch, ...)`.
        noise: aggregated adversarial noise, like `x`.
        parts: the noises of the first m - 1 companions, each like `x`.
        epsilon: radius of the ball, to which the last companion is clipped (section 3.3, "Variants"); None does not
            clip, so that the noises of all companions add up to `-noise` exactly.
        norm: of the ball, "linf" or "l2".

    Returns:
        m companions like `x`.

    Example:
        >>> noise = aggregate_noise(x, (x_adv,))
        >>> (mirrored,) = reverse_symmetry(x, noise, (), epsilon=0.1)
        >>> bool(tf.reduce_all(tf.abs(mirrored - (x - noise)) < 1e-6))
        True

    Reference:
        PINEAT, section 3.3 and Fig. 4 (reading A7 in docs/paper.md: noises are decomposed, not images).
    """
    last = x - noise - (tf.add_n(list(parts)) if parts else 0.0)
    if epsilon is not None:
        last = Norm.of(norm).project(last, x, epsilon)
    return tuple(x + part for part in parts) + (last,)


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class NoCompanions:
    """The original method: adversarial examples only, ratio n/0.

    Example:
        >>> NoCompanions()(x, (x_adv,), num=0)
        ()
    """

    def __call__(
        self, x: tf.Tensor, adversarial: Sequence[tf.Tensor], *, num: int, seed: Seed = 0
    ) -> tuple[tf.Tensor, ...]:
        if num:
            raise ValueError(
                f"A ratio with m={num} companions needs companions. Received: {self!r}. Give e.g. "
                "`companions=ReverseSymmetry(epsilon=...)`, or the ratio '1/0'."
            )
        return ()


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class NaturalCompanions:
    """The natural images themselves (the paper's AdvNat; with ratio 0/1 natural training).

    Example:
        >>> len(NaturalCompanions()(x, (), num=2))
        2
    """

    def __call__(
        self, x: tf.Tensor, adversarial: Sequence[tf.Tensor], *, num: int, seed: Seed = 0
    ) -> tuple[tf.Tensor, ...]:
        return (x,) * num


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomCompanions(InBallAndRange):
    """Uniformly random points of the ball, clipped to the pixel range (the paper's AdvRan).

    Attributes:
        epsilon: radius of the ball, > 0; None takes that of the attack.
        norm: "linf" or "l2"; None takes that of the attack, and "linf" where there is none.
        bounds: the pixel range, or None for no limits; "attack" takes that of the attack, and `(0.0, 1.0)` where
            nothing is known of it. Images outside it raise `ValueError`.

    Example:
        >>> RandomCompanions(epsilon=0.1)(x, (), num=2, seed=0)  # without an attack
    """

    def __call__(
        self, x: tf.Tensor, adversarial: Sequence[tf.Tensor], *, num: int, seed: Seed = 0
    ) -> tuple[tf.Tensor, ...]:
        x = self._check_range(x)
        norm, epsilon = self._ball()
        noises = [norm.uniform_in_ball(in_single(x), epsilon, fold(seed, j)) for j in range(num)]
        return tuple(_companion(clip_to_bounds(in_single(x) + noise, self._range()), x) for noise in noises)


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class ShuffledSigns(InBall):
    """Points as far from the natural image as reverse-symmetry examples, pixel by pixel, in a random direction.

    Each companion has the noise of `ReverseSymmetry` for m = 1 with the sign of every pixel drawn again: what it does
    not do as well as `ReverseSymmetry` is due to the direction of the mirrored noise. An ablation, not in the paper.

    Attributes:
        epsilon: radius of the ball that the noise is clipped to, > 0; None takes that of the attack.
        norm: "linf" or "l2"; None takes that of the attack, and "linf" where there is none.

    Example:
        >>> (companion,) = ShuffledSigns(epsilon=0.1)(x, (x_adv,), num=1, seed=0)
    """

    def __call__(
        self, x: tf.Tensor, adversarial: Sequence[tf.Tensor], *, num: int, seed: Seed = 0
    ) -> tuple[tf.Tensor, ...]:
        _check_mirrors(x, adversarial)
        if not num:
            return ()
        precise, noise = _noise(x, adversarial)
        norm, epsilon = self._ball()
        (mirrored,) = reverse_symmetry(precise, noise, (), epsilon=epsilon, norm=norm)
        signs = [tf.sign(uniform_like(precise, fold(seed, j), -1.0, 1.0)) for j in range(num)]
        return tuple(_companion(precise + sign * (mirrored - precise), x) for sign in signs)


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class ReverseSymmetry(InBallAndRange):
    """Reverse-symmetry examples: their noises mirror the sum of the adversarial noises (the paper's PINEAT).

    By default they are clipped to the ball only, as the paper writes, so that x_rs + x_adv = 2 x holds for ratio 1/1
    while pixels may leave the valid range.

    Attributes:
        epsilon: radius of the ball, > 0; None takes that of the attack.
        norm: "linf" or "l2"; None takes that of the attack, and "linf" where there is none.
        bounds: the pixel range, or None for no limits; "attack" takes that of the attack, and `(0.0, 1.0)` where
            nothing is known of it. It counts where `keep_in_range`; images outside it raise `ValueError` then.
        keep_in_range: clip to `bounds` as well.
        decomposition: how the mirrored noise is shared out for m >= 2. "random" draws the first m - 1 noises
            uniformly from the ball and lets the last complete the sum; "split" gives each companion a random
            share of the mirrored noise (uniform on the simplex, one draw an image).
        clip: clip to the ball, which the last companion needs wherever the adversarial noise leaves the ball
            (Dist) or several noises add up. False is the literal section 3.3 for ratio 1/1.

    Example:
        >>> companions = ReverseSymmetry(epsilon=0.1)
        >>> x_1, x_2 = companions(x, (x_adv,), num=2, seed=0)

    Reference:
        PINEAT, section 3.3, Figs. 2 to 4.
    """

    keep_in_range: bool = False
    decomposition: str = "random"
    clip: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("decomposition", self.decomposition, ("random", "split"))

    def __call__(
        self, x: tf.Tensor, adversarial: Sequence[tf.Tensor], *, num: int, seed: Seed = 0
    ) -> tuple[tf.Tensor, ...]:
        _check_mirrors(x, adversarial)
        if not num:
            return ()
        if self.keep_in_range:
            x = self._check_range(x)
        precise, noise = _noise(x, adversarial)
        parts = self._random_parts if self.decomposition == "random" else self._split_parts
        norm, epsilon = self._ball() if self.clip else (Norm.of("linf"), None)
        companions = reverse_symmetry(precise, noise, parts(noise, num, seed), epsilon=epsilon, norm=norm)
        bounds = self._range() if self.keep_in_range else None
        return tuple(_companion(clip_to_bounds(companion, bounds), x) for companion in companions)

    def _random_parts(self, noise: tf.Tensor, num: int, seed: Seed) -> list[tf.Tensor]:
        if num == 1:
            return []
        norm, epsilon = self._ball()
        return [norm.uniform_in_ball(noise, epsilon, fold(seed, j)) for j in range(num - 1)]

    def _split_parts(self, noise: tf.Tensor, num: int, seed: Seed) -> list[tf.Tensor]:
        one_an_image = tf.reshape(noise, [tf.shape(noise)[0], -1])[:, :1]
        one_an_image = tf.reshape(one_an_image, [-1] + [1] * (noise.shape.rank - 1))
        # Exponential draws divided by their sum are uniform on the simplex.
        draws = [-tf.math.log1p(-uniform_like(one_an_image, fold(seed, j), 0.0, 1.0)) for j in range(num)]
        parts = [-noise * draw / tf.add_n(draws) for draw in draws[:-1]]
        if not self.clip:
            return parts
        norm, epsilon = self._ball()
        return [norm.project(part, tf.zeros_like(part), epsilon) for part in parts]


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaledNoise(InBallAndRange):
    """The sum of the adversarial noises, scaled: -1 mirrors it (`ReverseSymmetry`, 1/1), 2 goes on (HAT's helpers).

    Attributes:
        scale: by which the noise is multiplied, one number, or one a companion. The companion is clipped to a ball of
            `abs(scale)` times the radius.
        labels: "true", or a network of the same classes, trained without an attack, whose prediction of the adversarial
            examples is the companions' label (HAT). A trainer keeps a copy of it.
        epsilon: radius of the attack's ball, > 0; None takes that of the attack.
        norm: "linf" or "l2"; None takes that of the attack, and "linf" where there is none.
        bounds, keep_in_range: as in `ReverseSymmetry`.

    Example:
        >>> (beyond,) = ScaledNoise(scale=2.0, epsilon=0.1)(x, (x_adv,), num=1)

    Reference:
        Rade and Moosavi-Dezfooli, "Reducing excessive margin to achieve a better accuracy vs. robustness trade-off",
        ICLR 2022, eq. (4). PINEAT, section 3.3.
    """

    scale: float | tuple[float, ...] = -1.0
    labels: Any = "true"
    keep_in_range: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        scales = self.scale if isinstance(self.scale, (tuple, list)) else (self.scale,)
        if not all(isinstance(one, numbers.Real) and math.isfinite(one) and one for one in scales) or not scales:
            raise ValueError(
                f"`scale` must be a number other than 0, or one a companion. Received: scale={self.scale!r}. Give e.g. "
                "-1.0 or (-1.0, 2.0)."
            )
        object.__setattr__(self, "scale", tuple(map(float, scales)))
        object.__setattr__(self, "labels", network_of(self.labels))
        if not isinstance(self.labels, keras.Model):
            check_choice("labels", self.labels, ("true",))

    def __call__(
        self, x: tf.Tensor, adversarial: Sequence[tf.Tensor], *, num: int, seed: Seed = 0
    ) -> tuple[tf.Tensor, ...]:
        _check_mirrors(x, adversarial)
        scales: tuple[float, ...] = self.scale  # type: ignore[assignment]  # since it was made
        if num != len(scales):
            raise ValueError(
                f"`ScaledNoise` gives one companion a scale. Received: scale={scales!r} for m={num}. Give as many."
            )
        return tuple(self._scaled(x, adversarial, scale) for scale in scales)

    def labelled(self, x: tf.Tensor, adversarial: Sequence[tf.Tensor]) -> tf.Tensor:
        """What the network of `labels` sees: the adversarial examples, as one."""
        return adversarial[0] if len(adversarial) == 1 else self._scaled(x, adversarial, 1.0)

    def _scaled(self, x: tf.Tensor, adversarial: Sequence[tf.Tensor], scale: float) -> tf.Tensor:
        if self.keep_in_range:
            x = self._check_range(x)
        precise, noise = _noise(x, adversarial)
        norm, epsilon = self._ball()
        moved = norm.project(precise + scale * noise, precise, abs(scale) * epsilon)
        return _companion(clip_to_bounds(moved, self._range() if self.keep_in_range else None), x)


def _noise(x: tf.Tensor, adversarial: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """The images and the sum of the adversarial noises, in float32 where they come in half precision."""
    precise = in_single(x)
    return precise, aggregate_noise(precise, [in_single(x_adv) for x_adv in adversarial])


def _companion(value: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """A companion of the images `x` in their dtype, rounded so that it stays in the ball and the range."""
    return tf.stop_gradient(rounded_towards(value, tf.convert_to_tensor(x)))


def _check_mirrors(x: tf.Tensor, adversarial: Sequence[tf.Tensor]) -> None:
    if not adversarial or any(x_adv is x for x_adv in adversarial):
        raise ValueError(
            "Reverse-symmetry examples mirror adversarial ones, of which there are none. Give an attack and a ratio "
            "n/m with n >= 1, or `NaturalCompanions()` for natural training (ratio 0/1)."
        )
