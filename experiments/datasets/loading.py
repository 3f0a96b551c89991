"""Loads images and labels: a data set by name, or what one word on a command line means."""

import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Sequence

import keras
import numpy as np

from experiments.datasets.image_folder import image_files, load_image_folder
from experiments.datasets.published import load_published, read_tfds
from experiments.datasets.reading import listed, read_arrays, reading
from experiments.datasets.types import Dataset, Split, checked_split
from pineat_tf.checks import check_bounds, check_choice, check_count
from pineat_tf.types import Bounds

SOURCES = (
    "fmnist:train, cifar10:test or digits:test, with :5000 for the subset that a run of that --train_size or "
    "--test_size takes; tfds:NAME:SPLIT, as in tfds:mnist:test[:1000]; FILE.npz with arrays x and y; or FILE.npz:train "
    "with arrays x_train and y_train"
)
"""The words that `load_source` takes."""

_TEST_DIGITS, _SPLIT_SEED, _SUBSET_SEED, _HALF_SEED, _POOL_SEED = 500, 0, 0, 1, 2
_SPLITS = ("train", "test")


def load(
    name: str,
    *,
    data_dir: str | None = None,
    train_size: int = 0,
    test_size: int = 0,
    pools_seed: int | None = None,
    bounds: Bounds | None = (0.0, 1.0),
) -> Dataset:
    """Loads a data set by name.

    `fmnist` and `cifar10` come from the first of: a prepared TensorFlow Datasets copy (in `data_dir` if given, else in
    TFDS' own directory); raw files in `data_dir`; for `fmnist`, the files of the Debian package; a TFDS download.
    `image_folder` reads `data_dir/{train,test}/<class>/*` (png, jpg, jpeg, bmp, gif; regular files, names with a
    leading dot left out); `npz` reads Keras' `x_train, y_train, x_test, y_test` from the file `data_dir`.

    A subset is the head of a permutation of the split by NumPy's seed 0: the same for every run, and a smaller one is
    part of a larger one. It is one of the *source's* order, and a TFDS copy of `fmnist` is ordered differently from
    the raw files: runs that are to share a subset must share the source.

    Args:
        name: one of `NAMES`.
        data_dir: a directory, for `npz` a file; not used by `digits`.
        train_size: how many training images to take; 0 takes all.
        test_size: the same for the test images.
        pools_seed: None takes the two splits as they are. A number draws both, disjoint and at random, from the
            training split: members and non-members that differ in nothing but membership. `test_size=0` then takes as
            many as the test split has, at most half of the training split, and `train_size=0` the rest.
        bounds: the range of the pixels. Whole numbers 0..255 are spread over it, but kept as they are where it
            reaches beyond 1; floating point in a file is kept as it is and must lie in it. None for any range.

    Returns:
        The data set, images in the range.

    Raises:
        ValueError: if the name is unknown, the data are missing or not what they should be, or a size is larger than
            the split.

    Example:
        >>> load("digits", train_size=100).train.images.shape
        (100, 8, 8, 1)
    """
    check_choice("name", name, NAMES)
    check_bounds(bounds)
    for what, size in (("train_size", train_size), ("test_size", test_size)):
        check_count(what, size, 0, "It is how many images to take; 0 takes all.")
    dataset = _LOADERS[name](_place(name, data_dir))
    if pools_seed is None:
        drawn, splits = _subsets(dataset, train_size, test_size), _SPLITS
    else:
        drawn, splits = _pools(dataset, train_size, test_size, pools_seed), ("train", "train")
    names = [f"`x_{split}` of {data_dir or name!r}" for split in splits]
    train, test = (_finished(part, bounds, where, from_unit=name == "digits") for part, where in zip(drawn, names))
    return dataset._replace(train=train, test=test)


def load_source(source: str, *, data_dir: str | None = None, bounds: Bounds | None = (0.0, 1.0)) -> Split:
    """Loads the images, in the range of `load`, and labels that a word of `SOURCES` names.

    Data sets by name and those of TFDS are looked for in `data_dir`, or the usual places if it is None. `ValueError` if
    the word names nothing, or the data are missing or not what they should be.

    Example:
        >>> load_source("digits:test:100").images.shape
        (100, 8, 8, 1)
    """
    name, *rest = source.split(":")
    if name == "tfds" and len(rest) >= 2:
        return _finished(_from_tfds(rest[0], ":".join(rest[1:]), data_dir), bounds, source)
    if name in ("digits", "fmnist", "cifar10") and rest and rest[0] in _SPLITS and len(rest) <= 2:
        size = rest[1] if len(rest) == 2 else "0"
        if not (size.isascii() and size.isdigit()) or rest[1:] and not int(size):
            raise ValueError(f"{source!r} must end in a number of images >= 1, as in fmnist:test:1000.")
        return getattr(load(name, data_dir=data_dir, bounds=bounds, **{f"{rest[0]}_size": int(size)}), rest[0])
    path, colon, split = source.rpartition(":") if source.endswith((".npz:train", ".npz:test")) else (source, "", "")
    if path.endswith(".npz"):
        names = [f"{axis}{'_' * len(colon)}{split}" for axis in ("x", "y")]
        return _finished(_read_npz(path, names)[0], bounds, f"`{names[0]}` of {path!r}")
    raise ValueError(f"{source!r} names no images. Give {SOURCES}.")


