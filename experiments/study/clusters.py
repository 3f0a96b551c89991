"""The paper's Figure 1: natural images with all adversarial examples of their training, and what companions add.

The paper says that the adversarial examples of an image cluster, and that companions disperse them. Two numbers say
how much. Alignment: the mean inner product of an image's noises of two different passes over their mean squared length;
1 if every pass gives the same noise, 0 if they are as unlike as random directions. Dispersion: the mean squared
distance of an image's examples from their centroid; with companions over without.
"""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from experiments import command_line, files, method, pipeline, statistics
from experiments.config import ExperimentConfig
from experiments.datasets.reading import read_arrays
from experiments.figures import style
from pineat_tf.seeds import fold

NUM_IMAGES = 200
"""How many training images the numbers are means over; the first two of different classes are drawn."""


class Recorded(NamedTuple):
    """What a training generated for some images.

    Attributes:
        natural: images, shape `(images, ...)`.
        labels: their classes.
        adversarial: after each pass, shape `(passes, images, ...)`.
        companions: by name, each of shape `(passes, images, ...)`.
    """

    natural: np.ndarray
    labels: np.ndarray
    adversarial: np.ndarray
    companions: dict[str, np.ndarray]


class Recorder(keras.callbacks.Callback):
    """Keeps the adversarial examples of some images after every pass, generated as the next round would.

    Args:
        config: names the attack.
        images: natural images.
        labels: their classes.
    """

    def __init__(self, config: ExperimentConfig, images: np.ndarray, labels: np.ndarray):
        super().__init__()
        self.config, self.images, self.labels = config, tf.constant(images), tf.constant(labels)
        self.adversarial: list[np.ndarray] = []
        self._generate: Callable | None = None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        network = self.model.network
        if self._generate is None:
            attack = method.attack(self.config)

            @tf.function(autograph=False)
            def generate(seed: tf.Tensor) -> tf.Tensor:
                return attack(lambda x: network(x, training=False), self.images, self.labels, seed=seed)

            self._generate = generate
        updates = self.model.rounds * self.model.ratio.updates_per_round
        seed = fold(fold(self.config.seed, updates), 0)  # as the next round folds it
        self.adversarial.append(self._generate(seed).numpy())


def is_recorded(config: ExperimentConfig, path: str | os.PathLike) -> bool:
    """Whether the examples of a training by the same flags are there."""
    path = pathlib.Path(path)
    told = _told(path)
    return path.exists() and told.exists() and told.read_text(encoding="utf-8") == _recorded_flags(config)


def record(config: ExperimentConfig, path: str | os.PathLike) -> Recorded:
    """Trains as the config says and records the examples of the first training images; or reads what it recorded.

    Args:
        config: an original method; its companions are then made from its examples.
        path: the npz to keep the examples in. One of other flags is replaced.

    Raises:
        ValueError: if the training is a single pass, which leaves one example of each image.
    """
    path = pathlib.Path(path)
    if not is_recorded(config, path):
        arrays = _train(config)
        path.parent.mkdir(parents=True, exist_ok=True)
        _told(path).unlink(missing_ok=True)
        with files.replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
        files.write_text(_told(path), _recorded_flags(config))
    stored = read_arrays(str(path), ("natural", "labels", "adversarial"))
    natural, adversarial = stored["natural"], stored["adversarial"].astype(np.float32)
    return Recorded(natural, stored["labels"], adversarial, _companions(config, natural, adversarial))


def measure(recorded: Recorded) -> dict[str, statistics.Estimate]:
    """The numbers of the module's headline, means over images with their 95 % intervals."""
    noise = _flat(recorded.adversarial - recorded.natural)
    num = len(noise)
    squared = np.mean(np.sum(noise**2, axis=-1), axis=0)
    of_mean = np.sum(np.mean(noise, axis=0) ** 2, axis=-1)
    alone = _dispersion(recorded.adversarial)
    figures = {"alignment": statistics.estimate((num * of_mean / squared - 1) / (num - 1))}
    for name, companions in recorded.companions.items():
        both = np.concatenate([recorded.adversarial, companions])
        figures[f"dispersion with {name}"] = statistics.estimate(_dispersion(both) / alone)
    return figures


