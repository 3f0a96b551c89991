"""`load`: the names it knows, the subset it takes, and what `data_dir` may be."""

import numpy as np
import pytest
from dataset_files import assert_is, bare_machine, write_fmnist  # noqa: F401 (a fixture for every test)

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
