"""Uncertainty of the figures of an audit: intervals, and p-values of "these scores do not depend on membership".

Everything is counted at the distinct scores, from the highest down: these are sorted once, and a draw only changes
their weights. The host does it, a chunk of draws at a time.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy import stats

from pineat_tf.checks import check_count, check_share
from pineat_tf.membership.calibration import Decisions
from pineat_tf.membership.thresholds import REPORTED_FPRS, Ranked, checked_scores, largest_rate, ranked
from pineat_tf.statistics import Interval, check_rate, clopper_pearson

__all__ = ["fpr_metric", "leakage_p_values", "permutation_p_values", "score_intervals"]

_CHUNK = 2**20  # scores weighed at once: some 50 MB


def fpr_metric(fpr: float) -> str:
    """Names the TPR at a false positive rate among the metrics of intervals and p-values.

    Example:
        >>> fpr_metric(0.001)
        'tpr_at_fpr_0.001'
    """
    return f"tpr_at_fpr_{fpr:g}"


def score_intervals(
    member_scores: Any,
    non_member_scores: Any,
    *,
    decisions: Decisions | None = None,
    num_bootstrap: int = 1000,
    confidence: float = 0.95,
    fprs: Sequence[float] = REPORTED_FPRS,
    seed: int = 0,
) -> dict[str, Interval]:
    """Finds intervals of the figures of an audit by resampling members and non-members, each among themselves.

    - AUC: the percentile bootstrap; where no two scores overlap, which no resample can change, an exact bound.
    - Balanced accuracy and advantage of an in-sample threshold: luck has a share in the figure itself, so that its
      percentiles would be too high. The interval is of the largest balanced accuracy that any threshold truly has:
      the figure plus and minus the luck that all thresholds together have in the bootstrap (a simultaneous band), so
      it covers at least as often as it says, most of all where nothing leaks.
    - Balanced accuracy and advantage of a threshold chosen elsewhere (`decisions`): that threshold is held fixed; its
      TPR and FPR are drawn from their Jeffreys posteriors, a bootstrap that does not collapse where a rate is 0 or 1.
    - TPR at an FPR: how many of the non-members lie above their true quantile is binomial whatever their
      distribution; its draws place the threshold, and the TPR there is drawn between the ends of the exact
      (Clopper-Pearson) interval. A bootstrap of the few highest scores would be far too sure of itself. An FPR below
      about 4 over the number of non-members leaves a lower end of 0: none of them shows where it is.

    Args:
        member_scores: scores of training members, shape `(num_members,)`, larger = more member.
        non_member_scores: scores of unseen examples, shape `(num_non_members,)`.
        decisions: what a threshold that was chosen on other scores decided; None for an in-sample threshold.
        num_bootstrap: draws, >= 1; 1000 give ends that repeat to about a tenth of the interval.
        confidence: how often such an interval covers the true figure, in [0, 1).
        fprs: false positive rates whose TPR is wanted, in [0, 1].
        seed: of the draws, >= 0.

    Returns:
        Metric -> interval: "balanced_accuracy", "advantage", "auc", and `fpr_metric(fpr)` for each rate.

    Raises:
        ValueError: if scores are no scores, or an option is out of range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> found = score_intervals(rng.normal(0.5, 1, 1000), rng.normal(0, 1, 1000), num_bootstrap=200)
        >>> found["auc"].low < 0.638 < found["auc"].high  # Phi(0.5 / sqrt(2))
        True

    Reference:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13; Giné and Zinn, "Bootstrapping
        General Empirical Measures", Annals of Probability 1990 (the band); Clopper and Pearson, Biometrika 1934.
    """
    _check_options("num_bootstrap", num_bootstrap, seed, fprs)
    check_share("confidence", confidence, "Give e.g. 0.95 for 95 %.")
    ranks = ranked(member_scores, non_member_scores)
    rng, tails = np.random.default_rng([seed, 1]), ((1 - confidence) / 2, (1 + confidence) / 2)
    areas, rises, falls = _resampled(ranks, num_bootstrap, rng)
    if decisions is None:
        tpr, fpr = _rates(ranks)
        best = float(np.max(tpr - fpr))
        advantage = Interval(max(0.0, best - _quantile(rises, tails[1])), min(1.0, best + _quantile(falls, tails[1])))
    else:
        advantage = _interval_of_decisions(decisions, num_bootstrap, tails, rng)
    return {
        "balanced_accuracy": Interval(0.5 + 0.5 * advantage.low, 0.5 + 0.5 * advantage.high),
        "advantage": advantage,
        "auc": _exact_if_apart(ranks, confidence) or _ends(areas, tails),
        **{fpr_metric(fpr): _interval_of_tpr(ranks, fpr, num_bootstrap, tails, rng) for fpr in fprs},
    }


def leakage_p_values(
    member_scores: Any,
    non_member_scores: Any,
    *,
    decisions: Decisions | None = None,
    fprs: Sequence[float] = REPORTED_FPRS,
) -> dict[str, float]:
    """Returns the chance of figures at least as large where membership does not matter, without drawing.

    If members and non-members are exchangeable, the in-sample balanced accuracy is the one-sided two-sample
    Kolmogorov-Smirnov statistic (exact for equal or small numbers, else asymptotic), that of a threshold chosen
    elsewhere is Fisher's exact test of its `decisions`, the AUC is the Mann-Whitney statistic (normal, corrected for
    ties and continuity; exact where one side is 8 or fewer without ties), and the members above the (k + 1)-th highest
    non-member are hypergeometric (exact). Ties make all but the AUC's too large, never too small.

    Each is of one metric: who looks at several and takes the smallest must correct for it. At a rate below one over the
    number of non-members the test is of the members above all of these. Arguments are those of `score_intervals`.

    Returns:
        Metric -> p-value in [0, 1]: "balanced_accuracy" (the advantage has the same), "auc", and `fpr_metric(fpr)`.

    Raises:
        ValueError: if scores are no scores, or a rate is out of range.

    Example:
        >>> found = leakage_p_values([5, 4, 3, 2], [1, 0, -1, -2], fprs=(0.0,))
        >>> {metric: round(p, 4) for metric, p in found.items()}  # 1 of 70 orders
        {'balanced_accuracy': 0.0143, 'auc': 0.0143, 'tpr_at_fpr_0': 0.0143}

    Reference:
        Smirnov, Annals of Mathematical Statistics 1948; Mann and Whitney, ibid. 1947; Fisher, "The Design of
        Experiments", 1935.
    """
    _check_options("num_bootstrap", 1, 0, fprs)
    members, non_members = checked_scores(member_scores, non_member_scores)
    ranks = ranked(members, non_members)
    if decisions is None:
        exact = len(members) == len(non_members) or max(len(members), len(non_members)) <= 200
        method = "exact" if exact else "asymp"  # "auto" fails for some sizes, with a warning
        balanced_accuracy = stats.ks_2samp(members, non_members, alternative="less", method=method).pvalue
    else:
        balanced_accuracy = _fisher(*decisions)
    area = _mann_whitney(members, non_members) if len(ranks.scores) > 1 else 1.0
    found = {"balanced_accuracy": balanced_accuracy, "auc": area}
    true_positives, false_positives = ranks.accepted()
    for fpr in fprs:
        budget = _budget(fpr, len(non_members))
        hits = int(
            true_positives[np.searchsorted(false_positives, budget, side="right") - 1]
        )  # of the lowest threshold
        found[fpr_metric(fpr)] = _fisher(hits, len(members), budget, len(non_members))
    return {metric: float(p_value) for metric, p_value in found.items()}


def permutation_p_values(
    member_scores: Any,
    non_member_scores: Any,
    *,
    num_permutations: int = 1000,
    fprs: Sequence[float] = REPORTED_FPRS,
    seed: int = 0,
) -> dict[str, float]:
    """Estimates the chance of figures at least as large where membership does not matter, by permuting it.

    The test of `leakage_p_values` for an in-sample threshold by its definition: slower, no smaller than
    1 / (num_permutations + 1), but exact for every metric, with any ties. Arguments are those of `score_intervals`,
    with `num_permutations` draws, >= 1.

    Raises:
        ValueError: if scores are no scores, or an option is out of range.

    Example:
        >>> permutation_p_values([5, 4, 3, 2], [1, 0, -1, -2], num_permutations=99, fprs=())["auc"] < 0.1
        True

    Reference:
        Phipson and Smyth, "Permutation P-values Should Never Be Zero", Statistical Applications in Genetics and
        Molecular Biology 2010.
    """
    _check_options("num_permutations", num_permutations, seed, fprs)
    ranks = ranked(member_scores, non_member_scores)
    budgets = [_budget(fpr, len(ranks.non_members)) for fpr in fprs]
    true_positives, false_positives = ranks.accepted()
    seen = _statistics(true_positives[np.newaxis], false_positives[np.newaxis], budgets)
    as_large = np.zeros(len(seen), int)
    for drawn in _permuted(ranks, num_permutations, np.random.default_rng([seed, 2])):
        as_large += np.sum(_statistics(*drawn, budgets) >= seen, axis=1)
    names = ("balanced_accuracy", "auc", *map(fpr_metric, fprs))
    return {name: (1 + int(count)) / (1 + num_permutations) for name, count in zip(names, as_large)}


def _rates(ranks: Ranked) -> tuple[np.ndarray, np.ndarray]:
    true_positives, false_positives = ranks.accepted()
    return true_positives / true_positives[-1], false_positives / false_positives[-1]


def _resampled(ranks: Ranked, num_draws: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AUC of each draw, and how far any threshold's advantage rose and fell against that of the scores."""
    num, num_members, num_non_members = (len(part) for part in ranks)
    tpr, fpr = (rates[1:] for rates in _rates(ranks))
    areas, rises, falls = [], [], []
    for size in _chunks(num_draws, num + num_members + num_non_members):
        hits, alarms = (_redrawn(part, num, size, rng) for part in ranks[1:])
        hits_above = np.cumsum(hits, axis=1)
        areas.append(np.einsum("ij,ij->i", alarms, hits_above - 0.5 * hits) / num_members / num_non_members)
        change = hits_above / num_members - np.cumsum(alarms, axis=1) / num_non_members - (tpr - fpr)
        rises.append(np.maximum(change.max(axis=1), 0.0))
        falls.append(np.maximum(-change.min(axis=1), 0.0))
    return np.concatenate(areas), np.concatenate(rises), np.concatenate(falls)


