"""What a data set is in memory."""

from typing import NamedTuple

import numpy as np


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
