"""Membership scores calibrated on shadow models: LiRA and RMIA. Larger = more likely a member.

Both ask whether the network under audit is surer of an example than networks trained without it. The shadow models are
trained like the network, each on a random part of the data. float64, on the host: these are sums over models, not
passes through them.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from pineat_tf.checks import check_choice, check_positive
from pineat_tf.membership.scores import as_float64
from pineat_tf.statistics import check_rate

__all__ = ["lira_scores", "relative_likelihood_scores", "rmia_scores"]

_SMALLEST_DEVIATION = 1e-12  # keeps a ratio of equal observations finite
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


def lira_scores(
    target: Any, shadows: Any, in_mask: Any, *, mode: str = "online", variance: str = "per_example"
) -> np.ndarray:
    """Scores each example by how much better "trained on it" explains the network than "trained without it".

    Online, the score is the log-likelihood ratio of two normal distributions, fitted to the shadow models with and
    without the example. Offline, only those without it are used: the score is how many standard deviations the network
    lies above them, which orders examples as the one-sided test of the paper does. Centres are medians, as in the
    authors' code. Where an example has fewer than two shadow models of a kind, the mean of the other examples' centres
    (if it has none) and deviations stands in.

    Args:
        target: what the network under audit says of each example, e.g. by `logit_score`; shape `(num,)`, or
            `(num, queries)` for several queries an example (augmented, adversarial), whose scores are averaged.
        shadows: the same of each shadow model, shape `(num_models, num)` or `(num_models, num, queries)`.
        in_mask: whether a model was trained on an example, booleans of shape `(num_models, num)`.
        mode: "online" or "offline".
        variance: "per_example", or "fixed" for one of all examples, which is better with few shadow models (about
            64 or less); models with and without the example have one each.

    Returns:
        Scores of shape `(num,)`, float64.

    Raises:
        ValueError: if shapes do not fit, values are not finite, or no example has two shadow models of a kind.

    Example:
        >>> target, shadows = [3.0, 0.0], [[3.0, 3.0], [1.0, 1.0], [2.0, 2.0], [0.0, 0.0]]
        >>> in_mask = [[True, False], [False, False], [True, True], [False, True]]
        >>> lira_scores(target, shadows, in_mask, mode="offline")
        array([ 5., -2.])

    Reference:
        Carlini et al., "Membership Inference Attacks From First Principles", S&P 2022, algorithm 1 and section V.
    """
    check_choice("mode", mode, ("online", "offline"))
    check_choice("variance", variance, ("per_example", "fixed"))
    target, shadows, in_mask = _checked(target, shadows, in_mask)
    without = _fitted(shadows, ~in_mask, variance, "without")
    if mode == "offline":
        return np.asarray(without.standardised(target).mean(axis=1))
    trained_on_it = _fitted(shadows, in_mask, variance, "with")
    return np.asarray((trained_on_it.log_density(target) - without.log_density(target)).mean(axis=1))


def relative_likelihood_scores(
    target: Any, shadows: Any, in_mask: Any, *, offline_a: float | None = None
) -> np.ndarray:
    """Scores each example by log(p(x | network) / p(x)), the likelihood ratio that RMIA compares.

    p(x) is the mean probability by the shadow models: online, of those with and those without the example in equal
    parts; offline, `((1 + a) p_out + (1 - a)) / 2` from those without it. Where an example has no shadow model of a
    kind, the mean of the other examples stands in.

    Args:
        target: log p_y of each example by the network under audit (`cross_entropy_score`), shape `(num,)`, or
            `(num, queries)`, whose probabilities are averaged.
        shadows: the same of each shadow model, shape `(num_models, num)` or `(num_models, num, queries)`.
        in_mask: whether a model was trained on an example, booleans of shape `(num_models, num)`.
        offline_a: the a of the offline approximation, in [0, 1]; None attacks online.

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
        Zarifzadeh, Liu and Shokri, "Low-Cost High-Power Membership Inference Attacks", ICML 2024, eq. (7) to (10).
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
        check_rate("offline_a", offline_a)
        with np.errstate(divide="ignore"):  # a = 1: the second term is exp(-inf)
            log_sum = np.logaddexp(np.log1p(offline_a) + out, np.log1p(-offline_a))
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
    counts = mask.sum(axis=0)[:, np.newaxis]
    if not np.any(counts >= 2):
        raise ValueError(
            f"No example has two shadow models {kind} it. Received: {len(mask)} shadow models. Train more of them, "
            "each on a random half of the data."
        )
    seen = np.where(mask[:, :, np.newaxis], shadows, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of examples that no such model saw
        centre, deviation = np.nanmedian(seen, axis=0), np.nanstd(seen, axis=0)
    deviation = np.where(counts >= 2, deviation, np.nan)
    if variance == "fixed":  # pooled within the examples that tell something of it
        weights = np.where(counts >= 2, counts, 0)
        deviation = np.sqrt(np.nansum(weights * deviation**2, axis=0) / weights.sum())
    return _Normal(_filled(centre), np.maximum(_filled(deviation), _SMALLEST_DEVIATION))


def _filled(values: np.ndarray) -> np.ndarray:
    """Values with the mean of the examples that have one, query by query, where they are NaN."""
    return np.where(np.isnan(values), np.nanmean(values, axis=0), values)


def _log_mean_exp(values: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(special.logsumexp(values, axis=axis) - np.log(values.shape[axis]))


def _log_masked_mean(log_probs: np.ndarray, mask: np.ndarray, kind: str) -> np.ndarray:
    """The logarithm of the mean probability over the chosen models; that of all examples where none is chosen."""
    counts = mask.sum(axis=0)
    known = counts > 0
    if not known.any():
        raise ValueError(
            f"No example has a shadow model {kind} it. Received: {len(mask)} shadow models. Train more of them, each "
            "on a random half of the data, or attack offline."
        )
    means = special.logsumexp(log_probs, axis=0, b=mask) - np.log(np.maximum(counts, 1))
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
    if values.ndim not in ranks or not values.size or not np.isfinite(values).all():
        raise ValueError(
            f"`{name}` must be finite, of rank {' or '.join(map(str, ranks))}, and not empty. Received: shape "
            f"{values.shape}, {int(np.sum(~np.isfinite(values)))} values NaN or infinite. Score from logits, which do "
            "not overflow."
        )
    return values
