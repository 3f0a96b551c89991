"""Companions: the examples that replace a part of the adversarial ones, cheap to make from what is at hand.

Every kind is called as `companions(x, adversarial, num=m, seed=0)`: `x` are natural images `(batch, ...)`,
`adversarial` the n adversarial examples of each of them, a tuple of tensors like `x`. The result is a tuple of m
tensors like `x`, without gradient.
"""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from pineat_tf.checks import check_bounds, check_choice, check_epsilon
from pineat_tf.projections import clip_to_bounds, project_linf, uniform_in_linf_ball
from pineat_tf.seeds import fold, uniform_like
from pineat_tf.serialization import serializable
from pineat_tf.types import Bounds, Seed


def aggregate_noise(x: tf.Tensor, adversarial: Sequence[tf.Tensor]) -> tf.Tensor:
    """Sums the noises of the adversarial examples.

    Args:
        x: natural images, shape `(batch, ...)`.
        adversarial: n >= 1 tensors like `x`.

    Returns:
        `sum_i (adversarial_i - x)`, like `x`.

    Reference:
        PINEAT, section 3.3: the noise of x*_adv.
    """
    return tf.add_n([x_adv - x for x_adv in adversarial])


def reverse_symmetry(
    x: tf.Tensor, noise: tf.Tensor, parts: Sequence[tf.Tensor], *, epsilon: float, clip: bool = True
) -> tuple[tf.Tensor, ...]:
    """Decomposes the mirrored noise into parts that are given and a last one that completes the sum.

    Args:
        x: natural images, shape `(batch, ...)`.
        noise: aggregated adversarial noise, like `x`.
        parts: the noises of the first m - 1 companions, each like `x`.
        epsilon: radius of the L-inf ball.
        clip: clip the last companion to the ball (section 3.3, "Variants"); without, the noises of all companions
            add up to `-noise` exactly.

    Returns:
        m companions like `x`.

    Reference:
        PINEAT, section 3.3 and Fig. 4 (reading A7 in BUILD_NOTES.md: noises are decomposed, not images).
    """
    last = x - noise - (tf.add_n(list(parts)) if parts else 0.0)
    last = project_linf(last, x, epsilon) if clip else last
    return tuple(x + part for part in parts) + (last,)


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class NoCompanions:
    """The original method: adversarial examples only, ratio n/0."""

    is_natural = False

    def __call__(self, x, adversarial, *, num: int, seed: Seed = 0) -> tuple[tf.Tensor, ...]:
        if num:
            raise ValueError(
                f"A ratio with m={num} companions needs companions. Received: {self!r}. Give e.g. "
                "`companions=ReverseSymmetry(epsilon=...)`, or the ratio '1/0'."
            )
        return ()


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class NaturalCompanions:
    """The natural images themselves (the paper's AdvNat; with ratio 0/1 natural training)."""

    is_natural = True

    def __call__(self, x, adversarial, *, num: int, seed: Seed = 0) -> tuple[tf.Tensor, ...]:
        return (tf.stop_gradient(x),) * num


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomCompanions:
    """Uniformly random points of the ball, clipped to the pixel range (the paper's AdvRan).

    Attributes:
        epsilon: radius of the L-inf ball, > 0.
        bounds: the pixel range, or None for no limits.
    """

    epsilon: float
    bounds: Bounds | None = (0.0, 1.0)
    is_natural = False

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        check_bounds(self.bounds)

    def __call__(self, x, adversarial, *, num: int, seed: Seed = 0) -> tuple[tf.Tensor, ...]:
        noises = [uniform_in_linf_ball(x, self.epsilon, fold(seed, j)) for j in range(num)]
        return tuple(tf.stop_gradient(clip_to_bounds(x + noise, self.bounds)) for noise in noises)


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class ShuffledSigns:
    """Points as far from the natural image as reverse-symmetry examples, pixel by pixel, in a random direction.

    Each companion has the noise of `ReverseSymmetry` for m = 1 with the sign of every pixel drawn anew: what it does
    not do as well as `ReverseSymmetry` is due to the direction of the mirrored noise. An ablation, not in the paper.

    Attributes:
        epsilon: radius of the L-inf ball that the noise is clipped to, > 0.
    """

    epsilon: float
    is_natural = False

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)

    def __call__(self, x, adversarial, *, num: int, seed: Seed = 0) -> tuple[tf.Tensor, ...]:
        _check_mirrors(adversarial)
        if not num:
            return ()
        (mirrored,) = reverse_symmetry(x, aggregate_noise(x, adversarial), (), epsilon=self.epsilon)
        signs = [tf.sign(uniform_like(x, fold(seed, j), -1.0, 1.0)) for j in range(num)]
        return tuple(tf.stop_gradient(x + sign * (mirrored - x)) for sign in signs)


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class ReverseSymmetry:
    """Reverse-symmetry examples: their noises mirror the sum of the adversarial noises (the paper's PINEAT).

    Attributes:
        epsilon: radius of the L-inf ball, > 0.
        bounds: "paper" clips to the ball only, as the paper writes, so that x_rs + x_adv = 2 x holds exactly for
            ratio 1/1 but pixels may leave the valid range; "valid" clips to `pixel_range` as well.
        decomposition: how the mirrored noise is shared out for m >= 2. "random" draws the first m - 1 noises
            uniformly from the ball and lets the last complete the sum; "split" gives each companion a random
            share of the mirrored noise (uniform on the simplex, one draw an image).
        clip: clip to the ball, which the last companion needs wherever the adversarial noise leaves the ball
            (Dist) or several noises add up. False is the literal section 3.3 for ratio 1/1.
        pixel_range: what "valid" clips to.

    Example:
        >>> companions = ReverseSymmetry(epsilon=0.1)
        >>> x_1, x_2 = companions(x, (x_adv,), num=2, seed=0)

    Reference:
        PINEAT, section 3.3, Figs. 2 to 4.
    """

    epsilon: float
    bounds: str = "paper"
    decomposition: str = "random"
    clip: bool = True
    pixel_range: Bounds = (0.0, 1.0)
    is_natural = False

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        check_choice("bounds", self.bounds, ("paper", "valid"))
        check_choice("decomposition", self.decomposition, ("random", "split"))
        check_bounds(self.pixel_range)

    def __call__(self, x, adversarial, *, num: int, seed: Seed = 0) -> tuple[tf.Tensor, ...]:
        _check_mirrors(adversarial)
        if not num:
            return ()
        noise = aggregate_noise(x, adversarial)
        parts = self._random_parts if self.decomposition == "random" else self._split_parts
        companions = reverse_symmetry(x, noise, parts(noise, num, seed), epsilon=self.epsilon, clip=self.clip)
        pixel_range = self.pixel_range if self.bounds == "valid" else None
        return tuple(tf.stop_gradient(clip_to_bounds(companion, pixel_range)) for companion in companions)

    def _random_parts(self, noise: tf.Tensor, num: int, seed: Seed) -> list[tf.Tensor]:
        return [uniform_in_linf_ball(noise, self.epsilon, fold(seed, j)) for j in range(num - 1)]

    def _split_parts(self, noise: tf.Tensor, num: int, seed: Seed) -> list[tf.Tensor]:
        one_an_image = tf.reshape(noise, [tf.shape(noise)[0], -1])[:, :1]
        one_an_image = tf.reshape(one_an_image, [-1] + [1] * (noise.shape.rank - 1))
        # Exponential draws divided by their sum are uniform on the simplex.
        draws = [-tf.math.log1p(-uniform_like(one_an_image, fold(seed, j), 0.0, 1.0)) for j in range(num)]
        parts = [-noise * draw / tf.add_n(draws) for draw in draws[:-1]]
        if self.clip:
            parts = [tf.clip_by_value(part, -self.epsilon, self.epsilon) for part in parts]
        return parts


def _check_mirrors(adversarial: Sequence[tf.Tensor]) -> None:
    if not adversarial:
        raise ValueError(
            "Reverse-symmetry examples mirror adversarial ones, of which there are none. Use a ratio n/m with "
            "n >= 1, or `NaturalCompanions()` for natural training (ratio 0/1)."
        )
