"""Robust accuracy: what several attacks leave of a network's accuracy, at one radius or many."""

import dataclasses
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pineat_tf import masking, presentation
from pineat_tf.checks import check_batch, check_count, check_network, data_errors_as_value_errors
from pineat_tf.data import Data, as_batches
from pineat_tf.ensembles import AttackAt, Ensemble, make_ensemble
from pineat_tf.evaluation_state import EvaluationState
from pineat_tf.heads import check_logits_head, class_logits
from pineat_tf.losses import class_numbers
from pineat_tf.pixel_scale import warn_of_scale
from pineat_tf.progress import Bar, Verbose
from pineat_tf.projections import Norm, clip_to_bounds
from pineat_tf.seeds import as_seed, fold
from pineat_tf.serialization import identity, network_identity
from pineat_tf.statistics import Interval, clopper_pearson
from pineat_tf.threat import FROM_ATTACK
from pineat_tf.tracing import graph
from pineat_tf.types import Attack, Bounds, Seed

__all__ = ["Robustness", "robustness"]

_SAVE_SECONDS = 20.0
_NEVER = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Robustness:
    """The accuracy of a network that attacks leave, by radius.

    Attributes:
        epsilons: radii, rising; the first is 0, without any attack.
        norm: of the radii, "linf" or "l2".
        attacks: names in the order in which they ran.
        fooled_at: for each image the index in `epsilons` of the smallest radius at which it was misclassified, -1 if it
            never was. Shape `(num,)`, int64.
        fooled_by: the index in `attacks` of the attack that did it, -1 for no attack. Shape `(num,)`, int64.
        raw: by radius, what the attack that fooled the network gave, or the image itself; None unless they were kept.
        clipped: by radius, the same brought back to the ball and the pixel range: what was judged.
        warnings: why the figures may be too good; empty where nothing is suspicious.

    Example:
        >>> attacks = [pgd(epsilon=0.1, step_size=0.05, num_steps=2)]
        >>> result = robustness(network, (x_test, y_test), attacks)
        >>> result.accuracy(0.1) <= result.accuracy(0.0)
        True
    """

    epsilons: tuple[float, ...]
    norm: str
    attacks: tuple[str, ...]
    fooled_at: np.ndarray
    fooled_by: np.ndarray
    raw: dict[float, np.ndarray] | None = None
    clipped: dict[float, np.ndarray] | None = None
    warnings: tuple[str, ...] = ()

    def success(self, epsilon: float) -> np.ndarray:
        """Returns the images misclassified at this radius or at a smaller one, booleans of shape `(num,)`.

        Raises:
            ValueError: if the radius is not among `epsilons`.
        """
        return np.asarray((self.fooled_at != _NEVER) & (self.fooled_at <= self._index(epsilon)))

    @property
    def accuracies(self) -> tuple[float, ...]:
        """The robust accuracy at each of `epsilons`: a falling curve that begins with the natural accuracy."""
        return tuple(map(self.accuracy, self.epsilons))

    def accuracy(self, epsilon: float) -> float:
        """Returns the share of images that no attack made misclassified at one radius, in [0, 1]."""
        return float(np.mean(~self.success(epsilon)))

    def interval(self, epsilon: float, *, confidence: float = 0.95) -> Interval:
        """Returns the exact interval of the accuracy on all images that these are a sample of (Clopper and Pearson)."""
        success = self.success(epsilon)
        return clopper_pearson(int(np.sum(~success)), len(success), confidence=confidence)

    def after_each_attack(self, epsilon: float) -> dict[str, float]:
        """Returns the accuracy that is left after each attack at one radius, in the order in which they ran."""
        robust, here = ~self.success(epsilon), self.fooled_at == self._index(epsilon)
        return {name: float(np.mean(robust | here & (self.fooled_by > rank))) for rank, name in enumerate(self.attacks)}

    def to_dict(self) -> dict[str, Any]:
        """Converts the figures to JSON's own types."""
        return {
            "norm": self.norm,
            "num": len(self.fooled_at),
            "attacks": list(self.attacks),
            "epsilons": list(self.epsilons),
            "accuracies": list(self.accuracies),
            "intervals_95": [list(self.interval(epsilon)) for epsilon in self.epsilons],
            "after_each_attack": [self.after_each_attack(epsilon) for epsilon in self.epsilons],
            "warnings": list(self.warnings),
        }

    def to_text(self) -> str:
        """Writes the robust accuracy at the largest radius in a sentence, then the table, for a terminal."""
        return presentation.robustness_text(self)

    def plot(self, axes: Any = None) -> Any:
        """Draws robust accuracy by radius, by Matplotlib; `axes` is a list of one of its axes, or None.

        Returns:
            The figure.
        """
        return presentation.plot_robustness(self, axes)

    def _repr_html_(self) -> str:
        return presentation.robustness_html(self)

    def _index(self, epsilon: float) -> int:
        if epsilon not in self.epsilons:
            raise ValueError(f"`epsilon` must be one of {self.epsilons}. Received: epsilon={epsilon!r}.")
        return self.epsilons.index(epsilon)


