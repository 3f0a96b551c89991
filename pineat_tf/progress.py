"""Progress of evaluations as Keras shows it: a bar over images, with the figure that they come to so far."""

import keras

from pineat_tf.checks import check_choice

__all__ = ["Bar", "Verbose"]

Verbose = str | int
"""Keras' words: "auto" or 1 for a bar, 2 for a line at the end, 0 for nothing."""


class Bar:
    """A bar of Keras over images.

    Args:
        verbose: "auto", 0, 1 or 2, as of Keras.
        figure: name of what is shown beside it.
        total: how many images there are; None if nobody knows before the end.

    Raises:
        ValueError: if `verbose` is none of these.

    Example:
        >>> Bar(0, "accuracy", 8).update(8, 0.5)
    """

    def __init__(self, verbose: Verbose, figure: str, total: int | None = None) -> None:
        check_choice("verbose", verbose, ("auto", 0, 1, 2))
        self._figure, self._done = figure, 0
        shown = 1 if verbose == "auto" else int(verbose)
        self._bar = shown and keras.utils.Progbar(total, verbose=shown, unit_name="image", stateful_metrics=[figure])

    def update(self, done: int, figure: float) -> None:
        """Moves the bar to so many images."""
        self._done, self._last = done, [(self._figure, figure)]
        if self._bar:
            self._bar.update(done, self._last)

    def end(self) -> None:
        """Ends a bar whose end was not known."""
        if self._bar and self._done and self._bar.target is None:
            self._bar.target = self._done
            self._bar.update(self._done, self._last, finalize=True)