def _redrawn(ranks: np.ndarray, num_ranks: int, num_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Counts each rank when as many examples are drawn with replacement, shape `(num_draws, num_ranks)`."""
    drawn = ranks[rng.integers(len(ranks), size=(num_draws, len(ranks)))]
    drawn += num_ranks * np.arange(num_draws)[:, np.newaxis]
    return np.bincount(drawn.ravel(), minlength=num_draws * num_ranks).reshape(num_draws, num_ranks)


def _permuted(ranks: Ranked, num_draws: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Members and non-members accepted from nobody up when membership is permuted, a row a draw."""
    everyone = len(ranks.members) + len(ranks.non_members)
    is_member = np.arange(everyone) < len(ranks.members)
    accepted = np.sum(ranks.accepted(), axis=0)
    for num in _chunks(num_draws, everyone):
        dealt = rng.permuted(np.broadcast_to(is_member, (num, everyone)), axis=1)
        true_positives = np.pad(np.cumsum(dealt, axis=1), ((0, 0), (1, 0)))[:, accepted]
        yield true_positives, accepted - true_positives


def _statistics(true_positives: np.ndarray, false_positives: np.ndarray, budgets: Sequence[int]) -> np.ndarray:
    """Integers that order draws as their metrics do, shape `(2 + len(budgets), draws)`."""
    num_members, num_non_members = true_positives[0, -1], false_positives[0, -1]
    advantages = true_positives * num_non_members - false_positives * num_members
    twice_wins = true_positives[:, 1:] + true_positives[:, :-1]
    return np.stack(
        [
            advantages.max(axis=1),
            np.einsum("ij,ij->i", np.diff(false_positives, axis=1), twice_wins),
            *(np.where(false_positives <= budget, true_positives, 0).max(axis=1) for budget in budgets),
        ]
    )


def _interval_of_decisions(
    decisions: Decisions, num_draws: int, tails: tuple[float, float], rng: np.random.Generator
) -> Interval:
    """The interval of TPR - FPR at a threshold that was not chosen on these examples."""
    hits, num_members, alarms, num_non_members = decisions
    tpr = rng.beta(hits + 0.5, num_members - hits + 0.5, num_draws)
    fpr = rng.beta(alarms + 0.5, num_non_members - alarms + 0.5, num_draws)
    return _ends(tpr - fpr, tails)


def _interval_of_tpr(
    ranks: Ranked, fpr: float, num_draws: int, tails: tuple[float, float], rng: np.random.Generator
) -> Interval:
    """The interval of the TPR where the true rate of non-members, not the one seen, is `fpr`."""
    num, num_members, num_non_members = (len(part) for part in ranks)
    hits, alarms = ranks.accepted()
    above = rng.binomial(num_non_members, fpr, num_draws)
    # The rate is met somewhere below the last non-member of these and not below the next one.
    most = np.where(above == num_non_members, num, np.searchsorted(alarms, above + 1) - 1)
    least = np.searchsorted(alarms, alarms[most])
    low = _beta(hits[least], num_members - hits[least] + 1, rng)
    high = _beta(hits[most] + 1, num_members - hits[most], rng)
    return Interval(_quantile(low, tails[0]), _quantile(high, tails[1]))


def _beta(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws of Beta(a, b), which is all at 0 for a = 0 and all at 1 for b = 0."""
    drawn = rng.beta(np.maximum(a, 1), np.maximum(b, 1))
    return np.where(a == 0, 0.0, np.where(b == 0, 1.0, drawn))


def _exact_if_apart(ranks: Ranked, confidence: float) -> Interval | None:
    """An interval of the AUC where all members are above all non-members or below them; else None."""
    confidence = 1 - (1 - confidence) / 2  # half of the doubt for each of two rates
    hits, rejected = (clopper_pearson(len(part), len(part), confidence=confidence).low for part in ranks[1:])
    worst = hits * rejected  # of one threshold between them
    if ranks.members.max() < ranks.non_members.min():
        return Interval(worst, 1.0)
    return Interval(0.0, 1 - worst) if ranks.non_members.max() < ranks.members.min() else None


def _budget(fpr: float, num_non_members: int) -> int:
    """The most false positives whose share is at most `fpr`, decided as `tpr_at_fpr` decides it."""
    nearest = math.floor(fpr * num_non_members + 0.5)
    return nearest - (nearest / num_non_members > largest_rate(fpr))


def _mann_whitney(members: np.ndarray, non_members: np.ndarray) -> float:
    sizes = sorted((len(members), len(non_members)))
    ties = len(np.unique(np.concatenate([members, non_members]))) < sum(sizes)
    exact = not ties and sizes[0] <= 8 and sizes[1] <= 200  # beyond, all orders take hours to count
    method = "exact" if exact else "asymptotic"
    return float(stats.mannwhitneyu(members, non_members, alternative="greater", method=method).pvalue)


def _fisher(hits: int, num_members: int, alarms: int, num_non_members: int) -> float:
    """The chance of as many members or more among as many accepted examples."""
    return float(stats.hypergeom.sf(hits - 1, num_members + num_non_members, num_members, hits + alarms))


def _chunks(num_draws: int, scores_each: int) -> Iterator[int]:
    size = max(1, _CHUNK // scores_each)
    for first in range(0, num_draws, size):
        yield min(size, num_draws - first)


def _ends(values: np.ndarray, tails: tuple[float, float]) -> Interval:
    return Interval(_quantile(values, tails[0]), _quantile(values, tails[1]))


def _quantile(values: np.ndarray, share: float) -> float:
    return float(np.quantile(values, share))


def _check_options(name: str, num_draws: int, seed: int, fprs: Sequence[float]) -> None:
    check_count(name, num_draws, 1, "It is how many draws are made, e.g. 1000.")
    check_count("seed", seed, 0, "It makes the draws repeatable.")
    for fpr in fprs:
        check_rate("fprs", fpr)
