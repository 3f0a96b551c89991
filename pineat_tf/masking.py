"""Signs that a network's robustness is apparent only: gradients that mislead attacks, and other ways to be fooled."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pineat_tf import losses
from pineat_tf.attacks import pgd
from pineat_tf.attacks.attacked import AttackedNetwork
from pineat_tf.attacks.parts import NoGradientError
from pineat_tf.checks import check_batch
from pineat_tf.heads import check_logits_head, with_class_logits
from pineat_tf.tracing import graph
from pineat_tf.types import Bounds, Seed

__all__ = ["BLACK_BOX", "check_figures", "check_network"]

BLACK_BOX = ("square",)
"""Names of attacks that see logits only."""

_FEW_STEPS, _MANY_STEPS = 10, 50
_TOLERATED = 0.02  # of the sample, by which many steps may be weaker than few, or gradients may be 0
_LEFT_BY_WHITE_BOX = 0.005  # of the images, that black-box attacks alone may fool
_WIDE = 0.5  # of the pixel range: every image can become grey


def check_network(
    network: keras.Model,
    x: Any,
    y: Any,
    *,
    epsilon: float,
    norm: str = "linf",
    bounds: Bounds | None = (0.0, 1.0),
    seed: Seed = 0,
) -> tuple[str, ...]:
    """Looks for signs in a network, on a sample of images, that gradient attacks are misled.

    Args:
        network: gives logits, or one logit or sigmoid; it runs in inference mode.
        x: images, shape `(num, ...)`.
        y: labels, class numbers of shape `(num,)` or rows.
        epsilon: radius > 0 of the attack that is tried.
        norm: of the radius, "linf" or "l2".
        bounds: the pixel range, or None for no limits.
        seed: randomness of the attack that is tried.

    Returns:
        A sentence for each sign: outputs that change from call to call, gradients that are 0, many attack steps weaker
        than few.

    Reference:
        Athalye, Carlini and Wagner, "Obfuscated gradients give a false sense of security", ICML 2018, section 3.1;
        Croce et al., "Evaluating the adversarial robustness of adaptive test-time defenses", ICML 2022, on
        randomness.

    Raises:
        ValueError: if the outputs are probabilities, or images or labels are not as they must be.

    Example:
        >>> check_network(network, x, y, epsilon=0.1)
        ()
    """
    x, y = check_batch(x, y, bounds=bounds, num_classes=check_logits_head(network, x))
    y = losses.class_numbers(y)

    logits_fn = with_class_logits(lambda images: network(images, training=False))

    def look() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        seen = AttackedNetwork(logits_fn, x, y, bounds)
        try:  # what attacks ascend: what half precision rounds to 0 there, they do not lack
            _, gradient = seen.value_and_gradient(lambda x: losses.unfading_cross_entropy(y, seen(x)), seen.x)
        except NoGradientError:
            gradient = None
        return logits_fn(x), logits_fn(x), gradient

    def attacked() -> list[tf.Tensor]:
        attacks = (
            pgd(epsilon=epsilon, step_size=2.5 * epsilon / steps, num_steps=steps, norm=norm, bounds=bounds)
            for steps in (_FEW_STEPS, _MANY_STEPS)
        )
        return [tf.argmax(logits_fn(attack(logits_fn, x, y, seed=seed)), axis=1) for attack in attacks]

    logits, again, gradient = graph(look)()
    right = np.argmax(logits, axis=1) == y.numpy()
    signs = [
        _randomness(logits.numpy(), again.numpy()),
        _no_gradient(None if gradient is None else gradient.numpy(), right),
    ]
    if gradient is not None:
        signs.append(_weaker_by_steps(*(float(np.mean(part.numpy() == y.numpy())) for part in graph(attacked)())))
    return tuple(sign for sign in signs if sign)


def check_figures(
    fooled_by: np.ndarray, attacks: Sequence[str], *, norm: str, epsilon: float, accuracy: float, bounds: Bounds | None
) -> tuple[str, ...]:
    """Looks for signs in the figures of an evaluation that attacks fail.

    Args:
        fooled_by: for each image the index in `attacks` of the attack that fooled the network, -1 for none.
        attacks: names, in the order in which they ran.
        norm: "linf" or "l2".
        epsilon: the largest radius.
        accuracy: that was left at this radius.
        bounds: the pixel range, or None for no limits.

    Returns:
        A sentence for each sign: images that black-box attacks alone fool, and accuracy that remains where every image
        can be changed into any other.

    Example:
        >>> fooled_by = np.array([1] * 30 + [-1] * 70)
        >>> signs = check_figures(
        ...     fooled_by, ["apgd_ce", "square"], norm="linf", epsilon=0.1, accuracy=0.7, bounds=(0, 1)
        ... )
        >>> len(signs)
        1
    """
    signs = []
    last_white_box = max((rank for rank, name in enumerate(attacks) if name not in BLACK_BOX), default=len(attacks))
    share = float(np.mean(fooled_by > last_white_box))  # images that all gradients left
    if share > _LEFT_BY_WHITE_BOX:
        signs.append(
            f"{share:.1%} of the images were fooled by a black-box attack alone: gradients may mislead the others. "
            "Attack with more restarts, other losses, or a method made for this network."
        )
    if norm == "linf" and bounds and epsilon >= _WIDE * (bounds[1] - bounds[0]) and accuracy > _TOLERATED:
        signs.append(
            f"the robust accuracy is {accuracy:.1%} at radius {epsilon:g}, where every pixel can become grey: it "
            "should be 0. The attacks fail on this network."
        )
    return tuple(signs)


def _randomness(logits: np.ndarray, again: np.ndarray) -> str:
    difference = float(np.abs(logits - again).max())
    if difference <= 1e-3 * max(1.0, float(np.abs(logits).max())):
        return ""
    return (
        f"two calls with the same images gave logits that differ by {difference:.3g}: the network is random, and what "
        "fools it once need not fool it again. Average its outputs, or attack the average."
    )


def _no_gradient(gradient: np.ndarray | None, right: np.ndarray) -> str:
    if gradient is None:
        return "the logits do not depend on the images by operations that have a gradient. Attack by black-box attacks."
    is_zero = (gradient.reshape(len(gradient), -1) == 0.0).all(axis=1) & right
    share = float(np.mean(is_zero))
    if share <= _TOLERATED:
        return ""
    return (
        f"the gradient by the images is exactly 0 at {share:.1%} of them: parts of the network have none there, as "
        "saturated activations and activations of 0. Attack by black-box attacks."
    )


def _weaker_by_steps(few: float, many: float) -> str:
    if many <= few + _TOLERATED:
        return ""
    return (
        f"{_MANY_STEPS} attack steps left an accuracy of {many:.1%}, {_FEW_STEPS} steps {few:.1%}: more steps should "
        "not be weaker. Gradients may mislead."
    )
