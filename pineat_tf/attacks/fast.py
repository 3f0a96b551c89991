"""The attacks of one gradient, by which adversarial training costs little more than natural training."""

from pineat_tf.attacks import parts
from pineat_tf.attacks.gradient import GradientAttack
from pineat_tf.checks import check_bounds, check_epsilon, check_positive
from pineat_tf.types import Bounds

__all__ = ["fgsm_rs", "n_fgsm"]

_STEP_HINT = "Give the length of the one step on the scale of the pixels, or None for that of the authors."


def fgsm_rs(
    *,
    epsilon: float,
    step_size: float | None = None,
    targeted: bool = False,
    bounds: Bounds | None = (0.0, 1.0),
) -> GradientAttack:
    """The fast gradient sign method from a random start: one step from a uniform point of the ball, back to the ball.

    The start is clipped to the pixel range before its gradient is taken, other than that of `pgd`.

    Args:
        epsilon: radius of the L-inf ball, > 0, on the scale of the pixels.
        step_size: length of the step, > 0, on the scale of the pixels; None for the authors' 1.25 * epsilon.
        targeted: the `y` of a call are the classes to reach: one step down their cross-entropy.
        bounds: the pixel range, or None for no limits.

    Returns:
        The attack.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> attack = fgsm_rs(epsilon=8 / 255)
        >>> x_adv = attack(network, x, y, seed=0)

    Reference:
        Wong, Rice and Kolter, "Fast is better than free: revisiting adversarial training", ICLR 2020, algorithm 3.
    """
    check_epsilon(epsilon)
    step_size = 1.25 * epsilon if step_size is None else step_size
    return _one_step(epsilon, step_size, parts.Ball(epsilon), targeted, bounds)


def n_fgsm(
    *,
    epsilon: float,
    noise_scale: float = 2.0,
    step_size: float | None = None,
    targeted: bool = False,
    bounds: Bounds | None = (0.0, 1.0),
) -> GradientAttack:
    """Noise-FGSM: one step from a point that uniform noise augments, which is not brought back to the ball.

    The noise may leave the ball, and the step adds to it, so the result lies within `noise_scale * epsilon +
    step_size` of the image and not within `epsilon`: what keeps one-step training from breaking down.

    Args:
        epsilon: radius of the L-inf ball to be robust in, > 0, on the scale of the pixels.
        noise_scale: radius of the noise in units of `epsilon`, > 0 (the authors' k).
        step_size: length of the step, > 0, on the scale of the pixels; None for the authors' epsilon.
        targeted: the `y` of a call are the classes to reach: one step down their cross-entropy.
        bounds: the pixel range, to which the noisy start is clipped too, or None for no limits.

    Returns:
        The attack.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> attack = n_fgsm(epsilon=0.1)
        >>> x_adv = attack(network, x, y, seed=0)

    Reference:
        de Jorge et al., "Make some noise: reliable and efficient single-step adversarial training", NeurIPS 2022.
    """
    check_epsilon(epsilon)
    check_positive("noise_scale", noise_scale, "It is the radius of the noise in units of `epsilon`, e.g. 2.0.")
    step_size = epsilon if step_size is None else step_size
    return _one_step(noise_scale * epsilon, step_size, parts.Unbounded(epsilon), targeted, bounds)


def _one_step(
    start_radius: float,
    step_size: float,
    ball: parts.Ball | parts.Unbounded,
    targeted: bool,
    bounds: Bounds | None,
) -> GradientAttack:
    check_positive("step_size", step_size, _STEP_HINT)
    check_bounds(bounds)
    start = parts.UniformInBall(start_radius, bounds=bounds)
    return GradientAttack(
        surrogate=parts.cross_entropy_surrogate,
        start=start,
        step=parts.SteepestStep(step_size),
        ball=ball,
        num_steps=1,
        bounds=bounds,
        repeat_start=start,
        targeted=targeted,
    )
