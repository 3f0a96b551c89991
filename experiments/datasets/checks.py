"""Checks of what a data set was asked for with and of what its files hold, with errors that say how to mend it."""

import os

from experiments.datasets.types import Split


def required_path(data_dir: str | None, name: str, holds: str) -> str:
    """The absolute path, which no file system of TensorFlow reads as a URL; an error if None."""
    if data_dir is None:
        raise ValueError(f"The data set {name!r} needs `data_dir`. Received: data_dir=None. Give the path of {holds}.")
    return os.path.abspath(data_dir)


def check_directory(path: str) -> None:
    """Raises `ValueError` unless `path`, given as `data_dir`, is a directory."""
    if not os.path.isdir(path):
        raise ValueError(
            f"`data_dir` is not a directory. Received: data_dir={path!r}. "
            "Give one that exists, or make it first if data are to be downloaded into it."
        )


def checked_split(split: Split, image_shape: tuple[int, ...], num_classes: int, where: str) -> Split:
    """The split, if its arrays are what the data set promises.

    Args:
        split: images of any dtype `(num, *image_shape)`, labels of whole numbers `(num,)`.
        image_shape: height, width, channels.
        num_classes: labels are below it.
        where: the source, for the message.

    Returns:
        The split, unchanged.

    Raises:
        ValueError: if it has no images, or a shape, a count or a label is wrong.
    """
    images, labels = split
    if images.shape[1:] != image_shape:
        raise ValueError(
            f"{where} holds images of another size. Received: shape {images.shape}, "
            f"expected (num, {', '.join(map(str, image_shape))}). Give the original data."
        )
    if not len(images):
        raise ValueError(f"{where} must hold at least 1 image. Received: 0. Give a complete copy.")
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"{where} must hold one label an image. Received: images of shape {images.shape} "
            f"and labels of shape {labels.shape}. Take both from the same source."
        )
    wrong = (labels < 0) | (labels >= num_classes)
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(
            f"{where} holds a label outside 0 .. {num_classes - 1}. "
            f"Received: label {labels[first]} of image {first}. Number the classes from 0."
        )
    return split
