"""Files made to do harm: none runs code, fills the memory or is waited for; each is refused by a `ValueError`."""

import ast
import gzip
import io
import os
import pathlib
import pickle
import socket
import struct
import threading
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from dataset_files import Bomb, bare_machine, idx, labels, pixels, write_cifar10, write_fmnist  # noqa: F401 (a fixture)
from memory import peak_below
from test_audit import audit_file

from experiments import command_line, datasets

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = [path for folder in ("pineat_tf", "experiments") for path in sorted((ROOT / folder).rglob("*.py"))]

# ---------------------------------------------------------------- no code

BUILT_IN = {"eval", "exec", "compile", "__import__"}
RUNNING_CODE = {
    "pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "yaml", "runpy", "read_pickle",
    "enable_unsafe_deserialization", "extractall", "unpack_archive",
}  # fmt: skip
HANDING_OUT_RUNS = {
    "Parallel",
    "delayed",
    "parallel_config",
    "register_parallel_backend",
}  # of joblib, which pickles


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_opens_files_in_a_way_that_can_run_code(path):
    """No pickle, no `eval`, no archive unpacked to the disk; `.keras` files in safe mode, which is Keras' default."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = {getattr(node, field, None) for field in ("id", "attr")}
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {part for alias in node.names for part in alias.name.split(".")}
            names |= set((getattr(node, "module", None) or "").split("."))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "joblib":
            assert node.attr in HANDING_OUT_RUNS, f"line {node.lineno}"
        assert getattr(node, "module", None) != "joblib", "import joblib itself, so that its functions are seen"
        names -= BUILT_IN if isinstance(node, ast.Attribute) else set()  # `network.eval()` is PyTorch's
        assert not names & (BUILT_IN | RUNNING_CODE), f"line {node.lineno}"
        if isinstance(node, ast.Call):
            flags = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert flags.get("allow_pickle", "False") == "False"
            trusted = "not trust" if path.name == "stored.py" else "True"
            assert flags.get("safe_mode", "True") in ("True", trusted)
            assert ast.unparse(node.func) not in ("np.load", "numpy.load"), "see experiments/datasets/reading.py"


def npz_sets(**changed):
    arrays = {"x_train": pixels(4, (3, 3)), "y_train": labels(4), "x_test": pixels(2, (3, 3)), "y_test": np.arange(2)}
    return arrays | changed


def predictions(**changed):
    arrays = {f"logits_{split}_benign": np.random.default_rng(0).normal(size=(5, 3)) for split in ("train", "test")}
    return arrays | {f"{split}_label": np.arange(5) % 3 for split in ("train", "test")} | changed


READERS = {
    "npz": (lambda path: datasets.load("npz", data_dir=str(path)), npz_sets, "x_train"),
    "audit": (audit_file, predictions, "logits_train_benign"),
}


@pytest.fixture(params=READERS)
def reader(request):
    """One of the two readers of npz files, arrays that it takes, and the name of the largest."""
    return READERS[request.param]


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write_archive(path, arrays, *more, compression=zipfile.ZIP_DEFLATED):
    """An archive of arrays and, after them, of `more` pairs of a name or a `ZipInfo` and bytes."""
    with zipfile.ZipFile(path, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that come twice
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", npy(array))
        for name, content in more:
            archive.writestr(name, content)


def test_what_the_tests_damage_is_read_when_whole(reader, tmp_path):
    read, arrays, _ = reader
    write_archive(tmp_path / "d.npz", arrays(), ("notes/read me.txt", b""), ("params/kernel.npy", npy(np.zeros(3))))
    read(tmp_path / "d.npz")


def test_objects_are_not_unpickled(reader, tmp_path):
    read, arrays, name = reader
    objects = np.array([Bomb(), Bomb()])
    np.savez(tmp_path / "d.npz", **arrays(**{name: objects}))
    with pytest.raises(ValueError, match=f"`{name}` of .*one of objects is a pickle, which can run code"):
        read(tmp_path / "d.npz")
    for content in (pickle.dumps(Bomb()), npy(objects)):
        (tmp_path / "d.npz").write_bytes(content)
        with pytest.raises(ValueError, match="could not be read"):
            read(tmp_path / "d.npz")


def test_objects_that_nobody_asked_for_are_left_alone(reader, tmp_path):
    read, arrays, _ = reader
    np.savez(tmp_path / "d.npz", **arrays(), logits_of_mine=np.array([Bomb()]))
    read(tmp_path / "d.npz")


# ---------------------------------------------------------------- archives


def zeros(num, kind="|u1", shape=None):
    """An npy file of zeros in DEFLATE's format, with its CRC and length, made without holding it in memory."""
    head = npy(np.zeros(0, kind)).replace(b"(0,)", repr(shape or (num,)).encode())
    head = head[: head.index(b"\n")].rstrip() + b"\n"
    head = head[:8] + struct.pack("<H", len(head) - 10) + head[10:]
    packer, block = zlib.compressobj(6, zlib.DEFLATED, -15), bytes(1 << 20)
    packed, check = packer.compress(head), zlib.crc32(head)
    for _ in range(num >> 20):
        packed, check = packed + packer.compress(block), zlib.crc32(block, check)
    return packed + packer.flush(), check, len(head) + (num >> 20 << 20)


