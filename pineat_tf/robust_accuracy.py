"""Robust accuracy: what several attacks leave of a network's accuracy, at one radius or many."""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from pineat_tf import masking
from pineat_tf.checks import (
    check_batch,
    check_bounds,
    check_choice,
    check_count,
    check_positive,
    data_errors_as_value_errors,
)
from pineat_tf.data import Data, as_batches
from pineat_tf.files import replacing
from pineat_tf.heads import check_logits_head, class_logits
from pineat_tf.losses import class_numbers
from pineat_tf.pixel_scale import warn_of_scale
from pineat_tf.projections import clip_to_bounds, project_l2, project_linf
from pineat_tf.seeds import as_seed, fold
from pineat_tf.statistics import Interval, clopper_pearson
from pineat_tf.types import Bounds, Seed

AttackAt = Callable[[float], Callable]
"""Makes the attack of a radius: `lambda epsilon: apgd(epsilon=epsilon)`."""

_SAVE_SECONDS = 20.0
_NEVER = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Robustness:
    """What attacks leave of a network's accuracy.

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
        """Whether each image is misclassified at this radius, or at a smaller one. Booleans of shape `(num,)`.

        Raises:
            ValueError: if the radius is not among `epsilons`.
        """
        return self._fooled_by_then(self._index(epsilon))

    @property
    def accuracies(self) -> tuple[float, ...]:
        """The robust accuracy at each of `epsilons`: a falling curve that begins with the natural accuracy."""
        return tuple(float(np.mean(~self._fooled_by_then(index))) for index in range(len(self.epsilons)))

    def accuracy(self, epsilon: float) -> float:
        """The robust accuracy at one radius: the share of images that no attack made misclassified, in [0, 1]."""
        return self.accuracies[self._index(epsilon)]

    def interval(self, epsilon: float, *, confidence: float = 0.95) -> Interval:
        """The exact interval of the accuracy on all images that these are a sample of (Clopper and Pearson)."""
        success = self.success(epsilon)
        return clopper_pearson(int(np.sum(~success)), len(success), confidence=confidence)

    def after_each_attack(self, epsilon: float) -> dict[str, float]:
        """The accuracy that is left after each attack at one radius, in the order in which they ran."""
        index = self._index(epsilon)
        before = self._fooled_by_then(index - 1) if index else np.zeros(len(self.fooled_at), bool)
        here = self.fooled_at == index
        return {
            name: float(np.mean(~(before | here & (self.fooled_by <= rank)))) for rank, name in enumerate(self.attacks)
        }

    def to_dict(self) -> dict:
        """The figures in JSON's own types."""
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

    def _fooled_by_then(self, index: int) -> np.ndarray:
        return (self.fooled_at != _NEVER) & (self.fooled_at <= index)

    def _index(self, epsilon: float) -> int:
        if epsilon not in self.epsilons:
            raise ValueError(f"`epsilon` must be one of {self.epsilons}. Received: epsilon={epsilon!r}.")
        return self.epsilons.index(epsilon)


