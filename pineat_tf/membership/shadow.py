"""Membership scores calibrated on shadow models: LiRA, BaVarIA and RMIA. Larger = more likely a member.

Both ask whether the network under audit is surer of an example than networks trained without it. The shadow models are
trained like the network, each on a random part of the data. float64, on the host: these are sums over models, not
passes through them.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special, stats

from pineat_tf.checks import check_choice, check_positive
from pineat_tf.membership.scores import as_class_numbers, as_float64
from pineat_tf.membership.thresholds import auc, roc
from pineat_tf.statistics import check_rate

__all__ = ["bavaria_scores", "lira_scores", "relative_likelihood_scores", "rmia_scores"]

_LARGEST = 1e100  # whose square does not overflow
_SMALLEST_DEVIATION = 1e-12  # keeps a ratio of equal observations finite
_SMALLEST_SHARE = 1e-5  # of the median variance: what is smaller, say 0 by ties, would drown all others in logarithms
_LARGEST_PRIOR = 200.0  # degrees of freedom, and models, beyond which a prior decides alone
_GRID = np.round(np.arange(0.0, 1.01, 0.1), 1)
_ROUNDING = 1e-9  # of logarithms: a ratio that is gamma is seldom log(gamma) to the last bit


class _Normal(NamedTuple):
    """A normal distribution for every example and query, each of shape `(num, queries)`."""

    centre: np.ndarray
    deviation: np.ndarray

    def standardised(self, values: np.ndarray) -> np.ndarray:
        """Returns how many deviations values lie above the centre."""
        return np.asarray((values - self.centre) / self.deviation)

    def log_density(self, values: np.ndarray) -> np.ndarray:
        """Returns the logarithm without the constant, which cancels in a ratio."""
        return np.asarray(-np.log(self.deviation) - 0.5 * self.standardised(values) ** 2)


class _StudentT(NamedTuple):
    """Student's t for every example and query, each of shape `(num, queries)`."""

    centre: np.ndarray
    scale: np.ndarray
    freedom: np.ndarray

    def standardised(self, values: np.ndarray) -> np.ndarray:
        """Returns how many deviations of a normal distribution have the same tail, whatever the degrees of freedom."""
        heights = (values - self.centre) / self.scale
        tail = np.maximum(stats.t.sf(np.abs(heights), self.freedom), np.finfo(float).tiny)
        return np.asarray(-np.sign(heights) * special.ndtri(tail))

    def log_density(self, values: np.ndarray) -> np.ndarray:
        """Returns the logarithm of the density."""
        return np.asarray(stats.t.logpdf(values, self.freedom, self.centre, self.scale))


def lira_scores(
    target: Any,
    shadows: Any,
    in_mask: Any,
    *,
    mode: str = "online",
    variance: str = "per_example",
    labels: Any = None,
) -> np.ndarray:
    """Scores each example by how much better "trained on it" explains the network than "trained without it".

    Online, the score is the log-likelihood ratio of two normal distributions, fitted to the shadow models with and
    without the example. Offline, only those without it are used: the score is how many standard deviations the network
    lies above them, which orders examples as the one-sided test of the paper does. By proxy (PMIA), what "trained on
    it" looks like is learned from what shadow models say of their members in the other half of the examples, so that
    the attacker need not know an example when the shadows are trained. Centres are medians, as in the authors' code.
    Where an example has fewer than two shadow models of a kind, the mean of the other examples' centres (if it has
    none) and deviations stands in.

    Args:
        target: what the network under audit says of each example, e.g. by `logit_score`; shape `(num,)`, or
            `(num, queries)` for several queries an example (augmented, adversarial), whose scores are averaged.
        shadows: the same of each shadow model, shape `(num_models, num)` or `(num_models, num, queries)`.
        in_mask: whether a model was trained on an example, booleans of shape `(num_models, num)`.
        mode: "online", "offline" or "proxy".
        variance: "per_example", or "fixed" for one of all examples, which is better with few shadow models (about
            64 or less); models with and without the example have one each.
        labels: class numbers of the examples, shape `(num,)`: proxies are then of the same class. For "proxy" alone.

    Returns:
        Scores of shape `(num,)`, float64.

    Raises:
        ValueError: if shapes do not fit, values are not finite, or no example has two shadow models of a kind, or no
            two proxies.

    Example:
        >>> target, shadows = [3.0, 0.0], [[3.0, 3.0], [1.0, 1.0], [2.0, 2.0], [0.0, 0.0]]
        >>> in_mask = [[True, False], [False, False], [True, True], [False, True]]
        >>> lira_scores(target, shadows, in_mask, mode="offline")
        array([ 5., -2.])

    Reference:
        Carlini et al., "Membership Inference Attacks From First Principles", S&P 2022, algorithm 1 and section V; the
        proxies "global" and "class" of PMIA are those of its authors' code (zealscott/MIA).
    """
    check_choice("mode", mode, ("online", "offline", "proxy"))
    check_choice("variance", variance, ("per_example", "fixed"))
    if labels is not None and mode != "proxy":
        raise ValueError(
            f'`labels` choose proxies. Received: labels with mode={mode!r}. Give mode="proxy", or no labels.'
        )
    target, shadows, in_mask = _checked(target, shadows, in_mask)
    without = _fitted(shadows, ~in_mask, variance, "without")
    if mode == "offline":
        return np.asarray(without.standardised(target).mean(axis=1))
    of_proxies = mode == "proxy"
    trained_on_it = _proxies(shadows, in_mask, labels) if of_proxies else _fitted(shadows, in_mask, variance, "with")
    return np.asarray((trained_on_it.log_density(target) - without.log_density(target)).mean(axis=1))


