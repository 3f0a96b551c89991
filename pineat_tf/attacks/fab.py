"""FAB: the attack that looks for the closest misclassified point, whatever its distance."""

import dataclasses
import math
from typing import NamedTuple

import tensorflow as tf

from pineat_tf import losses, threat
from pineat_tf.attacks.attacked import AttackedNetwork
from pineat_tf.attacks.parts import choose, flat, shift_to_plane, spread
from pineat_tf.checks import check_bounds, check_count, check_epsilon, check_part, check_positive
from pineat_tf.projections import Norm, clip_to_bounds
from pineat_tf.seeds import fold
from pineat_tf.serialization import serializable
from pineat_tf.types import Bounds, LogitsFn, Seed

__all__ = ["Closest", "FastAdaptiveBoundary", "fab"]

_WIDEST_RESTART = {"linf": 0.3, "l2": 1.0}  # in place of epsilon where there is none, as in the authors' code


class Closest(NamedTuple):
    """The closest misclassified point found of each image, and how far it is from the image."""

    x_adv: tf.Tensor  # the image itself if none was found
    distance: tf.Tensor  # shape (batch,): 0 if the image itself is misclassified, infinite if nothing was found


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class FastAdaptiveBoundary:
    """Targeted FAB (FAB-T), which looks for the smallest noise that changes the class, as its authors' code does it.

    Each step takes the network as linear: it projects the point, and the image itself, on where the target's logit
    would equal that of the true class within the pixel range, and goes to a mean of the two. From a misclassified point
    it goes back towards the image. The defaults are those of AutoAttack's standard version. Unlike there, an image that
    has been fooled within `epsilon` is attacked further, as a later target may be closer.

    Called as `attack(logits_fn, x, y, seed=0)`, like a `GradientAttack`, it returns of each image the closest
    misclassified point found if that lies within `epsilon`, else the natural image, so that the accuracy on the result
    is the robust accuracy. `closest` gives the points whatever their distance, and the distances: one run of it tells
    the robust accuracy at every radius, the share of images whose distance is larger.

    Each target (the class of the second largest natural logit, the third and so on) and restart is a walk of its own,
    of which a step costs one gradient and one prediction. The loops are one graph inside a `tf.function`. An example
    does not influence the others.

    Args:
        epsilon: radius on the scale of the pixels, > 0, within which a misclassified point counts; None to get the
            closest one whatever its distance. The walks from the natural images are the same for every radius.
        num_steps: steps of each walk, >= 1.
        norm: "linf" or "l2", by which distances count.
        num_restarts: walks to each target, >= 1: the first from the natural image, the others from random points at
            half the distance of the closest point found so far, or half of `epsilon` if that is smaller (of 0.3 or 1.0,
            by the norm, if `epsilon` is None).
        num_targets: how many other classes to try, the likeliest first, >= 1; all if there are fewer.
        alpha_max: largest weight of the image's own projection, in (0, 1].
        eta: factor on the projections' length, >= 1, to go a little beyond the boundary.
        beta: share of the noise that a misclassified point keeps, in (0, 1].
        bounds: the pixel range, or None for no limits.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> attack = fab(epsilon=8 / 255, num_steps=20)
        >>> x_adv = attack(network, x, y)

    Reference:
        Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020,
        algorithm 1; FAB-T: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
        parameter-free attacks", ICML 2020, section 5.
    """

    epsilon: float | None
    num_steps: int = 100
    norm: str = "linf"
    num_restarts: int = 1
    num_targets: int = 9
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    bounds: Bounds | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.epsilon is not None:
            check_epsilon(self.epsilon)
        check_count("num_steps", self.num_steps, 1, "Each step costs one gradient for each target.")
        object.__setattr__(self, "norm", Norm.of(self.norm).name)
        check_count("num_restarts", self.num_restarts, 1, "Give 1 for walks from the natural images only.")
        check_count("num_targets", self.num_targets, 1, "The authors take 9, for 10 classes.")
        hint = "It is the largest share of the step that starts at the natural image, e.g. 0.1."
        check_part("alpha_max", self.alpha_max, hint)
        check_part("beta", self.beta, "It is the share of the noise that a misclassified point keeps, e.g. 0.9.")
        hint = "It stretches each step to go a little beyond the boundary, e.g. 1.05; 1 goes just to it."
        check_positive("eta", self.eta, hint)
        if self.eta < 1:
            raise ValueError(f"`eta` must be at least 1. Received: eta={self.eta!r}. {hint}")
        check_bounds(self.bounds)
        threat.check_scale(self.epsilon, self.bounds, norm=self.norm)

    def __call__(self, logits_fn: LogitsFn, x: tf.Tensor, y: tf.Tensor, *, seed: Seed = 0) -> tf.Tensor:
        x_adv, distance = self.closest(logits_fn, x, y, seed=seed)
        if self.epsilon is None:
            return x_adv
        return tf.stop_gradient(choose(distance <= self.epsilon, x_adv, tf.convert_to_tensor(x)))

    def closest(self, logits_fn: LogitsFn, x: tf.Tensor, y: tf.Tensor, *, seed: Seed = 0) -> Closest:
        """The closest misclassified points found, within `epsilon` or not.

        Args:
            logits_fn: maps images to logits.
            x: images of shape `(batch, ...)`, within `bounds`.
            y: class numbers of shape `(batch,)`, or one-hot of shape `(batch, num_classes)`.
            seed: of the random restarts; the first walks start at the images.

        Returns:
            The points, in the shape and dtype of `x`, and their distances from the images in the attack's norm.

        Raises:
            ValueError: if images or labels are not as the attack needs them, or if `logits_fn` has no gradient.

        Example:
            >>> x_adv, distance = fab(epsilon=None, num_steps=20).closest(network, x, y)
            >>> robust_accuracy = tf.reduce_mean(tf.cast(distance > 8 / 255, tf.float32))
        """
        network = AttackedNetwork(logits_fn, x, y, self.bounds)
        x, natural = network.x, network(network.x)
        classes = tf.cast(losses.class_numbers(network.checked_labels()), tf.int64)
        nothing, at_once = tf.constant(math.inf, x.dtype), tf.constant(0.0, x.dtype)
        found = Closest(x, tf.where(_is_wrong(natural, classes), at_once, nothing))
        likeliest = tf.math.top_k(natural, k=min(self.num_targets + 1, natural.shape[-1])).indices
        for restart in range(self.num_restarts):
            direction = self._direction(x, seed, restart)
            found = self._visit_targets(network, classes, likeliest, direction, found)
        return Closest(network.give_back(found.x_adv), tf.stop_gradient(found.distance))

    def _direction(self, x: tf.Tensor, seed: Seed, restart: int) -> tf.Tensor:
        """From the images to where the walks of a restart start, of length 1; 0 for the first."""
        nowhere = tf.zeros_like(x)
        return Norm.of(self.norm).uniform_on_sphere(nowhere, fold(seed, restart)) if restart else nowhere

    def _visit_targets(
        self,
        network: AttackedNetwork,
        classes: tf.Tensor,
        likeliest: tf.Tensor,
        direction: tf.Tensor,
        found: Closest,
    ) -> Closest:
        """Walks to one target after the other."""
        x, widest = network.x, _WIDEST_RESTART[self.norm] if self.epsilon is None else self.epsilon

        def visit(rank: tf.Tensor, found: Closest) -> tuple[tf.Tensor, Closest]:
            radius = tf.minimum(found.distance, widest) / 2
            start = clip_to_bounds(x + spread(radius, x) * direction, self.bounds)
            return rank + 1, self._walk(network, classes, likeliest[:, rank], start, found)

        return tf.while_loop(lambda rank, _: rank < likeliest.shape[1], visit, (tf.constant(1), found))[1]

    def _walk(
        self,
        network: AttackedNetwork,
        classes: tf.Tensor,
        targets: tf.Tensor,
        start: tf.Tensor,
        found: Closest,
    ) -> Closest:
        """Goes to the boundary with the targets; from beyond it, a part of the way back to the images."""
        x = network.x

        def step(index: tf.Tensor, here: tf.Tensor, found: Closest) -> tuple[tf.Tensor, tf.Tensor, Closest]:
            offset, normal = _boundary(network, here, classes, targets)
            there = self._move(here, x, offset, normal)
            is_wrong, distance = _is_wrong(network(there), classes), self._length(flat(there - x))
            is_closer = is_wrong & (distance < found.distance)
            closer = Closest(choose(is_closer, there, found.x_adv), tf.where(is_closer, distance, found.distance))
            return index + 1, choose(is_wrong, x + self.beta * (there - x), there), closer

        return tf.while_loop(lambda index, *_: index < self.num_steps, step, (tf.constant(0), start, found))[2]

    def _move(self, here: tf.Tensor, x: tf.Tensor, offset: tf.Tensor, normal: tf.Tensor) -> tf.Tensor:
        """One step: a mean of the stretched projections of the point and of the image on the linear boundary."""
        normal, at_here, at_x = map(flat, (normal, here, x))
        of_x = offset + tf.reduce_sum(normal * (at_x - at_here), axis=1)
        from_here = shift_to_plane(at_here, offset, normal, self.norm, self.bounds)
        from_x = shift_to_plane(at_x, of_x, normal, self.norm, self.bounds)
        near, far = self._length(from_here), self._length(from_x)
        alpha = tf.minimum(tf.math.divide_no_nan(near, near + far), self.alpha_max)[:, None]
        moved = (1 - alpha) * (at_here + self.eta * from_here) + alpha * (at_x + self.eta * from_x)
        moved = tf.ensure_shape(tf.reshape(moved, tf.shape(x)), x.shape)
        return clip_to_bounds(moved, self.bounds)

    def _length(self, noise: tf.Tensor) -> tf.Tensor:
        """Of shape `(batch,)`, for noise of shape `(batch, pixels)`."""
        return tf.squeeze(Norm.of(self.norm).length(noise), axis=1)


fab = FastAdaptiveBoundary


def _boundary(
    network: AttackedNetwork, x: tf.Tensor, classes: tf.Tensor, targets: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """How far the targets' logits are above those of the true classes, and the gradient of that."""

    def look(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = network(x)
        of_target, of_true = (tf.gather(logits, index, axis=1, batch_dims=1) for index in (targets, classes))
        return of_target - of_true, of_true

    (lead, of_true), gradient = network.value_and_gradient(look, x)
    return tf.cast(network.untied(lead, of_true), x.dtype), gradient


def _is_wrong(logits: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    return tf.argmax(logits, axis=1) != classes
