"""Boxes: two tensors between which another one lies, element by element."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

__all__ = ["Box"]


@dataclasses.dataclass(frozen=True, eq=False)
class Box:
    """All tensors between two of the same shape.

    Attributes:
        lower: the smallest values.
        upper: the largest values, like `lower`.
        logits: the box that a sigmoid made this one of; None where another layer did. The sigmoid saturates.

    Example:
        >>> box = Box.around(tf.constant([1.0]), tf.constant([0.5]))
        >>> box.map(lambda x: 2.0 * x).radius.numpy()
        array([1.], dtype=float32)
    """

    lower: tf.Tensor
    upper: tf.Tensor
    logits: "Box | None" = None

    @property
    def centre(self) -> tf.Tensor:
        """The middle of the box."""
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> tf.Tensor:
        """Half of its sides, >= 0."""
        return (self.upper - self.lower) / 2

    @classmethod
    def around(cls, centre: tf.Tensor, radius: tf.Tensor) -> "Box":
        """The box of a middle and half of its sides."""
        return cls(centre - radius, centre + radius)

    def map(self, function: Callable[[tf.Tensor], tf.Tensor]) -> "Box":
        """The image under a function that nowhere decreases."""
        return Box(function(self.lower), function(self.upper))