def bavaria_scores(target: Any, shadows: Any, in_mask: Any, *, mode: str = "online") -> np.ndarray:
    """Scores each example as `lira_scores` does, but weighs what few shadow models say against what all examples say.

    Means and variances of an example have a conjugate (normal-inverse-gamma) prior, for models with and without the
    example each, which is estimated from all examples and models: its centre and how far examples are apart by moments,
    its variance and degrees of freedom by the moments of the logarithms of the examples' variances. What the network
    says is then judged by Student's t, the posterior predictive: near LiRA's fixed variance with few shadow models,
    near its variance an example with many, without a switch between them.

    Args:
        target: as of `lira_scores`.
        shadows: as of `lira_scores`.
        in_mask: as of `lira_scores`.
        mode: "online", or "offline" by models without the example alone: how many standard deviations of a normal
            distribution have the same tail as the network above them, at most 37.

    Returns:
        Scores of shape `(num,)`, float64.

    Raises:
        ValueError: as `lira_scores`.

    Example:
        >>> target, shadows = [3.0, 0.0], [[3.0, 3.0], [1.0, 1.0], [2.0, 2.0], [0.0, 0.0]]
        >>> in_mask = [[True, False], [False, False], [True, True], [False, True]]
        >>> bavaria_scores(target, shadows, in_mask, mode="offline").round(1)
        array([ 0.9, -0.7])

    Reference:
        Brännvall, "Exponential-Family Membership Inference: From LiRA and RMIA to BaVarIA", arXiv:2603.11799, 2026
        (BaVarIA-t). The prior of variances is estimated as in Smyth, "Linear models and empirical Bayes methods for
        assessing differential expression", 2004, section 6.2.
    """
    check_choice("mode", mode, ("online", "offline"))
    target, shadows, in_mask = _checked(target, shadows, in_mask)
    without = _predictive(shadows, ~in_mask, "without")
    if mode == "offline":
        return np.asarray(without.standardised(target).mean(axis=1))
    trained_on_it = _predictive(shadows, in_mask, "with")
    return np.asarray((trained_on_it.log_density(target) - without.log_density(target)).mean(axis=1))


