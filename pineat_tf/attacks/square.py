"""Square: the attack that needs no gradient, only the logits of one random change after another."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from pineat_tf import losses, threat
from pineat_tf.attacks.attacked import AttackedNetwork
from pineat_tf.attacks.parts import choose
from pineat_tf.checks import check_bounds, check_choice, check_count, check_epsilon, check_part
from pineat_tf.distribution import num_replicas, place_in_batch
from pineat_tf.projections import Norm, clip_to_bounds, l2_norm, unit_l2
from pineat_tf.seeds import fold, words
from pineat_tf.serialization import serializable
from pineat_tf.types import Bounds, LogitsFn, Seed

__all__ = ["SquareAttack", "pyramids", "square"]

_LOSSES = {"margin": losses.margin, "cross_entropy": losses.cross_entropy}
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries: when the squares' area halves
_Draw = Callable[[list[int | tf.Tensor]], tf.Tensor]  # limits to whole numbers below them, one row an example


class _Search(NamedTuple):
    """What a search remembers: tensors of one row an example."""

    x_best: tf.Tensor  # the point of the largest loss, or the misclassified one
    loss_best: tf.Tensor
    fooled: tf.Tensor  # whether x_best is misclassified, at which the search ends


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class SquareAttack:
    """The Square attack: random search by squares that shrink, a black-box attack as its authors' code does it.

    In the L-inf norm it starts from vertical stripes of +epsilon and -epsilon, and sets one square at a time to
    +epsilon or -epsilon in each channel. In the L2 norm it starts from a grid of pyramids of noise, and moves the
    noise of one square into another. It keeps each change that makes the loss larger.

    Called as `attack(logits_fn, x, y, seed=0)`, like a `GradientAttack`, it returns of each image the first
    misclassified point found, or the natural image if there was none: the accuracy on the result is the robust
    accuracy. It looks at logits only, so it sees through networks whose gradient says nothing. Each start costs
    `num_queries + 1` passes, fewer where all images are fooled earlier. The loop is one graph inside a `tf.function`,
    which is much faster. An example does not influence the others.

    Args:
        epsilon: radius of the ball, > 0, on the scale of the pixels.
        num_queries: changes tried from each start, >= 1; the schedule of the squares' sides is stretched to it.
        norm: "linf" or "l2".
        loss: what is made larger, "margin" or "cross_entropy".
        share: the share of the pixels that the first squares cover, in (0, 1]; it halves nine times.
        num_restarts: random starts of each image, >= 1; the result is of the first that succeeds.
        bounds: the pixel range, or None for no limits.
        data_format: "channels_last" for images of shape `(batch, height, width, channels)`, "channels_first" for
            `(batch, channels, height, width)`; None for that of `keras.config.image_data_format()`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> attack = tf.function(square(epsilon=8 / 255), autograph=False)
        >>> x_adv = attack(network, x, y, seed=0)

    Reference:
        Andriushchenko, Croce, Flammarion and Hein, "Square Attack: a query-efficient black-box adversarial attack via
        random search", ECCV 2020, algorithms 1 to 3.
    """

    image_rank: ClassVar[int] = 4  # of the images that squares can be laid in, with the batch
    epsilon: float
    num_queries: int = 5000
    norm: str = "linf"
    loss: str = "margin"
    share: float = 0.8
    num_restarts: int = 1
    bounds: Bounds | None = (0.0, 1.0)
    data_format: str | None = None

    @property
    def num_steps(self) -> int:
        """Queries of each start."""
        return self.num_queries

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", Norm.of(self.norm).name)
        data_format = keras.config.image_data_format() if self.data_format is None else self.data_format
        check_choice("data_format", data_format, ("channels_last", "channels_first"))
        object.__setattr__(self, "data_format", data_format)
        check_epsilon(self.epsilon)
        check_count("num_queries", self.num_queries, 1, "Each query costs one pass, and each start another one.")
        check_choice("loss", self.loss, _LOSSES)
        check_part("share", self.share, "It is the share of the pixels that the first squares cover, e.g. 0.8.")
        check_count("num_restarts", self.num_restarts, 1, "Give 1 for a single start.")
        check_bounds(self.bounds)
        threat.check_scale(self.epsilon, self.bounds, norm=self.norm)

    def __call__(self, logits_fn: LogitsFn, x: tf.Tensor, y: tf.Tensor, *, seed: Seed = 0) -> tf.Tensor:
        network = AttackedNetwork(logits_fn, x, y, self.bounds)
        x = _check_images(self._channels_last(network.x))
        squares, place = self._squares(x), _place(x)

        def query(index: tf.Tensor, search: _Search) -> tuple[tf.Tensor, _Search]:
            step, draw = index % (self.num_queries + 1), functools.partial(_draw, place, fold(seed, index))
            candidate = tf.cond(
                step == 0, lambda: squares.start(draw), lambda: squares.change(search.x_best, step - 1, draw)
            )
            candidate = tf.ensure_shape(candidate, x.shape)
            return index + 1, _keep(search, candidate, *self._evaluate(network, candidate), step == 0)

        num = self.num_restarts * (self.num_queries + 1)
        begin = (tf.constant(0), _begin(x))
        search = tf.while_loop(lambda i, search: (i < num) & ~tf.reduce_all(search.fooled), query, begin)[1]
        return network.give_back(self._as_given(choose(search.fooled, search.x_best, x)))

    def shares(self) -> np.ndarray:
        """The share of the pixels that a square covers at each query, shape `(num_queries,)`."""
        of_10_000 = np.floor(np.arange(self.num_queries) / self.num_queries * 10_000)
        return self.share / 2.0 ** np.searchsorted(_HALVED_AFTER, of_10_000)

    def sides(self, height: int, width: int) -> np.ndarray:
        """The side of the square at each query, in pixels, shape `(num_queries,)`."""
        sides = np.round(np.sqrt(self.shares() * height * width)).astype(np.int32)
        return np.minimum(_SQUARES[self.norm].possible(sides), min(height, width))

    def _channels_last(self, images: tf.Tensor) -> tf.Tensor:
        return images if self.data_format == "channels_last" else tf.transpose(_check_images(images), [0, 2, 3, 1])

    def _as_given(self, images: tf.Tensor) -> tf.Tensor:
        return images if self.data_format == "channels_last" else tf.transpose(images, [0, 3, 1, 2])

    def _squares(self, x: tf.Tensor) -> "_LinfSquares | _L2Squares":
        return _SQUARES[self.norm](x, self.epsilon, self.bounds, self.sides(*x.shape[1:3]))

    def _evaluate(self, network: AttackedNetwork, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The loss of each image, and whether it is misclassified."""
        logits = _check_logits(network(self._as_given(x)))
        each = (_LOSSES[self.loss], losses.margin)
        loss, margin = (tf.ensure_shape(of(network.y, logits), x.shape[:1]) for of in each)
        return tf.cast(loss, x.dtype), margin > 0


