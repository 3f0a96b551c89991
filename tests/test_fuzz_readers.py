"""Whatever bytes a file has: it gives arrays that keep the reader's promise, or a `ValueError` that names the file.

Never another error, a hang, or 200 MB of memory. The files are valid ones with damage: bytes changed, cut, doubled and
spliced, and numbers of headers replaced. Half a minute here; for an hour, with other examples each time:

    python -m pytest tests/test_fuzz_readers.py --hypothesis-profile=long
"""

import contextlib
import gzip
import io
import json
import pathlib
import signal
import struct
import tempfile
import warnings
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from dataset_files import bare_machine, bmp, idx, labels, pixels, write_fmnist  # noqa: F401 (a fixture for every test)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from memory import peak_below
from test_audit import audit_file

from experiments import datasets
from experiments.command_line import expand_flagfiles
from experiments.datasets import image_folder, published

LONG = settings.default.max_examples >= 10_000


def fuzz(num):
    """`num` examples, always the same; with the profile "long" a hundred times as many, others each time."""
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    number = {"max_examples": 100 * num if LONG else num, "derandomize": not LONG}
    return settings(deadline=None, suppress_health_check=checks, **number)


@contextlib.contextmanager
def within(seconds):
    """Fails if the block takes more seconds of the processor: those of a clock depend on what else runs."""

    def stop(number, frame):
        raise AssertionError(f"still at it after {seconds} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def keeps_or_refuses(read, promise, path, parts=()):
    """The property: `read` gives what keeps the promise, or a `ValueError` that names `path` or a part of it."""
    try:
        with peak_below(200_000_000), within(10), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of NumPy and Python's parser, about headers
            result = read(str(path))
    except ValueError as error:
        assert any(name in str(error) for name in (str(path), *parts)) and len(str(error)) < 10_000
    else:
        promise(result)


# ---------------------------------------------------------------- damage

NUMBERS = st.sampled_from([0, 1, 2, 28, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1]) | st.integers(
    0, 2**32 - 1
)


@st.composite
def damaged(draw, originals):
    """One of the files, with up to four kinds of damage."""
    content = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(1, 4))):
        start, end = sorted(draw(st.tuples(st.integers(0, len(content)), st.integers(0, len(content)))))
        kind = draw(st.sampled_from(["byte", "number", "cut", "remove", "double", "splice", "insert"]))
        if kind == "byte":
            content = content[:start] + draw(st.binary(min_size=1, max_size=4)) + content[start + 1 :]
        elif kind == "number":
            order = draw(st.sampled_from(["<H", "<I", ">H", ">I", "<Q"]))
            number = draw(NUMBERS) % 256 ** struct.calcsize(order)
            content = content[:start] + struct.pack(order, number) + content[start + struct.calcsize(order) :]
        elif kind == "cut":
            content = content[:start]
        elif kind == "remove":
            content = content[:start] + content[end:]
        elif kind == "double":
            content = content[:end] + content[start:]
        elif kind == "splice":
            content = content[:start] + draw(st.sampled_from(originals))[start:]
        else:
            content = content[:start] + draw(st.binary(max_size=16)) + content[start:]
    return content


# ---------------------------------------------------------------- IDX and CIFAR-10


def is_dataset(dataset):
    for images, numbers in (dataset.train, dataset.test):
        assert images.dtype == np.float32 and images.ndim == 4 and len(images) == len(numbers) > 0
        assert images.min() >= 0 and images.max() <= 1 and images.flags.c_contiguous
        assert numbers.dtype == np.int64 and 0 <= numbers.min() and numbers.max() < dataset.num_classes
    assert dataset.train.images.shape[1:] == dataset.test.images.shape[1:]


IMAGES, LABELS = idx(pixels(3, (28, 28))), idx(labels(3))
HEADERS = st.builds(
    lambda magic, shape, rest: struct.pack(f">{1 + len(shape)}I", magic, *shape) + rest,
    st.sampled_from([2049, 2051]) | NUMBERS,
    st.lists(NUMBERS, max_size=4),
    st.binary(max_size=16) | st.sampled_from([IMAGES[16:], LABELS[8:], bytes(28 * 28)]),
)


@fuzz(100)
@given(
    name=st.sampled_from(published.FMNIST_FILES),
    content=damaged([IMAGES, LABELS]) | HEADERS | st.binary(max_size=64),
    zipped=st.booleans(),
)
def test_idx(name, content, zipped):
    with tempfile.TemporaryDirectory() as folder:
        write_fmnist(pathlib.Path(folder), zipped)
        path = pathlib.Path(folder, name + zipped * ".gz")
        path.write_bytes(gzip.compress(content, 1) if zipped else content)
        keeps_or_refuses(lambda path: datasets.load("fmnist", data_dir=path), is_dataset, folder)


