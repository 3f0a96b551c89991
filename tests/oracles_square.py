"""NumPy twin of Square, in float64: one image after the other, by slices of the image as in the paper.

As in `oracles.py`, random numbers are arguments, labels are class indices and `bounds` is a pair or None. A `draw` is
called once a query with a list of limits, and gives for each image a row of whole numbers from 0 to below each limit.
Source: Andriushchenko et al., ECCV 2020, algorithms 1 to 3, as in the code that they released with AutoAttack.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from oracles import Array, Bounds, Model, clip_to_bounds, cross_entropy, margin

Draw = Callable[[list[int]], Array]


@dataclasses.dataclass
class Search:
    """What became of one image: its best point, the losses of its best points in turn, whether it is fooled."""

    x_best: Array | None = None
    losses: list = dataclasses.field(default_factory=list)
    fooled: bool = False


def share_at(share: float, query: int, num_queries: int) -> float:
    """Return the share of the pixels that a square covers: halved after 10, 50, 200, ... of 10,000 queries."""
    moment = int(query / num_queries * 10_000)
    return share / 2 ** sum(moment > end for end in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))


def side_at(share: float, height: int, width: int, norm: str) -> int:
    """Return the side of a square of that share of the pixels; in the L2 norm it is odd and at least 3."""
    side = max(round((share * height * width) ** 0.5), 1 if norm == "linf" else 3)
    if norm == "l2" and side % 2 == 0:
        side += 1
    return min(side, height, width)


def pyramid(height: int, width: int) -> Array:
    """Return 1 / (k + 1)^2 summed over squares that reach k pixels from the middle, scaled to length 1."""
    levels, row, column = np.zeros((height, width)), height // 2, width // 2
    for k in range(max(row, column) + 1):
        levels[max(row - k, 0) : row + k + 1, max(column - k, 0) : column + k + 1] += 1 / (k + 1) ** 2
    return levels / np.linalg.norm(levels)


def eta(side: int, is_abreast: int) -> Array:
    """Return a pyramid upwards and one downwards in one square of length 1."""
    both = np.zeros((side, side))
    if side > 1:
        both[: side // 2] = pyramid(side // 2, side)
    both[side // 2 :] = -pyramid(side - side // 2, side)
    both /= np.linalg.norm(both)
    return both.T if is_abreast else both


def signs(bits: Array) -> Array:
    return 2.0 * np.asarray(bits) - 1.0


def on_surface(noise: Array, epsilon: float) -> Array:
    """Scale to length epsilon; nothing stays nothing."""
    return epsilon * noise / max(np.linalg.norm(noise), 1e-12)


def start_limits(shape: tuple, norm: str) -> list[int]:
    """Return the limits of the start's numbers: a bit a column and channel, or a tile with 1 + channels bits each."""
    height, width, channels = shape
    if norm == "linf":
        return [2] * (width * channels)
    return [2] * (len(tiles(height, width)[1]) * (1 + channels))


def tiles(height: int, width: int) -> tuple[int, list[tuple[int, int]]]:
    """Return the side and the corners of the squares of the first grid."""
    shorter = min(height, width)
    side = max(shorter // 5, 1)
    first = max((shorter - 5 * side) // 2, 0)
    corners = [range(first, length - side + 1, side)[: length // side] for length in (height, width)]
    return side, [(row, column) for row in corners[0] for column in corners[1]]


def start(x: Array, numbers: Array, epsilon: float, norm: str) -> Array:
    """Return the first point of one image, not yet clipped."""
    height, width, channels = x.shape
    if norm == "linf":
        return x + epsilon * signs(numbers).reshape(1, width, channels)
    noise = np.zeros_like(x)
    side, corners = tiles(height, width)
    for (row, column), (is_abreast, *bits) in zip(corners, numbers.reshape(len(corners), 1 + channels)):
        noise[row : row + side, column : column + side] = eta(side, is_abreast)[..., None] * signs(bits)
    return x + on_surface(noise, epsilon)


def change_limits(shape: tuple, side: int, norm: str) -> list[int]:
    """Return the limits of a change's numbers: corners, then (for L2) which way, then a sign for each channel."""
    corner = [max(length - side, 1) for length in shape[:2]]
    return corner + [2] * shape[2] if norm == "linf" else [*corner, *corner, 2] + [2] * shape[2]


def change_linf(x_best: Array, x: Array, numbers: Array, side: int, epsilon: float) -> Array:
    """Return the candidate with one square moved by 2 epsilon up or down, not yet clipped to bounds."""
    row, column, *bits = numbers
    moved = x_best.copy()
    moved[row : row + side, column : column + side] += 2 * epsilon * signs(bits)
    return np.clip(moved, x - epsilon, x + epsilon)


def change_l2(x_best: Array, x: Array, numbers: Array, side: int, epsilon: float) -> Array:
    """Return the candidate whose noise was moved from a square to another, not yet clipped to bounds."""
    row, column, row_2, column_2, is_abreast, *bits = numbers
    noise, channels = x_best - x, x.shape[2]
    target, source = np.zeros(x.shape[:2], bool), np.zeros(x.shape[:2], bool)
    target[row : row + side, column : column + side] = True
    source[row_2 : row_2 + side, column_2 : column_2 + side] = True
    unused = max(epsilon**2 - np.sum(noise**2), 0.0) / channels
    moved = noise.copy()
    moved[source] = 0.0
    for channel in range(channels):
        length = np.sqrt(unused + np.sum(noise[target | source, channel] ** 2))
        old = noise[row : row + side, column : column + side, channel]
        new = old / (1e-12 + np.linalg.norm(old)) + eta(side, is_abreast) * signs(bits[channel])
        new = length * new / (1e-12 + np.linalg.norm(new))
        moved[row : row + side, column : column + side, channel] = new
    return x + on_surface(moved, epsilon)


def square(
    model: Model,
    x: Array,
    y: Array,
    draw: Draw,
    epsilon: float,
    num_queries: int,
    norm: str,
    loss: str,
    share: float,
    num_restarts: int,
    bounds: Bounds,
) -> tuple[Array, list[Search]]:
    """Return what Square gives back for a batch, and each image's last search."""
    x, shape = np.asarray(x, np.float64), np.shape(x)[1:]
    searches = [Search() for _ in x]
    for index in range(num_restarts * (num_queries + 1)):
        query = index % (num_queries + 1) - 1  # -1 at a start
        side = side_at(share_at(share, query, num_queries), *shape[:2], norm)
        numbers = draw(start_limits(shape, norm) if query < 0 else change_limits(shape, side, norm))
        for search, image, label, row in zip(searches, x, y, numbers):
            if search.fooled:
                continue
            if query < 0:
                candidate, search.losses = start(image, row, epsilon, norm), []
            else:
                change = change_linf if norm == "linf" else change_l2
                candidate = change(search.x_best, image, row, side, epsilon)
            candidate = clip_to_bounds(candidate, bounds)
            logits = model.logits(candidate[None])
            search.fooled = margin([label], logits)[0] > 0
            value = (margin if loss == "margin" else cross_entropy)([label], logits)[0]
            if search.fooled or not search.losses or value > search.losses[-1]:
                search.x_best = candidate
                search.losses.append(value)
        if all(search.fooled for search in searches):
            break
    return np.stack([search.x_best if search.fooled else image for search, image in zip(searches, x)]), searches
