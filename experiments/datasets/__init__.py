"""Data sets as plain arrays, checked by content, and the batches of a training run.

`load` gives a `Dataset` by name, from whatever copy the machine has; `training_batches` turns a
split into batches that depend on nothing but the seed and the number of the round.
"""

from experiments.datasets.batches import MIXINGS, training_batches
from experiments.datasets.loading import NAMES, SOURCES, fingerprint, load, load_source, random_half
from experiments.datasets.published import DEBIAN_FMNIST
from experiments.datasets.types import Dataset, Split

__all__ = [
    "DEBIAN_FMNIST", "MIXINGS", "NAMES", "SOURCES", "Dataset", "Split", "fingerprint", "load", "load_source",
    "random_half", "training_batches",
]  # fmt: skip