square = SquareAttack


class _LinfSquares:
    """Noise of +epsilon or -epsilon, but for the pixel range."""

    def __init__(self, x: tf.Tensor, epsilon: float, bounds: Bounds | None, sides: np.ndarray) -> None:
        self.x, self.epsilon, self.sides = x, epsilon, tf.constant(sides)
        self.low, self.high = (clip_to_bounds(x + side * epsilon, bounds) for side in (-1, 1))

    @staticmethod
    def possible(sides: np.ndarray) -> np.ndarray:
        """The sides that such squares may have, nearest to those wanted."""
        return np.maximum(sides, 1)

    def start(self, draw: _Draw) -> tf.Tensor:
        """Stripes of one pixel's width from top to bottom."""
        _, _, width, channels = self.x.shape
        stripes = tf.reshape(_signs(draw([2] * width * channels), self.x), [-1, 1, width, channels])
        return tf.clip_by_value(self.x + self.epsilon * stripes, self.low, self.high)

    def change(self, x_best: tf.Tensor, step: tf.Tensor, draw: _Draw) -> tf.Tensor:
        """Brings each channel of one square to one side of the ball."""
        side = self.sides[step]
        numbers = draw([*_corner_limits(self.x, side), *[2] * self.x.shape[-1]])
        inside, _ = _window(self.x, numbers[:, :2], side)
        change = 2.0 * self.epsilon * _signs(numbers[:, None, None, 2:], self.x)
        return tf.clip_by_value(tf.where(inside, x_best + change, x_best), self.low, self.high)