def robustness(
    network: keras.Model,
    data: Data,
    attacks: Mapping[str, AttackAt],
    *,
    epsilons: Sequence[float],
    norm: str = "linf",
    bounds: Bounds | None = (0.0, 1.0),
    keep_images: bool = False,
    state_path: str | os.PathLike | None = None,
    check: bool = True,
    seed: Seed = 0,
    batch_size: int = 256,
    on_batch: Callable[[int, int], None] | None = None,
) -> Robustness:
    """Measures robust accuracy against an ensemble of attacks, each on those images alone that are still robust.

    Radii are taken from the smallest up: what is misclassified at one is at every larger one. So the curve falls, and
    no image is attacked again once it is lost. What an attack gives is brought back to the ball and the pixel range
    before it is judged, so that one without a radius of its own, like `dist`, may be asked too.

    Args:
        network: gives logits of shape `(batch, num_classes)`; it runs in inference mode.
        data: two arrays (images, labels), or a finite dataset of batches that gives the same order in every pass, of
            which no more than a batch is in memory.
        attacks: by name, functions that make the attack of a radius; `attacks.auto_attack()` is the standard ensemble.
        epsilons: radii > 0, on the scale of the pixels.
        norm: of the radii, "linf" or "l2".
        bounds: the pixel range, or None for no limits.
        keep_images: keep adversarial images, each radius as large as the data.
        state_path: a file that keeps what is done, so that the same call goes on where it was interrupted; it is
            removed at the end.
        check: look for signs that the figures are too good (see `masking`), which become `warnings` of the
            result and of Python.
        seed: randomness of the attacks; each batch has its own draws.
        batch_size: images attacked at once, where the data is arrays.
        on_batch: called after each batch with how many attacked images are done and how many there are to do by now.

    Returns:
        The figures, by radius and attack.

    Raises:
        ValueError: if an argument is out of its range, the network ends in a softmax, the data is endless, empty or
            changes its order, or the file at `state_path` is of another evaluation.

    Example:
        >>> result = robustness(network, (x_test, y_test), auto_attack(), epsilons=[2 / 255, 4 / 255, 8 / 255])
        >>> result.accuracies  # natural, then at each radius

    Reference:
        Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", ICML 2020, section 5.
    """
    check_logits_head(network)
    check_choice("norm", norm, ("linf", "l2"))
    check_bounds(bounds)
    check_count("batch_size", batch_size, 1, "It is how many images are attacked at once.")
    if not attacks:
        raise ValueError(
            "There must be at least one attack. Received: `attacks` is empty. Give e.g. `attacks.auto_attack()`."
        )
    radii = _checked_radii(epsilons)
    if keep_images and state_path is not None:
        raise ValueError(
            "Images are not kept in the file at `state_path`. Give `keep_images` or `state_path`, not both."
        )
    stream = _Stream(data, batch_size, bounds)
    evaluation = _Evaluation(network, stream, norm, as_seed(seed), keep_images)
    found = ()
    if check:
        sample = next(stream.batches())
        warn_of_scale(network, bounds=bounds, images=sample[0])
        found = masking.check_network(network, *sample, epsilon=radii[-1], norm=norm, bounds=bounds, seed=seed)
    state = _State(state_path, _fingerprint(network, evaluation, attacks, radii, batch_size))
    evaluation.run(attacks, radii, state, on_batch)
    result = evaluation.result(attacks, radii)
    if check:
        end = {"norm": norm, "epsilon": radii[-1], "accuracy": result.accuracies[-1], "bounds": bounds}
        found += masking.check_figures(result.fooled_by, result.attacks, **end)
        result = dataclasses.replace(result, warnings=found)
        for text in result.warnings:
            warnings.warn(text, stacklevel=2)
    return result


