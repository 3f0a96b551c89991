"""The network as an attack sees it: logits of every head, and gradients that no precision loses."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from pineat_tf.attacks.parts import check_gradient, spread
from pineat_tf.checks import check_batch, check_labels
from pineat_tf.heads import with_class_logits
from pineat_tf.projections import in_single, power_of_two, rounded_towards
from pineat_tf.types import Bounds, LogitsFn

__all__ = ["AttackedNetwork"]

_UNITS = {tf.float16: 2.0**-10, tf.bfloat16: 2.0**-7}  # the spacing of numbers near 1
_FLOAT16_MIDDLE = 16.0  # 1 over the middle of float16's range, 2^-24 to 2^16: gradients grow and shrink on their way


class _Recording(NamedTuple):
    """What a loss does while it is differentiated."""

    x: tf.Tensor  # the images at which it is
    graph: Any  # in which that happens
    loss_tape: tf.GradientTape
    calls: list[tuple[tf.Tensor, tf.Tensor, bool]]  # what the network gave, what the loss got, whether at `x`


class AttackedNetwork:
    """A batch of images and labels, and the network that is attacked on them; every attack begins by making one.

    Call it as `network(images)` for logits of shape `(batch, num_classes)`, float32 at least, of two classes or more: a
    head of one logit or one sigmoid is served as `heads.class_logits` says. Images of half precision are attacked in
    float32, as their spacing may exceed the step; the network sees them, as `give_back` returns them, in their own
    dtype.

    Args:
        logits_fn: maps images to what the network gives for them, in any precision.
        x: images of shape `(batch, ...)`, floating point, within `bounds`.
        y: class numbers of shape `(batch,)` or `(batch, 1)`, or label rows of shape `(batch, num_classes)`.
        bounds: the pixel range, or None for no limits.

    Attributes:
        x: the images, float32 at least.
        y: the labels.

    Raises:
        ValueError: if images, labels or outputs are anything else (inside a graph: when the graph runs).
    """

    def __init__(self, logits_fn: LogitsFn, x: tf.Tensor, y: tf.Tensor, bounds: Bounds | None):
        x, y = check_batch(x, y, bounds=bounds)
        self._given, self.x, self.y = x, in_single(x), y
        self._logits_fn = with_class_logits(logits_fn)
        self._num_classes: int | None = None
        self._unit = 0.0  # of the rounding of the logits, in relation to them; 0 where they are float32
        self._recording: _Recording | None = None

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        recording = self._recording
        if recording is None or not _is_current(recording.graph):  # e.g. inside a `tf.map_fn` of the loss
            return self._at_least_float32(self._logits_fn(self._rounded(images)))
        with recording.loss_tape.stop_recording():
            outputs = self._logits_fn(self._rounded(images))
            seen = tf.stop_gradient(self._at_least_float32(outputs))
        recording.loss_tape.watch(seen)
        recording.calls.append((outputs, seen, images is recording.x))
        return seen

    def value_and_gradient(self, loss: Callable[[tf.Tensor], Any], x: tf.Tensor) -> tuple[Any, tf.Tensor]:
        """A loss at images and its gradients, by one pass forth and one back, which no half precision rounds to 0.

        The loss is differentiated by the logits in float32. The network then passes back not that, which may be
        smaller than its precision knows, but a multiple of about 1/16 an example, the middle of what float16 knows;
        what comes back is divided again, in float32. The factors are powers of two, so that a float32 network gives the
        same bits as without them.
        Where a gradient is not finite, it counts as 0.

        Args:
            loss: maps images to numbers of shape `(batch,)`, or `(batch, num)` for `num` losses at once, each with a
                pass back of its own. It calls this object for the logits. Of a tuple the first is differentiated.
            x: images of shape `(batch, ...)`, float32 at least.

        Returns:
            What the loss gave, and the gradient in the shape of `x`, or `(batch, num, ...)`.

        Raises:
            ValueError: if the loss does not depend on the images by operations that have a gradient.
        """
        network_tape, loss_tape = (tf.GradientTape(persistent=True, watch_accessed_variables=False) for _ in range(2))
        with network_tape, loss_tape:
            network_tape.watch(x)
            loss_tape.watch(x)
            with self._record(x, loss_tape) as recording:
                value = loss(x)
            first = value[0] if isinstance(value, tuple) else value
            losses = [first] if first.shape.rank == 1 else tf.unstack(first, axis=1)
        gradients = [_pull_back(each, recording, network_tape) for each in losses]
        return value, gradients[0] if first.shape.rank == 1 else tf.stack(gradients, axis=1)

    def untied(self, lead: tf.Tensor, logit: tf.Tensor) -> tf.Tensor:
        """How far a logit is above another one, `logit`; in half precision a tie counts as one rounding below.

        Attacks that walk to where two logits are equal would stop at a tie, on whichever side of the boundary it is.
        """
        below = -self._unit * tf.maximum(tf.abs(logit), self._unit)
        return tf.where(lead == 0, below, lead) if self._unit else lead

    def checked_labels(self) -> tf.Tensor:
        """The labels, which exist in the network's output: it must have been called before."""
        if self._num_classes is None:
            return self.y
        return check_labels(self.y, self._num_classes)

    def of_rows(self, rows: tf.Tensor) -> "AttackedNetwork":
        """The same network on some of the images: those of the given indices, of shape `(num, 1)`."""
        part = object.__new__(AttackedNetwork)
        part.__dict__ |= self.__dict__
        part._given, part.x, part.y = (tf.gather_nd(each, rows) for each in (self._given, self.x, self.y))
        return part

    def give_back(self, x_adv: tf.Tensor) -> tf.Tensor:
        """What an attack returns: without gradient, and rounded to the dtype that the images came in.

        Where rounding would make a pixel's noise larger, it is rounded towards the natural image instead, so that the
        result stays in the ball and in the pixel range.
        """
        with tf.control_dependencies([] if tf.executing_eagerly() else [self.checked_labels()]):
            return tf.stop_gradient(tf.identity(self._rounded(x_adv)))

    @contextlib.contextmanager
    def _record(self, x: tf.Tensor, loss_tape: tf.GradientTape) -> Iterator[_Recording]:
        self._recording = _Recording(x, None if tf.executing_eagerly() else x.graph, loss_tape, [])
        if self._recording.graph is not None:  # x may come from an outer graph, as into the body of a loop
            self._recording = self._recording._replace(graph=tf.compat.v1.get_default_graph())
        try:
            yield self._recording
        finally:
            self._recording = None

    def _at_least_float32(self, logits: tf.Tensor) -> tf.Tensor:
        self._unit = _UNITS.get(logits.dtype, 0.0)
        if self._num_classes is None and logits.shape.rank == 2 and logits.shape[1] is not None:
            self._num_classes = logits.shape[1]
            if tf.executing_eagerly():  # a graph checks before it gives the result back
                self.checked_labels()
        return in_single(logits)

    def _rounded(self, images: tf.Tensor) -> tf.Tensor:
        """The images in the dtype that they came in; gradients pass as they are."""
        given = self._given
        if images.dtype == given.dtype:
            return images
        if not images.shape.is_compatible_with(given.shape):  # e.g. copies of each image, as a user's loss may look at
            return tf.cast(images, given.dtype)

        nearest = tf.cast(images, given.dtype)
        return nearest + tf.stop_gradient(rounded_towards(images, given) - nearest)  # at most one spacing, so exact


