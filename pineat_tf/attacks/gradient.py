"""The one ascent loop behind every gradient attack, and the attacks that it makes."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from pineat_tf import threat
from pineat_tf.attacks import parts
from pineat_tf.attacks.attacked import AttackedNetwork
from pineat_tf.checks import check_bounds, check_choice, check_count, check_epsilon, check_positive
from pineat_tf.distribution import num_replicas
from pineat_tf.projections import Norm, clip_to_bounds
from pineat_tf.serialization import serializable
from pineat_tf.types import Bounds, LogitsFn, Seed

__all__ = ["GradientAttack", "dist", "fgsm", "pgd", "trades_kl", "wrm_l2"]

_STEP_HINT = "Give the length of one step on the scale of the pixels, e.g. 2/255."
_COUNT_HINT = "Each step costs one gradient."
_SURROGATES = {
    "cross_entropy": parts.cross_entropy_surrogate,
    "margin": parts.margin_surrogate,
    "dlr": parts.dlr_surrogate,
    "squared_distance": parts.squared_distance_surrogate,
}


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientAttack:
    """Moves images up a loss by a fixed number of gradient steps, within a ball and the pixel range.

    Call it as `attack(logits_fn, x, y, seed=0)`: `logits_fn` maps images to logits (or one logit, or one sigmoid), `x`
    has shape `(batch, ...)`, `y` shape `(batch,)` or `(batch, num_classes)`. The result has the shape and dtype of `x`
    and no gradient. The whole loop is one graph inside a `tf.function`; outside it gives the same tensors. The same
    seed gives the same result. Gradients are as good in half precision as in float32. Raises `ValueError` if images or
    labels are not as the attack needs them, or if `logits_fn` has no gradient.

    Attributes:
        surrogate: makes, once a call, the loss to ascend.
        start: where the ascent starts.
        step: one step of the ascent.
        ball: brings a point back to the ball around the natural images; says the `norm` and `epsilon` of the attack.
        num_steps: how many steps, each one gradient.
        bounds: the pixel range to which every step is clipped, or None.
        repeat_start: where further adversarial examples of the same image start, or None where there is no
            random start to give.
        targeted: whether `y` are the classes to reach: the loss is descended.

    Example:
        >>> attack = pgd(epsilon=0.1, step_size=0.05, num_steps=2)
        >>> type(attack).__name__, attack.norm, attack.epsilon
        ('GradientAttack', 'linf', 0.1)
    """

    surrogate: Callable[[LogitsFn, tf.Tensor, tf.Tensor], parts.Ascended]
    start: Callable[[tf.Tensor, Seed], tf.Tensor]
    step: Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
    ball: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    num_steps: int
    bounds: Bounds | None = (0.0, 1.0)
    repeat_start: Callable[[tf.Tensor, Seed], tf.Tensor] | None = None
    targeted: bool = False

    @property
    def norm(self) -> str:
        """The norm of `epsilon`, "linf" or "l2"."""
        return getattr(self.ball, "norm", "linf")

    @property
    def epsilon(self) -> float | None:
        """The radius that the attack is meant for, on the scale of the pixels; None where there is none."""
        return getattr(self.ball, "epsilon", None)

    @property
    def min_classes(self) -> int:
        """The fewest classes that the loss is defined for."""
        return getattr(self.surrogate, "min_classes", 2)

    def __post_init__(self) -> None:
        check_count("num_steps", self.num_steps, 1, _COUNT_HINT)
        check_bounds(self.bounds)
        step_size = getattr(self.step, "step_size", None)
        threat.check_scale(self.epsilon, self.bounds, norm=self.norm, step_size=step_size, num_steps=self.num_steps)

    def __call__(self, logits_fn: LogitsFn, x: tf.Tensor, y: tf.Tensor, *, seed: Seed = 0) -> tf.Tensor:
        network = AttackedNetwork(logits_fn, x, y, self.bounds)
        x = network.x
        loss = self.surrogate(network, x, network.y)

        def ascend(step: tf.Tensor, x_adv: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            _, gradient = network.value_and_gradient(loss, x_adv)
            moved = self.step(x_adv, -gradient if self.targeted else gradient, x, step)
            return step + 1, clip_to_bounds(self.ball(moved, x), self.bounds)

        state = (tf.constant(0), self.start(x, seed))
        if num_replicas() == 1:
            state = tf.while_loop(lambda step, _: step < self.num_steps, ascend, state)
        else:  # replicas cannot add up their values, as for Dist's mean, inside TensorFlow's loop
            for _ in range(self.num_steps):
                state = ascend(*state)
        return network.give_back(state[1])

    def repeats(self, num: int) -> tuple["GradientAttack", ...]:
        """`num` attacks that give different adversarial examples of the same images by the same weights.

        An attack with a random start repeats itself. One without keeps its start for the first example, and the
        others start randomly in the ball (reading A11 in docs/paper.md).

        Raises:
            ValueError: if there is no random start to give them.
        """
        if num == 1:
            return (self,)
        if self.repeat_start is None:
            raise ValueError(
                f"This attack has no random start, so {num} adversarial examples by the same weights would be "
                "identical. Give it a radius to start in, e.g. `dist(epsilon=0.1)`, generate each example from "
                f"the current weights (`generation='update'`), or use a ratio of 1/m. Received: {self!r}."
            )
        return (self,) + (dataclasses.replace(self, start=self.repeat_start),) * (num - 1)


def pgd(
    *,
    epsilon: float,
    step_size: float,
    num_steps: int,
    random_start: bool = True,
    norm: str = "linf",
    loss: str = "cross_entropy",
    targeted: bool = False,
    bounds: Bounds | None = (0.0, 1.0),
) -> GradientAttack:
    """Projected gradient descent: many small steps up a loss, within a ball.

    Args:
        epsilon: radius of the ball, > 0, on the scale of the pixels.
        step_size: length of one step, > 0, on the scale of the pixels.
        num_steps: steps, >= 1.
        random_start: start uniformly in the ball, rather than at the natural images.
        norm: "linf" (steps along the gradient's sign) or "l2" (along the normalised gradient).
        loss: "cross_entropy", "margin" (the lead of the likeliest other class, Carlini and Wagner's f_6), "dlr"
            (difference of logits ratio, for 3 classes or more), or "squared_distance" (of the probabilities from the
            natural ones, for `objectives.SCORE`; it needs a random start).
        targeted: the `y` of a call are the classes to reach, of which the loss is made small, not the true ones.
        bounds: the pixel range, or None for no limits.

    Returns:
        The attack.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> attack = pgd(epsilon=8 / 255, step_size=2 / 255, num_steps=10)
        >>> x_adv = attack(network, x, y, seed=0)

    Reference:
        Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018, section 2.1.
        Carlini and Wagner, "Towards evaluating the robustness of neural networks", S&P 2017, objective f_6.
        Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", ICML 2020, eq. (6).
    """
    check_epsilon(epsilon)
    check_positive("step_size", step_size, _STEP_HINT)
    check_choice("loss", loss, _SURROGATES)
    if loss == "squared_distance" and (targeted or not random_start):
        raise ValueError(
            "The distance from the natural prediction has no gradient at the natural images, and no class to reach. "
            f"Received: loss={loss!r}, random_start={random_start}, targeted={targeted}. Give random_start=True and "
            "targeted=False."
        )
    norm = Norm.of(norm).name
    uniform = parts.UniformInBall(epsilon, norm)
    return GradientAttack(
        surrogate=_SURROGATES[loss],
        start=uniform if random_start else parts.AtNatural(),
        step=parts.SteepestStep(step_size, norm),
        ball=parts.Ball(epsilon, norm),
        num_steps=num_steps,
        bounds=bounds,
        repeat_start=uniform,
        targeted=targeted,
    )


def fgsm(
    *, epsilon: float, norm: str = "linf", targeted: bool = False, bounds: Bounds | None = (0.0, 1.0)
) -> GradientAttack:
    """Fast gradient sign method: one step of length `epsilon` up the cross-entropy, from the natural images.

    Args:
        epsilon: radius of the ball, > 0, on the scale of the pixels.
        norm: "linf" (a step along the gradient's sign) or "l2" (along the normalised gradient).
        targeted: the `y` of a call are the classes to reach: one step down their cross-entropy.
        bounds: the pixel range, or None for no limits.

    Returns:
        The attack.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> attack = fgsm(epsilon=8 / 255)
        >>> x_adv = attack(network, x, y)

    Reference:
        Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015, section 4.
    """
    return pgd(
        epsilon=epsilon,
        step_size=epsilon,
        num_steps=1,
        random_start=False,
        norm=norm,
        targeted=targeted,
        bounds=bounds,
    )


def dist(
    *,
    coefficient: float = 1.0,
    num_steps: int = 8,
    epsilon: float | None = None,
    bounds: Bounds | None = (0.0, 1.0),
) -> GradientAttack:
    """The distributional attack of the paper's reference [20]: an L-inf heuristic after Sinha et al.

    Each step follows the gradient and then shrinks the noise by the mean absolute step, which is taken over the
    whole batch: the examples of a batch influence each other. There is no ball, so the noise is not limited by
    any radius, only by the pixel range. For the method of Sinha et al. itself see `wrm_l2`.

    Args:
        coefficient: factor on the gradient, > 0, for pixels in [0, 1] (reference [20]: 1 on Fashion-MNIST, and
            12/255 on CIFAR10, where its code has 12 for pixels in [0, 255]).
        num_steps: steps, >= 1.
        epsilon: radius, > 0, in which the second and further adversarial examples of a round start. The first
            one always starts at the natural image. Needed for ratios n/m with n >= 2, and by companions that take
            their radius from the attack.
        bounds: the pixel range, or None for no limits.

    Returns:
        The attack.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> attack = dist(num_steps=8)
        >>> x_adv = attack(network, x, y, seed=0)

    Reference:
        Song, Shokri and Mittal, "Privacy risks of securing machine learning models against adversarial examples",
        CCS 2019, by its published code.
    """
    check_positive("coefficient", coefficient, "It is the factor on the gradient for pixels in [0, 1], e.g. 1.0.")
    if epsilon is not None:
        check_epsilon(epsilon)
    return GradientAttack(
        surrogate=parts.cross_entropy_surrogate,
        start=parts.AtNatural(),
        step=parts.DistStep(coefficient),
        ball=parts.Unbounded(epsilon),
        num_steps=num_steps,
        bounds=bounds,
        repeat_start=None if epsilon is None else parts.UniformInBall(epsilon),
    )


def wrm_l2(*, gamma: float, num_steps: int = 15, bounds: Bounds | None = None) -> GradientAttack:
    """The Wasserstein attack of Sinha et al. with the squared L2 cost, as their own code does it.

    It ascends loss - gamma * ||x_adv - x||^2 from the natural images: first one whole gradient step, then
    `num_steps` steps of falling length, which is `num_steps + 1` gradients. The authors do not clip to the pixel
    range; `bounds` does.

    Args:
        gamma: price of moving, > 0. Large values keep the images in place (the authors' code gives
            `eps = 0.5 / gamma`, 1.3 on MNIST).
        num_steps: steps after the first, >= 0.
        bounds: the pixel range, or None for no limits.

    Returns:
        The attack.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> attack = wrm_l2(gamma=0.4, num_steps=15)
        >>> x_adv = attack(network, x, y, seed=0)

    Reference:
        Sinha, Namkoong and Duchi, "Certifying some distributional robustness with principled adversarial
        training", ICLR 2018, algorithm 1.
    """
    check_positive("gamma", gamma, "It is the price of moving a pixel; large values keep the images in place.")
    check_count("num_steps", num_steps, 0, _COUNT_HINT)
    return GradientAttack(
        surrogate=parts.cross_entropy_surrogate,
        start=parts.AtNatural(),
        step=parts.WassersteinStep(gamma),
        ball=parts.Unbounded(norm="l2"),
        num_steps=num_steps + 1,
        bounds=bounds,
    )


def trades_kl(
    *, epsilon: float, step_size: float, num_steps: int, bounds: Bounds | None = (0.0, 1.0), start_stddev: float = 1e-3
) -> GradientAttack:
    """The attack of TRADES (the paper's Diff): ascends the divergence from the natural prediction.

    The natural logits are computed once a call. The start is the natural image plus a little normal noise, as the
    divergence has no gradient at the natural image itself.

    Args:
        epsilon: radius of the L-inf ball, > 0, on the scale of the pixels.
        step_size: length of one step, > 0, on the scale of the pixels.
        num_steps: steps, >= 1.
        bounds: the pixel range, or None for no limits.
        start_stddev: standard deviation of the starting noise, > 0.

    Returns:
        The attack.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> attack = trades_kl(epsilon=0.1, step_size=0.02, num_steps=8)
        >>> x_adv = attack(network, x, y, seed=0)

    Reference:
        Zhang et al., "Theoretically principled trade-off between robustness and accuracy", ICML 2019, algorithm 1.
    """
    check_epsilon(epsilon)
    check_positive("step_size", step_size, _STEP_HINT)
    check_positive("start_stddev", start_stddev, "The divergence has no gradient at the natural image itself.")
    start = parts.Gaussian(start_stddev)
    return GradientAttack(
        surrogate=parts.divergence_surrogate,
        start=start,
        step=parts.SteepestStep(step_size),
        ball=parts.Ball(epsilon),
        num_steps=num_steps,
        bounds=bounds,
        repeat_start=start,
    )
