"""How long training lasts and how its learning rate falls, both counted in updates of the weights."""

import numbers
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from pineat_tf.checks import check_count, check_positive
from pineat_tf.types import Ratio

__all__ = ["check_ramp", "piecewise_learning_rate", "ramp", "rounds_for"]


def rounds_for(updates: int, ratio: Ratio | str) -> int:
    """How many training rounds make up at most `updates` updates (paper, section 3.3, "Variants").

    Args:
        updates: updates of the weights that the original method would do.
        ratio: n/m; one round is n + m updates.

    Returns:
        `updates // (n + m)`.

    Raises:
        ValueError: if not even one round fits.

    Example:
        >>> rounds_for(80_000, "1/2")
        26666
    """
    ratio = Ratio.parse(ratio)
    check_count("updates", updates, ratio.updates_per_round, f"One round of ratio {ratio} is that many updates.")
    return updates // ratio.updates_per_round


def ramp(updates: tf.Tensor, ends: tuple[int, int]) -> tf.Tensor:
    """How far a quantity that grows between two numbers of updates has come, from 0 to 1.

    Example:
        >>> [float(ramp(updates, (100, 300))) for updates in (100, 150, 300)]
        [0.0, 0.25, 1.0]
    """
    begin, end = ends
    return tf.clip_by_value((tf.cast(updates, tf.float32) - begin) / max(end - begin, 1), float(end == 0), 1.0)


def check_ramp(name: str, ends: Sequence[int]) -> tuple[int, int]:
    """Gives two numbers of updates back, and raises `ValueError` unless they are such and the second is no smaller.

    Example:
        >>> check_ramp("ramp", [500, 2000])
        (500, 2000)
    """
    pair = tuple(ends) if isinstance(ends, (tuple, list, np.ndarray)) else ()
    whole = all(isinstance(end, numbers.Integral) and not isinstance(end, bool) for end in pair)
    if len(pair) != 2 or not whole or not 0 <= pair[0] <= pair[1]:
        raise ValueError(
            f"`{name}` must be two rising numbers of updates, whole ones. Received: {name}={ends!r}. Give e.g. (500, "
            "2000)."
        )
    return int(pair[0]), int(pair[1])


def piecewise_learning_rate(
    boundaries: Sequence[int], rates: Sequence[float]
) -> keras.optimizers.schedules.PiecewiseConstantDecay | float:
    """A learning rate that falls at given updates; the update on a boundary still has the rate before it.

    Args:
        boundaries: increasing numbers of updates, one fewer than there are rates.
        rates: learning rates > 0.

    Returns:
        A Keras schedule, or the one rate as it is.

    Raises:
        ValueError: if the counts do not fit, a rate is not positive or the boundaries do not increase.

    Example:
        >>> rate = piecewise_learning_rate([100], [1e-3, 1e-4])
        >>> [float(rate(updates)) for updates in (100, 101)] == [float(np.float32(1e-3)), float(np.float32(1e-4))]
        True
    """
    if len(rates) != len(boundaries) + 1:
        raise ValueError(
            "There must be one learning rate more than there are boundaries. "
            f"Received: {len(rates)} rates {list(rates)}, {len(boundaries)} boundaries {list(boundaries)}."
        )
    for rate in rates:
        check_positive("learning rate", rate, "Give e.g. 1e-4.")
    for boundary in boundaries:
        check_count("boundary", boundary, 1, "Boundaries are counted in updates of the weights.")
    if list(boundaries) != sorted(set(boundaries)):
        raise ValueError(f"Boundaries must increase. Received: boundaries={list(boundaries)}.")
    if not boundaries:
        return rates[0]
    return keras.optimizers.schedules.PiecewiseConstantDecay(list(boundaries), list(rates))
