"""Audits predictions made elsewhere, by any framework, for membership leakage."""

import numpy as np

from experiments.datasets.reading import listed, read_arrays
from experiments.datasets.types import MOST_CLASSES
from pineat_tf import membership
from pineat_tf.report import QueryFigures, Report

QUERIES = {"natural": "benign", "adversarial": "adversarial"}
"""Our word for the inputs that were predicted -> the word in the names of the arrays."""

PREFIXES = {"logits_": "logits", "logits_output_": "logits", "output_": "probabilities"}
"""Prefixes of the names of prediction arrays -> what the arrays hold; the first complete pair is used."""

LABELS = ("train_label", "test_label")

_PROBABILITIES = "{} holds probabilities: {}. Received: {} first. Save them as {}."

_NAMES = {
    *LABELS,
    *(f"{prefix}{split}_{word}" for prefix in PREFIXES for split in ("train", "test") for word in QUERIES.values()),
}


def audit(path: str) -> tuple[Report, dict[str, str | None]]:
    """Audits the predictions in one npz file.

    Args:
        path: the file; the help of `experiments.audit` says which arrays it holds.

    Returns:
        The report, and what each kind of input was scored from: "logits", "probabilities", or None without it.

    Raises:
        ValueError: if the file cannot be read, is no npz file, lacks arrays, or they do not fit.
    """
    arrays = read_arrays(path, _NAMES)
    chosen = {queries: _choose(arrays, queries) for queries in QUERIES}
    for form, names in chosen.values():
        _check_arrays(arrays, names)
        for name, label in zip(names, LABELS):
            arrays[name], arrays[label] = _as_rows(arrays[name], arrays[label], form, name)
    natural, adversarial = (_query_figures(arrays, queries, *choice) for queries, choice in chosen.items())
    return Report(natural=natural, adversarial=adversarial), {queries: form for queries, (form, _) in chosen.items()}


def _query_figures(arrays: dict, queries: str, form: str | None, names: list[str]) -> QueryFigures | None:
    """Figures for natural or for adversarial inputs; None where these are absent."""
    if form is None:
        return None
    records = tuple(
        membership.audit_scores(*_scores(score, arrays, names, form == "logits"), signal=signal, queries=queries)
        for signal, score in membership.SIGNALS.items()
    )
    train, test = (float(np.mean(arrays[name].argmax(axis=1) == arrays[label])) for name, label in zip(names, LABELS))
    return QueryFigures(train_accuracy=train, test_accuracy=test, membership=records)


def _choose(arrays: dict, queries: str) -> tuple[str | None, list[str]]:
    """Form of the predictions, and the names of the train and the test array."""
    pairs = [
        (form, [f"{prefix}{split}_{QUERIES[queries]}" for split in ("train", "test")])
        for prefix, form in PREFIXES.items()
    ]
    complete = [pair for pair in pairs if all(name in arrays for name in pair[1])]
    begun = [names for _, names in pairs if any(name in arrays for name in names)]
    needed = list(LABELS)
    if not complete and (begun or queries == "natural"):
        needed += begun[0] if begun else pairs[-1][1]
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise ValueError(
            f"the file lacks {', '.join(missing)}. It holds {listed(arrays)}. "
            "See --help for the names; train and test must come in the same form."
        )
    return complete[0] if complete else (None, [])


def _check_arrays(arrays: dict[str, np.ndarray], names: list[str]) -> None:
    for name, label in zip(names, LABELS):
        array, labels = arrays[name], arrays[label]
        if array.ndim not in (1, 2) or labels.shape not in (array.shape[:1], (*array.shape[:1], 1)):
            raise ValueError(
                f"{name} must have shape (num, num_classes), or (num, 1) for one sigmoid, and {label} (num,). "
                f"Received: {array.shape} and {labels.shape}."
            )
        is_binary = array.ndim == 1 or array.shape[1] == 1
        is_whole = labels.dtype.kind in "iu" or (is_binary and np.isin(labels, (0, 1)).all())
        if array.dtype.kind not in "fiu" or not is_whole:
            raise ValueError(
                f"{name} must hold real numbers and {label} whole ones. Received: {array.dtype} and {labels.dtype}."
            )
        if labels.size and labels.max() >= MOST_CLASSES:  # also what is too large for int64
            raise ValueError(
                f"{label} must number the classes from 0. Received: {labels.max()}, which is an identifier and no "
                "class. Number them by `np.unique(labels, return_inverse=True)[1]`."
            )
        if np.isnan(array).any():
            raise ValueError(f"{name} holds NaN. The network that gave it has probably diverged.")
    widths = [arrays[name].reshape(len(arrays[name]), -1).shape[1] if arrays[name].size else 0 for name in names]
    if len(set(widths)) > 1:
        raise ValueError(
            f"{' and '.join(names)} must have equally many classes. Received: {widths[0]} and {widths[1]}."
        )


def _as_rows(array: np.ndarray, labels: np.ndarray, form: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Gives predictions as a row of two classes or more, and labels as class numbers.

    A column holds what a head of one output gives for class 1: [1 - p, p], or [0, z].
    """
    labels = labels.reshape(len(labels)).astype(np.int64) if len(labels) else labels
    if array.ndim == 1 or array.shape[1] == 1:
        column = array.reshape(-1).astype(np.float64)
        are_shares = len(column) and 0 <= column.min() <= column.max() <= 1
        if form == "probabilities" and len(column) and not are_shares:
            raise ValueError(
                f"in {name}: one probability an example must lie in [0, 1]. Are these logits? Name them so."
            )
        if form == "logits" and are_shares and column.max() > column.min():
            raise ValueError(
                _PROBABILITIES.format(name, "every value lies in [0, 1]", column[:5].tolist(), _as_output(name))
            )
        return np.stack([1 - column if form == "probabilities" else np.zeros_like(column), column], axis=1), labels
    if form == "logits" and array.size and array.min() >= 0 and np.allclose(array.sum(axis=1), 1, atol=1e-3):
        raise ValueError(
            _PROBABILITIES.format(name, "every row is >= 0 and sums to 1", array[0].tolist()[:5], _as_output(name))
        )
    sums_to_1 = array.size == 0 or (array.min() >= 0 and np.allclose(array.sum(axis=1), 1, atol=1e-2))
    if form == "probabilities" and np.isfinite(array).all() and not sums_to_1:
        raise ValueError(
            f"in {name}: probabilities must be >= 0, with rows that sum to 1. Received: {array[0].tolist()[:5]} "
            f"first. Are these logits? Then save them as logits_{name.removeprefix('output_')}."
        )
    return array, labels


def _as_output(name: str) -> str:
    """The name under which probabilities are looked for in place of these logits."""
    return name.replace("logits_output_", "output_").replace("logits_", "output_")


def _scores(score, arrays: dict[str, np.ndarray], names: list[str], from_logits: bool) -> list:
    """Scores of members and non-members; an error names the arrays at fault."""
    scores = []
    for name, label in zip(names, LABELS):
        try:
            scores.append(score(arrays[label], arrays[name], from_logits=from_logits))
        except ValueError as error:
            raise ValueError(f"in {name} with {label}: {error}") from error
    return scores