def write_packed(path, arrays, name, packed, check, length, stated=None):
    """The archive with the member `name` given as DEFLATE-d bytes, in whose place `stated` may be the length."""
    stored = zipfile.ZipInfo(f"{name}.npy")
    others = {key: array for key, array in arrays.items() if key != name}
    write_archive(path, others, (stored, packed), compression=zipfile.ZIP_STORED)
    content, mark = bytearray(path.read_bytes()), f"{name}.npy".encode()
    local, central = content.rindex(mark, 0, content.index(b"PK\1\2")) - 30, content.rindex(mark) - 46
    for start in (local + 8, central + 10):
        content[start : start + 2] = struct.pack("<H", zipfile.ZIP_DEFLATED)
        content[start + 6 : start + 18] = struct.pack("<III", check, len(packed), stated or length)
    path.write_bytes(content)


def test_a_zip_bomb(reader, tmp_path):
    """A file of a quarter of a megabyte that honestly states 256 MiB; and the same with 1,000 bytes stated."""
    read, arrays, name = reader
    bomb = zeros(256 << 20, shape=(256 << 20, 1))
    for stated, message in ((None, "states more than it can hold"), (1000, f"`{name}` of .* Bad CRC-32")):
        write_packed(tmp_path / "d.npz", arrays(), name, *bomb, stated=stated)
        with peak_below(100 << 20), pytest.raises(ValueError, match=message):
            read(tmp_path / "d.npz")
        assert os.path.getsize(tmp_path / "d.npz") < 1 << 20


def test_a_zip_bomb_is_whole_but_for_its_size(tmp_path):
    """What the test above writes is refused for its size only: of 3 MiB, it is read."""
    write_packed(tmp_path / "d.npz", npz_sets(), "x_train", *zeros(4 << 20, shape=(4, 1 << 10, 1 << 10)))
    with pytest.raises(ValueError, match="`x_test` of .* must have the shape"):
        datasets.load("npz", data_dir=str(tmp_path / "d.npz"))


@pytest.mark.parametrize(
    "shape", [(2**31, 28, 28), (2**63, 2**63), (-1, -9), (10**40,), (0, 2**63), (1,) * 70, (True, 9)]
)
def test_shapes_in_headers(reader, tmp_path, shape):
    read, arrays, name = reader
    content = npy(np.zeros(0, np.uint8)).replace(b"(0,)", repr(shape).encode())[10:]
    content = b"\x93NUMPY\1\0" + struct.pack("<H", len(content)) + content
    count = abs(int(np.prod(shape, dtype=object)))
    others = {key: array for key, array in arrays().items() if key != name}
    write_archive(tmp_path / "d.npz", others, (f"{name}.npy", content + bytes(count if count < 100 else 9)))
    with peak_below(100 << 20), pytest.raises(ValueError, match=f"`{name}` of .*(shape|in NumPy's format)"):
        read(tmp_path / "d.npz")


@pytest.mark.parametrize("damage", ["checksum", "cut", "member cut"])
def test_damaged_archives(reader, tmp_path, damage):
    read, arrays, name = reader
    path = tmp_path / "d.npz"
    write_archive(path, arrays(), compression=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    start = content.index(f"{name}.npy".encode())
    if damage == "checksum":
        content[start + len(f"{name}.npy") + 128] ^= 255  # the first byte after the header
    elif damage == "cut":
        del content[-30:]
    else:
        del content[start + 170 : start + 180]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"'{path}'|of '{path}'"):
        read(path)


