"""A directory of image files, one directory a class."""

import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from experiments.datasets.checks import check_directory, required_path
from experiments.datasets.reading import check_can_hold, read_errors_as_value_errors
from experiments.datasets.types import Dataset, Split

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp")
"""Files that are read, upper or lower case."""

_DECODE_BATCH = 256
_BATCH_BYTES = 32 << 20
_MOST_PIXELS = 4096  # a side
_MOST_FILE_BYTES = 64 << 20


def load_image_folder(data_dir: str | None) -> Dataset:
    """Reads `train/<class>/*` and `test/<class>/*`; classes are numbered in sorted order."""
    root = required_path(data_dir, "image_folder", "a directory with train/<class> and test/<class>")
    check_directory(root)
    train_files, test_files = _scan_split(root, "train"), _scan_split(root, "test")
    _check_same_classes(train_files, test_files)
    paths = [*_paths(train_files), *_paths(test_files)]
    stored = _stored_bytes(root, paths)
    shape = _shape_of(paths[0])
    check_can_hold(repr(root), len(paths) * math.prod(shape), stored)
    train, train_gray = _decode_split(train_files, shape)
    test, test_gray = _decode_split(test_files, shape)
    if train_gray and test_gray:
        train, test = (s._replace(images=s.images[..., :1]) for s in (train, test))
    return Dataset(os.path.basename(root) or "image_folder", train, test, len(train_files))


def _scan_split(root: str, split: str) -> dict[str, list[str]]:
    """The image files of each class of a split, both sorted; links are not followed."""
    classes = {}
    if split in _scan(root, os.DirEntry.is_dir):
        folder = os.path.join(root, split)
        for name in _scan(folder, os.DirEntry.is_dir):
            files = _scan(os.path.join(folder, name), os.DirEntry.is_file)
            images = [file for file in files if file.lower().endswith(IMAGE_ENDINGS)]
            classes[name] = [os.path.join(folder, name, image) for image in images]
    empty = [name for name, files in classes.items() if not files]
    if empty or not classes:
        raise ValueError(
            f"{root} must have a directory {split!r} with a directory for each class that has "
            f"images in it. Received: {f'no images in {empty}' if empty else 'no class'}. Put "
            f"{', '.join(IMAGE_ENDINGS)} files there (symbolic links are not followed)."
        )
    return classes


def _scan(directory: str, kind: Callable[..., bool]) -> list[str]:
    """The names of a kind in a directory, sorted: no links, nothing hidden."""
    with read_errors_as_value_errors(directory), os.scandir(directory) as entries:
        return sorted(e.name for e in entries if not e.name.startswith(".") and kind(e, follow_symlinks=False))


def _check_same_classes(train: dict[str, Any], test: dict[str, Any]) -> None:
    different = sorted(set(train) ^ set(test))
    if different:
        raise ValueError(
            "`train` and `test` must have the same classes. "
            f"Received: only in one of them {different}. Add or remove these directories."
        )


def _paths(files: dict[str, list[str]]) -> list[str]:
    return [path for of_class in files.values() for path in of_class]


def _stored_bytes(root: str, paths: list[str]) -> int:
    """How long the files are together; refuses one that is too long for an image."""
    with read_errors_as_value_errors(root):
        sizes = [os.path.getsize(path) for path in paths]
    longest = max(sizes)
    if longest > _MOST_FILE_BYTES:
        raise ValueError(
            f"{paths[sizes.index(longest)]!r} is too long for an image. Received: {longest} bytes, at most "
            f"{_MOST_FILE_BYTES} are read. Replace or remove the file."
        )
    return sum(sizes)