def fingerprint(name: str, data_dir: str | None) -> str:
    """A digest, 16 letters, of the content of data that their name does not say; empty for those of one content.

    Of `npz` it is that of the file, of `image_folder` that of the names and contents of its images. `ValueError` if
    they cannot be read.
    """
    if name not in ("npz", "image_folder"):
        return ""
    root = pathlib.Path(_place(name, data_dir))
    files = [root] if name == "npz" else [pathlib.Path(path) for path in sum(sum(image_files(str(root)), []), [])]
    with reading(root):
        states = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return _digest(root, states)


def random_half(num: int, number: int) -> np.ndarray:
    """Draws half of the examples, as shadow models are trained on: booleans of shape `(num,)`, `num // 2` times true.

    The draws of different numbers are independent, so a model's half says nothing of those of others: with halves that
    hold every example equally often, the shadow models of members would be fewer, which an audit can see.
    """
    chosen = np.zeros(num, bool)
    chosen[np.random.RandomState((_HALF_SEED, number)).permutation(num)[: num // 2]] = True
    return chosen


@functools.lru_cache(maxsize=16)
def _digest(root: pathlib.Path, states: tuple[tuple[pathlib.Path, int, int], ...]) -> str:
    """The digest of files that are in these states."""
    digest = hashlib.sha256()
    for path, size, _ in states:
        with reading(path), open(path, "rb") as file:
            digest.update(f"{path.relative_to(root)}\0{size}\0".encode(errors="surrogateescape"))
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def _place(name: str, data_dir: str | None) -> str | None:
    """The absolute path of the data: a file for `npz`, a directory for what has one, nothing for `digits`."""
    data_dir = os.path.abspath(os.path.expanduser(data_dir)) if data_dir else None
    if data_dir is None and name in ("npz", "image_folder"):
        holds = "the .npz file" if name == "npz" else "a directory with train/<class> and test/<class>"
        raise ValueError(f"The data set {name!r} needs `data_dir`. Received: data_dir=None. Give the path of {holds}.")
    if data_dir is not None and name not in ("npz", "digits") and not os.path.isdir(data_dir):
        raise ValueError(
            f"`data_dir` is not a directory. Received: data_dir={data_dir!r}. Make it first to download into it."
        )
    return data_dir


def _load_digits() -> Dataset:
    """Splits the 1,797 digits that scikit-learn ships, always in the same way."""
    import sklearn.datasets
    import sklearn.model_selection

    digits = sklearn.datasets.load_digits()
    pixels = np.float32(digits.images[..., np.newaxis] / 16)
    x_train, x_test, y_train, y_test = sklearn.model_selection.train_test_split(
        pixels, digits.target, test_size=_TEST_DIGITS, stratify=digits.target, random_state=_SPLIT_SEED
    )
    return Dataset("digits", Split(x_train, y_train), Split(x_test, y_test), 10)


def _load_npz(path: str) -> Dataset:
    """Reads `x_train, y_train, x_test, y_test` of an .npz file."""
    train, test = _read_npz(path, ("x_train", "y_train", "x_test", "y_test"))
    num_classes = int(max(train.labels.max(), test.labels.max())) + 1
    if num_classes < 2:
        raise ValueError(f"{path!r} holds one class only, of which nothing can be learnt. Give images of two or more.")
    _, first, _, last = train.images.shape
    if first in (1, 3) and last > 4 and keras.config.image_data_format() == "channels_last":
        raise ValueError(
            f"`x_train` of {path!r} seems to have its channels first. Received: shape {train.images.shape}. Give "
            "`x.transpose(0, 2, 3, 1)`, of shape (num, height, width, channels), for `x_test` as well."
        )
    checked_split(*test, f"`x_test` of {path!r}", train.images.shape[1:])
    return Dataset(os.path.splitext(os.path.basename(path))[0], train, test, num_classes)


def _read_npz(path: str, names: Sequence[str]) -> list[Split]:
    """A split for each pair of these names of images and labels."""
    arrays = read_arrays(path, names)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(
            f"{path!r} must hold the arrays {' and '.join(names)}. Received: {listed(arrays)}, without "
            f"{', '.join(missing)}. Save it by np.savez(path, {', '.join(f'{name}=...' for name in names)})."
        )
    pairs = zip(names[::2], names[1::2])
    return [checked_split(arrays[x], arrays[y], f"`{x}` with `{y}` of {path!r}") for x, y in pairs]


def _from_tfds(name: str, split: str, data_dir: str | None) -> Split:
    try:
        arrays = read_tfds(name, split, data_dir and os.path.expanduser(data_dir), download=True)
        return checked_split(*arrays, f"tfds:{name}:{split}")
    except Exception as error:  # TFDS documents no set of errors, and TF, protobuf, json add theirs
        first_line = str(error).partition("\n")[0].rstrip(".")  # TFDS adds the names of all that it knows
        raise ValueError(
            f"tfds:{name}:{split} could not be read. Received: {type(error).__name__}: {first_line}. It must be a data "
            "set of images of one size with labels; without a network, prepare it first and give --data_dir."
        ) from error


def _subsets(dataset: Dataset, *sizes: int) -> list[Split]:
    """The heads of fixed permutations of the splits."""
    drawn = []
    for split, size, what in zip((dataset.train, dataset.test), sizes, _SPLITS):
        num = len(split.labels)
        if size > num:
            raise ValueError(
                f"`{what}_size` must not be larger than the split. Received: {what}_size={size} of {num} images. Give "
                f"at most {num}, or 0 for all."
            )
        order = np.random.RandomState(_SUBSET_SEED).permutation(num)[:size] if size else slice(None)
        drawn.append(Split(split.images[order], split.labels[order]))  # by a stream that no version of NumPy changes
    return drawn


def _pools(dataset: Dataset, num_members: int, num_non_members: int, seed: int) -> list[Split]:
    """Members and non-members, drawn from the training split."""
    images, labels = dataset.train
    num = len(labels)
    num_non_members = num_non_members or min(len(dataset.test.labels), num // 2)
    num_members = num_members or num - num_non_members
    if num_members < 1 or num_members + num_non_members > num:
        raise ValueError(
            "Members and non-members are both drawn from the training split, which must have an image for each. "
            f"Received: train_size={num_members} and test_size={num_non_members} of {num} images. Give fewer, or "
            "--pools=split to take non-members from the test split."
        )
    order = np.random.RandomState((_POOL_SEED, seed)).permutation(num)[: num_members + num_non_members]
    return [Split(images[which], labels[which]) for which in np.split(order, [num_members])]


def _finished(split: Split, bounds: Bounds | None, where: str, *, from_unit: bool = False) -> Split:
    """The split in float32 and int64, pixels in the range: bytes, and [0, 1] where `from_unit`, are spread over it."""
    images, (low, high) = split.images, bounds or (-np.inf, np.inf)
    keeps_whole = 1 < high < np.inf
    if images.dtype == np.uint8 and not keeps_whole:
        images, from_unit = np.divide(images, np.float32(255), dtype=np.float32, order="C"), True
    if images.dtype.kind not in ("fui" if keeps_whole else "f"):
        raise ValueError(
            f"{where} must be uint8, or float in {_range(bounds)}. Received: dtype {images.dtype}. Convert the array, "
            "e.g. by .astype('uint8')."
        )
    if from_unit and bounds and tuple(bounds) != (0, 1):
        images = np.float32(low) + np.float32(high - low) * images
    if not (images.min() >= low and images.max() <= high and np.isfinite([images.min(), images.max()]).all()):
        raise ValueError(
            f"{where} must be in {_range(bounds)}, without NaN. Received: minimum {images.min()}, maximum "
            f"{images.max()}. Divide by 255, save the bytes as uint8, or name another range where a command takes one."
        )
    return Split(np.ascontiguousarray(images, dtype=np.float32), split.labels.astype(np.int64))


def _range(bounds: Bounds | None) -> str:
    return f"[{bounds[0]:g}, {bounds[1]:g}]" if bounds else "a finite range"


_LOADERS: dict[str, Callable[[str | None], Dataset]] = {
    "digits": lambda data_dir: _load_digits(),
    "fmnist": functools.partial(load_published, "fmnist"),
    "cifar10": functools.partial(load_published, "cifar10"),
    "image_folder": load_image_folder,
    "npz": _load_npz,
}

NAMES = tuple(_LOADERS)
"""The names that `load` takes."""