def write(path: str | os.PathLike, recorded: dict[str, Recorded]) -> None:
    """Draws two images with their examples, a row a method: adversarial ones alone, then with reverse-symmetry ones.

    Args:
        path: the PNG to write.
        recorded: what each method's training generated.
    """
    figure = Figure(figsize=(10, 3.6 * len(recorded)), dpi=110, layout="constrained")
    rows = figure.subplots(len(recorded), 2, squeeze=False)
    for (left, right), (title, record) in zip(rows, recorded.items()):
        _draw(left, right, title, record)
    rows[0][1].legend(loc="best", fontsize=8, frameon=False)
    style.save(figure, path)


def _draw(left: Axes, right: Axes, title: str, recorded: Recorded) -> None:
    drawn = _two_images(recorded.labels)
    natural = recorded.natural[drawn]
    kinds = {
        "adversarial": recorded.adversarial[:, drawn],
        "reverse-symmetry": recorded.companions["reverse symmetry"][:, drawn],
    }
    points = np.concatenate([natural, *(examples.reshape(-1, *natural.shape[1:]) for examples in kinds.values())])
    plane = PCA(n_components=2).fit(_flat(points))
    figures = measure(recorded)
    ratio = figures["dispersion with reverse symmetry"].mean
    left.set_title(f"{title}: adversarial examples, alignment {figures['alignment'].mean:.2f}", fontsize=10)
    right.set_title(f"with reverse symmetry: {ratio:.2f} x the dispersion", fontsize=10)
    for axes, names in ((left, ["adversarial"]), (right, list(kinds))):
        style.clean(axes)
        for name, colour in zip(names, style.COLOURS[1:3]):
            flat = plane.transform(_flat(kinds[name].reshape(-1, *natural.shape[1:])))
            axes.scatter(flat[:, 0], flat[:, 1], s=14, color=colour, alpha=0.6, linewidths=0, label=name)
        flat = plane.transform(_flat(natural))
        axes.scatter(flat[:, 0], flat[:, 1], s=90, color="black", marker="*", label="natural", zorder=3)
        axes.set(xlabel="first principal component", ylabel="second")
    right.set(xlim=left.set_xlim(*right.get_xlim()), ylim=left.set_ylim(*right.get_ylim()))


def _told(path: pathlib.Path) -> pathlib.Path:
    """Where the flags of recorded examples are; written after them."""
    return path.with_suffix(".flags")


def _recorded_flags(config: ExperimentConfig) -> str:
    return command_line.recorded_flags(config, without=("output_dir",))


def _train(config: ExperimentConfig) -> dict[str, np.ndarray]:
    kept: list[Recorder] = []

    def recorder(data) -> list[keras.callbacks.Callback]:
        a_pass = len(data.train.labels) // config.batch_size
        if config.rounds <= a_pass:
            raise ValueError(
                f"examples cluster over passes, of which there must be two at least. Received: {config.rounds} rounds, "
                f"of which {a_pass} are a pass. Give more --updates."
            )
        kept.append(Recorder(config, data.train.images[:NUM_IMAGES], data.train.labels[:NUM_IMAGES]))
        return list(kept)

    pipeline.watch(config, recorder)
    (found,) = kept
    adversarial = np.stack(found.adversarial).astype(np.float16)  # to 0.0005, a thousandth of the range
    return {"natural": found.images.numpy(), "labels": found.labels.numpy(), "adversarial": adversarial}


def _companions(config: ExperimentConfig, natural: np.ndarray, adversarial: np.ndarray) -> dict[str, np.ndarray]:
    """What each variant would have put beside the adversarial examples of every pass, by name."""
    variants = {
        "reverse symmetry": "pineat",
        "shuffled signs": "advsign",
        "random points": "advran",
        "natural images": "advnat",
    }
    kinds = {name: method.companions(config, variant) for name, variant in variants.items()}
    x = tf.constant(natural)

    def of_pass(companions: Callable, index: int) -> np.ndarray:
        (companion,) = companions(x, (tf.constant(adversarial[index]),), num=1, seed=fold(config.seed, index))
        return companion.numpy()

    return {name: np.stack([of_pass(kind, i) for i in range(len(adversarial))]) for name, kind in kinds.items()}


def _dispersion(examples: np.ndarray) -> np.ndarray:
    """Mean squared distance from the centroid, of each image's examples of all passes."""
    centred = _flat(examples - examples.mean(axis=0))
    return np.mean(np.sum(centred**2, axis=-1), axis=0)


def _flat(images: np.ndarray) -> np.ndarray:
    """Images as vectors: the last three axes as one."""
    return images.reshape(*images.shape[:-3], -1)


def _two_images(labels: Sequence[int]) -> list[int]:
    other = next((i for i, label in enumerate(labels) if label != labels[0]), 0)
    return [0, other]
