"""Audits predictions made elsewhere, by any framework, for membership leakage.

python -m experiments.audit predictions.npz --json=audit.json
"""

import json
import os
import sys

import numpy as np
from absl import flags

from experiments import command_line, files
from experiments.datasets.archive import listed, read_arrays
from pineat_tf import membership
from pineat_tf.report import QueryFigures, Report

QUERIES = {"natural": "benign", "adversarial": "adversarial"}
"""Our word for the inputs that were predicted -> the word in the names of the arrays."""

PREFIXES = {"logits_": "logits", "logits_output_": "logits", "output_": "probabilities"}
"""How names of prediction arrays begin -> what the arrays hold; the first complete pair is used."""

LABELS = ("train_label", "test_label")

_NAMES = {
    *LABELS,
    *(f"{prefix}{split}_{word}" for prefix in PREFIXES for split in ("train", "test") for word in QUERIES.values()),
}

USAGE = """\
usage: python -m experiments.audit FILE.npz [--json=PATH]

Says how well an attacker can tell training examples (members) from test examples by what a network
predicts for them, on natural and on adversarial inputs.

FILE.npz holds NumPy arrays, num examples by num_classes:
  output_train_benign, output_test_benign             probabilities for natural inputs
  output_train_adversarial, output_test_adversarial   for adversarial inputs (may be absent)
  train_label, test_label                             true classes, whole numbers, one a row
Logits are better than probabilities, which saturate: name them logits_train_benign,
logits_test_adversarial and so on (or logits_output_train_benign ...); they are then preferred.

Every threshold is chosen on the scores it is judged on (in-sample), as in the literature: compare
it with the noise floor, not with 0.5.
"""


def audit_file(path: str) -> dict:
    """Audits the predictions in one npz file.

    Args:
        path: the file; `USAGE` says which arrays it holds.

    Returns:
        Plain values for strict JSON: `schema_version`; accuracies `a_train`, `a_test`, `r_train`,
        `r_test`; `p_e_nat`, `p_e_adv`, `p_max` (balanced accuracy of the in-sample cross-entropy
        threshold, and the larger of the two); `gap_nat`, `gap_adv`; `noise_floor`; `membership`, a
        list of `MembershipResult.to_dict()`; `scored_from` ("logits" or "probabilities" for each
        kind of input). What adversarial arrays would give is None without them.

    Raises:
        ValueError: if the file cannot be read, is no npz file, lacks arrays, or they do not fit.

    Example:
        >>> audit_file("predictions.npz")["p_max"]  # doctest: +SKIP
        0.6882561949621135
    """
    return _figures(*_audit(path))


def _audit(path: str) -> tuple[Report, dict[str, str | None]]:
    """The report, and what each kind of input was scored from."""
    arrays = read_arrays(path, _NAMES)
    chosen = {queries: _choose(arrays, queries) for queries in QUERIES}
    for _, names in chosen.values():
        _check_arrays(arrays, names)
    natural, adversarial = (_query_figures(arrays, queries, *choice) for queries, choice in chosen.items())
    return Report(natural=natural, adversarial=adversarial), {queries: form for queries, (form, _) in chosen.items()}


def _figures(report: Report, scored_from: dict[str, str | None]) -> dict:
    return report.to_dict() | {"scored_from": scored_from}


def _query_figures(arrays: dict, queries: str, form: str | None, names: list[str]) -> QueryFigures | None:
    """Figures for natural or for adversarial inputs; None where these are absent."""
    if form is None:
        return None
    signals = membership.SIGNALS if form == "logits" else membership.SIGNALS_FROM_PROBS
    records = tuple(
        membership.audit_scores(*_scores(score, arrays, names), signal=signal, queries=queries)
        for signal, score in signals.items()
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
        shape, label_shape = np.shape(arrays[name]), np.shape(arrays[label])
        if len(shape) != 2 or label_shape != shape[:1]:
            raise ValueError(
                f"{name} must have shape (num, num_classes) and {label} (num,). Received: {shape} and {label_shape}."
            )
        if arrays[name].dtype.kind not in "fiu" or arrays[label].dtype.kind not in "iu":
            raise ValueError(
                f"{name} must hold real numbers and {label} whole ones. "
                f"Received: {arrays[name].dtype} and {arrays[label].dtype}."
            )
        if np.isnan(arrays[name]).any():
            raise ValueError(f"{name} holds NaN. The network that gave it has probably diverged.")
    widths = [arrays[name].shape[1] for name in names]
    if len(set(widths)) > 1:
        raise ValueError(
            f"{' and '.join(names)} must have equally many classes. Received: {widths[0]} and {widths[1]}."
        )


def _scores(score, arrays: dict[str, np.ndarray], names: list[str]) -> list:
    """Scores of members and non-members; an error names the arrays at fault."""
    scores = []
    for name, label in zip(names, LABELS):
        try:
            scores.append(score(arrays[label], arrays[name]))
        except ValueError as error:
            raise ValueError(f"in {name} with {label}: {error}") from error
    return scores


def _table(report: Report, scored_from: dict[str, str | None]) -> str:
    """The report with a headline and what a reader must know of it."""
    first = report.natural.membership[0]
    forms = " and ".join(sorted({form for form in scored_from.values() if form}))
    return (
        f"Membership audit of {first.num_members} members and {first.num_non_members} non-members, scored from "
        f"{forms}\n\n{report.to_text()}\n\n"
        "In-sample: the threshold is chosen on the scores it is judged on. A network that leaks\n"
        "nothing scores the noise floor, not 0.5.\n"
        "[20]: Song, Shokri, Mittal, CCS 2019."
    )


def _parse(argv: list[str]) -> tuple[flags.FlagValues, list[str]]:
    """Flags of one call and the other arguments; global flags stay untouched."""
    values = flags.FlagValues()
    flags.DEFINE_string("json", None, "Write every figure to this file.", flag_values=values)
    flags.DEFINE_bool("help", False, "Print this text.", short_name="h", flag_values=values)
    flags.DEFINE_bool("helpshort", False, "Print this text.", flag_values=values)
    values.set_gnu_getopt(True)
    return values, values(argv)[1:]


def _run(argv: list[str]) -> None:
    values, paths = _parse(argv)
    if values.help or values.helpshort:
        print(USAGE)
        return
    if len(paths) != 1:
        raise ValueError(f"give one npz file, not {len(paths)}. See --help.")
    (path,) = paths
    if values.json is not None and os.path.realpath(values.json) == os.path.realpath(path):
        raise ValueError(f"--json={values.json} would overwrite the predictions. Name another file.")
    audited = _audit(path) if values.json is None else _audit_to(values.json, path)
    print(_table(*audited))


def _audit_to(json_path: str, path: str) -> tuple[Report, dict[str, str | None]]:
    # Opened before the work, so that an unwritable path is told at once.
    with files.replacing(json_path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        audited = _audit(path)
        file.write(json.dumps(_figures(*audited), indent=2, allow_nan=False) + "\n")
    return audited


def main(argv: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: program name and arguments; `sys.argv` if None.

    Returns:
        The exit code: 0, or 2 after one line on stderr that begins `error: `.

    Example:
        >>> main(["audit", "no_such_file.npz"])
        2
    """
    return command_line.guarded(_run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
