"""Perturbations of the weights around one update: the gradient is taken where the loss is worse nearby.

The protocol is one call, `perturbation(weights, gradients, updates=...)`, and a plain function will do:

- `weights`: the trainable weights, a list of float32 tensors.
- `gradients`: those of the update's loss by them, like `weights`; None where a weight has none.
- `updates`: updates of the weights before this round, int64.
- Result: what is added to each weight while the optimizer's gradient is taken, like `weights`; None adds nothing.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from pineat_tf.checks import can_be_called, check_count, check_positive
from pineat_tf.distribution import sum_over_replicas
from pineat_tf.serialization import serializable
from pineat_tf.types import WeightPerturbation

__all__ = ["AWP"]

_TINY = 1e-20  # the authors', against a gradient of 0


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class AWP:
    """Adversarial weight perturbation: each kernel moves up the loss by a share of its own norm.

    A tensor w of rank > 1 with the gradient g is moved by `gamma * ||w|| * g / ||g||`; biases and the weights of
    normalisation stay. It costs one more forward and backward pass an update.

    Attributes:
        gamma: the share, > 0. The authors have .01 for PGD and .005 for TRADES.
        begin: updates before the first perturbed one, >= 0. The authors wait 10 epochs with TRADES.

    Example:
        >>> (moved,) = AWP(gamma=0.5)([tf.ones((2, 2))], [tf.constant([[3.0, 0.0], [0.0, 0.0]])], updates=0)
        >>> moved.numpy().tolist()  # half of the norm 2, along the gradient
        [[1.0, 0.0], [0.0, 0.0]]

    Reference:
        Wu, Xia and Wang, "Adversarial weight perturbation helps robust generalization", NeurIPS 2020, eq. (10).
    """

    gamma: float = 0.01
    begin: int = 0

    def __post_init__(self) -> None:
        check_positive("gamma", self.gamma, "It is a share of the norm of the weights, e.g. 0.01.")
        check_count("begin", self.begin, 0, "It is the number of updates to wait.")

    def __call__(
        self, weights: Sequence[tf.Tensor], gradients: Sequence[tf.Tensor | None], *, updates: tf.Tensor
    ) -> list[tf.Tensor | None]:
        gamma = self.gamma * tf.cast(updates >= self.begin, tf.float32)

        def moved(weight: tf.Tensor, gradient: tf.Tensor | None) -> tf.Tensor | None:
            if gradient is None or weight.shape.rank < 2:
                return None
            return gamma * tf.norm(weight) * gradient / (tf.norm(gradient) + _TINY)

        return list(map(moved, weights, gradients))


def check_weight_perturbation(perturbation: Any) -> None:
    """Raises `ValueError` unless it can be called as one; None is none."""
    if perturbation is not None and not can_be_called(perturbation, [], [], updates=0):
        raise ValueError(
            "`weight_perturbation` must be called as `perturbation(weights, gradients, updates=...)`. Received: "
            f"{perturbation!r}. Give e.g. `perturbations.AWP(gamma=0.01)`."
        )


def perturbed_gradients(
    perturbation: WeightPerturbation,
    gradients_of: Callable[[], tuple[list[tf.Tensor | None], Any]],
    weights: Sequence[keras.Variable],
    others: Sequence[keras.Variable],
    updates: tf.Tensor,
) -> tuple[list[tf.Tensor | None], Any]:
    """Takes gradients at perturbed weights, and puts the weights back as they were, to the bit.

    Args:
        perturbation: what to add to the weights.
        gradients_of: gives the gradients by the weights as they are, and what else the caller wants of that pass.
        weights: what the gradients are by.
        others: variables that passes in training mode change, such as batch statistics: the first pass leaves no trace.
        updates: updates before this round.

    Returns:
        What `gradients_of` gives at the perturbed weights.

    Raises:
        ValueError: if there are not as many perturbations as weights.
    """
    kept = [tf.identity(variable.value) for variable in (*weights, *others)]
    gradients, _ = gradients_of()
    for variable, value in zip(others, kept[len(weights) :]):
        variable.assign(value)
    exact = [tf.cast(value, tf.float32) for value in kept[: len(weights)]]
    added = perturbation(exact, _whole(gradients), updates=updates)
    if len(added) != len(exact):
        raise ValueError(
            f"`weight_perturbation` must give one tensor, or None, a weight. Received: {len(added)} for {len(exact)}."
        )
    for variable, value, noise in zip(weights, exact, added):
        if noise is not None:  # a scaled loss may overflow, which skips the update; batch statistics would stay NaN
            finite = tf.reduce_all(tf.math.is_finite(noise))
            variable.assign(tf.cast(value + tf.where(finite, noise, 0.0), variable.dtype))
    found = gradients_of()
    for variable, value in zip(weights, kept):
        variable.assign(value)
    return found


def _whole(gradients: Sequence[Any]) -> list[tf.Tensor | None]:
    """Gradients of the whole batch, dense and in float32."""
    present = [index for index, gradient in enumerate(gradients) if gradient is not None]
    summed = sum_over_replicas([tf.cast(tf.convert_to_tensor(gradients[index]), tf.float32) for index in present])
    whole: list[tf.Tensor | None] = [None] * len(gradients)
    for index, gradient in zip(present, summed):
        whole[index] = gradient
    return whole
