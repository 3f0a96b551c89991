"""DeepFool: the shortest way out of the true class, as if the network were linear."""

import dataclasses
from typing import ClassVar

import tensorflow as tf

from pineat_tf import losses
from pineat_tf.attacks.attacked import AttackedNetwork
from pineat_tf.attacks.parts import choose, flat, shift_to_plane
from pineat_tf.checks import check_bounds, check_count, check_positive
from pineat_tf.projections import clip_to_bounds
from pineat_tf.serialization import serializable
from pineat_tf.types import Bounds, LogitsFn, Seed

__all__ = ["DeepFool", "deepfool"]

_NUM_CLASSES = 10  # the likeliest ones, as in the authors' code


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class DeepFool:
    """DeepFool for the L2 norm: small noise that changes the class, of which the size is what there is to report.

    Each step goes the shortest way within the pixel range to the nearest of the boundaries with the 10 likeliest other
    classes, each taken as linear. The authors' code knows no range; clipping its steps instead would let many of them
    end short of the boundary again and again.

    Called as `attack(logits_fn, x, y, seed=0)`, like a `GradientAttack`, it returns of each image the first
    misclassified point, whatever its L2 distance, or the natural image if there was none. There is no randomness. A
    step costs one prediction and a gradient for each class but the true one, and there is one look more than steps. The
    loop is one graph inside a `tf.function`, and ends when all are misclassified. An example does not influence the
    others.

    Args:
        num_steps: largest number of steps, >= 1.
        overshoot: how much further than the boundary to go, as a share of the noise, > 0.
        bounds: the pixel range, or None for no limits, as in the authors' code.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> x_adv = deepfool()(network, x, y)
        >>> distance = tf.norm(tf.reshape(x_adv - x, [len(x), -1]), axis=1)

    Reference:
        Moosavi-Dezfooli, Fawzi and Frossard, "DeepFool: a simple and accurate method to fool deep neural networks",
        CVPR 2016, algorithm 2.
    """

    norm: ClassVar[str] = "l2"
    epsilon: ClassVar[None] = None  # it goes as far as it must
    num_steps: int = 50
    overshoot: float = 0.02
    bounds: Bounds | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_count("num_steps", self.num_steps, 1, "Each step costs a gradient for each class.")
        check_positive("overshoot", self.overshoot, "It is how much further than the boundary to go, e.g. 0.02.")
        check_bounds(self.bounds)

    def __call__(self, logits_fn: LogitsFn, x: tf.Tensor, y: tf.Tensor, *, seed: Seed = 0) -> tf.Tensor:
        network = AttackedNetwork(logits_fn, x, y, self.bounds)
        x, natural = network.x, network(network.x)
        classes = tf.cast(losses.class_numbers(network.checked_labels()), tf.int64)
        rivals = tf.math.top_k(natural, k=min(_NUM_CLASSES, natural.shape[-1])).indices[:, 1:]

        def step(index: tf.Tensor, x_adv: tf.Tensor, noise: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, ...]:
            leads, gradients, fooled = _look(network, x_adv, classes, rivals)
            lead, normal = _nearest(leads, gradients)
            shift = shift_to_plane(flat(x_adv), lead, flat(normal), self.norm, self.bounds)
            noise += tf.ensure_shape(tf.reshape(shift, tf.shape(x)), x.shape)
            moved = clip_to_bounds(x + (1.0 + self.overshoot) * noise, self.bounds)
            is_last = index == self.num_steps
            return index + 1, choose(fooled | is_last, x_adv, moved), noise, fooled

        def goes_on(index: tf.Tensor, x_adv: tf.Tensor, noise: tf.Tensor, fooled: tf.Tensor) -> tf.Tensor:
            return (index <= self.num_steps) & ~tf.reduce_all(fooled)

        nobody = tf.zeros_like(classes, tf.bool)
        _, x_adv, _, fooled = tf.while_loop(goes_on, step, (tf.constant(0), x, tf.zeros_like(x), nobody))
        return network.give_back(choose(fooled, x_adv, x))


deepfool = DeepFool


def _look(
    network: AttackedNetwork, x: tf.Tensor, classes: tf.Tensor, rivals: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """How far each rival's logit is above the true one, the gradients of that, and what is misclassified."""

    def look(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        logits = network(x)
        of_rivals, of_true = (tf.gather(logits, which, axis=1, batch_dims=1) for which in (rivals, classes[:, None]))
        return of_rivals - of_true, of_true, logits

    (leads, of_true, logits), gradients = network.value_and_gradient(look, x)
    return tf.cast(network.untied(leads, of_true), x.dtype), gradients, tf.argmax(logits, axis=1) != classes


def _nearest(leads: tf.Tensor, gradients: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Of the nearest boundary, by |lead| / ||gradient||, the rival's lead and its gradient."""
    squares = tf.reduce_sum(tf.square(gradients), axis=list(range(2, gradients.shape.rank)))
    distances = tf.where(squares > 0, tf.abs(leads) * tf.math.rsqrt(squares), leads.dtype.max)
    nearest = tf.argmin(distances, axis=1)
    lead, gradient = (tf.gather(of_all, nearest, axis=1, batch_dims=1) for of_all in (leads, gradients))
    return lead, gradient