class _L2Squares:
    """Noise of length epsilon, but for the pixel range, gathered in pyramids."""

    def __init__(self, x: tf.Tensor, epsilon: float, bounds: Bounds | None, sides: np.ndarray) -> None:
        self.x, self.epsilon, self.bounds, self.sides = x, epsilon, bounds, tf.constant(sides)
        distinct, kinds = np.unique(sides, return_inverse=True)
        self.stride, self.kinds = int(distinct[-1]), tf.constant(kinds.astype(np.int32))
        # All pyramids in one vector: of each side that with its halves above each other, and that with them abreast.
        padding = [(0, self.stride - side) for side in distinct]
        upright = [np.pad(pyramids(side), (pad, pad)) for side, pad in zip(distinct, padding)]
        self.pyramids = tf.constant(np.ravel([[each, each.T] for each in upright]), x.dtype)

    @staticmethod
    def possible(sides: np.ndarray) -> np.ndarray:
        """Odd sides of at least 3, as pyramids have a top."""
        return np.maximum(sides, 3) // 2 * 2 + 1

    def start(self, draw: _Draw) -> tf.Tensor:
        """A grid of about 5 x 5 pyramids."""
        _, height, width, channels = self.x.shape
        side = max(min(height, width) // 5, 1)
        first = max((min(height, width) - 5 * side) // 2, 0)
        rows, columns = (min(length // side, (length - first) // side) for length in (height, width))
        numbers = tf.reshape(draw([2] * rows * columns * (1 + channels)), [-1, rows, 1, columns, 1, 1 + channels])
        upright = tf.constant(pyramids(side)[:, None, :, None], self.x.dtype)
        tiles = tf.where(numbers[..., :1] > 0, tf.transpose(upright, [2, 1, 0, 3]), upright)
        grid = tf.reshape(tiles * _signs(numbers[..., 1:], self.x), [-1, rows * side, columns * side, channels])
        ends = (height - first - rows * side, width - first - columns * side)
        return self._on_surface(tf.pad(grid, [(0, 0), (first, ends[0]), (first, ends[1]), (0, 0)]))

    def change(self, x_best: tf.Tensor, step: tf.Tensor, draw: _Draw) -> tf.Tensor:
        """Moves the noise of one square to another, in the shape of what was there and a pyramid."""
        side, noise, channels = self.sides[step], x_best - self.x, self.x.shape[-1]
        corner_limits = _corner_limits(self.x, side)
        numbers = draw([*corner_limits, *corner_limits, 2, *[2] * channels])
        target, offsets = _window(self.x, numbers[:, :2], side)
        source, _ = _window(self.x, numbers[:, 2:4], side)
        pyramid = self._pyramid(self.kinds[step], numbers[:, 4], offsets, target)
        old = _unit_channels(tf.where(target, noise, 0.0))
        new = _unit_channels(old + pyramid * _signs(numbers[:, None, None, 5:], self.x))
        unused = tf.maximum(self.epsilon**2 - tf.square(l2_norm(noise)), 0.0) / channels
        length = tf.sqrt(unused + tf.square(_channel_norms(tf.where(target | source, noise, 0.0))))
        return self._on_surface(tf.where(target, length * new, tf.where(source, tf.zeros_like(noise), noise)))

    def _pyramid(
        self, kind: tf.Tensor, is_abreast: tf.Tensor, offsets: tuple[tf.Tensor, tf.Tensor], inside: tf.Tensor
    ) -> tf.Tensor:
        """The pyramids at each example's square, 0 elsewhere, shape `(batch, height, width, 1)`."""
        table = 2 * kind + is_abreast[:, None, None, None]
        index = (table * self.stride + offsets[0]) * self.stride + offsets[1]
        return tf.where(inside, tf.gather(self.pyramids, tf.where(inside, index, 0)), 0.0)

    def _on_surface(self, noise: tf.Tensor) -> tf.Tensor:
        return clip_to_bounds(self.x + self.epsilon * unit_l2(noise), self.bounds)


_SQUARES: dict[str, Any] = {"linf": _LinfSquares, "l2": _L2Squares}


def pyramids(side: int) -> np.ndarray:
    """Two stepped pyramids above each other, up and down, that fill a square of L2 norm 1 (the paper's eta)."""
    upper = side // 2
    both = np.concatenate([_pyramid(upper, side), -_pyramid(side - upper, side)])
    return both / np.linalg.norm(both)


def _pyramid(height: int, width: int) -> np.ndarray:
    """A stepped pyramid of L2 norm 1: the step k away from the top is the sum of 1 / (i + 1)^2 over i >= k."""
    if not height:
        return np.zeros((0, width))
    rows, columns = np.ogrid[:height, :width]
    away = np.maximum(abs(rows - height // 2), abs(columns - width // 2))
    steps = 1.0 / np.arange(1, max(height, width) // 2 + 2) ** 2
    levels = np.cumsum(steps[::-1])[::-1][away]
    return levels / np.linalg.norm(levels)


def _begin(x: tf.Tensor) -> _Search:
    # A start is taken whatever its loss, so there is nothing to compare the first with.
    fooled = tf.ensure_shape(tf.zeros(tf.shape(x)[:1], tf.bool), x.shape[:1])
    return _Search(x, tf.zeros_like(fooled, x.dtype), fooled)


def _keep(search: _Search, candidate: tf.Tensor, loss: tf.Tensor, is_wrong: tf.Tensor, is_start: tf.Tensor) -> _Search:
    """Goes to the candidate where that is better, or the first of a start, and not where the search has ended."""
    take = ~search.fooled & ((loss > search.loss_best) | is_wrong | is_start)
    return _Search(
        x_best=choose(take, candidate, search.x_best),
        loss_best=tf.where(take, loss, search.loss_best),
        fooled=search.fooled | is_wrong,
    )


def _place(x: tf.Tensor) -> tuple[int | tf.Tensor, tf.Tensor, tf.Tensor]:
    """The first row of this batch in the global one, how many rows it has, and how many there are in all."""
    num = tf.shape(x)[0]
    if num_replicas() == 1:
        return 0, num, num
    first, rows = place_in_batch(x)
    return first, num, rows


def _draw(place: tuple[int | tf.Tensor, tf.Tensor, tf.Tensor], seed: tf.Tensor, limits: list) -> tf.Tensor:
    """Whole numbers from 0 to below each limit, int32 of shape `(batch, number of limits)`.

    Where the batch is placed was found out before: replicas cannot talk in a loop that each may leave on its own.
    """
    first, num, rows = place
    whole = words([rows, len(limits)], seed, tf.uint32)
    own = tf.cast(whole[first : first + num], tf.int64)
    return tf.cast(own % tf.cast(tf.stack(limits), tf.int64), tf.int32)


def _signs(bits: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    return tf.cast(2 * bits - 1, x.dtype)


def _corner_limits(x: tf.Tensor, side: tf.Tensor) -> list[tf.Tensor]:
    """How many rows and columns a square may begin at; like in the authors' code, none touches the far edges."""
    return [tf.maximum(length - side, 1) for length in x.shape[1:3]]


def _window(x: tf.Tensor, corner: tf.Tensor, side: tf.Tensor) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
    """Which pixels each example's square covers, `(batch, height, width, 1)`; how far they are below and right."""
    corner = corner[:, :, None, None, None]
    below = tf.range(x.shape[1])[:, None, None] - corner[:, 0]
    right = tf.range(x.shape[2])[:, None] - corner[:, 1]
    return (below >= 0) & (below < side) & (right >= 0) & (right < side), (below, right)


def _channel_norms(noise: tf.Tensor) -> tf.Tensor:
    return tf.sqrt(tf.reduce_sum(tf.square(noise), axis=[1, 2], keepdims=True))


def _unit_channels(noise: tf.Tensor) -> tf.Tensor:
    """Each channel scaled to L2 norm 1; one that is 0 stays 0."""
    return tf.math.divide_no_nan(noise, _channel_norms(noise))


def _check_images(x: tf.Tensor) -> tf.Tensor:
    """Gives the images back; raises `ValueError` if squares cannot be laid in them."""
    if x.shape.rank != 4 or not x.shape[1:].is_fully_defined():
        raise ValueError(
            "Squares need images of shape (batch, height, width, channels), or with the channels first, of which "
            f"only the batch may be unknown. Received: shape {x.shape}. Give images without channels as "
            "`images[..., None]`; no square can be laid in vectors, which `apgd` and `fab` attack."
        )
    return x


def _check_logits(logits: tf.Tensor) -> tf.Tensor:
    """Gives the logits back; raises `ValueError` if nobody knows how many classes there are."""
    if logits.shape.rank != 2 or logits.shape[1] is None:
        raise ValueError(
            "Logits must have shape (batch, num_classes), of which only the batch may be unknown. "
            f"Received: shape {logits.shape}. TensorFlow loses the shape e.g. in `tf.numpy_function`; "
            "`tf.ensure_shape(logits, [None, num_classes])` restores it."
        )
    return logits
