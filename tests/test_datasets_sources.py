"""Images named by one word on a command line."""

import numpy as np
import pytest

from experiments import datasets


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
    pixels, labels = np.arange(48, dtype=np.uint8).reshape(3, 4, 4), np.array([[2], [0], [1]])
    np.savez(tmp_path / "images.npz", **{names[0]: pixels, names[1]: labels})
    split = datasets.load_source(f"{tmp_path}/images.npz{suffix}")
    assert split.images.shape == (3, 4, 4, 1) and split.images.dtype == np.float32
    np.testing.assert_allclose(split.images[..., 0], pixels / 255, rtol=1e-6)
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
