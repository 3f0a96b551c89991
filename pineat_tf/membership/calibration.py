"""Calibration of thresholds: on the judged scores, on a random half of them, or on a shadow model's scores."""

import math
from typing import Any, NamedTuple

import numpy as np

from pineat_tf.checks import check_choice, check_count
from pineat_tf.membership.scores import as_class_numbers
from pineat_tf.membership.thresholds import NoiseFloor, best_threshold, checked_scores, noise_floor

__all__ = [
    "CALIBRATIONS",
    "Calibrated",
    "Decisions",
    "ScoreSets",
    "Thresholds",
    "calibrate",
    "calibrated_accuracy",
    "choose_thresholds",
    "score_sets",
]

CALIBRATIONS = ("in-sample", "held-out", "shadow")
"""The scores to choose a threshold on: the judged ones, a random half that is not judged, a shadow model's."""


class ScoreSets(NamedTuple):
    """Scores of members and of non-members of one network, with their classes where thresholds are per class.

    Attributes:
        member_scores: shape `(num_members,)`, larger = more member.
        non_member_scores: shape `(num_non_members,)`.
        member_labels: class numbers of shape `(num_members,)`, or None.
        non_member_labels: class numbers of shape `(num_non_members,)`, or None.

    Example:
        >>> shadow = ScoreSets([0.9, 0.8], [0.3, 0.7])
        >>> options = {"signal": "margin", "queries": "natural", "calibration": "shadow", "shadow": shadow}
        >>> audit_scores([0.9, 0.2], [0.1, 0.4], **options).balanced_accuracy
        0.75
    """

    member_scores: Any
    non_member_scores: Any
    member_labels: Any = None
    non_member_labels: Any = None

    def classes(self) -> list[int]:
        """Lists the classes that have both members and non-members, in rising order."""
        return [int(label) for label in np.intersect1d(self.member_labels, self.non_member_labels)]

    def of_class(self, label: int) -> "ScoreSets":
        """Returns the examples of one class."""
        return self.rows(self.member_labels == label, self.non_member_labels == label)

    def rows(self, members: np.ndarray, non_members: np.ndarray) -> "ScoreSets":
        """Returns some of the members and of the non-members, by index or mask."""
        chosen = members, non_members, members, non_members
        return ScoreSets(*(None if column is None else column[rows] for column, rows in zip(self, chosen)))


class Decisions(NamedTuple):
    """Counts of true and false positives of a threshold.

    Attributes:
        true_positives: members called members.
        num_members: members judged.
        false_positives: non-members called members.
        num_non_members: non-members judged.
    """

    true_positives: int
    num_members: int
    false_positives: int
    num_non_members: int

    @property
    def tpr(self) -> float:
        """Share of members called members."""
        return self.true_positives / self.num_members

    @property
    def fpr(self) -> float:
        """Share of non-members called members."""
        return self.false_positives / self.num_non_members

    @property
    def balanced_accuracy(self) -> float:
        """0.5 * (TPR + 1 - FPR)."""
        return 0.5 * (self.tpr + 1 - self.fpr)


