"""A directory of image files, one directory a class, looked into by Pillow.

PNG and JPEG are decoded by TensorFlow, as Keras does it: it refuses damage that Pillow passes over, and its fast
arithmetic of JPEG, which the recorded runs have, differs from Pillow's by up to 8 of 255.
"""

import concurrent.futures
import math
import os
import warnings

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from experiments.datasets.reading import check_can_hold, reading
from experiments.datasets.types import Dataset, Split

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
"""Files that are read, upper or lower case: those of `keras.utils.image_dataset_from_directory`."""

_FORMATS = ("PNG", "JPEG", "BMP", "GIF")
_MOST_PIXELS = 4096  # a side
_MOST_FILE_BYTES = 64 << 20
_GREY, _COLOUR = ("1", "L", "I", "I;16"), ("P", "RGB")


def load_image_folder(root: str) -> Dataset:
    """Reads `train/<class>/*` and `test/<class>/*`; classes are numbered in sorted order."""
    files = {split: _scan_split(root, split) for split in ("train", "test")}
    if different := sorted(set(files["train"]) ^ set(files["test"])):
        raise ValueError(
            f"`train` and `test` must have the same classes. Received: only in one of them {different}. Add or remove "
            "these directories."
        )
    paths = _flat(files)
    with reading(root):
        sizes = [os.path.getsize(path) for path in paths]
    if max(sizes) > _MOST_FILE_BYTES:
        raise ValueError(
            f"{paths[sizes.index(max(sizes))]!r} is too long for an image. Received: {max(sizes)} bytes, at most "
            f"{_MOST_FILE_BYTES} are read. Replace or remove the file."
        )
    with warnings.catch_warnings(), concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # of odd metadata
        shape = (*_read_image(paths[0], None).shape[:2], 3)
        check_can_hold(repr(root), len(paths) * math.prod(shape), sum(sizes))
        pixels = np.empty((len(paths), *shape), np.uint8)

        def fill(place: np.ndarray, path: str) -> bool:
            image = _read_image(path, shape[:2])
            place[:] = image
            return image.shape[2] == 1

        is_grey = all(list(pool.map(fill, pixels, paths)))
    num = sum(map(len, files["train"].values()))
    images = pixels[..., :1] if is_grey else pixels
    train, test = (
        Split(part, np.repeat(np.arange(len(classes)), [len(of_class) for of_class in classes.values()]))
        for part, classes in zip((images[:num], images[num:]), files.values())
    )
    return Dataset(os.path.basename(root) or "image_folder", train, test, len(files["train"]))


def image_paths(root: str) -> list[str]:
    """The files that `load_image_folder` reads, in its order."""
    return _flat({split: _scan_split(root, split) for split in ("train", "test")})


def _flat(files: dict[str, dict[str, list[str]]]) -> list[str]:
    return [path for classes in files.values() for of_class in classes.values() for path in of_class]


def _scan_split(root: str, split: str) -> dict[str, list[str]]:
    """The image files of each class of a split, both sorted; links are not followed."""
    folder, classes = os.path.join(root, split), {}
    for name in _scan(folder, os.DirEntry.is_dir) if split in _scan(root, os.DirEntry.is_dir) else ():
        names = _scan(os.path.join(folder, name), os.DirEntry.is_file)
        classes[name] = [os.path.join(folder, name, file) for file in names if file.lower().endswith(IMAGE_ENDINGS)]
    empty = [name for name, files in classes.items() if not files]
    if empty or not classes:
        raise ValueError(
            f"{root} must have a directory {split!r} with a directory for each class that has images in it. Received: "
            f"{f'no images in {empty}' if empty else 'no class'}. Put {', '.join(IMAGE_ENDINGS)} files there (symbolic "
            "links are not followed)."
        )
    return classes


def _scan(directory: str, kind) -> list[str]:
    """The names of a kind in a directory, sorted: no links, nothing hidden."""
    with reading(directory), os.scandir(directory) as entries:
        return sorted(e.name for e in entries if not e.name.startswith(".") and kind(e, follow_symlinks=False))


def _read_image(path: str, expected: tuple[int, int] | None) -> np.ndarray:
    """Reads an image file as uint8 of 3 channels, or of 1 if it is grey; of this height and width, if they are given.

    Nothing is decoded before its header states a size that can be.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if not 0 < min(image.size) <= max(image.size) <= _MOST_PIXELS:
                raise ValueError(f"its header states {image.size}, at most {_MOST_PIXELS} pixels a side are read")
            if expected is None or sorted(image.size) == sorted(expected):  # the camera may have lain on its side
                pixels = _pixels(image)
                shape = pixels.shape[:2]
            else:
                shape = image.size[::-1]
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
    if image.has_transparency_data:
        if image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
            raise ValueError("it is transparent, and what shows through is unknown; remove its transparency")
    elif image.mode not in (*_GREY, *_COLOUR):
        raise ValueError(f"its colours are {image.mode}, which look different on every device; save it as RGB")
    orientation = 1 if is_photo and "exif" not in image.info else image.getexif().get(0x0112, 1)
    if is_photo or image.format == "PNG":
        with open(image.filename, "rb") as file:
            pixels = tf.io.decode_image(file.read(), expand_animations=False).numpy()
        pixels = pixels[..., : 3 if pixels.shape[2] > 2 else 1]
    else:
        pixels = np.asarray(image.convert("L" if image.mode in _GREY else "RGB"))
    if orientation != 1:
        turned = Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
        turned.getexif()[0x0112] = orientation
        pixels = np.asarray(ImageOps.exif_transpose(turned))
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]
