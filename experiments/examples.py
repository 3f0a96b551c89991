"""Natural, adversarial and reverse-symmetry images of a run with what the network says of them, and their noises."""

import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from experiments import datasets, method
from experiments.config import ExperimentConfig
from experiments.figures import style
from pineat_tf.seeds import fold

_NUM_EXAMPLES = 8
_NOISE_COLOURS = "PuOr_r"  # which the colour-blind tell apart; white is no noise
_HEADROOM = 1.25  # so that the largest noise is not at the end of the scale, where all beyond would look alike
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
    num, num_rows = len(split.labels[:_NUM_EXAMPLES]), len(images) + len(noises)
    figure = Figure(figsize=(1.25 * num + 2.0, 1.45 * num_rows), dpi=120, layout="constrained")
    axes = figure.subplots(num_rows, num, squeeze=False)
    names = _CLASSES.get(config.dataset, [])
    for row, (title, shown) in zip(axes, images.items()):
        said = tf.nn.softmax(network(shown, training=False)).numpy()
        _draw_row(row, title, np.clip(shown.numpy(), 0.0, 1.0), cmap="gray", vmin=0.0, vmax=1.0)
        for axis, shares, label in zip(row, said, split.labels):
            best = int(np.argmax(shares))
            words = f"{names[best] if names else best} {shares[best]:.0%}"
            axis.set_xlabel(words, fontsize=8.5, labelpad=2, color="#333333" if best == label else style.COLOURS[1])
    largest = max(float(tf.reduce_max(tf.abs(noise))) for noise in noises.values()) or 1.0
    scale = Normalize(-_HEADROOM * largest, _HEADROOM * largest)
    for row, (title, noise) in zip(axes[len(images) :], noises.items()):
        _draw_row(row, title, noise.numpy().mean(axis=-1, keepdims=True), cmap=_NOISE_COLOURS, norm=scale)
    bar = figure.colorbar(ScalarMappable(scale, _NOISE_COLOURS), ax=axes[len(images) :], pad=0.01, aspect=30)
    bar.set_ticks([-largest, 0, largest], labels=[f"{-largest:.2g}", "0", f"{largest:.2g}"])
    style.save(figure, path)


def _draw_row(row: np.ndarray, title: str, images: np.ndarray, **options: Any) -> None:
    for axis, image in zip(row, images):
        axis.imshow(image if image.shape[-1] == 3 else image[..., 0], interpolation="nearest", **options)
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=10)