def _is_current(graph: Any) -> bool:
    return graph is None if tf.executing_eagerly() else graph is tf.compat.v1.get_default_graph()


def _pull_back(loss: tf.Tensor, recording: _Recording, network_tape: tf.GradientTape) -> tf.Tensor:
    """The gradient of one loss by the images: by way of the logits, and what leads around them."""
    x, calls = recording.x, recording.calls
    around, *by_logits = recording.loss_tape.gradient(loss, [x, *(seen for _, seen, _ in calls)])
    parts = [] if around is None else [tf.convert_to_tensor(around)]
    used = [(call, _finite(tf.convert_to_tensor(part))) for call, part in zip(calls, by_logits) if part is not None]
    if used:
        sizes = [tf.reduce_max(tf.abs(part), axis=1, keepdims=True) for _, part in used]
        if not all(at_x for (_, _, at_x), _ in used):  # rows of logits that are no rows of x share one factor
            sizes = [tf.reduce_max(size) for size in sizes]
        factor = _FLOAT16_MIDDLE * power_of_two(tf.reduce_max(tf.stack(sizes), axis=0))
        outputs = [outputs for (outputs, _, _), _ in used]
        given = [tf.cast(part / factor, to.dtype) for (_, part), to in zip(used, outputs)]
        back = network_tape.gradient(outputs, x, output_gradients=given)
        if back is not None:
            back = tf.cast(tf.convert_to_tensor(back), x.dtype)
            factor = tf.cast(factor, x.dtype)
            back = _finite(back) if parts else back  # so that what leads around the logits is kept
            parts.append(back * (spread(factor, x) if factor.shape.rank else factor))
    return _finite(tf.add_n(parts)) if parts else check_gradient(None)


def _finite(gradient: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.math.is_finite(gradient), gradient, tf.zeros_like(gradient))
