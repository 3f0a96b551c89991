"""Attackers with shadow models: each model in turn is the network under audit, the others are its shadows."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from experiments.shadow.models import Answers
from pineat_tf import membership

QUERIES = {
    "natural": ("natural",),
    "adversarial": ("adversarial",),
    "reverse symmetry": ("reverse_symmetry",),
    "random": ("random",),
    "adversarial and reverse symmetry": ("adversarial", "reverse_symmetry"),
    "all four": ("natural", "adversarial", "reverse_symmetry", "random"),
}
"""What an attacker shows the network -> the queries that it consists of."""

FPRS = (0.01, 0.001, 0.0001)
"""The false positive rates at which the TPR is measured."""

GRID = np.geomspace(1e-4, 1.0, 81)
"""The false positive rates of the curves."""


class _Seen(NamedTuple):
    """What an attacker sees: of the target `(num, queries)`, of the shadows `(num_models, num, queries)`."""

    logit_target: np.ndarray
    logit_shadows: np.ndarray
    log_target: np.ndarray
    log_shadows: np.ndarray
    in_mask: np.ndarray


def _lira(mode: str, variance: str) -> Callable[[_Seen], np.ndarray]:
    return lambda seen: membership.lira_scores(
        seen.logit_target, seen.logit_shadows, seen.in_mask, mode=mode, variance=variance
    )


def _rmia(offline_a: float | None) -> Callable[[_Seen], np.ndarray]:
    # The share of a population that an example dominates orders examples as this ratio does, but ties many.
    return lambda seen: membership.relative_likelihood_scores(
        seen.log_target, seen.log_shadows, seen.in_mask, offline_a=offline_a
    )


ATTACKERS: dict[str, Callable[[_Seen], np.ndarray]] = {
    "global threshold": lambda seen: seen.log_target.mean(axis=1),
    "LiRA online": _lira("online", "per_example"),
    "LiRA online, fixed variance": _lira("online", "fixed"),
    "LiRA offline": _lira("offline", "per_example"),
    "LiRA offline, fixed variance": _lira("offline", "fixed"),
    "RMIA online": _rmia(None),
    "RMIA offline": _rmia(0.3),
}
"""Scores of attackers, larger = more likely a member. The first needs no shadow models."""


class Leakage(NamedTuple):
    """What one attacker learns by one kind of query, a value a target.

    Attributes:
        attacker: one of `ATTACKERS`.
        queries: one of `QUERIES`.
        examples: who is judged, "all" or "canaries".
        balanced_accuracy: of the best threshold, in-sample.
        auc: area under the ROC curve.
        tpr: by false positive rate; None where a target has no TPR at that rate (see `thresholds.TprAtFpr`), as a mean
            over the others would be biased.
        curve: mean TPR over the targets at each of `GRID`; None likewise.
    """

    attacker: str
    queries: str
    examples: str
    balanced_accuracy: list[float]
    auc: list[float]
    tpr: dict[float, list[float] | None]
    curve: list[float | None]

    def values(self, figure: str) -> list[float] | None:
        """A figure by name: "balanced_accuracy", "auc", or "tpr_0.01" and so on; None where it is not available."""
        return self.tpr[float(figure[4:])] if figure.startswith("tpr_") else getattr(self, figure)


def audit(answers: Answers, attackers: Sequence[str] = tuple(ATTACKERS)) -> list[Leakage]:
    """Lets every attacker audit every model by every kind of query.

    Args:
        answers: of at least three models.
        attackers: names in `ATTACKERS`.

    Returns:
        A record for each kind of query and attacker, in the order of both; then the same for the canaries alone, if
        there are any (shadows are fitted on all examples).
    """
    names = list(answers.logits)
    logit, log = (
        np.stack([_signal(score, answers, name) for name in names], axis=-1)
        for score in (membership.logit_score, membership.cross_entropy_score)
    )
    judged = {"all": np.ones(len(answers.labels), bool)}
    if answers.is_canary.any():
        judged["canaries"] = answers.is_canary
    results: dict[str, list[Leakage]] = {examples: [] for examples in judged}
    for queries, parts in QUERIES.items():
        chosen = [names.index(part) for part in parts]
        seen = [_seen(logit[..., chosen], log[..., chosen], answers.in_mask, target) for target in range(len(logit))]
        for attacker in attackers:
            scores = [ATTACKERS[attacker](of_target) for of_target in seen]
            for examples, mask in judged.items():
                parts_of = [(one[mask & member], one[mask & ~member]) for one, member in zip(scores, answers.in_mask)]
                results[examples].append(_leakage(attacker, queries, examples, parts_of))
    return [one for of_examples in results.values() for one in of_examples]


def _signal(score: Callable, answers: Answers, name: str) -> np.ndarray:
    """A score of every model, shape `(num_models, num)`."""
    return np.stack([score(answers.labels, logits).numpy() for logits in answers.logits[name]])


def _seen(logit: np.ndarray, log: np.ndarray, in_mask: np.ndarray, target: int) -> _Seen:
    others = np.arange(len(logit)) != target
    return _Seen(logit[target], logit[others], log[target], log[others], in_mask[others])


def _leakage(attacker: str, queries: str, examples: str, scores: Sequence[tuple[np.ndarray, np.ndarray]]) -> Leakage:
    """Measures what scores reveal, a pair (members, non-members) a target."""
    curves = [membership.roc(members, non_members) for members, non_members in scores]
    tpr = {fpr: [membership.tpr_at_fpr(curve, fpr).tpr for curve in curves] for fpr in (*FPRS, *GRID.tolist())}
    means = [None if None in tpr[fpr] else float(np.mean(tpr[fpr])) for fpr in GRID.tolist()]
    return Leakage(
        attacker,
        queries,
        examples,
        balanced_accuracy=[membership.best_threshold(*pair).balanced_accuracy for pair in scores],
        auc=list(map(membership.auc, curves)),
        tpr={fpr: None if None in tpr[fpr] else tpr[fpr] for fpr in FPRS},
        curve=means,
    )