def _decode(path: tf.Tensor, shape: tuple[int, ...] | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads an image file: uint8 of 3 channels (grey is repeated), and how many it has itself."""
    content = tf.io.read_file(path)
    stated = _stated_size(content)
    most = (_MOST_PIXELS, _MOST_PIXELS) if shape is None else shape[:2]
    fits = tf.reduce_all((stated > 0) & (stated <= most))
    wanted = ["The file must be a PNG, JPEG or BMP image of at most", most, "pixels, but its header states", stated]
    with tf.control_dependencies([tf.debugging.Assert(fits, wanted)]):
        pixels = tf.io.decode_image(content, expand_animations=False)
    channels = tf.shape(pixels)[2]
    return tf.tile(pixels, [1, 1, tf.where(channels == 1, 3, 1)]), channels


def _stated_size(content: tf.Tensor) -> tf.Tensor:
    """Height and width by the header of a PNG, JPEG or BMP file; 0 for any other (a GIF has many images)."""
    head = tf.io.decode_raw(
        content, tf.uint8, fixed_length=26
    )  # of a shorter file, with zeros: no op fails by its bytes

    def pair(octets: tf.Tensor) -> tf.Tensor:
        return tf.bitcast(tf.reshape(octets, (2, 4)), tf.int32)

    kinds = {
        b"\x89PNG": lambda: pair(head[16:24][::-1]),  # width and height, big-endian
        b"BM": lambda: tf.abs(pair(head[18:26])[::-1]),  # little-endian, the height negative if rows run downwards
        b"\xff\xd8\xff": lambda: tf.image.extract_jpeg_shape(content)[:2],
    }
    cases = [(tf.reduce_all(head[: len(magic)] == list(magic)), size) for magic, size in kinds.items()]
    return tf.case(cases, default=lambda: tf.zeros(2, tf.int32))


def _shape_of(path: str) -> tuple[int, ...]:
    """The shape that the first image sets for all."""
    try:
        height, width, _ = _decode(os.fsencode(path), None)[0].shape
    except tf.errors.OpError as error:
        raise _unreadable_image(path, error) from error
    return height, width, 3


def _decode_split(files: dict[str, list[str]], shape: tuple[int, ...]) -> tuple[Split, bool]:
    """Decodes all images of a split in parallel, into one array of bytes.

    Args:
        files: the paths of each class, in the order of the classes.
        shape: height, width and 3, of every image.

    Returns:
        The split, images uint8, and whether all of its files are grey.

    Raises:
        ValueError: if an image cannot be read or has another shape; names the file.
    """
    paths = _paths(files)
    labels = np.repeat(np.arange(len(files)), [len(of_class) for of_class in files.values()])
    pixels, grey, done = np.empty((len(paths), *shape), np.uint8), True, 0
    try:
        for images, channels in _decoded_batches(paths, shape):
            pixels[done : done + len(channels)] = images
            grey = grey and bool((channels == 1).all())
            done += len(channels)
    except tf.errors.OpError as error:  # it does not say which file: look for it, from here on
        raise _culprit(paths[done:], shape, error) from error
    return Split(pixels, labels), grey


def _decoded_batches(paths: list[str], shape: tuple[int, ...]) -> Iterator[Any]:
    """Batches of images `(batch, *shape)` and their channels, in the order of the paths."""

    def decode(path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels, channels = _decode(path, shape)
        return tf.ensure_shape(pixels, shape), channels

    files = tf.data.Dataset.from_tensor_slices([os.fsencode(path) for path in paths])
    decoded = files.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batch_size = max(1, min(_DECODE_BATCH, _BATCH_BYTES // math.prod(shape)))
    return decoded.batch(batch_size).prefetch(1).as_numpy_iterator()


def _culprit(paths: list[str], shape: tuple[int, ...], failure: Exception) -> ValueError:
    """The error that names the first file that cannot be read or has another shape."""
    for path in paths:
        try:
            received = tuple(_decode(os.fsencode(path), None)[0].shape)
        except tf.errors.OpError as error:
            return _unreadable_image(path, error)
        if received != shape:
            return ValueError(
                "All images must have one size, and 3 channels or be grey (1 channel). Received: "
                f"(height, width, channels) = {received} in {path!r}, expected {shape}. "
                "Resize it, or remove its transparency."
            )
    return ValueError(f"The images could not be read. Received: {failure}. Try again.")


def _unreadable_image(path: str, error: Exception) -> ValueError:
    return ValueError(
        f"{path!r} could not be decoded as an image. Received: {' '.join(str(error).split())}. "
        "Replace or remove the file."
    )