class _Stream:
    """Images and class numbers, in passes over the data that are all alike."""

    def __init__(self, data: Data, batch_size: int, bounds: Bounds | None):
        self.data, self.batch_size, self.bounds = data, batch_size, bounds
        self.labels = np.zeros(0, np.int64)
        digest = hashlib.sha256()
        for x, labels in self.batches():
            digest.update(x.tobytes())
            self.labels = np.append(self.labels, labels)
        self.images_digest = digest.digest()
        if not len(self.labels):
            raise ValueError("There are no images to attack. Received: a dataset of 0 batches.")

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """One pass."""
        for batch in as_batches(self.data, self.batch_size):
            x, y = check_batch(*batch, bounds=self.bounds)
            yield x.numpy(), class_numbers(y).numpy().astype(np.int64)

    def rows(self, wanted: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The rows that are wanted with their images and labels, in batches filled up over one pass."""
        waiting, start = [], 0
        for x, y in self.batches():
            if not np.array_equal(y, self.labels[start : start + len(y)]):
                raise ValueError(
                    "The dataset must give the same order in every pass. Received: other labels than in the first "
                    "pass. Give it before `shuffle`, or with `shuffle(..., reshuffle_each_iteration=False)`."
                )
            here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + len(y))]
            waiting.append((here, x[here - start], y[here - start]))
            start += len(y)
            while sum(len(part[0]) for part in waiting) >= self.batch_size:
                whole = [np.concatenate(parts) for parts in zip(*waiting)]
                yield tuple(part[: self.batch_size] for part in whole)
                waiting = [tuple(part[self.batch_size :] for part in whole)]
        if sum(len(part[0]) for part in waiting):
            yield tuple(np.concatenate(parts) for parts in zip(*waiting))


class _Evaluation:
    """Who is fooled so far, and how the next attack changes it."""

    def __init__(self, network: keras.Model, stream: _Stream, norm: str, seed: tf.Tensor, keep_images: bool):
        self.stream, self.norm, self.seed = stream, norm, seed
        self.network = network
        self._keep_images = keep_images
        self._images: dict[float, list[np.ndarray]] = {}
        self.fooled_at, self.fooled_by = (np.full(len(stream.labels), _NEVER) for _ in range(2))
        predict = tf.function(self._logits, reduce_retracing=True)
        logits = np.concatenate([predict(tf.constant(x)).numpy() for x, _ in stream.batches()])
        _check_logits(logits, stream.labels)
        self.fooled_at[np.argmax(logits, axis=1) != stream.labels] = 0

    def run(
        self,
        attacks: Mapping[str, AttackAt],
        radii: Sequence[float],
        state: "_State",
        on_batch: Callable[[int, int], None] | None,
    ) -> None:
        """Runs what is not done yet."""
        state.restore(self)
        for index, epsilon in enumerate(radii, start=1):
            if self._keep_images:
                before = self._images.get(radii[index - 2]) if index > 1 else [self._all_images()] * 2
                self._images[epsilon] = [images.copy() for images in before]
            for rank, make in enumerate(attacks.values()):
                if (index, rank) >= state.stage:
                    self._run_stage((index, rank), make(epsilon), epsilon, state, on_batch)
        state.remove()

    def result(self, attacks: Mapping[str, AttackAt], radii: Sequence[float]) -> Robustness:
        """The figures."""
        raw, clipped = (
            {epsilon: pair[side] for epsilon, pair in self._images.items()} if self._keep_images else None
            for side in (0, 1)
        )
        who = {"fooled_at": self.fooled_at, "fooled_by": self.fooled_by}
        return Robustness((0.0, *radii), self.norm, tuple(attacks), **who, raw=raw, clipped=clipped)

    def _all_images(self) -> np.ndarray:
        return np.concatenate([x for x, _ in self.stream.batches()])

    def _run_stage(self, stage: tuple[int, int], attack: Callable, epsilon: float, state: "_State", on_batch) -> None:
        """One attack at one radius, from where it was interrupted."""
        here = (self.fooled_at == stage[0]) & (self.fooled_by == stage[1])  # by batches of this stage, before
        robust = np.flatnonzero((self.fooled_at == _NEVER) | here)
        first = state.batches if stage == state.stage else 0
        step, done = self._compile(attack, epsilon), 0
        for number, (rows, x, y) in enumerate(self.stream.rows(robust)):
            done += len(rows)
            if number >= first:
                with data_errors_as_value_errors():
                    raw, clipped, fooled = (part.numpy() for part in step(x, y, fold(self.seed, *stage, number)))
                lost = rows[fooled]
                self.fooled_at[lost], self.fooled_by[lost] = stage
                for images, given in zip(self._images.get(epsilon, ()), (raw, clipped)):
                    images[lost] = given[fooled]
                state.keep(self, stage, number + 1)
            if on_batch:
                on_batch(done, len(robust))
        state.keep(self, (stage[0], stage[1] + 1), 0, now=True)

    def _logits(self, images: tf.Tensor) -> tf.Tensor:
        return class_logits(self.network(images, training=False))

    def _compile(self, attack: Callable, epsilon: float) -> Callable:
        x, y = next(self.stream.batches())
        project = project_linf if self.norm == "linf" else project_l2

        specs = [tf.TensorSpec([None, *part.shape[1:]], part.dtype) for part in (x, y)]

        @tf.function(autograph=False, input_signature=[*specs, tf.TensorSpec([2], tf.int64)])
        def step(x, y, seed):
            raw = attack(self._logits, x, y, seed=seed)
            clipped = clip_to_bounds(project(raw, x, epsilon), self.stream.bounds)
            logits = self._logits(clipped)
            finite = tf.reduce_all(tf.math.is_finite(logits), axis=1)
            return raw, clipped, (tf.argmax(logits, axis=1) != y) | ~finite

        return step


class _State:
    """What is done, in a file that is whole at any moment."""

    def __init__(self, path: str | os.PathLike | None, fingerprint: str):
        self.path, self.fingerprint = path and pathlib.Path(path), fingerprint
        self.stage, self.batches = (0, 0), 0
        self._saved = time.monotonic()

    def restore(self, evaluation: _Evaluation) -> None:
        """Takes up what the file holds, if there is one."""
        if not self.path or not self.path.exists():
            return
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            fingerprint, self.stage, self.batches = kept["fingerprint"], tuple(kept["stage"]), kept["batches"]
            fooled = [np.array(kept[name], np.int64) for name in ("fooled_at", "fooled_by")]
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"{str(self.path)!r} is no state of an evaluation: {error}. Remove it.") from error
        if fingerprint != self.fingerprint:
            raise ValueError(
                f"{str(self.path)!r} is of an evaluation of other weights, images, labels, attacks or radii. Remove it "
                "to begin anew, or name another file."
            )
        evaluation.fooled_at, evaluation.fooled_by = fooled

    def keep(self, evaluation: _Evaluation, stage: tuple[int, int], batches: int, now: bool = False) -> None:
        """Writes the file, if it is time."""
        if not self.path or not (now or time.monotonic() - self._saved > _SAVE_SECONDS):
            return
        kept = {
            "fingerprint": self.fingerprint,
            "stage": stage,
            "batches": batches,
            "fooled_at": evaluation.fooled_at.tolist(),
            "fooled_by": evaluation.fooled_by.tolist(),
        }
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(kept), encoding="utf-8")
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Removes the file."""
        if self.path:
            self.path.unlink(missing_ok=True)


def _fingerprint(
    network: keras.Model, evaluation: _Evaluation, attacks: Mapping[str, AttackAt], radii: Sequence[float], size: int
) -> str:
    """What tells evaluations apart."""
    digest = hashlib.sha256(evaluation.stream.images_digest)
    for array in (*network.get_weights(), evaluation.stream.labels, evaluation.seed.numpy()):
        digest.update(np.ascontiguousarray(array).tobytes())
    ensemble = [(name, re.sub(r" at 0x\w+", "", repr(make(radii[-1])))) for name, make in attacks.items()]
    digest.update(repr((evaluation.norm, evaluation.stream.bounds, size, radii, ensemble)).encode())
    return digest.hexdigest()


def _check_logits(logits: np.ndarray, labels: np.ndarray) -> None:
    bad = np.count_nonzero(~np.isfinite(logits.astype(np.float32)).all(axis=1))
    if bad:
        raise ValueError(
            f"The network must give finite logits for natural images. Received: NaN or infinite ones for {bad} of "
            f"{len(logits)} images. Train it anew, or judge it in a wider precision."
        )
    if labels.max() >= logits.shape[-1]:
        raise ValueError(
            f"Class numbers must lie in 0 .. {logits.shape[-1] - 1}, as the network has {logits.shape[-1]} logits. "
            f"Received: {labels.max()}."
        )


def _checked_radii(epsilons: Sequence[float]) -> tuple[float, ...]:
    radii = tuple(float(epsilon) for epsilon in epsilons)
    for epsilon in radii:
        check_positive("epsilons", epsilon, "They are radii on the scale of the pixels, e.g. [4 / 255, 8 / 255].")
    if not radii or len(set(radii)) < len(radii):
        raise ValueError(f"`epsilons` must be radii that differ, at least one. Received: epsilons={epsilons!r}.")
    return tuple(sorted(radii))
