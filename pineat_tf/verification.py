"""Verified accuracy: the share of images that no noise of a radius can change the prediction of, by proof."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from pineat_tf.bounds.propagation import least_margins
from pineat_tf.checks import check_batch, check_bounds, check_epsilon, check_network, data_errors_as_value_errors
from pineat_tf.data import Data, as_batches
from pineat_tf.heads import check_logits_head
from pineat_tf.progress import Bar, Verbose
from pineat_tf.statistics import Interval, clopper_pearson
from pineat_tf.threat import ThreatModel
from pineat_tf.tracing import graph
from pineat_tf.types import Attack, Bounds

__all__ = ["Verification", "check_not_below_proof", "verify"]


@dataclasses.dataclass(frozen=True, eq=False)
class Verification:
    """What interval bounds prove of a network's predictions.

    Attributes:
        epsilon: L-inf radius, on the scale of the pixels.
        bounds: the range that pixels stay in, or None for no limits.
        verified: for each image whether it is classified correctly at every point of the ball. Booleans of shape
            `(num,)`. False says that there is no proof, and not that there is an adversarial example.

    Example:
        >>> low, high = verify(network, (x_test, y_test), 0.01).interval()
    """

    epsilon: float
    bounds: Bounds | None
    verified: np.ndarray

    @property
    def accuracy(self) -> float:
        """The verified accuracy: no attack within the radius leaves less than this, up to rounding."""
        return float(self.verified.mean())

    def interval(self, *, confidence: float = 0.95) -> Interval:
        """The exact binomial interval of the verified accuracy on images from where these came."""
        return clopper_pearson(int(self.verified.sum()), len(self.verified), confidence=confidence)

    def to_dict(self) -> dict:
        """The record in JSON's own types: radius, accuracy, its 95 % interval and the number of images."""
        return {
            "epsilon": self.epsilon,
            "bounds": self.bounds and list(self.bounds),
            "accuracy": self.accuracy,
            "interval": list(self.interval()),
            "num_examples": len(self.verified),
        }


def verify(
    network: keras.Model,
    data: Data,
    epsilon: float,
    *,
    bounds: Bounds | None = (0.0, 1.0),
    batch_size: int = 256,
    verbose: Verbose = 0,
) -> Verification:
    """Proves robustness by interval bounds: for which images no noise within the radius changes the prediction.

    It costs about two forward passes, and is worth something only for networks that were trained for it
    (`objectives.IntervalBounds`): of others, the intervals grow from layer to layer and nothing is proved.

    Args:
        network: sequential or functional, of layers that `bounds.interval` knows; it returns logits, or one logit or
            sigmoid.
        data: images and labels, in any structure of `pineat_tf.data`.
        epsilon: L-inf radius on the scale of the pixels, >= 0.
        bounds: range of the pixels, or None for no limits.
        batch_size: images at once, where the data is not batched.
        verbose: Keras' progress bar: "auto" or 1 for a bar, 2 for a line at the end, 0 for nothing.

    Returns:
        Which images are verified.

    Raises:
        ValueError: if a layer has no rule, the network returns probabilities, or images or labels are not as they
            must be.

    Example:
        >>> verify(network, (x_test, y_test), 0.01).accuracy <= predict_logits(network, (x_test, y_test)).accuracy
        True

    Reference:
        Gowal et al., "On the effectiveness of interval bound propagation for training verifiably robust models", 2018.
    """
    check_network(network)
    check_bounds(bounds)
    check_epsilon(epsilon, or_0=True)
    steps: dict[tuple, Callable] = {}
    verified: list[np.ndarray] = []
    batches = as_batches(data, batch_size, network=network)
    bar, done = Bar(verbose, "verified", batches.num), 0
    with data_errors_as_value_errors():
        for x, y in batches:
            specs = tuple(tf.TensorSpec([None, *part.shape[1:]], part.dtype) for part in (x, y))
            if specs not in steps:
                check_batch(x, y, bounds=bounds)
                steps[specs] = _step(network, specs, check_logits_head(network, x), epsilon, bounds)
            verified.append(steps[specs](x, y).numpy())
            done += len(verified[-1])
            bar.update(done, sum(map(np.count_nonzero, verified)) / done)
    bar.end()
    if not verified:
        raise ValueError("There are no images to verify. Received: a dataset of 0 batches, or a generator again.")
    return Verification(float(epsilon), bounds and (float(bounds[0]), float(bounds[1])), np.concatenate(verified))


def check_not_below_proof(
    network: keras.Model, attack: Attack, robust_accuracy: float, verification: Verification
) -> None:
    """Checks that an attack leaves at least what is proved, where it keeps to the ball and the range of the proof.

    A proof is about the weights in float32, so that networks that compute in another precision are not held to it.

    Raises:
        RuntimeError: if the attack leaves less, which contradicts a theorem: bounds or attack are wrong.

    Example:
        >>> check_not_below_proof(network, attack, 0.7, verify(network, (x, y), attack.epsilon))
    """
    threat = ThreatModel.of(attack)
    inside = threat.epsilon is not None and threat.epsilon <= verification.epsilon * (1 + 1e-6)
    limits = verification.bounds
    if limits is not None:
        inside = inside and threat.limits is not None and limits[0] <= threat.limits[0] <= threat.limits[1] <= limits[1]
    computes_in = {layer.compute_dtype for layer in (network, *network.layers)}
    if inside and computes_in <= {"float32", "float64"} and robust_accuracy < verification.accuracy:
        raise RuntimeError(
            f"An attack left an accuracy of {robust_accuracy:.6f} on images of which {verification.accuracy:.6f} are "
            f"proved to withstand every noise of L-inf radius {verification.epsilon:g}. Received: attack={attack!r}. A "
            "layer's rule in `pineat_tf.bounds`, or the attack, is wrong; please report it."
        )


def _step(
    network: keras.Model, specs: tuple, num_classes: int | None, epsilon: float, bounds: Bounds | None
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        images, classes = check_batch(x, y, bounds=bounds, num_classes=num_classes)
        margins = least_margins(network, images, classes, epsilon, bounds)
        return tf.math.count_nonzero(margins > 0, axis=-1) == margins.shape[-1] - 1

    return graph(step, *specs)