def relative_likelihood_scores(
    target: Any, shadows: Any, in_mask: Any, *, offline_a: float | str | None = None
) -> np.ndarray:
    """Scores each example by log(p(x | network) / p(x)), the likelihood ratio that RMIA compares.

    p(x) is the mean probability by the shadow models: online, of those with and those without the example in equal
    parts; offline, `((1 + a) p_out + (1 - a)) / 2` from those without it. Where an example has no shadow model of a
    kind, the mean of the other examples stands in.

    Args:
        target: log p_y of each example by the network under audit, shape `(num,)`, or `(num, queries)`, whose
            probabilities are averaged: `cross_entropy_score(labels, logits)`, or of `logits / 2` for a softmax of
            temperature 2, which makes this the score of BASE.
        shadows: the same of each shadow model, shape `(num_models, num)` or `(num_models, num, queries)`.
        in_mask: whether a model was trained on an example, booleans of shape `(num_models, num)`.
        offline_a: the a of the offline approximation, in [0, 1]; "tuned" takes the one of 0, 0.1, ..., 1 by which each
            shadow model is attacked best with the others, by mean AUC; None attacks online.

    Returns:
        Scores of shape `(num,)`, float64.

    Raises:
        ValueError: if shapes do not fit, values are above 0 or not finite, `offline_a` is out of range, or no example
            has a shadow model of a kind that is needed.

    Example:
        >>> log_probs = np.log([[0.25], [0.5]])
        >>> relative_likelihood_scores(np.log([0.75]), log_probs, [[False], [True]]).round(4)  # log(0.75 / 0.375)
        array([0.6931])

    Reference:
        Zarifzadeh, Liu and Shokri, "Low-Cost High-Power Membership Inference Attacks", ICML 2024, eq. (7) to (10), and
        appendix B.2 for a tuned a; Lassila, Östman and Ngo, "Practical Bayes-Optimal Membership Inference Attacks",
        2025 (BASE).
    """
    target, shadows, in_mask = _checked(target, shadows, in_mask)
    if max(target.max(), shadows.max()) > 0:
        raise ValueError(
            "`target` and `shadows` must be log-probabilities, at most 0. "
            f"Received: values up to {max(target.max(), shadows.max()):g}. Give `cross_entropy_score(labels, logits)`."
        )
    log_target, log_shadows = (_log_mean_exp(log_probs, axis=-1) for log_probs in (target, shadows))
    out = _log_masked_mean(log_shadows, ~in_mask, "without")
    if offline_a is None:
        log_sum = np.logaddexp(out, _log_masked_mean(log_shadows, in_mask, "with"))
    else:
        log_sum = _offline_sum(out, _tuned_a(log_shadows, in_mask) if offline_a == "tuned" else offline_a)
    return np.asarray(log_target - log_sum + np.log(2))


def rmia_scores(ratios: Any, population_ratios: Any, *, gamma: float = 2.0) -> np.ndarray:
    """Scores each example by the share of the population that it dominates.

    An example dominates another one if its likelihood ratio is at least gamma times as large, whose logarithms
    `relative_likelihood_scores` gives: what falls short of gamma by a part in 10^9 is rounding and counts. The share
    orders examples as those scores do, but ties those that dominate the same: for TPR at an FPR far below one over the
    population's size, audit the scores themselves.

    Args:
        ratios: `relative_likelihood_scores` of the audited examples, shape `(num,)`.
        population_ratios: the same of examples that the network was not trained on, shape `(num_population,)`.
        gamma: by which factor the likelihood ratio must be larger, > 0.

    Returns:
        Scores in [0, 1] of shape `(num,)`, float64.

    Raises:
        ValueError: if shapes do not fit, values are not finite, or `gamma` is not positive.

    Example:
        >>> rmia_scores(np.log([8.0, 2.0]), np.log([1.0, 2.0, 3.0, 5.0]))
        array([0.75, 0.25])

    Reference:
        Zarifzadeh, Liu and Shokri, ICML 2024, eq. (2) and (4).
    """
    check_positive("gamma", gamma, "It is a factor; the authors take 1 or 2.")
    ratios = _finite("ratios", ratios, ranks=(1,))
    population = _finite("population_ratios", population_ratios, ranks=(1,))
    dominated = ratios - np.log(gamma) + _ROUNDING
    return np.asarray(np.searchsorted(np.sort(population), dominated, side="right") / len(population))


