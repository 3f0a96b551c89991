"""`load`: the names it knows, the subset it takes, and what `data_dir` may be."""

import numpy as np
import pytest
from dataset_files import assert_is, bare_machine, labels, npz_arrays, pixels, write_fmnist  # noqa: F401 (a fixture)

from experiments import datasets


def test_names_are_the_loaders():
    assert datasets.NAMES == ("digits", "fmnist", "cifar10", "image_folder", "npz")


@pytest.mark.parametrize(
    "name, message",
    [
        ("fmnst", "Did you mean 'fmnist'"),
        ("cifar-10", "Did you mean 'cifar10'"),
        ("imagenet21", "must be one of .'digits', 'fmnist', 'cifar10', 'image_folder', 'npz'."),
        (None, "Received: name=None"),
    ],
)
def test_unknown_name(name, message):
    with pytest.raises(ValueError, match=message):
        datasets.load(name)


@pytest.mark.parametrize("what", ["train_size", "test_size"])
@pytest.mark.parametrize("size", [-1, 1298, 2**63, 1.5, True, "3"])
def test_size_out_of_range(what, size):
    with pytest.raises(ValueError, match=f"`{what}` must"):
        datasets.load("digits", **{what: size})


def test_subset_is_the_head_of_a_fixed_permutation():
    """Two runs have the same subset, smaller ones are part of larger ones, and no image is taken twice."""
    everything = datasets.load("digits")
    order = np.random.RandomState(0).permutation(1297)
    for size in (1, 100, 1297):
        subset = datasets.load("digits", train_size=size)
        np.testing.assert_array_equal(subset.train.images, everything.train.images[order[:size]])
        np.testing.assert_array_equal(subset.train.labels, everything.train.labels[order[:size]])
        np.testing.assert_array_equal(subset.test.images, everything.test.images)
        assert subset.num_classes == 10  # one image has one class, the data set ten


def test_digits():
    dataset = datasets.load("digits", data_dir="not used")
    assert (dataset.name, dataset.num_classes) == ("digits", 10)
    assert dataset.train.images.shape == (1297, 8, 8, 1) and dataset.test.images.shape == (500, 8, 8, 1)
    for images, numbers in (dataset.train, dataset.test):
        assert (images.dtype, numbers.dtype) == (np.float32, np.int64)
        assert set(np.unique(images * 16)) == set(range(17))  # 17 levels of grey: 0 .. 16
        assert np.ptp(np.bincount(numbers) / len(numbers)) < 0.01  # stratified
    whole = np.concatenate([dataset.train.images, dataset.test.images]).reshape(1797, 64)
    assert len(np.unique(whole, axis=0)) == 1797  # all of the digits, and none in both splits


@pytest.mark.parametrize("name", ["fmnist", "cifar10", "image_folder"])
@pytest.mark.parametrize("kind", ["missing", "file"])
def test_data_dir_that_is_no_directory(tmp_path, name, kind):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="`data_dir` is not a directory.*Received: data_dir="):
        datasets.load(name, data_dir=str(tmp_path / kind))


@pytest.mark.parametrize("name", ["image_folder", "npz"])
@pytest.mark.parametrize("data_dir", [None, ""])
def test_data_dir_left_out(name, data_dir):
    with pytest.raises(ValueError, match=f"{name}' needs `data_dir`"):
        datasets.load(name, data_dir=data_dir)