@fuzz(100)
@given(
    name=st.sampled_from(published.FMNIST_FILES),
    content=damaged([gzip.compress(IMAGES), gzip.compress(LABELS), gzip.compress(IMAGES + bytes(1 << 20))]),
)
def test_idx_in_damaged_gzip(name, content):
    with tempfile.TemporaryDirectory() as folder:
        write_fmnist(pathlib.Path(folder), zipped=True)
        pathlib.Path(folder, name + ".gz").write_bytes(content)
        keeps_or_refuses(lambda path: datasets.load("fmnist", data_dir=path), is_dataset, folder)


# ---------------------------------------------------------------- npz: images and predictions

KINDS = ["|u1", "<f8", ">f4", "<i8", "<u8", "|b1", "|O", "<f2", "<f16", "<c8", "<U3", "|V1", "M8[s]", "u1,u1", "", "x"]
DESCRS = (
    st.sampled_from(KINDS)
    | st.sampled_from([(), {}, [], None, 1, ("|u1", (2,)), ("|u1", -1), (1, 2), [("a", "|u1")], [("a",)], "|u1" * 50])
    | st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda s: st.lists(s, max_size=3).map(tuple))
)
SIZES = st.integers(0, 8) | NUMBERS | st.sampled_from([-1, True, None, "3", 2.0, 2**62, 2**63, 10**30])
HEADS = (
    st.fixed_dictionaries(
        {"descr": DESCRS, "fortran_order": st.booleans() | st.none(), "shape": st.lists(SIZES, max_size=5).map(tuple)}
    ).map(repr)
    | st.dictionaries(st.text(max_size=4) | st.integers(), st.integers(), max_size=3).map(repr)
    | st.text(max_size=60)
    | st.sampled_from(["(" * 200, "[" * 9000, "{" * 50 + "}" * 50, "-" * 9000, "1" * 9000, "'" + "\\x00" * 9])
)


def npy(head, content, version=(1, 0)):
    """NumPy's format by hand: magic, version, length of the header, the header, content."""
    head = head.encode("latin-1", "replace") + b"\n"
    length = struct.pack("<H", len(head) % 2**16) if version == (1, 0) else struct.pack("<I", len(head))
    return b"\x93NUMPY" + bytes(version) + length + head + content


def saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def archive(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)
    return file.getvalue()


RNG = np.random.default_rng(0)
SETS = {"x_train": pixels(4, (3, 3)), "y_train": labels(4), "x_test": pixels(2, (3, 3)), "y_test": np.arange(2)}
LOGITS = {
    **{f"logits_{s}_{q}": RNG.normal(size=(5, 3)) for s in ("train", "test") for q in ("benign", "adversarial")},
    **{f"{s}_label": np.arange(5) % 3 for s in ("train", "test")},
}
PROBS = {
    name.replace("logits", "output"): np.eye(3)[np.arange(5) % 3] if "logits" in name else array
    for name, array in LOGITS.items()
}
COMPRESSIONS = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])


@st.composite
def archives(draw, arrays):
    """An archive of these arrays, one of whose members is damaged, or which is damaged itself."""
    members = {f"{name}.npy": saved(array) for name, array in arrays.items()}
    if draw(st.booleans()):
        return draw(damaged([archive(members), archive(members, zipfile.ZIP_DEFLATED)]))
    name = draw(st.sampled_from([*members]))
    array = arrays[name.removesuffix(".npy")]
    members[name] = draw(
        damaged([members[name]])
        | st.builds(npy, HEADS, st.sampled_from([b"", array.tobytes(), bytes(64)]), st.sampled_from([(1, 0), (2, 0)]))
        | st.sampled_from([*KINDS[:8], "<f4", ">i2"]).map(lambda kind: saved(array.astype(kind)))
        | st.sampled_from([np.nan, np.inf, -np.inf, 1e308, -1e308, 0, -1]).map(
            lambda value: saved(np.where(RNG.random(array.shape) < 0.5, value, array))
        )
    )
    return archive(members, draw(COMPRESSIONS))


@fuzz(100)
@given(content=archives(SETS) | st.binary(max_size=64))
def test_npz(content):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "d.npz")
        path.write_bytes(content)
        keeps_or_refuses(lambda path: datasets.load("npz", data_dir=path), is_dataset, path)


def is_audit(figures):
    json.dumps(figures, allow_nan=False)
    assert 0.5 <= figures["p_max"] <= 1
    for name in ("a_train", "a_test", "r_train", "r_test"):
        assert figures[name] is None or 0 <= figures[name] <= 1


