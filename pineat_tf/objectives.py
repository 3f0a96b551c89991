"""Objectives: the loss of one update of the weights.

The protocol is one call, `objective(logits_fn, x_nat, x, y)`, and a plain function will do:

- `logits_fn`: maps images to logits of shape `(batch, num_classes)`, by the network in training mode.
- `x`: the example that the update is about, an adversarial one or a companion; shape `(batch, ...)`.
- `x_nat`: the natural image that it belongs to, like `x`.
- `y`: class numbers of shape `(batch,)`, or rows of shape `(batch, num_classes)`.
- Result: the loss of each example, shape `(batch,)`, and the logits of `x`, which metrics see.

In an update by a natural image `x` is `x_nat` itself, the same object, so that an objective can spare what it would
compute twice. The kinds of this module are frozen dataclasses, which Keras can save.
"""

import dataclasses

import tensorflow as tf

from pineat_tf.checks import check_positive, check_share
from pineat_tf.losses import kl_divergence, smoothed_cross_entropy
from pineat_tf.serialization import serializable
from pineat_tf.types import LogitsFn

__all__ = ["CrossEntropy", "Trades"]


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Cross-entropy of the example (PGD- and Dist-based training: alpha = 0 in the paper's section 2.1).

    Attributes:
        label_smoothing: share of the label that is spread over all classes, in [0, 1).

    Reference:
        Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016, section 7.
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_share("label_smoothing", self.label_smoothing)

    def __call__(
        self, logits_fn: LogitsFn, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        logits = logits_fn(x)
        return smoothed_cross_entropy(y, logits, self.label_smoothing), logits


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class Trades:
    """Cross-entropy of the natural image + beta * divergence of the example's prediction from the natural one.

    Attributes:
        beta: weight of the divergence, > 0 (the authors use 6, the paper's reference [20] uses 1).
        detach_natural: keep the divergence from changing the natural prediction. The authors let it; the code of
            reference [20] does not.
        label_smoothing: share of the label that is spread over all classes, in [0, 1).

    Reference:
        Zhang et al., "Theoretically principled trade-off between robustness and accuracy", ICML 2019, eq. (5).
    """

    beta: float
    detach_natural: bool = False
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_share("label_smoothing", self.label_smoothing)
        check_positive("beta", self.beta, "It weighs robustness against accuracy, e.g. 6.0.")

    def __call__(
        self, logits_fn: LogitsFn, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if x is x_nat:  # the divergence of a prediction from itself is 0, and so is its gradient
            return CrossEntropy(label_smoothing=self.label_smoothing)(logits_fn, x_nat, x, y)
        natural_logits, logits = logits_fn(x_nat), logits_fn(x)
        target = tf.stop_gradient(natural_logits) if self.detach_natural else natural_logits
        natural_loss = smoothed_cross_entropy(y, natural_logits, self.label_smoothing)
        return natural_loss + self.beta * kl_divergence(target, logits), logits
