"""Label-only membership scores: how firmly a network holds on to the true class when the image is changed.

These attackers see which class is predicted and nothing else. What they ask is `bool` answers of shape
`(num, num_copies)`: is that copy of the image classified as its true class? Copy 0 is the image itself. Scores are
shares of copies, float64 in [0, 1], larger = more likely a member; 0 where the image itself is misclassified.

All take a network that gives logits, data as `pineat_tf.data` serves it (a dataset in a fixed order), and `batch_size`,
how many images are predicted at once where the data is arrays. They raise `ValueError` where network, data or options
are not as they must be.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pineat_tf.checks import check_batch, check_count, check_positive
from pineat_tf.data import Data
from pineat_tf.predictions import Predictions, Predictor
from pineat_tf.queries import check_same_order
from pineat_tf.seeds import fold
from pineat_tf.types import LogitsFn, Seed

__all__ = ["augmentation_answers", "augmentation_scores", "boundary_distance_scores", "noise_scores"]


def noise_scores(
    network: keras.Model,
    data: Data,
    *,
    noise: Callable[..., tf.Tensor],
    num_draws: int = 32,
    seed: Seed = 0,
    batch_size: int = 256,
) -> np.ndarray:
    """Scores each image by the share of its noisy copies that are classified as its true class.

    A cheap stand-in for the distance to the decision boundary: an image far from it withstands more noise. The noise
    should fool the network about every other time; the attacker tunes it on a network of his own.

    Args:
        network: gives logits, of which only the largest is used.
        data: images and labels.
        noise: makes a noisy copy, e.g. `queries.GaussianNoise(stddev=0.1)` or `queries.RandomInBall(epsilon=0.1)`.
        num_draws: noisy copies an image, >= 1; each is one pass over the data.
        seed: randomness of the noise.
        batch_size: images predicted at once.

    Example:
        >>> members = noise_scores(network, train, noise=GaussianNoise(stddev=0.1))
        >>> non_members = noise_scores(network, test, noise=GaussianNoise(stddev=0.1))

    Reference:
        Choquette-Choo et al., "Label-only membership inference attacks", ICML 2021: distance to the decision boundary,
        by robustness to random noise.
    """
    check_count("num_draws", num_draws, 1, "Each draw is one more query of every image.")
    predict, natural = Predictor(network, noise), Predictor(network)(data, batch_size=batch_size)
    noisy = (predict(data, seed=fold(seed, draw), batch_size=batch_size) for draw in range(num_draws))
    return _share_of_copies(_answers(itertools.chain([natural], noisy)))


def boundary_distance_scores(
    network: keras.Model,
    data: Data,
    *,
    attack_at: Callable[[float], Callable[..., tf.Tensor]],
    radii: Sequence[float],
    seed: Seed = 0,
    batch_size: int = 256,
) -> np.ndarray:
    """Scores each image by the largest radius up to which an attack does not fool the network.

    With a white-box attack it is what the exact distance to the decision boundary would tell, so it bounds from above
    what attackers by labels alone can learn from it; with random noise it is label-only itself.

    Args:
        network: gives logits.
        data: images and labels.
        attack_at: makes the attack of a radius.
        radii: rising, each > 0, on the scale of the pixels. Each is one graph and one pass over the data.
        seed: randomness of the attacks.
        batch_size: images predicted at once.

    Returns:
        Scores of shape `(num,)`: of the image itself and the radii, the share that come before the first one that fools
        the network. So `round(score * (len(radii) + 1)) - 1` radii are withstood.

    Example:
        >>> def attack_at(radius):
        ...     return pgd(epsilon=radius, step_size=radius / 4, num_steps=10)
        >>> boundary_distance_scores(network, train, attack_at=attack_at, radii=[0.01, 0.02, 0.05, 0.1])

    Reference:
        Choquette-Choo et al., ICML 2021: distance to the decision boundary.
    """
    radii = list(radii)
    for radius in radii:
        check_positive("radii", radius, "Give radii on the scale of the pixels, e.g. [0.01, 0.02, 0.05].")
    if not radii or not all(np.diff(radii) > 0):
        raise ValueError(f"`radii` must be rising, at least one. Received: radii={radii}. Sort them.")
    attacks = [None, *map(attack_at, radii)]
    attacked = (Predictor(network, attack)(data, seed=seed, batch_size=batch_size) for attack in attacks)
    return np.asarray(np.logical_and.accumulate(_answers(attacked), axis=1).mean(axis=1))


def augmentation_scores(
    network: keras.Model, data: Data, *, max_shift: int = 1, flip: bool = True, batch_size: int = 256
) -> np.ndarray:
    """Scores each image by the share of its shifted and flipped copies that are classified as its true class.

    Networks trained with augmentation were fitted to such copies of their members; others generalise to them less.

    Args:
        network: gives logits, of which only the largest is used.
        data: images of shape `(height, width, channels)` and labels.
        max_shift: d, how many pixels to shift at most, down and across together, >= 0.
        flip: show every copy mirrored left to right as well.
        batch_size: images predicted at once.

    Example:
        >>> augmentation_scores(network, train, max_shift=1)  # of 10 copies: 5 shifts, each also mirrored

    Reference:
        Choquette-Choo et al., ICML 2021: data augmentation.
    """
    return _share_of_copies(augmentation_answers(network, data, max_shift=max_shift, flip=flip, batch_size=batch_size))


def augmentation_answers(
    network: keras.Model, data: Data, *, max_shift: int = 1, flip: bool = True, batch_size: int = 256
) -> np.ndarray:
    """Asks which shifted and flipped copies of each image are classified as its true class.

    Shifts are all by i pixels down and j across with |i| + |j| <= d (the paper: = d, and none; the same for d = 1);
    pixels at the edge are repeated where the shift leaves a gap, as in the authors' code. Arguments are those of
    `augmentation_scores`.

    Returns:
        Booleans of shape `(num, num_copies)`, copy 0 the image itself: what the authors train a classifier on.
    """
    check_count("max_shift", max_shift, 0, "It is how many pixels the images are shifted at most.")
    copies = _copies(max_shift, flip)
    if len(copies) == 1:
        raise ValueError(
            "There must be something to change. Received: max_shift=0, flip=False. Give max_shift=1, or flip=True."
        )
    return _answers(_each_copy(network, data, copies, batch_size))


def _each_copy(
    network: keras.Model, data: Data, copies: Sequence[tuple[int, int, int]], batch_size: int
) -> Iterator[Predictions]:
    query = _Augmented()
    predict = Predictor(network, query)
    for copy in copies:
        query.copy.assign(copy)
        yield predict(data, batch_size=batch_size)


class _Augmented:
    """Shows a shifted copy. Which one is a variable, so that one graph serves all of them."""

    def __init__(self) -> None:
        self.copy = tf.Variable([0, 0, 0], dtype=tf.int32, trainable=False)

    def __call__(self, logits_fn: LogitsFn, x: tf.Tensor, y: tf.Tensor, *, seed: Seed = 0) -> tf.Tensor:
        x, _ = check_batch(x, y)
        if x.shape.rank != 4:
            raise ValueError(
                "Images must have shape (height, width, channels) to be shifted. "
                f"Received: shape {tuple(x.shape[1:])}. Use `noise_scores` for other data."
            )
        down, across, mirrored = tf.unstack(self.copy)
        columns = _shifted(x.shape[2], across)
        columns = tf.where(mirrored > 0, x.shape[2] - 1 - columns, columns)
        return tf.gather(tf.gather(x, _shifted(x.shape[1], down), axis=1), columns, axis=2)


def _shifted(length: int, shift: tf.Tensor) -> tf.Tensor:
    """The row that stands at each place after the shift; the first or last one in the gap."""
    return tf.clip_by_value(tf.range(length) - shift, 0, length - 1)


def _copies(max_shift: int, flip: bool) -> list[tuple[int, int, int]]:
    """Pixels down, pixels across, and 1 if mirrored; the image itself first."""
    reach = range(-max_shift, max_shift + 1)
    shifts = [(down, across) for down in reach for across in reach if abs(down) + abs(across) <= max_shift]
    copies = [(*shift, mirrored) for mirrored in range(1 + flip) for shift in shifts]
    return sorted(copies, key=lambda copy: copy != (0, 0, 0))


def _answers(copies: Iterable[Predictions]) -> np.ndarray:
    """The copies that are classified as the true class. One copy's logits are there at a time."""
    columns: list[Any] = []
    labels = None
    for predictions in copies:
        labels = check_same_order(predictions.labels, labels)
        columns.append(np.argmax(predictions.logits, axis=1) == labels)
    return np.stack(columns, axis=1)


def _share_of_copies(answers: np.ndarray) -> np.ndarray:
    return np.where(answers[:, 0], answers.mean(axis=1), 0.0)