def robustness(
    network: keras.Model,
    data: Data,
    attacks: Mapping[str, Attack | AttackAt] | Sequence[Attack | AttackAt] | Attack | AttackAt,
    *,
    epsilons: Sequence[float] | float | None = None,
    norm: str | None = None,
    bounds: Bounds | str | None = FROM_ATTACK,
    keep_images: bool = False,
    state_path: str | os.PathLike[str] | None = None,
    check: bool = True,
    seed: Seed = 0,
    batch_size: int = 256,
    on_batch: Callable[[int, int], None] | None = None,
    verbose: Verbose = 0,
) -> Robustness:
    """Measures robust accuracy against an ensemble of attacks, each on those images alone that are still robust.

    Radii are taken from the smallest up: what is misclassified at one is at every larger one. So the curve falls, and
    no image is attacked again once it is lost. What an attack gives is brought back to the ball and the pixel range
    before it is judged, so that one without a radius of its own, like `dist`, may be asked too.

    Args:
        network: gives logits of shape `(batch, num_classes)`, or one logit or sigmoid; it runs in inference mode.
        data: arrays, or a finite dataset that gives the same order in every pass, of which no more than a batch is in
            memory; see `pineat_tf.data`. Weights of examples are ignored.
        attacks: an attack, or what makes the attack of a radius, e.g. `lambda epsilon: apgd(epsilon=epsilon)`; or
            several of them in a list, or by name; `attacks.auto_attack()` is the standard ensemble. What needs more
            classes than the network has, or images, is left out with a warning.
        epsilons: radii > 0, on the scale of the pixels; None for that of the attacks.
        norm: of the radii, "linf" or "l2"; None for that of the attacks, "linf" where they do not say.
        bounds: the pixel range, None for no limits, or "attack" for that of the attacks, (0, 1) where they do not say.
        keep_images: keep adversarial images, each radius as large as the data.
        state_path: a file that keeps the results so far, so that the same call goes on where it was interrupted; it is
            removed at the end. Attacks must then be told apart by value: see `serialization.identity`.
        check: look for signs that the figures are too good (see `masking`), which become `warnings` of the
            result and of Python.
        seed: randomness of the attacks; each batch has its own draws.
        batch_size: images attacked at once, where the data is not batched.
        on_batch: called after each batch of an attack with how many of its images are done, of how many.
        verbose: Keras' progress bar, one an attack and radius: "auto" or 1 for a bar, 2 for a line at the end, 0 for
            nothing.

    Returns:
        The figures, by radius and attack.

    Raises:
        ValueError: if an argument is out of its range, attacks and arguments contradict one another, the network's
            outputs are probabilities, the data is endless, empty or changes its order, or the file at `state_path` is
            of another evaluation.

    Example:
        >>> result = robustness(network, (x_test, y_test), lambda epsilon: apgd(epsilon=epsilon), epsilons=[0.05, 0.1])
        >>> result.accuracies  # natural, then at each radius

    Reference:
        Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", ICML 2020, section 5.
    """
    check_count("batch_size", batch_size, 1, "It is how many images are attacked at once.")
    check_network(network)
    Bar(verbose, "")  # rather now than after the natural images
    ensemble = make_ensemble(attacks, epsilons, norm, bounds)
    if keep_images and state_path is not None:
        raise ValueError(
            "Images are not kept in the file at `state_path`. Give `keep_images` or `state_path`, not both."
        )
    stream = _Stream(network, data, batch_size, ensemble.bounds)
    ensemble = ensemble.fitting(stream.num_classes, len(stream.image_shape) + 1)
    evaluation = _Evaluation(network, stream, ensemble, as_seed(seed), keep_images, verbose)
    found = ensemble.left_out
    if check:
        x, y = next(stream.batches())
        warn_of_scale(network, bounds=ensemble.bounds, images=x)
        found += masking.check_network(network, x, y, **ensemble.threat, seed=seed)
    state = EvaluationState(
        state_path,
        _fingerprint(network, evaluation, batch_size) if state_path is not None else "",
        evaluation.natural_logits,
        num_radii=len(ensemble.radii),
        num_attacks=len(ensemble.attacks),
        save_seconds=_SAVE_SECONDS,
    )
    evaluation.run(state, on_batch)
    result = evaluation.result()
    if check:
        found += masking.check_figures(
            result.fooled_by, result.attacks, accuracy=result.accuracies[-1], **ensemble.threat
        )
    for text in found:
        warnings.warn(text, stacklevel=2)
    return dataclasses.replace(result, warnings=found)


_Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # their numbers, images and labels


class _Stream:
    """Images and class numbers, in passes over the data that are all alike."""

    def __init__(self, network: keras.Model, data: Data, batch_size: int, bounds: Bounds | None) -> None:
        self.batch_size, self.bounds = batch_size, bounds
        self.num_classes: Any = None  # until the first batch is seen
        self._batches = as_batches(data, batch_size, network=network, several_passes=True)
        labels: list[np.ndarray] = []
        digest = hashlib.sha256()
        for x, y in self.batches():
            if not labels:
                self.num_classes = check_logits_head(network, x)
                self.image_shape, self.dtype = tf.TensorShape(x.shape[1:]), x.dtype
            self.image_shape = self.image_shape.most_specific_compatible_shape(x.shape[1:])  # None where sizes differ
            if x.dtype != self.dtype:
                raise ValueError(f"All images must have one dtype. Received: {self.dtype} and {x.dtype}.")
            digest.update(repr((x.shape, x.dtype.name)).encode() + x.tobytes())
            labels.append(y)
        if not labels:
            raise ValueError("There are no images to attack. Received: a dataset of 0 batches.")
        self.labels, self.images_digest = np.concatenate(labels), digest.hexdigest()

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Makes one pass."""
        for x, y in self._batches:
            x, y = check_batch(x, y, bounds=self.bounds, num_classes=self.num_classes)
            yield x.numpy(), class_numbers(y).numpy().astype(np.int64)

    def rows(self, wanted: np.ndarray) -> Iterator[_Rows]:
        """Yields the rows that are wanted with their images and labels, in full batches over one pass."""
        waiting: list[_Rows] = []
        start = 0
        for x, y in self.batches():
            if waiting and waiting[0][1].shape[1:] != x.shape[1:]:  # images of two sizes make no batch
                yield from _whole(waiting)
                waiting = []
            if not np.array_equal(y, self.labels[start : start + len(y)]):
                raise ValueError(
                    "The dataset must give the same order in every pass. Received: other labels than in the first "
                    "pass. Give it before `shuffle`, or with `shuffle(..., reshuffle_each_iteration=False)`."
                )
            here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + len(y))]
            waiting.append((here, x[here - start], y[here - start]))
            start += len(y)
            while sum(len(part[0]) for part in waiting) >= self.batch_size:
                ((rows, x, y),), size = _whole(waiting), self.batch_size
                yield rows[:size], x[:size], y[:size]
                waiting = [(rows[size:], x[size:], y[size:])]
        yield from _whole(waiting)


def _whole(waiting: list[_Rows]) -> list[_Rows]:
    """Joins parts to one batch; of no rows there is none."""
    if not sum(len(rows) for rows, _, _ in waiting):
        return []
    rows, x, y = (np.concatenate(parts) for parts in zip(*waiting))
    return [(rows, x, y)]


class _Evaluation:
    """Runs the attacks one by one, and keeps who is fooled so far."""

    def __init__(
        self,
        network: keras.Model,
        stream: _Stream,
        ensemble: Ensemble,
        seed: tf.Tensor,
        keep_images: bool,
        verbose: Verbose,
    ) -> None:
        self.network, self.stream, self.ensemble, self.seed = network, stream, ensemble, seed
        self._keep_images, self._verbose = keep_images, verbose
        self._images: dict[float, list[np.ndarray]] = {}
        self.fooled_at, self.fooled_by = (np.full(len(stream.labels), _NEVER) for _ in range(2))
        predict = graph(self._logits, tf.TensorSpec([None, *stream.image_shape], stream.dtype))
        self.natural_logits = np.concatenate([predict(tf.constant(x)).numpy() for x, _ in stream.batches()])
        _check_logits(self.natural_logits)
        self.fooled_at[np.argmax(self.natural_logits, axis=1) != stream.labels] = 0

    def run(self, state: EvaluationState, on_batch: Callable[[int, int], None] | None) -> None:
        """Runs the attacks that are not done yet."""
        self.fooled_at, self.fooled_by = state.restore(self.fooled_at, self.fooled_by)
        radii = self.ensemble.radii
        for index, epsilon in enumerate(radii, start=1):
            if self._keep_images:
                before = self._images[radii[index - 2]] if index > 1 else [self._all_images()] * 2
                self._images[epsilon] = [images.copy() for images in before]
            for rank, made in enumerate(self.ensemble.attacks.values()):
                if (index, rank) >= state.stage:
                    self._run_stage((index, rank), made[index - 1], epsilon, state, on_batch)
        state.remove()

    def result(self) -> Robustness:
        """Returns the figures."""
        raw = {epsilon: pair[0] for epsilon, pair in self._images.items()} if self._keep_images else None
        clipped = {epsilon: pair[1] for epsilon, pair in self._images.items()} if self._keep_images else None
        radii, names = (0.0, *self.ensemble.radii), tuple(self.ensemble.attacks)
        return Robustness(radii, self.ensemble.norm, names, self.fooled_at, self.fooled_by, raw, clipped)

    def _all_images(self) -> np.ndarray:
        if not self.stream.image_shape.is_fully_defined():
            raise ValueError("`keep_images` needs images of one size. Received: batches of several sizes.")
        return np.concatenate([x for x, _ in self.stream.batches()])

    def _logits(self, images: tf.Tensor) -> tf.Tensor:
        return class_logits(self.network(images, training=False))

    def _run_stage(
        self,
        stage: tuple[int, int],
        attack: Attack,
        epsilon: float,
        state: EvaluationState,
        on_batch: Callable[[int, int], None] | None,
    ) -> None:
        """Runs one attack at one radius, from where it was interrupted."""
        here = (self.fooled_at == stage[0]) & (self.fooled_by == stage[1])  # by batches of this stage, before
        robust = np.flatnonzero((self.fooled_at == _NEVER) | here)
        first = state.batches if stage == state.stage else 0
        step, done = self._compile(attack, epsilon), 0
        bar = Bar(self._verbose, f"left by {tuple(self.ensemble.attacks)[stage[1]]} at {epsilon:g}", len(robust))
        for number, (rows, x, y) in enumerate(self.stream.rows(robust)):
            done += len(rows)
            if number >= first:
                with data_errors_as_value_errors():
                    raw, clipped, fooled = (part.numpy() for part in step(x, y, fold(self.seed, *stage, number)))
                lost = rows[fooled]
                self.fooled_at[lost], self.fooled_by[lost] = stage
                for images, given in zip(self._images.get(epsilon, ()), (raw, clipped)):
                    images[lost] = given[fooled]
                state.keep((self.fooled_at, self.fooled_by), stage, number + 1)
            bar.update(done, float(np.mean(self.fooled_at == _NEVER)))
            if on_batch:
                on_batch(done, len(robust))
        state.keep((self.fooled_at, self.fooled_by), (stage[0], stage[1] + 1), 0, now=True)

    def _compile(self, attack: Attack, epsilon: float) -> Any:
        project = Norm.of(self.ensemble.norm).project
        images = tf.TensorSpec([None, *self.stream.image_shape], self.stream.dtype)

        def step(x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            raw = attack(self._logits, x, y, seed=seed)
            clipped = clip_to_bounds(project(raw, x, epsilon), self.stream.bounds)
            logits = self._logits(clipped)
            finite = tf.reduce_all(tf.math.is_finite(logits), axis=1)
            return raw, clipped, (tf.argmax(logits, axis=1) != y) | ~finite

        return graph(step, images, tf.TensorSpec([None], tf.int64), tf.TensorSpec([2], tf.int64))


def _fingerprint(network: keras.Model, evaluation: _Evaluation, batch_size: int) -> str:
    """Tells evaluations apart.

    Raises:
        ValueError: if the network or an attack does not say what it consists of.
    """
    ensemble, stream = evaluation.ensemble, evaluation.stream
    try:
        attacks = {name: identity(made) for name, made in ensemble.attacks.items()}
        parts = {"network": network_identity(network), "attacks": attacks}
    except ValueError as error:
        raise ValueError(f"With `state_path` an evaluation must be told from others. {error}") from error
    settings = {"norm": ensemble.norm, "bounds": ensemble.bounds, "radii": ensemble.radii, "batch_size": batch_size}
    data = {"images": stream.images_digest, "labels": stream.labels, "seed": evaluation.seed}
    return identity(parts | settings | data)


def _check_logits(logits: np.ndarray) -> None:
    bad = np.count_nonzero(~np.isfinite(logits.astype(np.float32)).all(axis=1))
    if bad:
        raise ValueError(
            f"The network must give finite logits for natural images. Received: NaN or infinite ones for {bad} of "
            f"{len(logits)} images. Train it again, or judge it in a wider precision."
        )