# ---------------------------------------------------------------- no regular files


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_device(path):
    path.symlink_to("/dev/zero")  # what a user names may be a link; what is found in a folder may not


@pytest.mark.parametrize("make", [make_fifo, make_socket, make_device])
def test_what_is_no_file_is_not_opened(reader, tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    make(pathlib.Path("d"))
    with pytest.raises(ValueError, match="it is not a regular file"):
        finished(lambda: reader[0](tmp_path / "d"))
    with pytest.raises(ValueError, match="no flag file"):
        finished(lambda: command_line.expand_flagfiles(["--flagfile=d"]))


def finished(call):
    """The result of a call, or what it raised, within 2 minutes."""
    outcome = []

    def run():
        try:
            outcome.append((call(), None))
        except Exception as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(120)
    assert outcome, "still waiting"
    if outcome[0][1]:
        raise outcome[0][1]
    return outcome[0][0]


# ---------------------------------------------------------------- published files


@pytest.mark.parametrize(
    "shape, message",
    [((60_000, 28, 28), "more than it can hold"), ((1, 28, 28), "more bytes than"), ((2, 28, 28), "more bytes than")],
)
def test_a_gzip_bomb(tmp_path, shape, message):
    """256 MiB of zeros behind a header, in a quarter of a megabyte."""
    packed = gzip.compress(struct.pack(">4I", 2051, *shape)) + gzip.compress(bytes(4 << 20)) * 64
    write_fmnist(tmp_path, zipped=True)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(packed)
    with peak_below(100 << 20), pytest.raises(ValueError, match=message):
        datasets.load("fmnist", data_dir=str(tmp_path))


def test_files_longer_than_the_disk_they_take(tmp_path):
    """A terabyte of nothing, which a sparse file may be."""
    write_fmnist(tmp_path / "fmnist")
    num = (1 << 40) // 784
    with open(tmp_path / "fmnist" / "train-images-idx3-ubyte", "wb") as file:
        file.write(struct.pack(">4I", 2051, num, 28, 28))
        file.truncate(16 + num * 784)
    write_cifar10(tmp_path / "cifar10")
    os.truncate(tmp_path / "cifar10" / "data_batch_1.bin", (1 << 30) * 3073)
    for name, message in (("fmnist", "more than it can hold"), ("cifar10", "at most 10000 records")):
        with peak_below(100 << 20), pytest.raises(ValueError, match=message):
            datasets.load(name, data_dir=str(tmp_path / name))


# ---------------------------------------------------------------- image folders


def png(height, width, kind=0, data=None):
    """A PNG file by hand, grey unless `kind` is 2 (colour); of zeros unless data are given."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    if data is None:
        packer, row = zlib.compressobj(), bytes(1 + width * (3 if kind == 2 else 1))
        data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    for split in ("train", "test"):
        (root / split / "cat").mkdir(parents=True)
        for n in range(2):
            (root / split / "cat" / f"{n}.png").write_bytes(png(6, 5))
    return root


def load_folder(root):
    return datasets.load("image_folder", data_dir=str(root))


def bmp_header(width, height):
    return struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def jpeg_of_size(height, width):
    content = bytearray(tf.io.encode_jpeg(np.zeros((6, 5, 3), np.uint8)).numpy())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(content)


IMAGES = {
    "bomb": png(10_000, 10_000),
    "high": png(100_000, 1),
    "wide": png(1, 100_000, 2),
    "no pixels": png(0, 5),
    "negative": png(2**31, 2**31, data=zlib.compress(b"")),
    "jpeg": jpeg_of_size(65_535, 65_535),
    "bmp": bmp_header(30_000, 30_000) + bytes(100),
    "bmp upside down": bmp_header(30_000, -(2**31)) + bytes(100),
    "gif": b"GIF89a" + struct.pack("<HH", 5, 6) + bytes(20),
    "gif of a terabyte": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(20),
    "short": b"\x89PNG",
    "text": b"not an image",
    "html": b"<html>404</html>",
    "pickle": pickle.dumps(Bomb()),
}


@pytest.mark.parametrize("name", ["train/cat/0.png", "test/cat/1.png"])
@pytest.mark.parametrize("kind", IMAGES)
def test_images_that_are_none_or_too_large_are_not_decoded(folder, kind, name):
    """The bomb has 0.1 MB and would be 300 MB of pixels. The first image sets the size, the others have to have it."""
    (folder / name).write_bytes(IMAGES[kind])
    with peak_below(100 << 20), pytest.raises(ValueError, match=f"{name}' could not be decoded as an image"):
        load_folder(folder)


def test_images_of_very_different_size(folder):
    (folder / "test" / "cat" / "1.png").write_bytes(png(2000, 4000))
    with pytest.raises(ValueError, match=r"one size.*\(2000, 4000\) in .*test/cat/1.png"):
        load_folder(folder)


def test_many_images_that_are_each_allowed(folder):
    """40 of 2,000 by 2,000 pixels, 4 kB each: 480 MB in memory."""
    for split in ("train", "test"):
        for n in range(20):
            (folder / split / "cat" / f"{n}.png").write_bytes(png(2000, 2000))
    with peak_below(100 << 20), pytest.raises(ValueError, match="images' states more than it can hold"):
        load_folder(folder)


def test_an_image_of_a_terabyte(folder):
    for name in ("0.png", "1.png"):
        os.truncate(folder / "train" / "cat" / name, 1 << 40)
        with pytest.raises(ValueError, match=f"train/cat/{name}' could not .* too long for an image"):
            load_folder(folder)
        (folder / "train" / "cat" / name).write_bytes(png(6, 5))


def test_what_is_no_file_in_a_folder_is_passed_over(folder, monkeypatch):
    """Pipes, sockets and links, also to directories above and to devices, whatever they are called."""
    expected = load_folder(folder)
    cat = folder / "train" / "cat"
    os.mkfifo(cat / "2.png")
    with monkeypatch.context() as context:
        context.chdir(cat)
        make_socket("3.png")
    (cat / "4.png").symlink_to("/dev/zero")
    (cat / "5.png").symlink_to("/etc/hostname")
    (folder / "train" / "dog").symlink_to(folder)
    (folder / "test" / "dog").symlink_to("/")
    found = finished(lambda: load_folder(folder))
    np.testing.assert_array_equal(found.train.images, expected.train.images)
    assert found.num_classes == 1


def test_names_that_would_move_the_cursor_are_quoted(folder):
    os.rename(folder / "train" / "cat" / "1.png", folder / "train" / "cat" / "\x1b[2J\n.png")
    (folder / "train" / "cat" / "\x1b[2J\n.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"\\x1b\[2J\\n.png' could not be decoded") as error:
        load_folder(folder)
    assert str(error.value).isprintable()


# ---------------------------------------------------------------- flag files


def write_flags(path, *lines):
    path.write_text("\n".join(lines))
    return f"--flagfile={path}"


def test_flag_files_that_double(tmp_path):
    """30 files, each of which names the next one twice: 2 ** 30 in all, of which not one holds a flag."""
    write_flags(tmp_path / "30")
    for n in reversed(range(30)):
        first = write_flags(tmp_path / str(n), *2 * [f"--flagfile={tmp_path / str(n + 1)}"])
    with pytest.raises(ValueError, match="names files too deep in each other"):
        finished(lambda: command_line.expand_flagfiles([first]))


def test_flag_files_in_a_long_chain(tmp_path):
    for n in range(2000):
        write_flags(tmp_path / str(n), f"--flagfile={tmp_path / str(n + 1)}")
    with pytest.raises(ValueError, match="names files too deep in each other"):
        command_line.expand_flagfiles([f"--flagfile={tmp_path / '0'}"])


def test_a_flag_file_that_is_too_long_is_not_cut(tmp_path):
    lines = ["# " + 100 * "-"] * 640
    assert command_line.expand_flagfiles([write_flags(tmp_path / "a", "--seed=1", *lines[:630], "--seed=2")])
    with pytest.raises(ValueError, match="'.*a' has more than 65536 bytes"):
        command_line.expand_flagfiles([write_flags(tmp_path / "a", "--seed=1", *lines, "--seed=2")])
    os.truncate(tmp_path / "a", 1 << 40)
    with peak_below(100 << 20), pytest.raises(ValueError, match="bytes"):
        command_line.expand_flagfiles([f"--flagfile={tmp_path / 'a'}"])


@pytest.mark.skipif(os.geteuid() == 0, reason="permission bits do not bind the superuser")
def test_a_flag_file_without_permission(tmp_path):
    name = write_flags(tmp_path / "a", "--seed=1")
    (tmp_path / "a").chmod(0)
    with pytest.raises(flags.Error, match="Permission denied"):
        command_line.expand_flagfiles([name])
