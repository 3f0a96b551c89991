"""Canaries: examples with a wrong label, which only a network that was trained on them can know."""

from typing import Any

import numpy as np

from pineat_tf.checks import check_count
from pineat_tf.membership.scores import as_class_numbers

__all__ = ["plant_canaries"]


def plant_canaries(labels: Any, *, num: int, num_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Replaces the labels of random examples by random wrong ones.

    Average figures hide those who need privacy most. Canaries stand in for them: train on the examples of one half of
    the canaries, with the labels given here, leave the other half out, and audit the two halves (scored with these
    labels) by `audit_scores`.

    Args:
        labels: class numbers 0 .. `num_classes` - 1 of shape `(num_examples,)`, one-hot rows or a column.
        num: how many canaries, 1 .. num_examples.
        num_classes: how many classes there are, >= 2.
        seed: which examples, and which labels, >= 0.

    Returns:
        int64 class numbers with those of the canaries changed, shape `(num_examples,)`, and the canaries' positions in
        random order, shape `(num,)`: any part of them is a random part.

    Raises:
        ValueError: if labels are no class numbers, or a count is out of range.

    Example:
        >>> labels, canaries = plant_canaries([0, 1, 0, 1], num=2, num_classes=2, seed=0)
        >>> trained_on, left_out = canaries[::2], canaries[1::2]

    Reference:
        Aerni, Zhang and Tramèr, "Evaluations of Machine Learning Privacy Defenses are Misleading", CCS 2024,
        section 4.
    """
    check_count("num_classes", num_classes, 2, "A wrong label needs a second class.")
    check_count("num", num, 1, "It is how many labels are changed.")
    check_count("seed", seed, 0, "It chooses the examples and their labels.")
    labels = as_class_numbers("labels", labels, num_classes=num_classes).numpy().copy()
    if num > len(labels):
        raise ValueError(f"`num` must be at most the number of examples. Received: num={num} of {len(labels)}.")
    rng = np.random.default_rng(seed)
    canaries = rng.permutation(len(labels))[:num]
    steps = rng.integers(1, num_classes, num)
    labels[canaries] = (labels[canaries] + steps) % num_classes
    return labels, canaries
