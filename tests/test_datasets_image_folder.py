"""Folders of images: classes and files in sorted order, and every file that cannot be used is named."""

import os

import numpy as np
import pytest
import tensorflow as tf
from dataset_files import assert_is, bmp, pixels
from PIL import Image

from experiments import datasets


def encode(image, ending):
    encoder = {".png": tf.io.encode_png, ".jpg": lambda x: tf.io.encode_jpeg(x, quality=95)}
    return encoder[ending](image).numpy()


def write_folder(root, shape=(6, 5, 3), classes=("cat", "dog"), num=3, ending=".png"):
    """`num` images a class and split; gives them as {(split, class): images}."""
    written = {}
    for split in ("train", "test"):
        for name in classes:
            directory = root / split / name
            directory.mkdir(parents=True)
            images = pixels(num, shape)
            for n, image in enumerate(images):
                (directory / f"{n}{ending}").write_bytes(encode(image, ending))
            written[split, name] = images
    return written


@pytest.mark.parametrize("ending", [".png", ".jpg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_image_folder(tmp_path, ending, channels):
    """Classes and files in sorted order, the pixels those that TensorFlow decodes; grey stays 1 channel."""
    root = tmp_path / "pets-small"
    written = write_folder(root, (6, 5, channels), ("dog", "cat", "Bird"), 4, ending)
    dataset = datasets.load("image_folder", data_dir=str(root) + "/")
    assert (dataset.name, dataset.num_classes, dataset.train.images.shape) == ("pets-small", 3, (12, 6, 5, channels))
    for split in ("train", "test"):
        images = np.concatenate([written[split, name] for name in ("Bird", "cat", "dog")])
        if ending == ".jpg":
            images = np.stack([tf.io.decode_image(encode(image, ending)).numpy() for image in images])
        assert_is(getattr(dataset, split), images, np.repeat([0, 1, 2], 4))


def test_image_folder_of_grey_and_colour(tmp_path):
    """A grey file among colour ones has its channel repeated, in whichever split it is."""
    written = write_folder(tmp_path / "d")
    grey = pixels(1, (6, 5, 1))[0]
    (tmp_path / "d" / "test" / "cat" / "0.png").write_bytes(encode(grey, ".png"))
    dataset = datasets.load("image_folder", data_dir=str(tmp_path / "d"))
    images = np.concatenate([np.repeat(grey[None], 3, -1), written["test", "cat"][1:], written["test", "dog"]])
    assert_is(dataset.test, images, np.repeat([0, 1], 3))
    assert dataset.train.images.shape[-1] == 3


def test_image_folder_reads_image_files_only(tmp_path):
    """Upper case and BMP too; not what is hidden, not other files, not links."""
    root = tmp_path / "d"
    written = write_folder(root)
    extra = pixels(2, (6, 5, 3))
    cat = root / "train" / "cat"
    (cat / "3.PNG").write_bytes(encode(extra[0], ".png"))
    (cat / "4.bmp").write_bytes(bmp(extra[1]))
    for name in ("._0.png", "notes.txt"):
        (cat / name).write_text("not an image")
    (cat / "directory.png").mkdir()
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (root / "train" / "readme.txt").touch()
    (tmp_path / "outside.png").write_bytes(encode(extra[0], ".png"))
    (cat / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "train" / "zebra").symlink_to(root / "train" / "dog")
    dataset = datasets.load("image_folder", data_dir=str(root))
    images = np.concatenate([written["train", "cat"], extra, written["train", "dog"]])
    assert_is(dataset.train, images, [0] * 5 + [1] * 3)


def test_image_folder_with_names_that_are_no_text(tmp_path, monkeypatch):
    """Names need not be UTF-8, and a colon makes no URL of a relative path."""
    monkeypatch.chdir(tmp_path)
    written = write_folder(tmp_path / "gs:", classes=("cat",))
    try:
        os.rename(tmp_path / "gs:/train/cat/0.png", os.fsencode(tmp_path / "gs:/train/cat") + b"/0\xff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert_is(datasets.load("image_folder", data_dir="gs:").train, written["train", "cat"], [0, 0, 0])


def _write(path, content):
    return lambda root: (root / path).write_bytes(content)


def _png(*shape):
    return encode(np.zeros(shape, np.uint8), ".png")


def _replace_by_link(path):
    def replace(root):
        (root / path).rename(root.parent / "elsewhere")
        (root / path).symlink_to(root.parent / "elsewhere")

    return replace


def _empty(path):
    return lambda root: [file.unlink() for file in (root / path).iterdir()]


@pytest.mark.parametrize(
    "damage, message",
    [
        (_write("train/dog/1.png", b""), "train/dog/1.png' could not be decoded"),
        (_write("train/cat/0.png", b""), "train/cat/0.png' could not be decoded"),  # the one that sets the size
        (_write("test/dog/2.png", b"not an image"), "test/dog/2.png' could not be decoded"),
        (_write("test/dog/2.png", _png(6, 5, 3)[:-20]), "test/dog/2.png' could not be decoded"),
        (_write("test/cat/1.png", encode(pixels(1, (6, 5, 3))[0], ".jpg")[:-30]), "test/cat/1.png' could not"),
        (
            _write("train/dog/1.png", _png(5, 6, 3)),
            r"one size.*\(5, 6\) in .*train/dog/1.png', expected \(6, 5\)",
        ),
        (_write("test/cat/1.png", _png(6, 5, 4)), "test/cat/1.png' could not be decoded.*transparency"),
        (_write("test/cat/1.png", _png(6, 5, 2)), "test/cat/1.png' could not be.*transparen"),
        (_write("train/cat/0.png", encode(pixels(1, (6, 5, 3))[0], ".jpg")[:-30]), "train/cat/0.png' could not"),
        (_write("train/cat/0.png", _png(6, 5, 4)), "train/cat/0.png' could not be.*transparen"),
        (_empty("test/dog"), "no images in 'dog' of 'test'"),
        (lambda root: (root / "train" / "eel").mkdir(), "no images in 'eel' of 'train'"),
        (lambda root: (root / "train").rename(root / "training"), "no class in 'train'"),
        (lambda root: (root / "test").rename(root / "val"), "no class in 'test'"),
        (lambda root: (root / "test" / "dog").rename(root / "test" / "cow"), "'cow' in one of them only; 'dog' in one"),
        (_replace_by_link("test"), "links are not followed.*no class in 'test'"),
        (_replace_by_link("test/dog"), "same classes.*Received: 'dog' in one of them only"),
    ],
)
def test_bad_image_folder(tmp_path, damage, message):
    write_folder(tmp_path / "d")
    damage(tmp_path / "d")
    with pytest.raises(ValueError, match=message):
        datasets.load("image_folder", data_dir=str(tmp_path / "d"))


# ---------------------------------------------------------------- kinds of images

COLOUR = pixels(1, (6, 5, 3))[0]
PALETTE = Image.fromarray(COLOUR).quantize(16)
DEEP = pixels(1, (6, 5))[0].astype(np.uint16) * 257


def turned(image, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return image, {"exif": exif}


PICTURES = {  # name of the file: what is saved, and its colours
    "palette.bmp": (PALETTE, {}, PALETTE.convert("RGB")),
    "palette.png": (PALETTE, {}, PALETTE.convert("RGB")),
    "palette.gif": (PALETTE, {}, PALETTE.convert("RGB")),
    "grey.bmp": (Image.fromarray(COLOUR[..., 0]), {}, COLOUR[..., :1]),
    "one_bit.png": (Image.fromarray(COLOUR[..., 0] > 127), {}, 255 * (COLOUR[..., :1] > 127)),
    "deep.png": (Image.fromarray(DEEP), {}, DEEP[..., None] >> 8),
    "opaque.png": (Image.fromarray(np.dstack([COLOUR, np.full((6, 5), 255, np.uint8)])), {}, COLOUR),
    "turned.png": (*turned(Image.fromarray(COLOUR), 6), COLOUR[::-1].swapaxes(0, 1)),
    "upside_down.png": (*turned(Image.fromarray(COLOUR[..., 0]), 3), COLOUR[::-1, ::-1, :1]),
}
REFUSED = {
    "see_through.png": (Image.fromarray(np.dstack([COLOUR, COLOUR[..., 0]])), {}, "transparency"),
    "see_through_palette.png": (PALETTE, {"transparency": 0}, "transparency"),
    "grey_and_alpha.png": (Image.fromarray(COLOUR[..., :2]), {}, "transparency"),
    "press.jpg": (Image.fromarray(COLOUR).convert("CMYK"), {}, "colours are CMYK.*save it as RGB"),
    "animated.gif": (PALETTE, {"save_all": True, "append_images": [PALETTE.rotate(180)]}, "animated"),
    "animated.png": (
        Image.fromarray(COLOUR),
        {"save_all": True, "append_images": [Image.fromarray(255 - COLOUR)]},
        "animated",
    ),
}


def _folder_of(root, name, image, options):
    for split in ("train", "test"):
        (root / split / "cat").mkdir(parents=True)
        image.save(root / split / "cat" / name, **options)
    return str(root)


@pytest.mark.parametrize("name", PICTURES)
def test_an_image_is_what_a_viewer_shows(tmp_path, name):
    image, options, expected = PICTURES[name]
    dataset = datasets.load("image_folder", data_dir=_folder_of(tmp_path, name, image, options))
    expected = np.asarray(expected)
    assert dataset.train.images.shape == (1, *expected.shape)
    assert_is(dataset.test, expected[None], [0])


def test_a_photograph_is_turned_as_its_camera_says(tmp_path):
    """Of the same size once it is turned; the pixels are those of TensorFlow's decoder."""
    folder = _folder_of(tmp_path, "0.jpg", *turned(Image.fromarray(COLOUR), 6))
    upright = tf.io.decode_jpeg((tmp_path / "train" / "cat" / "0.jpg").read_bytes()).numpy()[::-1].swapaxes(0, 1)
    for split in ("train", "test"):
        Image.fromarray(np.ascontiguousarray(upright)).save(tmp_path / split / "cat" / "1.png")
    dataset = datasets.load("image_folder", data_dir=folder)
    assert_is(dataset.train, np.stack([upright, upright]), [0, 0])


@pytest.mark.parametrize("name", REFUSED)
def test_an_image_of_unknown_colours_is_refused(tmp_path, name):
    image, options, message = REFUSED[name]
    with pytest.raises(ValueError, match=f"{name}' could not be decoded as an image.*{message}"):
        datasets.load("image_folder", data_dir=_folder_of(tmp_path, name, image, options))


def test_a_fingerprint_is_of_the_images(tmp_path):
    """The same for a copy under another name; another for another pixel, name, or order of the files."""
    write_folder(tmp_path / "a")
    before = datasets.fingerprint("image_folder", str(tmp_path / "a"))
    (tmp_path / "a" / "train" / "notes.txt").touch()
    (tmp_path / "a").rename(tmp_path / "b")
    assert datasets.fingerprint("image_folder", str(tmp_path / "b")) == before and len(before) == 16
    path = tmp_path / "b" / "train" / "cat" / "0.png"
    path.rename(path.with_name("9.png"))
    assert datasets.fingerprint("image_folder", str(tmp_path / "b")) != before
    path.with_name("9.png").rename(path)
    path.write_bytes(encode(COLOUR, ".png"))
    assert datasets.fingerprint("image_folder", str(tmp_path / "b")) != before
