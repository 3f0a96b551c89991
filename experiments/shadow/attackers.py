"""Attackers with shadow models: each model in turn is the network under audit, the others are its shadows."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

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
    """What an attacker sees: pairs of the target's `(num, queries)` and the shadows' `(num_models, num, queries)`.

    Attributes:
        logit: logits of the probability of the class.
        log: its logarithm.
        tempered: the same, of a softmax of temperature 2.
        in_mask: whether a shadow was trained on an example, `(num_models, num)`.
        labels: of the examples.
    """

    logit: tuple[np.ndarray, np.ndarray]
    log: tuple[np.ndarray, np.ndarray]
    tempered: tuple[np.ndarray, np.ndarray]
    in_mask: np.ndarray
    labels: np.ndarray


def _lira(mode: str, variance: str) -> Callable[[_Seen], np.ndarray]:
    return lambda seen: membership.lira_scores(*seen.logit, seen.in_mask, mode=mode, variance=variance)


def _bavaria(mode: str) -> Callable[[_Seen], np.ndarray]:
    return lambda seen: membership.bavaria_scores(*seen.logit, seen.in_mask, mode=mode)


def _proxy(seen: _Seen) -> np.ndarray:
    return membership.lira_scores(*seen.logit, seen.in_mask, mode="proxy", variance="fixed", labels=seen.labels)


def _rmia(offline_a: float | str | None, signal: str = "log") -> Callable[[_Seen], np.ndarray]:
    # The share of a population that an example dominates orders examples as this ratio does, but ties many.
    return lambda seen: membership.relative_likelihood_scores(*getattr(seen, signal), seen.in_mask, offline_a=offline_a)


ATTACKERS: dict[str, Callable[[_Seen], np.ndarray]] = {
    "global threshold": lambda seen: seen.log[0].mean(axis=1),
    "LiRA online": _lira("online", "per_example"),
    "LiRA online, fixed variance": _lira("online", "fixed"),
    "LiRA offline": _lira("offline", "per_example"),
    "LiRA offline, fixed variance": _lira("offline", "fixed"),
    "BaVarIA online": _bavaria("online"),
    "BaVarIA offline": _bavaria("offline"),
    "PMIA by class, fixed variance": _proxy,
    "RMIA online": _rmia(None),
    "RMIA online, temperature 2 (BASE)": _rmia(None, "tempered"),
    "RMIA offline": _rmia(0.3),
    "RMIA offline, tuned": _rmia("tuned"),
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
    signals = [
        np.stack([_signal(score, answers, name) for name in names], axis=-1)
        for score in (membership.logit_score, membership.cross_entropy_score, _tempered)
    ]
    judged = {"all": np.ones(len(answers.labels), bool)}
    if answers.is_canary.any():
        judged["canaries"] = answers.is_canary
    results: dict[str, list[Leakage]] = {examples: [] for examples in judged}
    for queries, parts in QUERIES.items():
        chosen = [names.index(part) for part in parts]
        parts_seen = [signal[..., chosen] for signal in signals]
        seen = [_seen(parts_seen, answers, target) for target in range(len(answers.in_mask))]
        for attacker in attackers:
            scores = [ATTACKERS[attacker](of_target) for of_target in seen]
            for examples, mask in judged.items():
                parts_of = [(one[mask & member], one[mask & ~member]) for one, member in zip(scores, answers.in_mask)]
                results[examples].append(_leakage(attacker, queries, examples, parts_of))
    return [one for of_examples in results.values() for one in of_examples]


def _signal(score: Callable, answers: Answers, name: str) -> np.ndarray:
    """A score of every model, shape `(num_models, num)`."""
    return np.stack([score(answers.labels, logits).numpy() for logits in answers.logits[name]])


def _tempered(labels: np.ndarray, logits: np.ndarray) -> tf.Tensor:
    return membership.cross_entropy_score(labels, logits / 2)


def _seen(signals: Sequence[np.ndarray], answers: Answers, target: int) -> _Seen:
    others = np.arange(len(answers.in_mask)) != target
    pairs = ((signal[target], signal[others]) for signal in signals)
    return _Seen(*pairs, in_mask=answers.in_mask[others], labels=answers.labels)


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
