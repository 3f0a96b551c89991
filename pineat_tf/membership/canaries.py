"""Canaries: examples with a wrong label, which only a network that was trained on them can know."""

import numpy as np

from pineat_tf.checks import check_count


def plant_canaries(labels, *, num: int, num_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gives random examples a random wrong label.

    Average figures hide those who need privacy most. Canaries stand in for them: train on the examples of one half of
    the canaries, with the labels given here, leave the other half out, and audit the two halves (scored with these
    labels) by `audit_scores`.

    Args:
        labels: class numbers 0 .. `num_classes` - 1, shape `(num_examples,)`.
        num: how many canaries, 1 .. num_examples.
        num_classes: how many classes there are, >= 2.
        seed: which examples, and which labels, >= 0.

    Returns:
        A copy of the labels with those of the canaries changed, and the canaries' positions in random order, shape
        `(num,)`: any part of them is a random part.

    Raises:
        ValueError: if labels are no class numbers, or a count is out of range.

    Example:
        >>> labels, canaries = plant_canaries([0, 1, 0, 1], num=2, num_classes=2, seed=0)
        >>> trained_on, left_out = canaries[::2], canaries[1::2]

    Reference:
        Aerni, Zhang and Tramèr, "Evaluations of Machine Learning Privacy Defenses are Misleading", CCS 2024,
        section 4.
    """
    labels = np.array(labels)
    check_count("num_classes", num_classes, 2, "A wrong label needs a second class.")
    check_count("num", num, 1, "It is how many labels are changed.")
    check_count("seed", seed, 0, "It chooses the examples and their labels.")
    whole = labels.ndim == 1 and labels.dtype.kind in "iu"
    if not whole or not labels.size or labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"`labels` must be whole numbers in 0 .. {num_classes - 1} of shape (num_examples,). Received: dtype "
            f"{labels.dtype.name}, shape {labels.shape}. Turn one-hot labels into numbers by np.argmax(labels, -1)."
        )
    if num > len(labels):
        raise ValueError(f"`num` must be at most the number of examples. Received: num={num} of {len(labels)}.")
    rng = np.random.default_rng(seed)
    canaries = rng.permutation(len(labels))[:num]
    steps = rng.integers(1, num_classes, num)
    if num_classes - 1 > np.iinfo(labels.dtype).max:  # a new label may not fit
        labels = labels.astype(np.int64)
    labels[canaries] = (labels[canaries].astype(np.int64) + steps) % num_classes
    return labels, canaries
