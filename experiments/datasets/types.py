"""Data sets in memory, and the check that every source passes."""

from typing import NamedTuple

import numpy as np

MOST_CLASSES = 100_000
"""A larger label is an identifier, not the number of a class."""


class Split(NamedTuple):
    """Images, float32 `(num, height, width, channels)` in the range asked for, and labels, int64 `(num,)`."""

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """A data set in memory: `train` has the members, from the view of membership inference, `test` the non-members.

    `name` labels figures measured on it; `num_classes` is that of the whole data set, also where a subset misses one.
    """

    name: str
    train: Split
    test: Split
    num_classes: int


def checked_split(
    pixels: np.ndarray,
    labels: np.ndarray,
    where: str,
    image_shape: tuple[int, ...] | None = None,
    num_classes: int = MOST_CLASSES,
) -> Split:
    """Gives a split of at least one image, of this shape if one is given, and one label below `num_classes` an image.

    Grey images need no axis of channels, and labels may stand in a column. What is not so raises `ValueError`; `where`
    says whose it is.
    """
    if pixels.ndim == 3:
        pixels = pixels[..., np.newaxis]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if pixels.ndim != 4 or not pixels.size or image_shape not in (None, pixels.shape[1:]):
        wanted = ", ".join(map(str, image_shape or ("height", "width", "channels")))
        raise ValueError(
            f"{where} must have the shape (num, {wanted}), with at least 1 image. Received: shape {pixels.shape}. "
            "Reshape the array, or give the original data."
        )
    if labels.dtype.kind not in "ui" or labels.shape != pixels.shape[:1]:
        raise ValueError(
            f"{where} must have one label an image, whole numbers. Received: images of shape {pixels.shape}, labels of "
            f"shape {labels.shape} and dtype {labels.dtype}. Save the numbers of the classes, not one-hot vectors."
        )
    wrong = (labels < 0) | (labels >= num_classes)
    if wrong.any():
        raise ValueError(
            f"{where} holds a label outside 0 .. {num_classes - 1}. Received: label {labels[wrong.argmax()]} of image "
            f"{wrong.argmax()}. Number the classes from 0."
        )
    return Split(pixels, labels)
