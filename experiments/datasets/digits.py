"""The handwritten digits that scikit-learn ships: small, and always there."""

import numpy as np

from experiments.datasets.types import Dataset, Split

_TEST_SIZE = 500
_SPLIT_SEED = 0


def load_digits(data_dir: str | None) -> Dataset:
    """Splits the 1,797 digits, always in the same way; `data_dir` is not used."""
    del data_dir
    import sklearn.datasets
    import sklearn.model_selection

    digits = sklearn.datasets.load_digits()
    pixels = np.float32(digits.images[..., np.newaxis] / 16)
    x_train, x_test, y_train, y_test = sklearn.model_selection.train_test_split(
        pixels,
        digits.target,
        test_size=_TEST_SIZE,
        stratify=digits.target,
        random_state=_SPLIT_SEED,
    )
    return Dataset("digits", Split(x_train, y_train), Split(x_test, y_test), 10)
