"""Data sets in memory, and the checks that every source passes."""

from typing import NamedTuple

import numpy as np

MOST_CLASSES = 100_000
"""A larger label is an identifier, not the number of a class."""


class Split(NamedTuple):
    """The images and labels of one part of a data set.

    Attributes:
        images: float32 `(num, height, width, channels)`, in [0, 1] unless another range was asked for.
        labels: int64 `(num,)`, 0 .. num_classes - 1.
    """

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """A data set in memory.

    Attributes:
        name: the name that figures measured on it are labelled with.
        train: the members, from the view of membership inference.
        test: the non-members.
        num_classes: how many classes the whole data set has, also where a subset misses one.
    """

    name: str
    train: Split
    test: Split
    num_classes: int


def checked_split(split: Split, image_shape: tuple[int, ...], num_classes: int, where: str) -> Split:
    """Gives the split back if it holds at least one image of this shape, and one label below `num_classes` an image.

    Raises:
        ValueError: if it does not; `where` says whose it is.
    """
    images, labels = split
    if images.shape[1:] != image_shape:
        raise ValueError(
            f"{where} holds images of another size. Received: shape {images.shape}, expected "
            f"(num, {', '.join(map(str, image_shape))}). Give the original data."
        )
    if not len(images):
        raise ValueError(f"{where} must hold at least 1 image. Received: 0. Give a complete copy.")
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"{where} must hold one label an image. Received: images of shape {images.shape} and labels of shape "
            f"{labels.shape}. Take both from the same source."
        )
    wrong = (labels < 0) | (labels >= num_classes)
    if wrong.any():
        raise ValueError(
            f"{where} holds a label outside 0 .. {num_classes - 1}. Received: label {labels[wrong.argmax()]} of image "
            f"{wrong.argmax()}. Number the classes from 0."
        )
    return split