@fuzz(25)
@given(content=archives(LOGITS) | archives(PROBS) | st.binary(max_size=64))
def test_prediction_files(content):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "p.npz")
        path.write_bytes(content)
        keeps_or_refuses(audit_file, is_audit, path, ("the file lacks", *LOGITS, *PROBS))


def before_the_file(content):
    """The archive with its directory said to be one byte further on, which puts the first member at -1."""
    (offset,) = struct.unpack("<I", content[-6:-2])
    return content[:-6] + struct.pack("<I", offset + 1) + content[-2:]


SEEDS = {
    "IndexError": npy("{'descr': (), 'fortran_order': False, 'shape': ()}", b""),
    "OverflowError": npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**30},)}}", b""),
    "MemoryError": npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**62},)}}", b""),
    "MemoryError of the parser": npy("-" * 9000, b""),
    "SyntaxError": npy("(" * 200, b""),
    "TypeError": saved(np.zeros((5, 3), np.longdouble)),
    "OSError": before_the_file,
}


@pytest.mark.parametrize("kind", ["npz", "audit"])
@pytest.mark.parametrize("error", SEEDS)
def test_what_fuzzing_found_in_npz_files(tmp_path, error, kind):
    """Each raised the error of its name, in one of the two readers that there were or in a part of this one."""
    arrays = SETS if kind == "npz" else LOGITS
    members = {f"{name}.npy": saved(array) for name, array in arrays.items()}
    path, seed = tmp_path / "d.npz", SEEDS[error]
    if callable(seed):
        path.write_bytes(seed(archive(members)))
    else:
        path.write_bytes(archive(members | {next(iter(members)): seed}))
    with pytest.raises(ValueError, match=str(path)):
        datasets.load("npz", data_dir=str(path)) if kind == "npz" else audit_file(str(path))


# ---------------------------------------------------------------- image folders

COLOUR, GREY = pixels(1, (6, 5, 3))[0], pixels(1, (6, 5, 1))[0]


PICTURES = [
    *(tf.io.encode_png(image).numpy() for image in (COLOUR, GREY, np.uint16(COLOUR) << 8)),
    *(tf.io.encode_jpeg(image, format=format).numpy() for image, format in ((COLOUR, "rgb"), (GREY, "grayscale"))),
    tf.io.encode_jpeg(COLOUR, progressive=True).numpy(),
    bmp(COLOUR),
    b"GIF89a" + struct.pack("<HH", 5, 6) + b"\x80\0\0" + bytes(3) + b"\xff" * 3 + b",\0\0\0\0\5\0\6\0\0\2\2\x84Q\0;",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two images a split, of which a test replaces one."""
    root = tmp_path_factory.mktemp("images")
    for split in ("train", "test"):
        (root / split / "cat").mkdir(parents=True)
        for n in range(2):
            (root / split / "cat" / f"{n}.png").write_bytes(PICTURES[0])
    return root


def is_image(pixels):
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] in (1, 3)
    assert 1 <= min(pixels.shape) and max(pixels.shape) <= 4096


@fuzz(60)
@example(content=b"\x89PNG")  # TensorFlow put the bytes of the file in its message, and failed to read it as UTF-8
@given(content=damaged(PICTURES) | st.binary(max_size=64))
def test_image_files(content):
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "0.png")
        path.write_bytes(content)
        keeps_or_refuses(lambda path: image_folder._read_image(path, None), is_image, path)


@fuzz(10)
@given(
    name=st.sampled_from(["train/cat/0.png", "train/cat/1.png", "test/cat/1.png"]),
    content=damaged(PICTURES) | st.sampled_from(PICTURES) | st.binary(max_size=64),
)
def test_image_folder(folder, name, content):
    (folder / name).write_bytes(content)
    try:
        keeps_or_refuses(lambda path: datasets.load("image_folder", data_dir=path), is_dataset, folder)
    finally:
        (folder / name).write_bytes(PICTURES[0])


# ---------------------------------------------------------------- flag files

FLAGS = st.sampled_from(["--seed=1", "--epsilon=8/255", "# a comment", "--flagfile=b", "-flagfile", "--", "", " --x\t"])
TEXTS = st.lists(FLAGS | st.text(max_size=20), max_size=8).map("\n".join).map(lambda text: text.encode())


@fuzz(100)
@given(first=TEXTS | damaged([b"--seed=1\n--flagfile=b\n# end\n"]) | st.binary(max_size=64), second=TEXTS)
def test_flag_files(tmp_path, monkeypatch, first, second):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("a").write_bytes(first)
    pathlib.Path("b").write_bytes(second)
    try:
        with peak_below(200_000_000), within(10):
            expanded = expand_flagfiles(["--flagfile=a"])
    except (ValueError, flags.Error) as error:
        assert "flag" in str(error) and len(str(error)) < 10_000
    else:
        assert all(argument.startswith("-") for argument in expanded)
