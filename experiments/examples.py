"""Natural, adversarial and reverse-symmetry images of a run with what the network says of them, and their noises."""

import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments import datasets, method
from experiments.config import ExperimentConfig
from experiments.figures import style
from pineat_tf.seeds import fold

_NUM_EXAMPLES = 8
_NOISE_COLOURS = "PuOr_r"  # which the colour-blind tell apart; white is no noise
_HEADROOM = 1.25  # so that the largest noise is not at the end of the scale, where all beyond would look alike
_LEFT, _SIDE, _PITCH = 1.3, 1.18, (1.25, 1.45)  # inches: of the titles, an image, and from one image to the next
_CLASSES = {
    "fmnist": "T-shirt trousers pullover dress coat sandal shirt sneaker bag boot".split(),
    "cifar10": "airplane car bird cat deer dog frog horse ship truck".split(),
}


def write(path: pathlib.Path, config: ExperimentConfig, network: keras.Model, split: datasets.Split) -> None:
    """Draws natural, adversarial and reverse-symmetry images over the noises of the latter two.

    Below each image are the predicted class and the network's confidence, in orange where it is wrong. Noise is drawn
    on a diverging scale, that of several channels as their mean.

    Args:
        path: the PNG to write.
        config: says how the examples are generated.
        network: what the attack is aimed at.
        split: its first images are drawn.
    """
    x, y = tf.constant(split.images[:_NUM_EXAMPLES]), tf.constant(split.labels[:_NUM_EXAMPLES])
    seed = fold(config.seed, 0)
    x_adv = method.attack(config)(lambda images: network(images, training=False), x, y, seed=seed)
    (x_rs,) = method.companions(config, "pineat")(x, (x_adv,), num=1, seed=seed)
    images = {"natural": x, "adversarial": x_adv, "reverse-\nsymmetry": x_rs}
    noises = {"adversarial\nnoise": x_adv - x, "reverse-\nsymmetry noise": x_rs - x}
    names = _CLASSES.get(config.dataset, [])
    num, num_rows = len(split.labels[:_NUM_EXAMPLES]), len(images) + len(noises)
    figure, axes = _canvas(_PITCH[0] * num + 2.0, _PITCH[1] * num_rows)
    for row, (title, shown) in enumerate(images.items()):
        said = tf.nn.softmax(network(shown, training=False)).numpy()
        _draw_row(axes, row, title, np.clip(shown.numpy(), 0.0, 1.0), cmap="gray", vmin=0.0, vmax=1.0)
        for number, (shares, label) in enumerate(zip(said, split.labels)):
            best = int(np.argmax(shares))
            words = f"{names[best] if names else best} {shares[best]:.0%}"
            x_middle, y_middle = _middle(row, number)
            look = {"color": "#333333" if best == label else style.COLOURS[1], "fontsize": 8.5, "ha": "center"}
            axes.text(x_middle, y_middle + _SIDE / 2 + 0.04, words, va="top", **look)
    largest = max(float(tf.reduce_max(tf.abs(noise))) for noise in noises.values()) or 1.0
    scale = Normalize(-_HEADROOM * largest, _HEADROOM * largest)
    for row, (title, noise) in enumerate(noises.items(), start=len(images)):
        _draw_row(axes, row, title, noise.numpy().mean(axis=-1, keepdims=True), cmap=_NOISE_COLOURS, norm=scale)
    beside = figure.add_axes(
        (1 - 0.6 / axes.get_xlim()[1], 0.02, 0.1 / axes.get_xlim()[1], len(noises) / num_rows - 0.04)
    )
    bar = figure.colorbar(ScalarMappable(scale, _NOISE_COLOURS), cax=beside)
    bar.set_ticks([-largest, 0, largest], labels=[f"{-largest:.2g}", "0", f"{largest:.2g}"])
    style.save(figure, path)


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """One pair of axes for all images, in inches from the upper left corner: a pair for each takes a second."""
    figure = Figure(figsize=(width, height), dpi=120)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set(xlim=(0.0, width), ylim=(height, 0.0), autoscale_on=False)
    return figure, axes


def _middle(row: int, number: int) -> tuple[float, float]:
    return _LEFT + _PITCH[0] * number + _SIDE / 2, _PITCH[1] * row + 0.05 + _SIDE / 2


def _draw_row(axes: Axes, row: int, title: str, images: np.ndarray, **options: Any) -> None:
    height, width = images.shape[1:3]
    half_height, half_width = (0.5 * _SIDE * side / max(height, width) for side in (height, width))
    for number, image in enumerate(images):
        x, y = _middle(row, number)
        pixels = image if image.shape[-1] == 3 else image[..., 0]
        place = (x - half_width, x + half_width, y + half_height, y - half_height)
        axes.imshow(pixels, interpolation="nearest", extent=place, aspect="auto", **options)
        axes.add_patch(Rectangle(place[::3], 2 * half_width, 2 * half_height, fill=False, linewidth=0.8))
    axes.text(_LEFT - 0.07, _middle(row, 0)[1], title, ha="right", va="center", fontsize=10)
