"""Natural, adversarial and reverse-symmetry images of a run, side by side."""

import pathlib

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from experiments import datasets, files, method
from experiments.config import ExperimentConfig
from pineat_tf.seeds import fold

_NUM_EXAMPLES = 8


def write(path: pathlib.Path, config: ExperimentConfig, network: keras.Model, split: datasets.Split) -> None:
    """Draws natural, adversarial and reverse-symmetry images, and the noises of the latter two magnified.

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
    scale = max(float(tf.reduce_max(tf.abs(image - x))) for image in (x_adv, x_rs)) or 1.0
    magnified = f"{0.5 / scale:.0f} x " if scale < 0.5 else ""
    rows = {
        "natural": x,
        "adversarial": x_adv,
        "reverse-\nsymmetry": x_rs,
        f"{magnified}adversarial\nnoise": 0.5 + 0.5 * (x_adv - x) / scale,
        f"{magnified}reverse-\nsymmetry noise": 0.5 + 0.5 * (x_rs - x) / scale,
    }
    _write_grid(path, {title: images.numpy() for title, images in rows.items()})


def _write_grid(path: pathlib.Path, rows: dict[str, np.ndarray]) -> None:
    num = len(next(iter(rows.values())))
    figure = Figure(figsize=(1.1 * num + 1.6, 1.1 * len(rows)), dpi=120, layout="constrained")
    axes = figure.subplots(len(rows), num, squeeze=False)
    for row, (title, images) in zip(axes, rows.items()):
        for axis, image in zip(row, np.clip(images, 0.0, 1.0)):
            shown = image if image.shape[-1] == 3 else image[..., 0]
            axis.imshow(shown, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=10)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format="png")
