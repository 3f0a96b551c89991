"""An audit of differential privacy by one training: a lower bound of epsilon from canaries that a coin let in."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats

from pineat_tf.checks import check_choice, check_count, check_positive, check_share
from pineat_tf.membership.scores import as_float64

__all__ = ["OneRunAudit", "one_run_audit"]

_SMALLEST, _TOLERANCE, _MOST_EPSILON = 4, 1e-6, 1e3
_UNFAIR = 1e-9  # probability below which coins were not fair
_CONFIDENCE = "Give e.g. 0.95 for 95 %."


@dataclasses.dataclass(frozen=True)
class OneRunAudit:
    """What the canaries of one training show of its privacy.

    Attributes:
        epsilon: lower bound of the training's epsilon, >= 0, at this delta and confidence. If it is above what an
            accountant claims, the claim is false.
        delta: of the (epsilon, delta) that is bounded.
        confidence: probability that the bound holds.
        num_canaries: how many there were, in or out.
        num_guesses: for how many an answer was given.
        num_correct: how many of these answers were right.
    """

    epsilon: float
    delta: float
    confidence: float
    num_canaries: int
    num_guesses: int
    num_correct: int


def one_run_audit(
    scores: Any,
    included: Any,
    *,
    delta: float,
    confidence: float = 0.95,
    num_guesses: int | None = None,
    mechanism: str = "any",
) -> OneRunAudit:
    """Bounds the epsilon of a training from below, by how well the canaries that it had are told from those it had not.

    Each canary must have been included by an independent fair coin. The `num_guesses` highest scores are guessed to be
    of included ones.

    Args:
        scores: of the canaries, shape `(num,)`, larger = more member, e.g. the loss by the initial network minus that
            by the trained one.
        included: which of them were trained on, booleans of shape `(num,)`.
        delta: of the (epsilon, delta) to bound, in [0, 1).
        confidence: of the bound, in (0, 1).
        num_guesses: how many to guess of, at least 1, chosen before the scores are seen; ties with the last are guessed
            too. None tries 4, 8, 16, ... and all of them, and corrects for having tried (Bonferroni).
        mechanism: "any" (Steinke et al.), or "gaussian" for one whose trade-off curve is that of a Gaussian mechanism,
            which bounds more (Mahloujifar et al.).

    Returns:
        The bound, with the guesses that gave it. It holds for the whole training as it was run, seed and all, and says
        nothing from above: 0 is no sign of privacy.

    Raises:
        ValueError: if an argument is out of its range, scores and coins do not fit, or no fair coins fell like that.

    Example:
        >>> included = np.arange(1000) % 2 == 0
        >>> round(one_run_audit(1.0 * included, included, delta=1e-6).epsilon, 1)  # told apart without a fault
        4.6

    Reference:
        Steinke, Nasr and Jagielski, "Privacy auditing with one (1) training run", NeurIPS 2023, theorem 5.2;
        Mahloujifar, Melis and Chaudhuri, "Auditing f-differential privacy in one run", 2024, algorithm 3.
    """
    values, coins = _checked(scores, included)
    check_share("delta", delta)
    check_positive("confidence", confidence, _CONFIDENCE)
    check_share("confidence", confidence, _CONFIDENCE)
    check_choice("mechanism", mechanism, tuple(_BOUNDS))
    num = len(values)
    if mechanism == "gaussian" and delta == 0:
        raise ValueError(
            "No Gaussian mechanism has an epsilon with `delta` = 0, so every leak would refute all. Received: delta=0, "
            "mechanism='gaussian'. Give e.g. delta=1e-5, or mechanism='any'."
        )
    if num_guesses is not None:
        check_count("num_guesses", num_guesses, 1, "It is for how many canaries an answer is given.")
        if num_guesses > num:
            raise ValueError(
                f"`num_guesses` must be at most the number of canaries, {num}. Received: num_guesses={num_guesses}."
            )
    tried = [num_guesses] if num_guesses is not None else [*_doubling(num), num]
    significance = (1.0 - confidence) / len(tried)
    best = OneRunAudit(0.0, delta, confidence, num, 0, 0)
    for guesses in tried:
        guessed = values >= np.partition(values, -min(guesses, num))[-min(guesses, num)]
        given, correct = int(guessed.sum()), int((guessed & coins).sum())
        found = _BOUNDS[mechanism](num, given, correct, significance, delta, best.epsilon)
        if found > best.epsilon or not best.num_guesses:
            best = OneRunAudit(found, delta, confidence, num, given, correct)
    return best


def p_value(num: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Returns the probability of so many right guesses or more of a training that is (epsilon, delta)-private."""
    rate = 1.0 / (1.0 + math.exp(-epsilon))
    right = np.arange(correct, -1, -1)
    tails = scipy.stats.binom.sf(right - 1, guesses, rate)  # of at least as many
    extra = (tails[1:] - tails[0]) / np.arange(1, correct + 1)
    return float(min(1.0, tails[0] + 2.0 * num * delta * max(0.0, extra.max(initial=0.0))))


