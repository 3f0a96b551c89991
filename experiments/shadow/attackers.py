"""Attackers with shadow models: each model in turn is the network under audit, the others are its shadows."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from experiments.method import VIEWS
from experiments.shadow import decisions
from experiments.shadow.decisions import Decisions
from experiments.shadow.models import Answers
from pineat_tf import membership

QUERIES = {
    "natural": ("natural",),
    "adversarial": ("adversarial",),
    "reverse symmetry": ("reverse_symmetry",),
    "random": ("random",),
    "adversarial and reverse symmetry": ("adversarial", "reverse_symmetry"),
    "all four": ("natural", "adversarial", "reverse_symmetry", "random"),
    "augmented": ("natural", *VIEWS),
}
"""What an attacker shows the network -> the queries that it consists of."""

DECIDED = ("natural", "adversarial", "augmented")
"""The kinds of query by which attackers decide, by thresholds from the shadows."""

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

_FEWEST = 4  # models: two shadows for each shadow
_UNDECIDED = "RMIA offline, tuned"  # each of its scores takes a search, and a threshold takes those of all shadows


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
        decided: by the false positive rate that the thresholds from the shadows were set for; empty where none were.
    """

    attacker: str
    queries: str
    examples: str
    balanced_accuracy: list[float]
    auc: list[float]
    tpr: dict[float, list[float] | None]
    curve: list[float | None]
    decided: Mapping[float, Decisions | None] = {}

    def values(self, figure: str) -> list[float] | None:
        """A figure by name: "balanced_accuracy", "auc", or "tpr_0.01" and so on; None where it is not available.

        "decided_tpr_0.01" is by thresholds from the shadows, and so are fpr, jaccard and by_chance.
        """
        if figure.startswith("decided_"):
            name, _, fpr = figure.removeprefix("decided_").rpartition("_")
            return getattr(self.decided.get(float(fpr)), name, None)
        return self.tpr[float(figure[4:])] if figure.startswith("tpr_") else getattr(self, figure)


def audit(
    answers: Answers, attackers: Sequence[str] = tuple(ATTACKERS), decided: Sequence[str] = DECIDED
) -> list[Leakage]:
    """Lets every attacker audit every model by every kind of query.

    Args:
        answers: of at least three models.
        attackers: names in `ATTACKERS`.
        decided: names in `QUERIES`, by which attackers also decide. It takes a score of each pair of models.

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
        parts_seen = [signal[..., [names.index(part) for part in parts]] for signal in signals]
        for attacker in attackers:
            scores, of_shadows = _scores(attacker, parts_seen, answers, queries in decided)
            for examples, mask in judged.items():
                parts_of = [(one[mask & member], one[mask & ~member]) for one, member in zip(scores, answers.in_mask)]
                found = _leakage(attacker, queries, examples, parts_of)
                decisions_of = _decided(scores, of_shadows, answers.in_mask, mask) if of_shadows else {}
                results[examples].append(found._replace(decided=decisions_of))
    return [one for of_examples in results.values() for one in of_examples]


def _scores(
    attacker: str, signals: Sequence[np.ndarray], answers: Answers, decides: bool
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Scores of every model, and for each of them those of the others without it; none where nothing is decided.

    The latter know nothing of what the model was trained on: each is scored as it is itself, by one shadow less.
    """
    score, models = ATTACKERS[attacker], range(len(answers.in_mask))
    scores = np.stack([score(_seen(signals, answers, target)) for target in models])
    if not decides or attacker == _UNDECIDED or len(models) < _FEWEST:
        return scores, []
    return scores, [
        np.stack([score(_seen(signals, answers, one, without=target)) for one in models if one != target])
        for target in models
    ]


def _decided(
    scores: np.ndarray, of_shadows: Sequence[np.ndarray], in_mask: np.ndarray, judged: np.ndarray
) -> dict[float, Decisions | None]:
    """What each target's threshold decides, set on what its shadows score on examples that they were not trained on."""
    others = [one[np.delete(~in_mask & judged, target, axis=0)] for target, one in enumerate(of_shadows)]
    return {
        fpr: decisions.decide(
            scores[:, judged], in_mask[:, judged], [decisions.threshold(known, fpr) for known in others]
        )
        for fpr in decisions.FPRS
    }


def _signal(score: Callable, answers: Answers, name: str) -> np.ndarray:
    """A score of every model, shape `(num_models, num)`."""
    return np.stack([score(answers.labels, logits).numpy() for logits in answers.logits[name]])


def _tempered(labels: np.ndarray, logits: np.ndarray) -> tf.Tensor:
    return membership.cross_entropy_score(labels, logits / 2)


def _seen(signals: Sequence[np.ndarray], answers: Answers, target: int, without: int = -1) -> _Seen:
    others = ~np.isin(np.arange(len(answers.in_mask)), (target, without))
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
