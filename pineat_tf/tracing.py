"""Graphs: TensorFlow's functions as this library makes them, and those that are traced once for many calls."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

__all__ = ["Traced", "graph"]


def graph(function: Callable[..., Any], *signature: tf.TensorSpec, **options: Any) -> Any:
    """Makes a `tf.function` that TensorFlow counts by itself.

    TensorFlow warns of retracing by the code of a function, however many `tf.function` objects are made of it, so a
    second predictor would look like the first one traced again. A partial has no code of its own.

    Args:
        function: takes and gives tensors.
        *signature: specs of its arguments; none leaves them open.
        **options: of `tf.function`.
    """
    if signature:
        options["input_signature"] = list(signature)
    return tf.function(functools.partial(function), autograph=False, **options)


class Traced:
    """Calls functions as graphs of their own, one for each key.

    Outside a graph, and under a distribution strategy, whose replicas cannot meet inside a graph within a graph (of one
    replica neither), it calls them as they are.

    Example:
        >>> traced = Traced()
        >>> double = lambda x: 2.0 * x
        >>> quadrupled = tf.function(lambda x: traced("double", double, traced("double", double, x)))
        >>> float(quadrupled(tf.constant(1.0)))  # 2 * (2 * 1), of one graph
        4.0
    """

    def __init__(self) -> None:
        self._graphs: dict[object, Any] = {}

    def __call__(self, key: object, function: Callable[..., Any], *args: Any) -> Any:
        """Calls the graph of a key; the first call's function makes it."""
        if tf.executing_eagerly() or tf.distribute.has_strategy():
            return function(*args)
        if key not in self._graphs:
            self._graphs[key] = graph(function, experimental_attributes={"_noinline": True})
        return self._graphs[key](*args)