def _fitted(shadows: np.ndarray, mask: np.ndarray, variance: str, kind: str) -> _Normal:
    """Normal distributions of what the chosen models say of each example."""
    counts, _, squares = _moments(shadows, mask, kind)
    models_last = np.moveaxis(np.where(mask[:, :, np.newaxis], shadows, np.inf), 0, -1)
    ordered = np.sort(np.ascontiguousarray(models_last), axis=-1)  # rows that lie together sort faster
    middle = [np.broadcast_to(rank, squares.shape)[..., np.newaxis] for rank in ((counts - 1) // 2, counts // 2)]
    centre = np.take_along_axis(ordered, np.concatenate(middle, axis=-1), axis=-1).mean(axis=-1)
    several = counts >= 2
    deviation = np.sqrt(squares / np.maximum(counts, 1))
    if variance == "fixed":  # pooled within the examples that tell something of it
        deviation = np.sqrt(squares.sum(axis=0, where=several) / counts.sum(where=several))
    else:
        deviation = _filled(deviation, several)
    return _Normal(_filled(centre, counts > 0), np.maximum(deviation, _SMALLEST_DEVIATION))


def _moments(shadows: np.ndarray, mask: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many chosen models there are of each example, the mean of what they say, and its squares around that."""
    counts = mask.sum(axis=0)[:, np.newaxis]
    if not np.any(counts >= 2):
        raise ValueError(
            f"No example has two shadow models {kind} it. Received: {len(mask)} shadow models. Train more of them, "
            "each on a random half of the data."
        )
    means = np.einsum("mnq,mn->nq", shadows, mask) / np.maximum(counts, 1)
    apart = shadows - means
    return counts, means, np.einsum("mnq,mnq,mn->nq", apart, apart, mask)


def _proxies(shadows: np.ndarray, mask: np.ndarray, labels: Any) -> _Normal:
    """What the chosen models say of other images: those of odd places for images of even ones, and the reverse."""
    num = mask.shape[1]
    groups = np.zeros(num) if labels is None else as_class_numbers("labels", labels, num).numpy()
    centre, deviation = np.empty(shadows.shape[1:]), np.empty(shadows.shape[1:])
    for group in np.unique(groups):
        images = np.flatnonzero(groups == group)
        for rows, others in ((images[::2], images[1::2]), (images[1::2], images[::2])):
            seen = shadows[:, others][mask[:, others]]
            if len(rows) and len(seen) < 2:
                of_class = "" if labels is None else f" of class {group:g}"
                raise ValueError(
                    f"Proxies need two members of shadow models among the other images{of_class}. Received: "
                    f"{len(seen)}. Give more images or shadow models, or no `labels`."
                )
            if len(rows):
                centre[rows], deviation[rows] = np.median(seen, axis=0), np.std(seen, axis=0)
    return _Normal(centre, np.maximum(deviation, _SMALLEST_DEVIATION))


def _predictive(shadows: np.ndarray, mask: np.ndarray, kind: str) -> _StudentT:
    """What the chosen models lead to expect of another one: the posterior predictive of each example."""
    counts, means, squares = _moments(shadows, mask, kind)
    known = counts[:, 0] >= 1
    centre = means[known].mean(axis=0)
    freedom, variance = _prior_variance(squares, counts)
    apart = means[known].var(axis=0) - variance * (1 / counts[known]).mean()  # what examples differ by beyond chance
    weight = variance / np.maximum(apart, variance / _LARGEST_PRIOR)  # of the centre, in models
    weights, freedoms = weight + counts, freedom + counts
    squares = squares + weight * counts / weights * (means - centre) ** 2
    scale = np.sqrt((freedom * variance + squares) / freedoms * (1 + 1 / weights))
    return _StudentT((weight * centre + counts * means) / weights, scale, freedoms)


def _prior_variance(squares: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Degrees of freedom and variance of the examples' variances, query by query, from their sums of squares."""
    known = counts[:, 0] >= 2
    half = (counts[known] - 1) / 2
    variances = squares[known] / (2 * half)
    smallest = np.maximum(_SMALLEST_SHARE * np.median(variances, axis=0), _SMALLEST_DEVIATION**2)
    logs = np.log(np.maximum(variances, smallest)) - special.digamma(half) + np.log(half)
    beyond_chance = logs.var(axis=0) - special.polygamma(1, half).mean()
    halves = np.array([_inverse_trigamma(max(value, 0.0)) for value in beyond_chance])
    return 2 * halves, np.exp(logs.mean(axis=0) + special.digamma(halves) - np.log(halves))


def _inverse_trigamma(value: float) -> float:
    """Half the degrees of freedom of a prior whose logarithms have this variance, between 1 and `_LARGEST_PRIOR`."""
    within = np.clip(value, special.polygamma(1, _LARGEST_PRIOR / 2), special.polygamma(1, 0.5))
    return float(optimize.brentq(lambda half: special.polygamma(1, half) - within, 0.5 - 1e-9, _LARGEST_PRIOR))


def _offline_sum(out: np.ndarray, a: Any) -> np.ndarray:
    """The logarithm of twice p(x), approximated by models without x."""
    check_rate("offline_a", a)
    with np.errstate(divide="ignore"):  # a = 1: the second term is exp(-inf)
        return np.asarray(np.logaddexp(np.log1p(a) + out, np.log1p(-a)))


def _tuned_a(log_shadows: np.ndarray, in_mask: np.ndarray) -> float:
    """The a by which each shadow model is attacked best with the others."""
    areas = np.zeros(len(_GRID))
    for model, (log_probs, members) in enumerate(zip(log_shadows, in_mask)):
        others = np.arange(len(in_mask)) != model
        out = _log_masked_mean(log_shadows[others], ~in_mask[others], "without")
        if members.all() or not members.any():
            continue
        for index, a in enumerate(_GRID):
            ratios = log_probs - _offline_sum(out, a)
            areas[index] += auc(roc(ratios[members], ratios[~members]))
    return float(_GRID[np.argmax(areas)])


def _filled(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Values with the mean of the known ones, query by query, where they are not."""
    return np.where(known, values, values.mean(axis=0, where=known))


def _log_mean_exp(values: np.ndarray, axis: int) -> np.ndarray:
    peak = values.max(axis=axis, keepdims=True)
    return np.asarray(peak.squeeze(axis) + np.log(np.exp(values - peak).mean(axis=axis)))


def _log_masked_mean(log_probs: np.ndarray, mask: np.ndarray, kind: str) -> np.ndarray:
    """The logarithm of the mean probability over the chosen models; that of all examples where none is chosen."""
    counts = mask.sum(axis=0)
    known = counts > 0
    if not known.any():
        raise ValueError(
            f"No example has a shadow model {kind} it. Received: {len(mask)} shadow models. Train more of them, each "
            "on a random half of the data, or attack offline."
        )
    seen = np.where(mask, log_probs, -np.inf)
    peak = np.where(known, seen.max(axis=0), 0.0)
    sums = np.exp(seen - peak, out=seen).sum(axis=0)
    means = peak + np.log(np.where(known, sums, 1.0) / np.maximum(counts, 1))
    return np.where(known, means, _log_mean_exp(means[known], axis=0))


def _checked(target: Any, shadows: Any, in_mask: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values with an axis of queries, once they fit each other."""
    target, shadows = _finite("target", target, ranks=(1, 2)), _finite("shadows", shadows, ranks=(2, 3))
    in_mask = np.asarray(in_mask)
    if shadows.shape[1:] != target.shape or in_mask.shape != shadows.shape[:2] or in_mask.dtype != bool:
        raise ValueError(
            "`shadows` must have shape (num_models, *target.shape) and `in_mask` be booleans of shape (num_models, "
            f"num). Received: target {target.shape}, shadows {shadows.shape}, in_mask {in_mask.dtype.name} "
            f"{in_mask.shape}."
        )
    if target.ndim == 1:
        target, shadows = target[:, np.newaxis], shadows[:, :, np.newaxis]
    return target, shadows, in_mask


def _finite(name: str, given: Any, ranks: tuple[int, ...]) -> np.ndarray:
    values: np.ndarray = as_float64(name, given).numpy()
    bad = ~(np.abs(values) < _LARGEST)  # also of NaN
    if values.ndim not in ranks or not values.size or bad.any():
        raise ValueError(
            f"`{name}` must be finite, of rank {' or '.join(map(str, ranks))}, and not empty. Received: shape "
            f"{values.shape}, {int(bad.sum())} values NaN, infinite or beyond 1e100. Score from logits, which do not "
            "overflow."
        )
    return values
