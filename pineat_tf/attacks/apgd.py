"""APGD: the attack that finds its step sizes itself, one for every example."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from pineat_tf import losses, threat
from pineat_tf.attacks.attacked import AttackedNetwork
from pineat_tf.attacks.parts import UniformInBall, choose, spread
from pineat_tf.checks import check_bounds, check_choice, check_count, check_epsilon, check_part
from pineat_tf.projections import Norm, clip_to_bounds
from pineat_tf.seeds import fold
from pineat_tf.serialization import serializable
from pineat_tf.types import Bounds, LogitsFn, Seed

__all__ = ["AutoPGD", "apgd"]

_LOSSES: dict[str, Callable] = {
    "cross_entropy": losses.unfading_cross_entropy,
    "dlr": losses.dlr,
    "dlr_targeted": losses.dlr_targeted,
}
_MIN_CLASSES = {"cross_entropy": 2, "dlr": 3, "dlr_targeted": 4}
_Surrogate = Callable[[tf.Tensor], tf.Tensor]  # logits to what is made large, one number an example
_NEW_SHARE = 0.75  # of the momentum: how much of a step is new, alpha in the paper


class _Ascent(NamedTuple):
    """What an ascent remembers: tensors of one row an example."""

    x: tf.Tensor  # the point to look at next
    x_before: tf.Tensor  # the point that the last step left
    x_best: tf.Tensor  # the point of the largest loss, its gradient and its loss
    gradient_best: tf.Tensor
    loss_best: tf.Tensor
    x_adv: tf.Tensor  # the last point that fooled the network, and whether there was one
    fooled: tf.Tensor
    step_size: tf.Tensor
    loss_before: tf.Tensor  # at the point before
    increases: tf.Tensor  # how many steps since the last checkpoint made the loss larger
    loss_at_checkpoint: tf.Tensor  # the largest loss by then
    halved: tf.Tensor  # whether the step size was halved there


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoPGD:
    """Auto-PGD: projected gradient descent with momentum that needs no step size, as its authors' code does it.

    Steps start at 2 * epsilon. At checkpoints an example's step size halves, and it goes back to its point of the
    largest loss, if few steps made the loss larger, or if neither the step size nor the largest loss has changed
    since the last checkpoint.

    Called as `attack(logits_fn, x, y, seed=0)`, like a `GradientAttack`, it returns of each image a point that is
    misclassified (the last one on the way from the first start that led to any), or the natural image if there was
    none: the accuracy on the result is the robust accuracy, but the loss on it is not the largest loss found.

    An ascent costs `num_steps + 1` gradients and nothing else; further ones are of those images alone that none before
    has fooled the network on. The loop is one graph inside a `tf.function` (without XLA, if there are several
    ascents). An example does not influence the others.

    Args:
        epsilon: radius of the ball, > 0, on the scale of the pixels.
        num_steps: steps of each start, >= 1.
        norm: "linf" (steps along the gradient's sign) or "l2" (along the normalised gradient).
        loss: "cross_entropy", "dlr" (difference of logits ratio, for 3 classes or more), or "dlr_targeted" (for 4
            classes or more; an ascent for each target: the class of the second largest natural logit, and so on).
        num_restarts: random starts of each image (and target), >= 1; the result is of the first that succeeds.
        num_targets: how many other classes the targeted loss tries, the likeliest first, >= 1; all if there are fewer.
        rho: the step size halves if at most this share of the steps made the loss larger, in (0, 1].
        bounds: the pixel range, or None for no limits.
        start: where ascents start, called as `start(x, seed)`; None for uniformly on the surface of the ball.
        targeted: the `y` of a call are the classes to reach, of which the loss is made small, not the true ones.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> attack = apgd(epsilon=8 / 255, loss="dlr")
        >>> x_adv = attack(network, x, y, seed=0)

    Reference:
        Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", ICML 2020, algorithm 1.
    """

    epsilon: float
    num_steps: int = 100
    norm: str = "linf"
    loss: str = "cross_entropy"
    num_restarts: int = 1
    num_targets: int = 9
    rho: float = 0.75
    bounds: Bounds | None = (0.0, 1.0)
    start: Any = None
    targeted: bool = False

    @property
    def min_classes(self) -> int:
        """The fewest classes that the loss is defined for."""
        return _MIN_CLASSES[self.loss]

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", Norm.of(self.norm).name)
        check_epsilon(self.epsilon)
        check_count("num_steps", self.num_steps, 1, "Each step costs one gradient, and each start another one.")
        check_choice("loss", self.loss, _LOSSES)
        check_count("num_restarts", self.num_restarts, 1, "Give 1 for a single start.")
        check_count("num_targets", self.num_targets, 1, "The authors take 9, for 10 classes.")
        check_part("rho", self.rho, "It is a share of the steps, e.g. 0.75.")
        check_bounds(self.bounds)
        threat.check_scale(self.epsilon, self.bounds, norm=self.norm)
        if self.targeted and self.loss == "dlr_targeted":
            raise ValueError(
                "The loss 'dlr_targeted' chooses its targets itself, and takes the true classes. Received: "
                "targeted=True, loss='dlr_targeted'. To reach classes of your own, give loss='cross_entropy' or 'dlr'."
            )
        if self.start is None:
            object.__setattr__(self, "start", UniformInBall(self.epsilon, self.norm, self.bounds, on_surface=True))

    def __call__(self, logits_fn: LogitsFn, x: tf.Tensor, y: tf.Tensor, *, seed: Seed = 0) -> tf.Tensor:
        network = AttackedNetwork(logits_fn, x, y, self.bounds)
        x_adv, fooled = network.x, _one_each(network.x, False)
        for index, targets in enumerate(self._targets(network)):
            start = self.start(network.x, fold(seed, index))
            if index:
                x_adv, fooled = self._ascend_rest(network, start, targets, x_adv, fooled)
            else:
                end = self._ascend(network, start, targets)
                x_adv, fooled = end.x_adv, end.fooled
        return network.give_back(x_adv)

    def _targets(self, network: AttackedNetwork) -> list[tf.Tensor | None]:
        """The classes to reach in each ascent; None for an untargeted one."""
        if self.loss != "dlr_targeted":
            return [None] * self.num_restarts
        natural = network(network.x)
        network.y = network.checked_labels()  # the loss looks the true classes' logits up
        num_targets = min(self.num_targets, natural.shape[-1] - 1)
        likeliest = tf.stop_gradient(tf.math.top_k(natural, k=num_targets + 1).indices)
        return [likeliest[:, rank] for rank in range(1, num_targets + 1) for _ in range(self.num_restarts)]

    def _ascend_rest(
        self,
        network: AttackedNetwork,
        start: tf.Tensor,
        targets: tf.Tensor | None,
        x_adv: tf.Tensor,
        fooled: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """A further ascent, of those images alone that no earlier one had misclassified."""
        rows = tf.where(~fooled)
        start, targets = (None if part is None else tf.gather_nd(part, rows) for part in (start, targets))
        end = self._ascend(network.of_rows(rows), start, targets)
        updated = (
            tf.tensor_scatter_nd_update(all_, rows, part) for all_, part in ((x_adv, end.x_adv), (fooled, end.fooled))
        )
        return tuple(updated)

    def checkpoints(self) -> dict[int, int]:
        """After which steps progress is judged, and how many steps are judged there."""
        interval, decrease, smallest = (max(int(share * self.num_steps), 1) for share in (0.22, 0.03, 0.06))
        intervals, step = {}, interval
        while step <= self.num_steps:
            intervals[step] = interval
            interval = max(interval - decrease, smallest)
            step += interval
        return intervals

    def _ascend(self, network: AttackedNetwork, start: tf.Tensor, targets: tf.Tensor | None) -> _Ascent:
        x, y = network.x, network.y
        loss = functools.partial(_LOSSES[self.loss], y, *(() if targets is None else (targets,)))
        intervals, project = self.checkpoints(), self._projection(x)
        # The largest number of increases at which a checkpoint halves; -1 where there is no checkpoint.
        limits = tf.constant([math.floor(self.rho * intervals.get(i, -1)) for i in range(self.num_steps + 1)])

        def look_and_move(step: tf.Tensor, ascent: _Ascent) -> tuple[tf.Tensor, _Ascent]:
            value, gradient, is_fooled = self._evaluate(network, loss, ascent.x)
            ascent = _remember(ascent, value, gradient, is_fooled, step)
            ascent, gradient = _judge(ascent, gradient, limits[step])
            return step + 1, self._move(ascent, gradient, step, project)

        begin = _begin(start, x, 2.0 * self.epsilon)
        return tf.while_loop(lambda step, _: step <= self.num_steps, look_and_move, (tf.constant(0), begin))[1]

    def _evaluate(
        self, network: AttackedNetwork, loss: _Surrogate, x: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """What is made large, its gradient, and who is fooled, by one pass forth and back."""

        def look(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            logits = network(x)
            return -loss(logits) if self.targeted else loss(logits), logits

        (value, logits), gradient = network.value_and_gradient(look, x)
        is_in_class = tf.argmax(logits, axis=1) == tf.cast(losses.class_numbers(network.y), tf.int64)
        return tf.cast(value, x.dtype), gradient, is_in_class if self.targeted else ~is_in_class

    def _move(
        self, ascent: _Ascent, gradient: tf.Tensor, step: tf.Tensor, project: Callable[[tf.Tensor], tf.Tensor]
    ) -> _Ascent:
        """One step along the gradient, and the momentum of the step before, from the second step on."""
        x, x_before = ascent.x, ascent.x_before
        moved = project(x + spread(ascent.step_size, x) * Norm.of(self.norm).steepest(gradient))
        share = tf.cast(tf.where(step == 0, 1.0, _NEW_SHARE), x.dtype)
        return ascent._replace(x=project(x + share * (moved - x) + (1 - share) * (x - x_before)), x_before=x)

    def _projection(self, x: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
        """Brings points back to the ball around `x` and the pixel range."""
        return lambda moved: clip_to_bounds(Norm.of(self.norm).project(moved, x, self.epsilon), self.bounds)


apgd = AutoPGD


def _begin(start: tf.Tensor, x: tf.Tensor, step_size: float) -> _Ascent:
    lowest = _one_each(x, -math.inf, x.dtype)
    return _Ascent(
        x=start,
        x_before=start,
        x_best=start,
        gradient_best=tf.zeros_like(x),
        loss_best=lowest,
        x_adv=x,
        fooled=_one_each(x, False),
        step_size=_one_each(x, step_size, x.dtype),
        loss_before=-lowest,  # no loss is larger, so the start is no increase
        increases=_one_each(x, 0),
        loss_at_checkpoint=lowest,
        halved=_one_each(x, True),
    )


def _remember(ascent: _Ascent, loss: tf.Tensor, gradient: tf.Tensor, is_fooled: tf.Tensor, step: tf.Tensor) -> _Ascent:
    """Keeps what was seen at `ascent.x`."""
    is_best = loss > ascent.loss_best
    return ascent._replace(
        x_best=choose(is_best, ascent.x, ascent.x_best),
        gradient_best=choose(is_best, gradient, ascent.gradient_best),
        loss_best=tf.where(is_best, loss, ascent.loss_best),
        x_adv=choose(is_fooled, ascent.x, ascent.x_adv),
        fooled=ascent.fooled | is_fooled,
        increases=ascent.increases + tf.cast(loss > ascent.loss_before, tf.int32),
        # The authors' code compares the loss after the first step with 0, not with that at the start.
        loss_before=tf.where(step == 0, tf.zeros_like(loss), loss),
    )


def _judge(ascent: _Ascent, gradient: tf.Tensor, limit: tf.Tensor) -> tuple[_Ascent, tf.Tensor]:
    """At a checkpoint: halves the step size where there was no progress, and goes back to the best point."""
    is_checkpoint = limit >= 0
    is_stuck = ~ascent.halved & (ascent.loss_at_checkpoint >= ascent.loss_best)
    halve = is_checkpoint & ((ascent.increases <= limit) | is_stuck)
    judged = ascent._replace(
        x=choose(halve, ascent.x_best, ascent.x),
        step_size=tf.where(halve, ascent.step_size / 2, ascent.step_size),
        increases=tf.where(is_checkpoint, 0, ascent.increases),
        loss_at_checkpoint=tf.where(is_checkpoint, ascent.loss_best, ascent.loss_at_checkpoint),
        halved=tf.where(is_checkpoint, halve, ascent.halved),
    )
    return judged, choose(halve, ascent.gradient_best, gradient)


def _one_each(x: tf.Tensor, value: float | bool | int, dtype: tf.DType | None = None) -> tf.Tensor:
    """The same value for every example of `x`."""
    return tf.ensure_shape(tf.fill(tf.shape(x)[:1], tf.constant(value, dtype)), x.shape[:1])