def test_home_is_expanded(tmp_path, monkeypatch):
    """A shell leaves the tilde of --data_dir=~/x as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    x, y, _, _ = write_fmnist(tmp_path / "raw")
    assert_is(datasets.load("fmnist", data_dir="~/raw").train, x, y)


# ---------------------------------------------------------------- npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    arrays = npz_arrays()
    save(tmp_path / "mine.npz", **arrays, something_else=np.zeros(3))
    dataset = datasets.load("npz", data_dir=str(tmp_path / "mine.npz"))
    assert (dataset.name, dataset.num_classes) == ("mine", 6)
    assert_is(dataset.train, arrays["x_train"], arrays["y_train"])
    assert_is(dataset.test, arrays["x_test"], arrays["y_test"])


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: np.float64(x) / 255,
        lambda x: np.float32(x) / np.float32(255),
        lambda x: (np.float64(x) / 255).astype(">f8"),
        lambda x: np.asfortranarray(x),
        lambda x: np.float16(x > 127),
        lambda x: x[..., 0],
    ],
)
def test_npz_of_other_arrays(tmp_path, convert):
    """Floats in [0, 1], any order of bytes and axes, no channel; labels in a column, of any whole type."""
    arrays = npz_arrays()
    x_train, x_test = convert(arrays["x_train"]), convert(arrays["x_test"])
    y_train = arrays["y_train"].astype(np.uint64)[:, None]
    np.savez(tmp_path / "d.npz", **{**arrays, "x_train": x_train, "x_test": x_test, "y_train": y_train})
    dataset = datasets.load("npz", data_dir=str(tmp_path / "d.npz"))
    expected = np.float64(x_train) / (255 if x_train.dtype == np.uint8 else 1)
    assert dataset.train.images.dtype == np.float32 and dataset.train.images.ndim == 4
    np.testing.assert_allclose(dataset.train.images.reshape(expected.shape), expected, atol=1e-7)
    np.testing.assert_array_equal(dataset.train.labels, arrays["y_train"])


def test_npz_counts_classes_before_the_subset(tmp_path):
    np.savez(tmp_path / "d.npz", **npz_arrays(y_test=np.array([0, 0, 8])))
    dataset = datasets.load("npz", data_dir=str(tmp_path / "d.npz"), train_size=1, test_size=1)
    assert (dataset.num_classes, len(dataset.train.labels), len(dataset.test.labels)) == (9, 1, 1)


X = np.float32(pixels(6, (5, 4, 3))) / 255
Y = np.arange(6)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"x_train": None}, "must hold the arrays.*without x_train"),
        ({"y_test": None}, "must hold the arrays.*without y_test"),
        ({"x_train": np.where(X > 0.5, np.nan, X)}, "without NaN.*minimum nan"),
        ({"x_train": np.where(X > 0.5, np.inf, X)}, r"in \[0, 1\].*maximum inf"),
        ({"x_train": X * 255}, r"in \[0, 1\].*Divide by 255"),
        ({"x_train": X * 2 - 1}, r"in \[0, 1\].*minimum -"),
        ({"x_train": X - 1e-6}, r"in \[0, 1\]"),
        ({"x_train": X + 0j}, "dtype complex64"),
        ({"x_train": np.int64(X)}, "dtype int64"),
        ({"x_train": X > 0.5}, "dtype bool"),
        ({"x_train": X.astype(object)}, "array of numbers.*pickle"),
        ({"x_train": np.full((6, 5, 4, 3), "a")}, "array of numbers.*dtype <U1"),
        ({"x_train": np.zeros((6, 5, 4), [("red", "u1")])}, "array of numbers"),
        ({"x_train": np.zeros((6, 5, 4), "M8[s]")}, "array of numbers"),
        ({"x_train": X.reshape(6, -1)}, r"must have the shape.*Received: shape \(6, 60\)"),
        ({"x_train": X[..., None]}, "must have the shape"),
        ({"x_train": np.float32(0.5)}, r"Received: shape \(\)"),
        ({"x_train": X[:0], "y_train": Y[:0]}, r"at least 1 image. Received: shape \(0,"),
        ({"x_train": X[:, :0]}, r"shape \(6, 0,"),
        ({"x_train": X[:5]}, "one label an image"),
        ({"y_train": Y[:5]}, "one label an image"),
        ({"y_train": np.eye(6, dtype=int)}, "one label an image"),
        ({"y_train": np.int64(3)}, "one label an image"),
        ({"y_train": np.float64(Y)}, "whole numbers.*dtype float64"),
        ({"y_train": np.eye(6)}, "whole numbers.*one-hot"),
        ({"y_train": Y > 2}, "whole numbers.*dtype bool"),
        ({"y_train": Y.astype(object)}, "array of numbers.*pickle"),
        ({"y_train": Y.astype(str)}, "array of numbers"),
        ({"y_train": Y - 1}, "label -1 of image 0"),
        ({"y_train": np.uint64([0, 1, 2, 3, 4, 2**63])}, "label 9223372036854775808 of image 5"),
        ({"y_train": np.int64([0, 1, 2, 3, 4, -(2**63)])}, "label -9223372036854775808 of image 5"),
        ({"y_test": np.int64([0, 1, 100_000])}, "label 100000 of image 2"),
        ({"x_test": pixels(3, (5, 4, 1))}, r"must have the shape \(num, 5, 4, 3\)"),
        ({"x_test": pixels(3, (4, 5, 3))}, r"must have the shape \(num, 5, 4, 3\)"),
        (
            {"x_train": pixels(6, (3, 8, 8)), "x_test": pixels(3, (3, 8, 8))},
            "channels first.*transpose",
        ),
        ({"y_train": 0 * Y, "y_test": 0 * Y[:3]}, "one class only"),
    ],
)
def test_bad_npz_arrays(tmp_path, changed, message):
    np.savez(tmp_path / "d.npz", **npz_arrays(**changed))
    with pytest.raises(ValueError, match=message):
        datasets.load("npz", data_dir=str(tmp_path / "d.npz"))


# ---------------------------------------------------------------- images by one word


def test_a_split_by_name_is_that_of_the_data_set():
    split = datasets.load_source("digits:train")
    for got, wanted in zip(split, datasets.load("digits").train):
        np.testing.assert_array_equal(got, wanted)


def test_a_number_takes_the_subset_of_a_run():
    split = datasets.load_source("digits:test:30")
    for got, wanted in zip(split, datasets.load("digits", test_size=30).test):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("names, suffix", [(("x", "y"), ""), (("x_test", "y_test"), ":test")])
def test_a_file_gives_its_arrays(tmp_path, names, suffix):
    images, numbers = np.arange(48, dtype=np.uint8).reshape(3, 4, 4), np.array([[2], [0], [1]])
    np.savez(tmp_path / "images.npz", **{names[0]: images, names[1]: numbers})
    split = datasets.load_source(f"{tmp_path}/images.npz{suffix}")
    assert split.images.shape == (3, 4, 4, 1) and split.images.dtype == np.float32
    np.testing.assert_allclose(split.images[..., 0], images / 255, rtol=1e-6)
    np.testing.assert_array_equal(split.labels, [2, 0, 1])


@pytest.mark.parametrize(
    "source",
    ["", "digits", "digits:all", "mnist:test", "digits:test:0", "digits:test:x", "digits:test:5:5", "tfds:mnist"],
)
def test_words_that_name_nothing_are_refused(source):
    with pytest.raises(ValueError, match="names no images|number of images"):
        datasets.load_source(source)


def test_files_without_the_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "images.npz", x_train=np.zeros((1, 2, 2)), y_train=np.zeros(1, int))
    with pytest.raises(ValueError, match="must hold the arrays x and y"):
        datasets.load_source(f"{tmp_path}/images.npz")
    with pytest.raises(ValueError, match="must not be larger than the split"):
        datasets.load_source("digits:test:100000")


def test_tfds_that_cannot_be_read_says_why(tmp_path):
    with pytest.raises(ValueError, match="tfds:no_such_set:test could not be read.*no_such_set not found. It must"):
        datasets.load_source("tfds:no_such_set:test", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    "bounds, kind, factor, offset",
    [
        ((0, 255), np.uint8, 1, 0),
        ((0, 255), np.int64, 1, 0),
        ((0, 255), np.float32, 1, 0),
        ((-1, 1), np.uint8, 2 / 255, -1),
        (None, np.uint8, 1 / 255, 0),
        (None, np.float64, 1, 0),
    ],
)
def test_pixels_are_in_the_range_of_the_network(tmp_path, bounds, kind, factor, offset):
    """Bytes are spread over a range up to 1 and kept in one that reaches further; floats are kept."""
    images = pixels(3, (4, 4, 1))
    np.savez(tmp_path / "d.npz", x=images.astype(kind), y=np.arange(3))
    split = datasets.load_source(f"{tmp_path}/d.npz", bounds=bounds)
    np.testing.assert_allclose(split.images, images.astype(np.float64) * factor + offset, atol=1e-6)


def test_data_sets_by_name_are_spread_over_the_range():
    unit = datasets.load_source("digits:test:20").images
    np.testing.assert_array_equal(datasets.load_source("digits:test:20", bounds=(0, 255)).images, unit * 255)
    np.testing.assert_array_equal(datasets.load_source("digits:test:20", bounds=(-1, 1)).images, unit * 2 - 1)
    np.testing.assert_array_equal(datasets.load_source("digits:test:20", bounds=None).images, unit)


@pytest.mark.parametrize("value, bounds", [(256, (0, 255)), (-1, (0, 255)), (1.5, (-1, 1)), (np.inf, None)])
def test_pixels_beyond_the_range_are_refused(tmp_path, value, bounds):
    np.savez(tmp_path / "d.npz", x=np.full((1, 2, 2), value, "float64"), y=np.zeros(1, int))
    with pytest.raises(ValueError, match="`x` of .* must be in .*Received: minimum"):
        datasets.load_source(f"{tmp_path}/d.npz", bounds=bounds)


def test_a_fingerprint_is_of_the_content(tmp_path):
    """Not of the name, and not of the moment: a run's data are known by what they hold."""
    arrays = npz_arrays()
    np.savez(tmp_path / "a.npz", **arrays)
    before = datasets.fingerprint("npz", str(tmp_path / "a.npz"))
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes())
    assert datasets.fingerprint("npz", str(tmp_path / "b.npz")) == before
    np.savez(tmp_path / "a.npz", **arrays | {"x_train": 255 - arrays["x_train"]})
    assert datasets.fingerprint("npz", str(tmp_path / "a.npz")) != before
    assert datasets.fingerprint("digits", None) == datasets.fingerprint("fmnist", str(tmp_path)) == ""
    with pytest.raises(ValueError, match="could not be read"):
        datasets.fingerprint("npz", str(tmp_path / "absent.npz"))


@pytest.mark.parametrize(
    "train_size, test_size, expected", [(0, 0, (797, 500)), (100, 50, (100, 50)), (0, 7, (1290, 7))]
)
def test_pools_are_disjoint_draws_from_the_training_split(train_size, test_size, expected):
    def numbers(split):
        return {images.tobytes() for images in split.images}

    whole = numbers(datasets.load("digits").train)
    drawn = datasets.load("digits", train_size=train_size, test_size=test_size, pools_seed=3)
    members, non_members = numbers(drawn.train), numbers(drawn.test)
    assert (len(drawn.train.labels), len(drawn.test.labels)) == expected
    assert members | non_members <= whole and not members & non_members
    again, other = (datasets.load("digits", train_size=100, pools_seed=seed).train for seed in (3, 4))
    assert members >= numbers(again) or train_size == 100 and members == numbers(again)
    assert numbers(other) != numbers(again)


def test_pools_need_an_image_each():
    with pytest.raises(ValueError, match=r"train_size=1290 and test_size=8 of 1297.*--pools=split"):
        datasets.load("digits", train_size=1290, test_size=8, pools_seed=0)
