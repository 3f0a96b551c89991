"""Data sets as plain arrays, checked by content, and the batches of a training run.

`load` gives a `Dataset` by name, from whatever copy the machine has; `training_batches` turns a
split into batches that depend on nothing but the seed and the number of the round.
"""

import contextlib
import difflib
import gzip
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import tensorflow as tf

NAMES = ("digits", "fmnist", "cifar10", "image_folder", "npz")
"""What `load` knows."""

DEBIAN_FMNIST = "/usr/share/datasets/fashion-mnist"
"""Where the Debian package `dataset-fashion-mnist` installs its files."""

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp")
"""Files of an image folder that are read, upper or lower case."""

_SUBSET_SEED = 0
_DIGITS_TEST_SIZE = 500
_MAX_CLASSES = 100_000  # a larger label is an identifier, not the number of a class
_DEFLATE_RATIO = 1032  # the most that DEFLATE, the format of gzip and zip, can expand a byte
_CHUNK = 1 << 20
_DECODE_BATCH = 256
_CONNECT_SECONDS = 5.0
_UNREADABLE = (OSError, EOFError, RuntimeError, UnicodeDecodeError, zlib.error, zipfile.BadZipFile)


class Split(NamedTuple):
    """The images and labels of one part of a data set.

    Attributes:
        images: float32 `(num, height, width, channels)` in [0, 1].
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


def load(name: str, *, data_dir: str | None = None, train_size: int = 0, test_size: int = 0) -> Dataset:
    """Loads a data set by name.

    `fmnist` and `cifar10` come from the first of: a prepared TensorFlow Datasets copy (in
    `data_dir` if given, else in TFDS' own directory); raw files in `data_dir`; for `fmnist`, the
    files of the Debian package; a TFDS download. `image_folder` reads
    `data_dir/{train,test}/<class>/*` (png, jpg, jpeg, bmp; regular files, names with a leading dot
    left out); `npz` reads Keras' `x_train, y_train, x_test, y_test` from the file `data_dir`.

    A subset is the head of a permutation of the split by NumPy's seed 0: the same for every run,
    and a smaller one is part of a larger one. It is one of the *source's* order, and a TFDS copy
    of `fmnist` is ordered differently from the raw files: runs that are to share a subset must
    share the source.

    Args:
        name: one of `NAMES`.
        data_dir: a directory, for `npz` a file; not used by `digits`.
        train_size: how many training images to take; 0 takes all.
        test_size: the same for the test images.

    Returns:
        The data set, images in [0, 1].

    Raises:
        ValueError: if the name is unknown, if the data are missing or not what they should be, or
            if a size is larger than the split.

    Example:
        >>> load("digits", train_size=100).train.images.shape
        (100, 8, 8, 1)
    """
    if name not in _LOADERS:
        raise ValueError(
            f"`name` is not a known data set. Received: name={name!r}.{_suggestion(name)} "
            f"Give one of {', '.join(NAMES)}."
        )
    _check_whole("train_size", train_size, minimum=0)
    _check_whole("test_size", test_size, minimum=0)
    dataset = _LOADERS[name](os.path.expanduser(data_dir) if data_dir else None)
    return dataset._replace(
        train=_finished(dataset.train, train_size, "train_size"),
        test=_finished(dataset.test, test_size, "test_size"),
    )


def training_batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    first_round: int,
    num_rounds: int,
    pad: int = 0,
    flip: bool = False,
) -> tf.data.Dataset:
    """Gives the batches of the rounds `first_round .. num_rounds - 1` of a training run.

    Stateless: the batch of round r is a function of the split, the batch size, the seed, r and the
    augmentation, whether training began at round 0 or was resumed at r. A pass over the data has
    `num // batch_size` rounds (an incomplete last batch is dropped) and a permutation of its own.

    The permutation is drawn once a pass, by `stateless_shuffle`. `index_shuffle`, which computes
    single places of a permutation, is not used: its cipher has four rounds, which leave an order
    that is not random. On 60,000 images sorted by class, the number of images of a class in a
    batch of 256 had 0.64 times the variance of a random order, and places 256 apart a correlation
    140 standard errors from none; small data sets run out of different permutations altogether.

    Args:
        split: images `(num, height, width, channels)` in [0, 1] with their labels. One copy of it
            is held for as long as the batches are.
        batch_size: images a round, at most `num`.
        seed: of the permutations and of the augmentation; a whole number of 64 bits.
        first_round: the round to begin with, >= 0.
        num_rounds: the round to stop before, >= `first_round`.
        pad: random crops of the original size after `pad` zero pixels were added at each side.
        flip: mirrors each image left to right with probability 1/2.

    Returns:
        `num_rounds - first_round` pairs of images `(batch_size, height, width, channels)` float32
        and labels `(batch_size,)` int64, both of static shape.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> digits = load("digits").train
        >>> run = dict(batch_size=64, seed=0, num_rounds=1000, pad=1)
        >>> resumed = training_batches(digits, first_round=400, **run)
        >>> int(resumed.cardinality())
        600
    """
    _check_rounds(split, batch_size, seed, first_round, num_rounds, pad)
    crop_seed, flip_seed = _stream(seed, 1), _stream(seed, 2)

    def batch_of(round_number: tf.Tensor, rows: tf.Tensor, data: Split) -> tuple[tf.Tensor, tf.Tensor]:
        batch = tf.gather(data.images, rows)
        if pad:
            batch = _random_crop(batch, _fold(crop_seed, round_number), pad)
        if flip:
            batch = _random_flip(batch, _fold(flip_seed, round_number))
        return batch, tf.gather(data.labels, rows)

    numbers = tf.data.Dataset.range(first_round, num_rounds)
    rows = _rows(len(split.labels), batch_size, seed, first_round, num_rounds)
    rounds = tf.data.Dataset.zip(numbers, rows, _everything(split))
    batches = rounds.map(batch_of, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    counted = batches.apply(tf.data.experimental.assert_cardinality(num_rounds - first_round))
    options = tf.data.Options()  # rewriting the graph of the pipeline would copy the images
    options.experimental_optimization.apply_default_optimizations = False
    return counted.prefetch(tf.data.AUTOTUNE).with_options(options)


# ---------------------------------------------------------------------------- batches


def _check_rounds(split: Split, batch_size: int, seed: int, first_round: int, num_rounds: int, pad: int) -> None:
    """Refuses arguments of `training_batches` that are out of range."""
    _check_whole("batch_size", batch_size, minimum=1)
    _check_whole("seed", seed, minimum=-(2**63))
    _check_whole("first_round", first_round, minimum=0)
    _check_whole("num_rounds", num_rounds, minimum=first_round)
    _check_whole("pad", pad, minimum=0)
    if seed >= 2**63:
        raise ValueError(f"`seed` must fit in 64 bits. Received: seed={seed}. Give a smaller one.")
    if batch_size > len(split.labels):
        raise ValueError(
            "`batch_size` must not be larger than the data: every pass would be empty. "
            f"Received: batch_size={batch_size} for {len(split.labels)} images. "
            "Give a smaller batch or more images."
        )


def _stream(seed: int, number: int) -> tf.Tensor:
    """A seed, shape `(2,)`, of one of the independent streams of a training run."""
    return tf.constant([seed, number], tf.int64)


def _fold(seed: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """Folds a number into a seed; the algorithm is named so that no device picks another."""
    return tf.random.experimental.stateless_fold_in(seed, number, alg="philox")


def _rows(num: int, batch_size: int, seed: int, first_round: int, num_rounds: int) -> tf.data.Dataset:
    """Which images the batches hold, from `first_round` on: elements `(batch_size,)` int64."""
    rounds_a_pass = num // batch_size
    permutation_seed = _stream(seed, 0)

    def rows_of_pass(number: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(num, dtype=tf.int64), _fold(permutation_seed, number), alg="philox"
        )
        used = order[: rounds_a_pass * batch_size]
        return tf.data.Dataset.from_tensor_slices(tf.reshape(used, (rounds_a_pass, batch_size)))

    passes = tf.data.Dataset.range(first_round // rounds_a_pass, -(-num_rounds // rounds_a_pass))
    return passes.flat_map(rows_of_pass).skip(first_round % rounds_a_pass)


def _everything(split: Split) -> tf.data.Dataset:
    """The whole split as an element, over and over: the same buffer each time, not a copy.

    A function that captures the images, as a constant or as a tensor, would be part of a reference cycle and keep them
    in memory, after the batches were given up, until Python's garbage collector comes round.
    """
    with tf.device("CPU:0"):
        tensors = Split(tf.identity(split.images), tf.identity(split.labels))  # tf.constant copies them twice
    return tf.data.Dataset.from_tensors(tensors).repeat()


def _random_crop(images: tf.Tensor, seed: tf.Tensor, pad: int) -> tf.Tensor:
    """Cuts a window of the original size out of each zero-padded image."""
    num, height, width, channels = images.shape
    top, left = tf.unstack(
        tf.random.stateless_uniform((2, num, 1), seed, maxval=2 * pad + 1, dtype=tf.int32, alg="philox")
    )
    padded = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
    lines = tf.range(num)[:, tf.newaxis] * (height + 2 * pad) + top + tf.range(height)
    columns = left + tf.range(width)
    places = lines[:, :, tf.newaxis] * (width + 2 * pad) + columns[:, tf.newaxis, :]
    return tf.gather(tf.reshape(padded, (-1, channels)), places)


def _random_flip(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors about half of the images left to right."""
    shape = (images.shape[0], 1, 1, 1)
    heads = tf.random.stateless_uniform(shape, seed, maxval=2, dtype=tf.int32, alg="philox")
    return tf.where(heads == 1, images[:, :, ::-1], images)


# ---------------------------------------------------------------------------- checks


def _suggestion(name: Any) -> str:
    """` Did you mean ...?` where a known name is near, else nothing."""
    near = difflib.get_close_matches(str(name).lower(), NAMES, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _check_whole(what: str, value: Any, *, minimum: int) -> None:
    """Refuses what is not a whole number of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < minimum:
        raise ValueError(
            f"`{what}` must be a whole number >= {minimum}. Received: {what}={value!r}. Give a number in that range."
        )


def _required(data_dir: str | None, name: str, holds: str) -> str:
    """The absolute path, which no file system of TensorFlow reads as a URL; an error if None."""
    if data_dir is None:
        raise ValueError(f"The data set {name!r} needs `data_dir`. Received: data_dir=None. Give the path of {holds}.")
    return os.path.abspath(data_dir)


def _check_directory(path: str) -> None:
    if not os.path.isdir(path):
        raise ValueError(
            f"`data_dir` is not a directory. Received: data_dir={path!r}. "
            "Give one that exists, or make it first if data are to be downloaded into it."
        )


def _checked(split: Split, image_shape: tuple[int, ...], num_classes: int, where: str) -> Split:
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


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turns what reading a damaged file raises into an error that names the file."""
    try:
        yield
    except _UNREADABLE as error:
        raise ValueError(
            f"{path} could not be read: it is damaged or not what its name says. "
            f"Received: {type(error).__name__}: {error}. Fetch it again."
        ) from error


# ---------------------------------------------------------------------------- from raw to Split


def _finished(split: Split, size: int, what: str) -> Split:
    """A source's split as `load` returns it: the subset asked for, float32 and int64."""
    num = len(split.labels)
    if size > num:
        raise ValueError(
            f"`{what}` must not be larger than the split. Received: {what}={size} of {num} images. "
            f"Give at most {num}, or 0 for all."
        )
    images, labels = split
    if size:  # the stream of RandomState is frozen: the same subset under every version of NumPy
        order = np.random.RandomState(_SUBSET_SEED).permutation(num)[:size]
        images, labels = images[order], labels[order]
    return Split(_as_float(images), labels.astype(np.int64))


def _as_float(images: np.ndarray) -> np.ndarray:
    """Bytes to [0, 1]; what is float has been checked to be there already."""
    if images.dtype == np.uint8:
        return np.divide(images, np.float32(255), dtype=np.float32, order="C")
    return np.ascontiguousarray(images, dtype=np.float32)


# ---------------------------------------------------------------------------- digits


def _load_digits(data_dir: str | None) -> Dataset:
    """The 1,797 digits that scikit-learn ships, always split in the same way."""
    del data_dir
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    pixels = np.float32(digits.images[..., np.newaxis] / 16)
    x_train, x_test, y_train, y_test = train_test_split(
        pixels,
        digits.target,
        test_size=_DIGITS_TEST_SIZE,
        stratify=digits.target,
        random_state=_SUBSET_SEED,
    )
    return Dataset("digits", Split(x_train, y_train), Split(x_test, y_test), 10)


# ---------------------------------------------------------------------------- fmnist, cifar10


class _Published(NamedTuple):
    """A data set that has one content and several packagings, all of ten classes.

    Attributes:
        name: as `load` knows it.
        tfds_name: as TensorFlow Datasets knows it.
        image_shape: height, width, channels.
        url: the server that TFDS downloads from.
        read_raw: reads the raw files of a directory, None if it holds none.
        ways: how to get the data, for the message.
    """

    name: str
    tfds_name: str
    image_shape: tuple[int, int, int]
    url: str
    read_raw: Callable[[str], "Dataset | None"]
    ways: str


def _load_fmnist(data_dir: str | None) -> Dataset:
    return _load_published(_FMNIST, data_dir, package_dir=DEBIAN_FMNIST)


def _load_cifar10(data_dir: str | None) -> Dataset:
    return _load_published(_CIFAR10, data_dir, package_dir=None)


def _load_published(source: _Published, data_dir: str | None, package_dir: str | None) -> Dataset:
    """Reads the first copy there is, in the order that `load` documents."""
    if data_dir is not None:
        _check_directory(data_dir)
    dataset = _read_prepared(source, data_dir)
    for directory in filter(None, (data_dir, package_dir)):
        dataset = dataset or source.read_raw(directory)
    return dataset or _read_downloaded(source, data_dir)


def _read_prepared(source: _Published, data_dir: str | None) -> Dataset | None:
    """Reads the prepared TFDS copy, None if there is none. Nothing is asked of the network."""
    default = os.environ.get("TFDS_DATA_DIR") or os.path.expanduser("~/tensorflow_datasets")
    root = data_dir or default
    if not _holds_prepared(os.path.join(root, source.tfds_name)):
        return None
    try:
        import tensorflow_datasets as tfds

        builder = tfds.builder(source.tfds_name, data_dir=root)
        return _read_builder(source, builder) if builder.is_prepared() else None
    except Exception as error:  # TFDS documents no set of errors, and TF, protobuf, json add theirs
        raise ValueError(
            f"The TensorFlow Datasets copy of {source.tfds_name} in {root!r} could not be read. "
            f"Received: {type(error).__name__}: {error}. Delete it, or `pip install "
            "tensorflow-datasets` if that is what is missing."
        ) from error


def _holds_prepared(directory: str) -> bool:
    """Whether there is a version that TFDS finished; spares most runs the import of TFDS."""
    try:
        with os.scandir(directory) as versions:
            return any(os.path.isfile(os.path.join(v.path, "dataset_info.json")) for v in versions)
    except OSError:
        return False


def _read_builder(source: _Published, builder: Any) -> Dataset:
    """Reads both splits of a prepared TFDS builder."""

    def read(split: str) -> Split:
        columns = builder.as_dataset(split=split, batch_size=-1)
        pixels, labels = columns["image"].numpy(), columns["label"].numpy()
        where = f"The split {split!r} in {builder.data_path}"
        return _checked(Split(pixels, labels), source.image_shape, 10, where)

    return Dataset(source.name, read("train"), read("test"), 10)


def _read_downloaded(source: _Published, data_dir: str | None) -> Dataset:
    """Downloads by TFDS and reads, or tells all the ways to get the data."""
    try:
        return _read_builder(source, _download(source.tfds_name, source.url, data_dir))
    except Exception as error:  # no network, no TFDS, a wrong checksum, a full disk, ...
        raise ValueError(
            f"The data set {source.name!r} is not on this machine, and its download failed. "
            f"Received: data_dir={data_dir!r}; {type(error).__name__}: {error}. Ways to mend it: "
            "with a network, `pip install tensorflow-datasets importlib_resources` and run again; "
            f"{source.ways}"
        ) from error


def _download(tfds_name: str, url: str, data_dir: str | None) -> Any:
    """Has TFDS download and prepare a data set, and gives its builder."""
    _check_network(url, "https://storage.googleapis.com")
    import tensorflow_datasets as tfds

    builder = tfds.builder(tfds_name, data_dir=data_dir)
    builder.download_and_prepare()
    return builder


def _check_network(*urls: str) -> None:
    """Raises unless one of the servers answers: TFDS itself retries for minutes without one."""
    import requests  # comes with TFDS, and heeds the same proxy settings

    for url in urls:
        try:
            requests.head(url, timeout=_CONNECT_SECONDS)
            return
        except requests.RequestException as error:
            failure = error
    raise failure


def _find_files(directory: str, names: tuple[str, ...], endings: tuple[str, ...]) -> list[str]:
    """The paths of all the files `names`, each with the first ending it is found with.

    Args:
        directory: where to look.
        names: the files of one data set.
        endings: what a name may end in besides, in order of preference.

    Returns:
        A path a name; nothing if none of the files is there.

    Raises:
        ValueError: if only some are there.
    """
    candidates = [[os.path.join(directory, name + ending) for ending in endings] for name in names]
    found = [next(filter(os.path.isfile, paths), None) for paths in candidates]
    missing = [name for name, path in zip(names, found) if path is None]
    if len(missing) == len(names):
        return []
    if missing:
        raise ValueError(
            f"{directory} holds only a part of the files of the data set. "
            f"Received: a directory without {', '.join(missing)}. Add what is missing."
        )
    return [path for path in found if path is not None]


# ---------------------------------------------------------------------------- IDX


_FMNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_IDX_IMAGES, _IDX_LABELS = 2051, 2049  # 0x08: bytes; the last digit: the number of dimensions


def _read_fmnist(directory: str) -> Dataset | None:
    """Reads the four IDX files, plain or gzip-ed; None if there are none."""
    paths = _find_files(directory, _FMNIST_FILES, ("", ".gz"))
    if not paths:
        return None
    train, test = _read_idx_pair(*paths[:2]), _read_idx_pair(*paths[2:])
    return Dataset("fmnist", train, test, 10)


def _read_idx_pair(images_path: str, labels_path: str) -> Split:
    pixels = _read_idx(images_path, _IDX_IMAGES)[..., np.newaxis]
    labels = _read_idx(labels_path, _IDX_LABELS)
    where = f"{images_path} with {os.path.basename(labels_path)}"
    return _checked(Split(pixels, labels), (28, 28, 1), 10, where)


def _read_idx(path: str, magic: int) -> np.ndarray:
    """Reads one IDX file of bytes.

    Args:
        path: the file; gzip-ed if it ends in `.gz`.
        magic: 2051 for images, 2049 for labels.

    Returns:
        uint8, of the shape that the header states and the file was found to have.

    Raises:
        ValueError: if the file is damaged, of another kind, or not exactly as long as stated.
    """
    with _reading(path), _open_idx(path) as file:
        shape = _idx_shape(_read_at_most(file, 4 + 4 * (magic % 256)), magic, path)
        size = math.prod(shape)
        _check_can_hold(path, size, _DEFLATE_RATIO if path.endswith(".gz") else 1)
        content = _read_at_most(file, size + 1)
    if len(content) != size:
        amount = "fewer" if len(content) < size else "more"
        raise ValueError(
            f"{path} has {amount} bytes than its header states. Received: shape {shape}, that is "
            f"{size} bytes, and {amount} in the file. Fetch it again."
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _open_idx(path: str) -> BinaryIO:
    return gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")


def _read_at_most(file: BinaryIO, size: int) -> bytearray:
    """Reads up to `size` bytes; memory grows with what the file gives, not with what is asked."""
    content = bytearray()
    while len(content) < size:
        chunk = file.read(min(_CHUNK, size - len(content)))
        if not chunk:
            break
        content += chunk
    return content


def _idx_shape(header: bytes, magic: int, path: str) -> tuple[int, ...]:
    """The dimensions in an IDX header: big-endian 32-bit numbers after the magic one."""
    rank = magic % 256
    if len(header) != 4 + 4 * rank or int.from_bytes(header[:4], "big") != magic:
        raise ValueError(
            f"{path} is not an IDX file of {rank}-dimensional bytes: its magic number must be "
            f"{magic}. Received: a file that begins with {bytes(header[:4])!r}. Fetch it again."
        )
    return tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))


def _check_can_hold(path: str, size: int, ratio: int) -> None:
    """Refuses a stated size that the file cannot have, before memory is taken for it."""
    if size > os.path.getsize(path) * ratio:
        raise ValueError(
            f"{path} states more than it can hold. Received: {size} bytes stated in a file of "
            f"{os.path.getsize(path)} bytes. Fetch it again."
        )


# ---------------------------------------------------------------------------- CIFAR-10, binary


_CIFAR10_FILES = (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin")
_CIFAR10_RECORD = 1 + 3 * 32 * 32


def _read_cifar10(directory: str) -> Dataset | None:
    """Reads the six files of the binary version; None if there are none."""
    folders = (directory, os.path.join(directory, "cifar-10-batches-bin"))
    paths = _find_files(folders[0], _CIFAR10_FILES, ("",)) or _find_files(folders[1], _CIFAR10_FILES, ("",))
    if not paths:
        return _refuse_pickled(directory)
    batches = [_read_cifar10_batch(path) for path in paths]
    train = Split(*(np.concatenate(arrays) for arrays in zip(*batches[:5])))
    return Dataset("cifar10", train, batches[5], 10)


def _refuse_pickled(directory: str) -> None:
    """Says so if all there is are pickles, which could run code when they are opened."""
    for folder in (directory, os.path.join(directory, "cifar-10-batches-py")):
        if os.path.isfile(os.path.join(folder, "data_batch_1")):
            raise ValueError(
                f"{folder} holds the Python version of CIFAR-10, which is pickled and never read, "
                "for a pickle can run code. Received: data_batch_1 without an ending. "
                "Unpack the binary version (cifar-10-binary.tar.gz) there instead."
            )


def _read_cifar10_batch(path: str) -> Split:
    """Reads records of one label and 3 x 32 x 32 bytes, channel first."""
    size = os.path.getsize(path)
    if size % _CIFAR10_RECORD:
        raise ValueError(
            f"{path} is not made of records of {_CIFAR10_RECORD} bytes. Received: {size} bytes. Fetch it again."
        )
    with _reading(path):
        records = np.fromfile(path, np.uint8).reshape(-1, _CIFAR10_RECORD)
    pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return _checked(Split(pixels, records[:, 0]), (32, 32, 3), 10, path)


_FMNIST = _Published(
    name="fmnist",
    tfds_name="fashion_mnist",
    image_shape=(28, 28, 1),
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    read_raw=_read_fmnist,
    ways=(
        "on Debian or Ubuntu, `apt install dataset-fashion-mnist`; or --data_dir=<directory> with "
        f"{', '.join(_FMNIST_FILES)}, each with or without .gz, from "
        "https://github.com/zalandoresearch/fashion-mnist."
    ),
)
_CIFAR10 = _Published(
    name="cifar10",
    tfds_name="cifar10",
    image_shape=(32, 32, 3),
    url="https://www.cs.toronto.edu",
    read_raw=_read_cifar10,
    ways=(
        f"or --data_dir=<directory> with {', '.join(_CIFAR10_FILES)}, the unpacked "
        "cifar-10-binary.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html. Debian has no "
        "package of it."
    ),
)


# ---------------------------------------------------------------------------- image folders


def _load_image_folder(data_dir: str | None) -> Dataset:
    """Reads `train/<class>/*` and `test/<class>/*`; classes are numbered in sorted order."""
    root = _required(data_dir, "image_folder", "a directory with train/<class> and test/<class>")
    _check_directory(root)
    train_files, test_files = _scan_split(root, "train"), _scan_split(root, "test")
    _check_same_classes(train_files, test_files)
    shape = _shape_of(next(iter(train_files.values()))[0])
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
    with _reading(directory), os.scandir(directory) as entries:
        return sorted(e.name for e in entries if not e.name.startswith(".") and kind(e, follow_symlinks=False))


def _check_same_classes(train: dict[str, Any], test: dict[str, Any]) -> None:
    different = sorted(set(train) ^ set(test))
    if different:
        raise ValueError(
            "`train` and `test` must have the same classes. "
            f"Received: only in one of them {different}. Add or remove these directories."
        )


def _decode(path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads an image file: uint8 of 3 channels (grey is repeated), and how many it has itself."""
    pixels = tf.io.decode_image(tf.io.read_file(path), expand_animations=False)
    channels = tf.shape(pixels)[2]
    return tf.tile(pixels, [1, 1, tf.where(channels == 1, 3, 1)]), channels


def _shape_of(path: str) -> tuple[int, ...]:
    """The shape that the first image sets for all."""
    try:
        height, width, _ = _decode(os.fsencode(path))[0].shape
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
    paths = [path for of_class in files.values() for path in of_class]
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
        pixels, channels = _decode(path)
        return tf.ensure_shape(pixels, shape), channels

    files = tf.data.Dataset.from_tensor_slices([os.fsencode(path) for path in paths])
    decoded = files.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return decoded.batch(_DECODE_BATCH).prefetch(1).as_numpy_iterator()


def _culprit(paths: list[str], shape: tuple[int, ...], failure: Exception) -> ValueError:
    """The error that names the first file that cannot be read or has another shape."""
    for path in paths:
        try:
            received = tuple(_decode(os.fsencode(path))[0].shape)
        except tf.errors.OpError as error:
            return _unreadable_image(path, error)
        if received != shape:
            return ValueError(
                "All images must have one size, and 3 channels or be grey (1 channel). Received: "
                f"(height, width, channels) = {received} in {path}, expected {shape}. "
                "Resize it, or remove its transparency."
            )
    return ValueError(f"The images could not be read. Received: {failure}. Try again.")


def _unreadable_image(path: str, error: Exception) -> ValueError:
    return ValueError(
        f"{path} could not be decoded as an image. Received: {type(error).__name__}: {error}. "
        "Replace or remove the file."
    )


# ---------------------------------------------------------------------------- npz


def _load_npz(data_dir: str | None) -> Dataset:
    """Reads `x_train, y_train, x_test, y_test` of an .npz file."""
    path = _required(data_dir, "npz", "the .npz file")
    with _reading(path), zipfile.ZipFile(path) as archive:
        train, test = (_read_npz_split(archive, path, split) for split in ("train", "test"))
    num_classes = int(max(train.labels.max(), test.labels.max())) + 1
    _checked(test, train.images.shape[1:], num_classes, f"`x_test` of {path}")
    return Dataset(os.path.splitext(os.path.basename(path))[0], train, test, num_classes)


def _read_npz_split(archive: zipfile.ZipFile, path: str, split: str) -> Split:
    """Reads and checks `x_<split>` and `y_<split>`."""
    pixels = _read_npz_array(archive, path, f"x_{split}")
    labels = _read_npz_array(archive, path, f"y_{split}")
    if pixels.ndim == 3:
        pixels = pixels[..., np.newaxis]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    _check_pixels(pixels, f"`x_{split}` of {path}")
    _check_label_type(labels, f"`y_{split}` of {path}")
    where = f"`x_{split}` with `y_{split}` of {path}"
    return _checked(Split(pixels, labels), pixels.shape[1:], _MAX_CLASSES, where)


def _check_pixels(pixels: np.ndarray, where: str) -> None:
    """Refuses images that are not (num, height, width, channels) of bytes, or floats in [0, 1]."""
    if pixels.ndim != 4 or not pixels.size:
        raise ValueError(
            f"{where} must have the shape (num, height, width) or (num, height, width, channels), "
            f"with at least 1 image. Received: shape {pixels.shape}. Reshape the array."
        )
    if pixels.dtype != np.uint8 and pixels.dtype.kind != "f":
        raise ValueError(
            f"{where} must be uint8, or float in [0, 1]. Received: dtype {pixels.dtype}. "
            "Convert the array, e.g. by .astype('uint8')."
        )
    if pixels.dtype.kind == "f" and not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN: neither
        raise ValueError(
            f"{where} is float and must be in [0, 1], without NaN. Received: minimum "
            f"{pixels.min()}, maximum {pixels.max()}. Divide by 255, or save the bytes as uint8."
        )


def _check_label_type(labels: np.ndarray, where: str) -> None:
    if labels.dtype.kind not in "ui":
        raise ValueError(
            f"{where} must be whole numbers. Received: dtype {labels.dtype}. "
            "Save the numbers of the classes, e.g. by .astype('int64'); not one-hot vectors."
        )


def _read_npz_array(archive: zipfile.ZipFile, path: str, key: str) -> np.ndarray:
    """Reads one array of numbers; never objects, which are pickled.

    Args:
        archive: the open .npz file.
        path: its path.
        key: the name of the array.

    Returns:
        The array.

    Raises:
        ValueError: if it is missing, damaged, not of numbers, or not as long as stated.
    """
    if f"{key}.npy" not in archive.namelist():
        raise ValueError(
            f"{path} must hold the arrays x_train, y_train, x_test and y_test. "
            f"Received: {sorted(archive.namelist())}, without {key}. "
            "Save it by np.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)."
        )
    entry = archive.getinfo(f"{key}.npy")
    _check_can_hold(path, entry.file_size, _DEFLATE_RATIO)
    with archive.open(entry) as file:
        shape, fortran, dtype = _npy_header(file, path, key)
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or file.tell() + size != entry.file_size:
            raise ValueError(
                f"`{key}` of {path} is not as long as its header states. Received: shape {shape} "
                f"of {dtype} in {entry.file_size} bytes. Save the file again."
            )
        content = _read_at_most(file, size + 1)  # the one more makes zipfile check the checksum
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _npy_header(file: BinaryIO, path: str, key: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and dtype of an array of numbers in NumPy's format."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        shape, fortran, dtype = readers[np.lib.format.read_magic(file)](file)
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, tokenize.TokenError) as error:
        raise ValueError(
            f"`{key}` of {path} is not an array of numbers in NumPy's format. "
            f"Received: {type(error).__name__}: {error}. Save the file again by np.savez."
        ) from error
    if dtype.kind not in "buifc":
        raise ValueError(
            f"`{key}` of {path} must be an array of numbers: one of objects is a pickle, which can "
            f"run code and is never read. Received: dtype {dtype}. Convert it before saving."
        )
    return shape, fortran, dtype


_LOADERS: dict[str, Callable[[str | None], Dataset]] = {
    "digits": _load_digits,
    "fmnist": _load_fmnist,
    "cifar10": _load_cifar10,
    "image_folder": _load_image_folder,
    "npz": _load_npz,
}
