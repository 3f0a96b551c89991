"""How far the pool of members differs from that of non-members, by networks that were trained on neither."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from pineat_tf.checks import check_share
from pineat_tf.membership.thresholds import auc, best_threshold, checked_scores, roc
from pineat_tf.statistics import Interval

__all__ = ["PoolShift", "pool_shift"]

_FEWEST = 3  # networks: two have a spread of one degree of freedom, by which nothing is ever found


class PoolShift(NamedTuple):
    """What one figure of an audit is where nothing was learned, and how far a target exceeds that.

    Attributes:
        mean: of the networks that were trained on neither pool.
        interval: of that mean.
        target: the figure of the network under audit.
        excess: `target - mean`, the leak without the pools' share.
        excess_interval: where the leak lies, as far as such networks differ among each other; below 0 by luck.
        p_value: how often one more network that was trained on neither would reach `target`.
    """

    mean: float
    interval: Interval
    target: float
    excess: float
    excess_interval: Interval
    p_value: float


def pool_shift(
    member_scores: Any,
    non_member_scores: Any,
    reference_member_scores: Any,
    reference_non_member_scores: Any,
    *,
    confidence: float = 0.95,
) -> dict[str, PoolShift]:
    """Judges an audit by what networks show that were trained on neither pool, instead of by chance.

    Members and non-members that were not drawn from one population, say an official training and test split, differ
    before any training: a network that leaks nothing then has no AUC of .5. Networks of the same training on other
    images know what it has. Their figures are taken as normal, and the p-value is Student's t of one more draw of them:
    few networks give it a wide spread, and never a false sureness.

    The networks under audit and those for reference should be trained on as many images: figures of better networks
    differ more. Where pools are drawn at random this finds nothing, and `leakage_p_values` needs no networks.

    Args:
        member_scores: of the network under audit on its members, shape `(num_members,)`, larger = more member.
        non_member_scores: of it on the non-members, shape `(num_non_members,)`.
        reference_member_scores: the same score by networks trained on neither pool, on the same members, shape
            `(num_networks, num_members)`; at least 3 networks, of which 5 find what 3 cannot.
        reference_non_member_scores: of them on the same non-members, shape `(num_networks, num_non_members)`.
        confidence: of both intervals, in [0, 1).

    Returns:
        "auc" and "balanced_accuracy" (of the best threshold, in-sample like the target's) -> `PoolShift`.

    Raises:
        ValueError: if scores are no scores, shapes do not fit, or there are fewer than three networks.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> easier = rng.normal(0.5, 1.0, 500), rng.normal(0.0, 1.0, 500)  # members are easier for every network
        >>> seen = [[pool + rng.normal(size=500) for _ in range(5)] for pool in easier]
        >>> target = [pool + rng.normal(size=500) for pool in easier]  # no leak, and yet an AUC above .6
        >>> found = pool_shift(*target, *seen)["auc"]
        >>> found.target > 0.6, found.p_value > 0.05
        (True, True)
    """
    check_share("confidence", confidence)
    target = checked_scores(member_scores, non_member_scores)
    references = _checked_references(reference_member_scores, reference_non_member_scores, target)
    return {
        name: _shift(figure(*target), np.array([figure(*pair) for pair in references]), confidence)
        for name, figure in _FIGURES.items()
    }


def _best(members: np.ndarray, non_members: np.ndarray) -> float:
    return best_threshold(members, non_members).balanced_accuracy


def _area(members: np.ndarray, non_members: np.ndarray) -> float:
    return auc(roc(members, non_members))


_FIGURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"auc": _area, "balanced_accuracy": _best}


def _shift(target: float, of_references: np.ndarray, confidence: float) -> PoolShift:
    num, mean, deviation = len(of_references), float(of_references.mean()), float(of_references.std(ddof=1))
    excess, quantile = target - mean, float(stats.t.ppf(0.5 + confidence / 2, num - 1))
    of_mean, of_one_more = quantile * deviation / math.sqrt(num), quantile * deviation * math.sqrt(1 + 1 / num)
    if deviation:
        p_value = float(stats.t.sf(excess / (deviation * math.sqrt(1 + 1 / num)), num - 1))
    else:  # all alike: only the rank of the target tells
        p_value = 1 / (num + 1) if excess > 0 else 1.0
    return PoolShift(
        mean=mean,
        interval=Interval(mean - of_mean, mean + of_mean),
        target=target,
        excess=excess,
        excess_interval=Interval(excess - of_one_more, excess + of_one_more),
        p_value=p_value,
    )


def _checked_references(members: Any, non_members: Any, target: tuple[np.ndarray, np.ndarray]) -> list[tuple]:
    """Pairs of scores, a network each."""
    shapes = [np.shape(scores) for scores in (members, non_members)]
    fitting = all(len(shape) == 2 and shape[1] == len(scores) for shape, scores in zip(shapes, target))
    if not fitting or shapes[0][0] != shapes[1][0]:
        raise ValueError(
            "Networks trained on neither pool must score the same members and non-members as the target, shapes "
            f"(num_networks, {len(target[0])}) and (num_networks, {len(target[1])}). Received: shapes {shapes}. Give a "
            "row a network."
        )
    if shapes[0][0] < _FEWEST:
        raise ValueError(
            f"How far networks differ takes at least {_FEWEST} that were trained on neither pool. Received: "
            f"{shapes[0][0]}. Train more."
        )
    return [checked_scores(*pair, prefix="reference_") for pair in zip(members, non_members)]
