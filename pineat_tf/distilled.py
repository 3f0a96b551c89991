"""Adversarial training with soft labels of the network's own past: what it must not memorise it is not told."""

from typing import Any

import keras
import tensorflow as tf

from pineat_tf.checks import check_share
from pineat_tf.heads import class_logits
from pineat_tf.losses import label_rows
from pineat_tf.objectives import CrossEntropy
from pineat_tf.serialization import serializable
from pineat_tf.training import AdversarialTraining
from pineat_tf.types import Objective

__all__ = ["SelfDistilledTraining"]

_WARM_UP = 10  # rounds; until then the average is of about as many rounds as there were


@serializable
class SelfDistilledTraining(AdversarialTraining):
    """Adversarial training whose labels are in part the predictions of an average of the network's earlier weights.

    The teacher is a copy of the network whose weights follow it slowly. Each update's label is
    `(1 - share) * y + share * softmax(teacher(example))` of the very example of the update; attacks ascend the loss
    of the true label. An image whose label the teacher doubts, which the network could fit by memory only, gets a
    label that asks for less. An update costs one forward pass more.

    Args:
        network: gives logits of shape `(batch, num_classes)`, and knows the shape of its images.
        share: of the teacher's prediction in the labels, in [0, 1).
        momentum: of the teacher's weights a round, in [0, 1): `teacher = momentum * teacher + (1 - momentum) *
            network` after each round, less at the beginning.
        objective: a `CrossEntropy`, the only one whose label is of the example itself.
        **kwargs: as for `AdversarialTraining`.

    Attributes:
        teacher: the network of averaged weights, which can be shipped as well.

    Raises:
        ValueError: as `AdversarialTraining`, if `share` or `momentum` is out of its range, or with another objective.

    Example:
        >>> model = SelfDistilledTraining(
        ...     network, share=0.5, momentum=0.99, attack=attack, companions=ReverseSymmetry(), ratio="1/1")

    Reference:
        Chen et al., "Robust overfitting may be mitigated by properly learned smoothening", ICLR 2021, eq. (3), with
        the averaged network as the only teacher.
    """

    def __init__(
        self,
        network: keras.Model,
        *,
        share: float = 0.5,
        momentum: float = 0.99,
        objective: Objective = CrossEntropy(),
        **kwargs: Any,
    ) -> None:
        check_share("share", share)
        check_share("momentum", momentum)
        if not isinstance(objective, CrossEntropy):
            raise ValueError(
                "The teacher labels the example of an update, so the objective must be the cross-entropy of that "
                f"example. Received: objective={objective!r}. Give `CrossEntropy()`."
            )
        if not network.built:
            raise ValueError(
                "The teacher is a copy of the network, so `network` must know the shape of its images. Received: "
                f"network={network.name!r} without weights. Begin it with `keras.Input(shape)`."
            )
        _check_weights(network)
        super().__init__(network, objective=objective, **kwargs)
        self.share = share
        self.momentum = momentum
        self.teacher = keras.models.clone_model(network)
        self.teacher.set_weights(network.get_weights())
        self.teacher.trainable = False

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return super().get_config() | {"share": self.share, "momentum": self.momentum}

    def round(self, x: tf.Tensor, y: tf.Tensor, sample_weight: tf.Tensor | None, rounds: tf.Tensor) -> list[tf.Tensor]:
        """Plays a round, after which the teacher follows the network."""
        logits = super().round(x, y, sample_weight, rounds)
        done = tf.cast(rounds, tf.float32)
        momentum = tf.minimum(self.momentum, (1.0 + done) / (_WARM_UP + done))
        for average, weight in zip(self.teacher.variables, self.network.variables):
            if average.dtype.startswith("float"):
                kept = tf.cast(momentum, average.dtype)
                average.assign(kept * average + (1.0 - kept) * weight)
        return logits

    def update_loss(
        self, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The loss of the label that the teacher has a share in."""
        logits = class_logits(self.teacher(x, training=False))
        taught = tf.stop_gradient(tf.nn.softmax(tf.cast(logits, tf.float32)))
        hard = label_rows(y, taught.shape[-1])
        return super().update_loss(x_nat, x, (1.0 - self.share) * hard + self.share * taught, sample_weight)


def _check_weights(network: keras.Model) -> None:
    half = sorted({weight.dtype for weight in network.trainable_weights} & {"float16", "bfloat16"})
    if half:
        raise ValueError(
            "The teacher moves by a hundredth of a difference, which half precision rounds away. Received: weights of "
            f"dtype {half[0]}. Build the network under the policy 'mixed_{half[0]}', which keeps float32 weights."
        )
