"""A directory of image files, one directory a class, looked into by Pillow.

PNG and JPEG are decoded by TensorFlow, as Keras does it: it refuses damage that Pillow passes over, and its fast
arithmetic of JPEG, which the recorded runs have, differs from Pillow's by up to 8 of 255.
"""

import concurrent.futures
import math
import os
import warnings
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from experiments.datasets.reading import check_can_hold, reading
from experiments.datasets.types import Dataset, Split
from pineat_tf import accelerate

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
"""Files that are read, upper or lower case: those of `keras.utils.image_dataset_from_directory`."""

_FORMATS, _GREY, _COLOUR = ("PNG", "JPEG", "BMP", "GIF"), ("1", "L", "I", "I;16"), ("P", "RGB")
_MOST_PIXELS, _MOST_FILE_BYTES, _ORIENTATION = 4096, 64 << 20, 0x0112  # pixels a side


def load_image_folder(root: str) -> Dataset:
    """Reads `train/<class>/*` and `test/<class>/*`; classes are numbered in sorted order."""
    found = image_files(root)
    paths = [path for classes in found for files in classes for path in files]
    with warnings.catch_warnings(), concurrent.futures.ThreadPoolExecutor(len(accelerate.cores())) as pool:
        warnings.simplefilter("ignore")  # of odd metadata
        shape = _read_image(paths[0], None).shape[:2]
        check_can_hold(repr(root), 3 * len(paths) * math.prod(shape), sum(map(os.path.getsize, paths)))
        images = list(pool.map(lambda path: _read_image(path, shape), paths))
    channels = max(image.shape[2] for image in images)
    pixels = np.stack([np.broadcast_to(image, (*shape, channels)) for image in images])
    labels = [np.repeat(range(len(classes)), [*map(len, classes)]) for classes in found]
    splits = map(Split, np.split(pixels, [len(labels[0])]), labels)
    return Dataset(os.path.basename(root) or "image_folder", *splits, len(found[0]))


def image_files(root: str) -> list[list[list[str]]]:
    """The image files of each class of each split, all sorted: no links, nothing hidden."""

    def names(kind: Callable, *parts: str) -> list[str]:
        directory = os.path.join(root, *parts)
        with reading(directory), os.scandir(directory) as entries:
            return sorted(e.name for e in entries if not e.name.startswith(".") and kind(e, follow_symlinks=False))

    found, problems = [], []
    for split in ("train", "test"):
        classes = names(os.DirEntry.is_dir, split) if split in names(os.DirEntry.is_dir) else []
        found.append({name: names(os.DirEntry.is_file, split, name) for name in classes})
        for name, files in found[-1].items():
            paths = [os.path.join(root, split, name, file) for file in files if file.lower().endswith(IMAGE_ENDINGS)]
            found[-1][name] = paths
            problems += [] if paths else [f"no images in {name!r} of {split!r}"]
        problems += [] if classes else [f"no class in {split!r}"]
    problems += [f"{name!r} in one of them only" for name in sorted(set(found[0]) ^ set(found[1]))]
    if problems:
        raise ValueError(
            f"{root} must have directories 'train' and 'test' with the same classes: directories with images in them, "
            f"{', '.join(IMAGE_ENDINGS)} (symbolic links are not followed). Received: {'; '.join(problems)[:1000]}."
        )
    return [list(classes.values()) for classes in found]


def _read_image(path: str, expected: tuple[int, int] | None) -> np.ndarray:
    """Reads an image file as uint8 of 3 channels, or of 1 if it is grey; of this height and width, if they are given.

    Nothing is decoded before its header states a size that can be.
    """
    try:
        if os.path.getsize(path) > _MOST_FILE_BYTES:
            raise ValueError(f"it is too long for an image: more than {_MOST_FILE_BYTES} bytes")
        with Image.open(path, formats=_FORMATS) as image:
            if not 0 < min(image.size) <= max(image.size) <= _MOST_PIXELS:
                raise ValueError(f"its header states {image.size}, at most {_MOST_PIXELS} pixels a side are read")
            shape, pixels = image.size[::-1], None
            if expected is None or sorted(shape) == sorted(expected):  # the camera may have lain on its side
                pixels = _pixels(image)
                shape = pixels.shape[:2]
    except Exception as error:  # Pillow documents no set of errors
        raise ValueError(
            f"{path!r} could not be decoded as an image. Received: {type(error).__name__}: "
            f"{' '.join(str(error).split())}. Replace or remove the file."
        ) from error
    if expected is not None and shape != expected:
        raise ValueError(
            f"All images must have one size. Received: (height, width) = {shape} in {path!r}, expected {expected}. "
            "Resize it."
        )
    return pixels


def _pixels(image: Image.Image) -> np.ndarray:
    """The picture as a viewer shows it: palette looked up, turned as its metadata says."""
    is_photo = image.format in ("JPEG", "MPO")  # of which a camera's may hold several sizes
    if getattr(image, "is_animated", False) and not is_photo:
        raise ValueError("it is animated, and has no one picture")
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise ValueError("it is transparent, and what shows through is unknown; remove its transparency")
    if not image.has_transparency_data and image.mode not in (*_GREY, *_COLOUR):
        raise ValueError(f"its colours are {image.mode}, which look different on every device; save it as RGB")
    orientation = 1 if is_photo and "exif" not in image.info else image.getexif().get(_ORIENTATION, 1)
    if is_photo or image.format == "PNG":
        with open(image.filename, "rb") as file:
            pixels = tf.io.decode_image(file.read(), expand_animations=False).numpy()
        pixels = pixels[..., : 3 if pixels.shape[2] > 2 else 1]
    else:
        pixels = np.asarray(image.convert("L" if image.mode in _GREY else "RGB"))
    if orientation != 1:
        turned = Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
        turned.getexif()[_ORIENTATION] = orientation
        pixels = np.asarray(ImageOps.exif_transpose(turned))
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]
