"""Graphs that are traced once, however often a graph around them calls them."""

from collections.abc import Callable

import tensorflow as tf


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

    def __init__(self):
        self._graphs: dict[object, Callable] = {}

    def __call__(self, key: object, function: Callable, *args):
        if tf.executing_eagerly() or tf.distribute.has_strategy():
            return function(*args)
        return self._graphs.setdefault(key, tf.function(function, autograph=False))(*args)
