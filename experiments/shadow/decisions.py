"""What attackers decide by thresholds from the shadow models alone: no label of the network under audit is used."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from experiments.statistics import CONFIDENCE, Estimate
from pineat_tf.membership import positive_predictive_value
from pineat_tf.statistics import clopper_pearson

FPRS = (0.01, 0.001)
"""The false positive rates that thresholds are set for."""

PRIORS = (0.01, 0.05, 0.1)
"""Shares of members among those who are judged, for the precision."""

_ROUNDING = 1e-9


class Decisions(NamedTuple):
    """What one threshold for each network under audit decides; a value a network.

    Attributes:
        true_positives: how many members are called members.
        members: how many there are.
        false_positives: how many others are called members.
        non_members: how many there are.
        jaccard: by how much the flagged sets of two networks agree among the members of both, the mean over the other
            networks; None for all if with a network nobody is ever flagged.
        by_chance: the same of independent random sets of these sizes.
    """

    true_positives: list[int]
    members: list[int]
    false_positives: list[int]
    non_members: list[int]
    jaccard: list[float] | None
    by_chance: list[float] | None

    @property
    def tpr(self) -> list[float]:
        """Share of members called members."""
        return np.divide(self.true_positives, self.members).tolist()

    @property
    def fpr(self) -> list[float]:
        """The false positive rate that the threshold attains."""
        return np.divide(self.false_positives, self.non_members).tolist()


def threshold(scores: np.ndarray, fpr: float) -> float | None:
    """The lowest threshold that calls no more than `fpr` of these scores, of non-members, members.

    Returns:
        Who scores as much or more is called a member; `inf` where ties leave nobody, None of too few scores to tell.

    Example:
        >>> threshold(np.arange(100.0), 0.02)
        98.0
    """
    allowed = int(fpr * len(scores) * (1 + _ROUNDING))
    if allowed < 1:
        return None
    falling = np.sort(scores)[::-1]
    above = falling[falling > falling[allowed]]
    return float(above[-1]) if len(above) else np.inf


def decide(scores: np.ndarray, in_mask: np.ndarray, thresholds: Sequence[float | None]) -> Decisions | None:
    """Compares scores with a threshold for each network.

    Args:
        scores: of each network and example, shape `(num_models, num)`.
        in_mask: whether a network was trained on an example, booleans of the same shape.
        thresholds: one a network.

    Returns:
        What is decided; None if a network has no threshold, or no members or others to judge.
    """
    counts = in_mask.sum(axis=1), (~in_mask).sum(axis=1)
    if None in thresholds or not np.all(counts):
        return None
    flagged = scores >= np.array(thresholds, float)[:, np.newaxis]
    agreement = [_agreement(flagged, in_mask, network) for network in range(len(flagged))]
    known = None not in agreement
    return Decisions(
        true_positives=(flagged & in_mask).sum(axis=1).tolist(),
        members=counts[0].tolist(),
        false_positives=(flagged & ~in_mask).sum(axis=1).tolist(),
        non_members=counts[1].tolist(),
        jaccard=[pair[0] for pair in agreement] if known else None,
        by_chance=[pair[1] for pair in agreement] if known else None,
    )


def precision(decisions: Decisions, prior: float) -> Estimate | None:
    """The share of members among those who are flagged (PPV), by Bayes' rule from the rates of all networks together.

    Its interval is that of the ratio of TPR and FPR, by Student's t of what networks add to its logarithm; where no
    member or nobody else is flagged, by the exact intervals of the rates. In 1,000 draws of 4 or 16 networks it covered
    .947 to .987.

    Args:
        decisions: of at least two networks.
        prior: the share of members among those who are judged, in (0, 1).

    Returns:
        The precision with its 95 % interval; None where nobody is flagged.
    """
    hits, members, alarms, others = (np.array(counts, float) for counts in decisions[:4])
    if not hits.sum() + alarms.sum():
        return None
    tpr, fpr = hits.sum() / members.sum(), alarms.sum() / others.sum()
    if tpr and fpr:
        of_ratio = (hits - tpr * members) / (members.mean() * tpr) - (alarms - fpr * others) / (others.mean() * fpr)
        half = stats.t.ppf(0.5 + CONFIDENCE / 2, len(hits) - 1) * of_ratio.std(ddof=1) / np.sqrt(len(hits))
        low, high = ((tpr, fpr * np.exp(half)), (tpr, fpr * np.exp(-half)))
    else:
        each = 0.5 + CONFIDENCE / 2  # half of the doubt for each rate
        of_tpr, of_fpr = (
            clopper_pearson(int(seen.sum()), int(judged.sum()), confidence=each)
            for seen, judged in ((hits, members), (alarms, others))
        )
        low, high = (of_tpr.low, of_fpr.high), (of_tpr.high, of_fpr.low)
    values = [positive_predictive_value(rate, min(1.0, false), prior=prior) for rate, false in ((tpr, fpr), low, high)]
    return Estimate(values[0], None, values[1], values[2], len(hits))


def _agreement(flagged: np.ndarray, in_mask: np.ndarray, network: int) -> tuple[float, float] | None:
    """The mean Jaccard index of one network's flagged members and the others', and that of independent draws."""
    pairs = []
    for other in range(len(flagged)):
        both = in_mask[network] & in_mask[other]
        mine, others = flagged[network] & both, flagged[other] & both
        if other != network and (mine | others).any():
            found = (mine & others).sum() / (mine | others).sum()
            pairs.append((found, _by_chance(int(both.sum()), *sorted((int(mine.sum()), int(others.sum()))))))
    return tuple(np.mean(pairs, axis=0).tolist()) if pairs else None


@functools.lru_cache(maxsize=4096)
def _by_chance(num: int, smaller: int, larger: int) -> float:
    """The expected Jaccard index of two independent random subsets of these sizes."""
    shared = np.arange(max(0, smaller + larger - num), smaller + 1)
    ways = _log_ways(smaller, shared) + _log_ways(num - smaller, larger - shared) - _log_ways(num, larger)
    return float(np.exp(ways) @ (shared / (smaller + larger - shared)))


def _log_ways(num: int, chosen: np.ndarray | int) -> np.ndarray:
    """How many sets of this size there are, as a logarithm; SciPy's own distribution takes ten times as long."""
    return special.gammaln(num + 1) - special.gammaln(np.add(chosen, 1)) - special.gammaln(np.subtract(num + 1, chosen))