def _bound_of_any(num: int, guesses: int, correct: int, significance: float, delta: float, least: float) -> float:
    return _largest(lambda epsilon: significance - p_value(num, guesses, correct, epsilon, delta), least)


def _bound_of_gaussian(num: int, guesses: int, correct: int, significance: float, delta: float, least: float) -> float:
    return _largest(lambda epsilon: _excess(num, guesses, correct, significance, _shift(epsilon, delta)), least)


def _excess(num: int, guesses: int, correct: int, significance: float, shift: float) -> float:
    """Above 0 where so many right guesses refute a Gaussian mechanism of this shift (sensitivity over deviation)."""
    right, wrong = significance * correct / num, significance * (guesses - correct) / num
    for index in range(correct - 1, -1, -1):
        above = max(wrong, float(scipy.special.ndtr(scipy.special.ndtri(right) - shift)))
        if above == wrong:
            break
        right, wrong = min(right + index / (guesses - index) * (above - wrong), 1.0), above
    return right + wrong - guesses / num


def _shift(epsilon: float, delta: float) -> float:
    """The shift of the Gaussian mechanism that is exactly (epsilon, delta)-private (Balle and Wang, ICML 2018)."""

    def excess(shift: float) -> float:
        far = math.exp(epsilon + scipy.special.log_ndtr(-shift / 2 - epsilon / shift))
        return float(scipy.special.ndtr(shift / 2 - epsilon / shift) - far - delta)

    if excess(1e-9) > 0:
        return 0.0
    high = 1.0
    while excess(high) < 0:
        high *= 2
    return float(scipy.optimize.brentq(excess, 1e-9, high, xtol=1e-12))


def _largest(refuted: Callable[[float], float], least: float) -> float:
    """The largest epsilon at which the function, which falls, is above 0; 0 if it is none above `least`."""
    low, high = least, max(1.0, 2 * least)
    if refuted(low) <= 0:
        return 0.0
    while refuted(high) > 0 and high < _MOST_EPSILON:
        low, high = high, 2 * high
    return high if refuted(high) > 0 else float(scipy.optimize.brentq(refuted, low, high, xtol=_TOLERANCE))


_BOUNDS = {"any": _bound_of_any, "gaussian": _bound_of_gaussian}


def _doubling(num: int) -> list[int]:
    return [_SMALLEST << power for power in range(num.bit_length()) if _SMALLEST << power < num]


def _checked(scores: Any, included: Any) -> tuple[np.ndarray, np.ndarray]:
    values, coins = as_float64("scores", scores).numpy(), np.asarray(included)
    if values.ndim != 1 or coins.shape != values.shape or not len(values) or np.isnan(values).any():
        raise ValueError(
            "`scores` and `included` must have one shape (num,), without NaN. Received: shapes "
            f"{values.shape} and {coins.shape}. Give a score and a coin for each canary."
        )
    if coins.dtype != bool:
        raise ValueError(f"`included` must be booleans. Received: dtype {coins.dtype}. Give e.g. `coins == 1`.")
    if scipy.stats.binomtest(int(coins.sum()), len(coins)).pvalue < _UNFAIR:
        raise ValueError(
            "Each canary must have been included by a fair coin, or the bound is none. Received: "
            f"{coins.sum()} of {len(coins)} included. Draw them anew, e.g. `rng.random(num) < 0.5`."
        )
    return values, coins