class Thresholds(NamedTuple):
    """Member iff score >= the threshold of its class, or `overall` where the class has none.

    Attributes:
        overall: for every class without its own; `inf` accepts none.
        by_class: class number -> threshold; None if there is one threshold for all.
    """

    overall: float
    by_class: dict[int, float] | None = None

    def accept(self, scores: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        """Returns whom the attacker calls a member, booleans of shape `(num,)`."""
        limits = np.full(len(scores), self.overall)
        for label, threshold in (self.by_class or {}).items():
            limits[labels == label] = threshold
        return scores >= limits

    def decide(self, scores: ScoreSets) -> Decisions:
        """Counts true and false positives at these thresholds."""
        members = self.accept(scores.member_scores, scores.member_labels)
        non_members = self.accept(scores.non_member_scores, scores.non_member_labels)
        return Decisions(int(members.sum()), len(members), int(non_members.sum()), len(non_members))


class Calibrated(NamedTuple):
    """Thresholds, and their counts on the scores that they are judged on.

    Attributes:
        thresholds: chosen as the calibration says.
        decisions: counts on the judged scores.
        noise_floor: the balanced accuracy of such a threshold where nothing leaks.
    """

    thresholds: Thresholds
    decisions: Decisions
    noise_floor: NoiseFloor


def score_sets(
    member_scores: Any,
    non_member_scores: Any,
    member_labels: Any = None,
    non_member_labels: Any = None,
    *,
    prefix: str = "",
) -> ScoreSets:
    """Returns scores as float64 arrays, with labels in any form, if there are any, as class numbers.

    Args:
        member_scores: as for `ScoreSets`, like the other columns.
        non_member_scores: as there.
        member_labels: as there; one-hot rows or a column too.
        non_member_labels: as there.
        prefix: what errors put before the names, e.g. "shadow.".

    Raises:
        ValueError: if scores are no scores, or labels are not one class a score.
    """
    members, non_members = checked_scores(member_scores, non_member_scores, prefix=prefix)
    named = ("member_labels", member_labels, members), ("non_member_labels", non_member_labels, non_members)
    classes = (
        None if labels is None else as_class_numbers(prefix + name, labels, len(scores)).numpy()
        for name, labels, scores in named
    )
    return ScoreSets(members, non_members, *classes)


def choose_thresholds(scores: ScoreSets, *, per_class: bool = False) -> Thresholds:
    """Chooses the thresholds of largest balanced accuracy on the scores given, as `best_threshold` does.

    Args:
        scores: what to choose on, from `score_sets`.
        per_class: whether each class gets its own threshold. A class without both members and non-members has none
            and falls back on the threshold of all scores.

    Raises:
        ValueError: if `per_class` is asked for without labels.

    Example:
        >>> chosen = choose_thresholds(score_sets([3, 9], [2, 8], [0, 1], [0, 1]), per_class=True)
        >>> chosen.by_class
        {0: 3.0, 1: 9.0}

    Reference:
        Song and Mittal, "Systematic Evaluation of Privacy Risks of Machine Learning Models", USENIX Security 2021,
        section 3.1 (class-dependent thresholds).
    """
    overall = best_threshold(*scores[:2]).threshold
    if not per_class:
        return Thresholds(overall)
    _check_labelled(scores)
    by_class = {label: best_threshold(*scores.of_class(label)[:2]).threshold for label in scores.classes()}
    return Thresholds(overall, by_class)


def calibrate(
    target: ScoreSets,
    *,
    calibration: str = "in-sample",
    shadow: ScoreSets | None = None,
    per_class: bool = False,
    seed: int = 0,
) -> Calibrated:
    """Chooses thresholds on one set of scores and judges them on another one, or on the same.

    Args:
        target: scores of the network under audit, from `score_sets`.
        calibration: "in-sample" chooses on the scores it judges; "held-out" chooses on a random half of the members
            and of the non-members (of each class, where labels are known) and judges the other half; "shadow"
            chooses on the scores of a shadow model and judges all scores of the target.
        shadow: scores of a shadow model, from `score_sets`; for "shadow" only.
        per_class: whether each class gets its own threshold (see `choose_thresholds`).
        seed: which half is held out, >= 0.

    Returns:
        The thresholds, their counts and the noise floor.

    Raises:
        ValueError: if the calibration is unknown, its scores or labels are missing, or there are too few to halve.

    Example:
        >>> target, shadow = score_sets([3, 2, 1], [2, 0]), score_sets([5, 3], [1, 1])
        >>> calibrate(target, calibration="shadow", shadow=shadow).decisions
        Decisions(true_positives=1, num_members=3, false_positives=0, num_non_members=2)
    """
    check_choice("calibration", calibration, CALIBRATIONS)
    check_count("seed", seed, 0, "It chooses the half that is held out.")
    if (calibration == "shadow") != (shadow is not None):
        raise ValueError(
            '`shadow` goes with calibration="shadow", and only with it. Received: '
            f"calibration={calibration!r}, shadow {'absent' if shadow is None else 'given'}. Give "
            "`ScoreSets(member_scores, non_member_scores)` of a shadow model together with that calibration."
        )
    if per_class:
        _check_labelled(target)
    chosen_on, judged = target if shadow is None else shadow, target
    if calibration == "held-out":
        chosen_on, judged = _halves(target, np.random.default_rng([seed, 0]))
    thresholds = choose_thresholds(chosen_on, per_class=per_class)
    decisions = thresholds.decide(judged)
    if calibration != "in-sample":
        floor = _fixed_noise_floor(decisions)
    elif thresholds.by_class is None:
        floor = noise_floor(decisions.num_members, decisions.num_non_members)
    else:
        floor = _noise_floor_of_classes(judged, thresholds.by_class)
    return Calibrated(thresholds, decisions, floor)


def calibrated_accuracy(
    member_scores: Any,
    non_member_scores: Any,
    *,
    calibration: str = "held-out",
    shadow: ScoreSets | None = None,
    member_labels: Any = None,
    non_member_labels: Any = None,
    per_class: bool = False,
    seed: int = 0,
) -> float:
    """Returns the balanced accuracy of a threshold that was not chosen on the scores it is judged on.

    It is 0.5 on average where nothing leaks, unless in-sample. Arguments are those of `score_sets` and `calibrate`.

    Raises:
        ValueError: as `calibrate`.

    Example:
        >>> calibrated_accuracy([3, 2, 1], [2, 0], calibration="shadow", shadow=ScoreSets([5, 2], [1, 1]))
        0.5833333333333333

    Reference:
        Song and Mittal, USENIX Security 2021, section 3.1.
    """
    target = score_sets(member_scores, non_member_scores, member_labels, non_member_labels)
    shadow = None if shadow is None else score_sets(*shadow, prefix="shadow.")
    found = calibrate(target, calibration=calibration, shadow=shadow, per_class=per_class, seed=seed)
    return found.decisions.balanced_accuracy


def _halves(scores: ScoreSets, rng: np.random.Generator) -> tuple[ScoreSets, ScoreSets]:
    """Two random halves, each with half of the members and of the non-members, of every class where known."""
    sizes = [len(column) for column in scores[:2]]
    if min(sizes) < 2:
        raise ValueError(
            'calibration="held-out" needs at least two members and two non-members. Received: '
            f"{sizes[0]} and {sizes[1]}. Score more examples, or choose another calibration."
        )
    members, non_members = (_random_order(num, labels, rng) for num, labels in zip(sizes, scores[2:]))
    return scores.rows(members[::2], non_members[::2]), scores.rows(members[1::2], non_members[1::2])


def _random_order(num: int, labels: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """A random order, class by class where known: every second one is a stratified half."""
    order = rng.permutation(num)
    return order if labels is None else order[np.argsort(labels[order], kind="stable")]


def _fixed_noise_floor(decisions: Decisions) -> NoiseFloor:
    """The floor of a threshold chosen elsewhere: without leakage its TPR and its FPR are equal but for chance."""
    hits, num_members, alarms, num_non_members = decisions
    accepted = (hits + alarms) / (num_members + num_non_members)
    deviation = math.sqrt(accepted * (1 - accepted) * (1 / num_members + 1 / num_non_members))
    return NoiseFloor(0.5, min(1.0, 0.5 + 0.5 * 1.645 * deviation))


def _noise_floor_of_classes(judged: ScoreSets, by_class: dict[int, float]) -> NoiseFloor:
    """The luck of the classes added up: mean and variance of each Kolmogorov-Smirnov statistic, then normal.

    A class has other shares of members and non-members: the difference counts by how much of it is accepted, which
    without leakage is near uniform in [0, 1].
    """
    mean = variance = 0.0
    for label in by_class:
        num_members, num_non_members = (np.sum(labels == label) for labels in judged[2:])
        effective = num_members * num_non_members / (num_members + num_non_members)
        of_members, of_non_members = num_members / len(judged[2]), num_non_members / len(judged[3])
        share = 0.5 * (of_members + of_non_members)
        mean += share * math.sqrt(math.pi / (8 * effective))
        variance += share**2 * (0.5 - math.pi / 8) / effective + (of_members - of_non_members) ** 2 / 12
    upper_95 = mean + 1.645 * math.sqrt(variance)
    return NoiseFloor(float(min(1.0, (1 + mean) / 2)), float(min(1.0, (1 + upper_95) / 2)))


def _check_labelled(scores: ScoreSets) -> None:
    if scores.member_labels is None or scores.non_member_labels is None:
        raise ValueError(
            "`per_class` needs the class of every example. Received: no `member_labels` or no `non_member_labels`. "
            "Give class numbers for both (of a shadow model too), or one threshold for all with per_class=False."
        )
