"""Defences against membership inference as objectives: each wraps another and takes from it what gives members away.

They serve wherever an objective does, on natural, adversarial and companion examples alike. The probability that
`ConvexConcave` and `EntropyRegularised` speak of is that of the example of the update.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import scipy.optimize
import tensorflow as tf

from pineat_tf.checks import check_count, check_objective, check_part, check_positive, check_share
from pineat_tf.distribution import global_mean
from pineat_tf.losses import class_numbers, cross_entropy, label_rows
from pineat_tf.objectives import CrossEntropy
from pineat_tf.serialization import serializable
from pineat_tf.types import LogitsFn, Objective, Ratio, TrainingLogits

__all__ = ["ConvexConcave", "EntropyRegularised", "RelaxLoss"]

_ALMOST_SURE = 1.0 - 1e-12  # float64 cannot tell entropies of surer predictions


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Defence:
    """An objective around another."""

    objective: Objective = CrossEntropy()

    def __post_init__(self) -> None:
        check_objective("objective", self.objective)

    @property
    def needs_attack(self) -> bool:
        """Whether the inner objective looks at adversarial examples."""
        return getattr(self.objective, "needs_attack", True)

    @property
    def couples_examples(self) -> bool:
        """Whether the inner objective joins the examples of a batch, which a private round refuses."""
        return getattr(self.objective, "couples_examples", False)

    def initial_state(self) -> dict[str, Any]:
        """The variables that the inner objective has a trainer keep."""
        return getattr(self.objective, "initial_state", dict)()


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class RelaxLoss(_Defence):
    """Keeps the mean loss of a batch at a level, so that members are no better fitted than others.

    Below the level, even epochs ascend the loss, and odd ones ascend it for examples that are classified correctly and
    flatten the predictions of the others: their targets keep the true class's probability and share the rest evenly.
    Above the level it is the inner objective.

    Attributes:
        objective: the inner objective.
        alpha: level of the loss, > 0 (the authors: 1 for CIFAR-10).
        upper: largest probability of the true class in a flattened target, in (0, 1].
        period: updates an epoch, at least the n + m of a round, which a trainer checks: updates are counted at the
            start of a round, and shorter epochs would not alternate. The authors: a pass over the data.

    Example:
        >>> objective = RelaxLoss(alpha=0.5, period=200)

    Reference:
        Chen, Yu and Fritz, "RelaxLoss: defending membership inference attacks without losing utility", ICLR 2022,
        algorithm 1, and its published code.
    """

    alpha: float = 1.0
    upper: float = 1.0
    period: int = 400

    @property
    def couples_examples(self) -> bool:
        """True: by the mean of a batch."""
        return True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha, "It is the level of the loss, e.g. 1.0.")
        check_part("upper", self.upper, "It is a probability, e.g. 1.0.")
        check_count("period", self.period, 1, "It is the number of updates in an epoch.")

    def check_ratio(self, ratio: Ratio) -> None:
        """Raises `ValueError` unless a round fits into an epoch."""
        if self.period < ratio.updates_per_round:
            raise ValueError(
                f"`period` must be at least the {ratio.updates_per_round} updates of a round, at whose start epochs "
                f"are told. Received: period={self.period} with ratio {ratio}. Give the updates of a pass over the "
                "data."
            )

    def __call__(
        self, logits_fn: LogitsFn | TrainingLogits, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if not isinstance(logits_fn, TrainingLogits):
            raise ValueError(
                "`RelaxLoss` tells epochs by the updates of a trainer. Received: a function in place of the "
                "`types.TrainingLogits` of a trainer. Use it as the `objective` of `AdversarialTraining`."
            )
        loss, logits = self.objective(logits_fn, x_nat, x, y)
        above = tf.stop_gradient(global_mean(loss)) > self.alpha
        is_even = logits_fn.updates // self.period % 2 == 0
        ascent = tf.where(above, loss - self.alpha, self.alpha - loss)  # their mean is |mean - alpha|
        flattening = tf.cast(self._flattening(y, logits), loss.dtype)
        return tf.where(is_even, ascent, tf.where(above, loss, flattening - loss)), logits

    def _flattening(self, y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """The loss of the flattened target; 0 for examples that are classified correctly."""
        logits = tf.cast(logits, tf.float32)
        num_classes, classes = logits.shape[-1], class_numbers(y)
        true = tf.gather(tf.nn.softmax(logits), classes, batch_dims=1)
        kept = tf.minimum(true, self.upper)[:, None]
        rows = tf.one_hot(classes, num_classes)
        target = rows * kept + (1.0 - rows) * (1.0 - kept) / (num_classes - 1)
        wrong = tf.argmax(logits, axis=-1) != tf.cast(classes, tf.int64)
        return tf.where(wrong, -tf.reduce_sum(target * tf.nn.log_softmax(logits), axis=-1), 0.0)


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvexConcave(_Defence):
    """Adds a concave loss of the true class's probability, whose slope does not fade, so that losses spread widely.

    The loss is `share * inner - (1 - share) * exp(p_y)`.

    Attributes:
        objective: the inner objective.
        share: of the inner objective, in (0, 1].

    Example:
        >>> loss, logits = ConvexConcave(share=0.5)(network, x, x, y)

    Reference:
        Liu et al., "Mitigating privacy risk in membership inference by convex-concave loss", ICML 2024, eq. (8).
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_part("share", self.share, "It is the inner objective's, e.g. 0.5.")

    def __call__(
        self, logits_fn: LogitsFn, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        loss, logits = self.objective(logits_fn, x_nat, x, y)
        true = tf.cast(tf.exp(-cross_entropy(class_numbers(y), logits)), loss.dtype)
        return self.share * loss - (1.0 - self.share) * tf.exp(true), logits


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class EntropyRegularised(_Defence):
    """Soft labels of high entropy, and a reward for predictions of high entropy: the training half of HAMP.

    The inner objective sees labels whose true class is as probable as the entropy allows and whose rest is even; of its
    loss `weight` times the entropy of the prediction is taken.

    Attributes:
        objective: the inner objective.
        num_classes: how many classes there are, >= 2.
        entropy: of the labels, as a share of the largest, log(num_classes), in [0, 1).
        weight: of the predictions' entropy in nats, >= 0. The authors' loss averages over classes, so their .001 for
            C classes is .001 * C here.

    Example:
        >>> objective = EntropyRegularised(num_classes=10, entropy=0.9, weight=0.01)

    Reference:
        Chen and Pattabiraman, "Overconfidence is a dangerous thing: mitigating membership inference attacks by
        enforcing less confident prediction", NDSS 2024, sections 4.2 and 4.3.
    """

    num_classes: int
    entropy: float = 0.95
    weight: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("num_classes", self.num_classes, 2, "It is how many classes there are.")
        check_share("entropy", self.entropy)
        check_positive("weight", self.weight, "It weighs the entropy of predictions, e.g. 0.01.", or_0=True)

    @property
    def confidence(self) -> float:
        """The probability of the true class in the labels."""
        wanted, most = self.entropy * math.log(self.num_classes), self.num_classes - 1

        def excess(true: float) -> float:
            rest = 1.0 - true
            return float(-true * np.log(true) - rest * np.log(rest / most) - wanted)

        if excess(_ALMOST_SURE) >= 0:
            return 1.0
        return float(scipy.optimize.brentq(excess, 1.0 / self.num_classes, _ALMOST_SURE))

    def __call__(
        self, logits_fn: LogitsFn, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        rows = label_rows(y, self.num_classes)
        rest = (1.0 - self.confidence) / (self.num_classes - 1)
        loss, logits = self.objective(logits_fn, x_nat, x, rest + (self.confidence - rest) * rows)
        log_probabilities = tf.nn.log_softmax(tf.cast(logits, tf.float32))
        entropy = -tf.reduce_sum(tf.exp(log_probabilities) * log_probabilities, axis=-1)
        return loss - self.weight * tf.cast(entropy, loss.dtype), logits
