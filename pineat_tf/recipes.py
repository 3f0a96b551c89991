"""Recipes: whole trainings that the project's study chose, scaled to one's own data."""

import dataclasses
import numbers
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pineat_tf import schedules, threat
from pineat_tf.attacks import pgd
from pineat_tf.checks import (
    check_bounds,
    check_choice,
    check_count,
    check_epsilon,
    check_image_type,
    check_positive,
    check_share,
)
from pineat_tf.companions import NoCompanions, ReverseSymmetry
from pineat_tf.objectives import CrossEntropy, IntervalBounds
from pineat_tf.training import AdversarialTraining
from pineat_tf.types import Attack, Bounds, Companions, Objective, Ratio

__all__ = ["Recipe", "balanced", "certified", "light", "pineat"]

_RATES = (1.0, 0.1, 0.01)
_DROPS = (0.8, 0.925)  # shares of the updates after which the next rate holds
_RAMP = (0.1, 0.475)  # of interval bounds
_AVERAGED = 0.1  # share of the updates that an average of the weights reaches back at most


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of a whole training: what an update learns from, and for how long.

    Attributes:
        num_images: number of training images.
        attack, objective, companions, ratio: as in `AdversarialTraining`.
        batch_size: images a round.
        epochs: passes over the images, for `fit`.
        learning_rate: of Adam at the beginning; a tenth after 80 % of the updates, a hundredth after 92.5 %.
        max_shift: largest shift of a training image in pixels, along each side.
        flip: whether half of the training images are mirrored left to right.
        bounds: pixel range, that of attack and objective; shifts move in its lower end. None for no limits, without
            shifts.
        ramp: shares of the updates between which `IntervalBounds` ramp up; None leaves the objective as it is.
        ema_momentum: of the average of the weights over the updates, which `fit` puts in their place at its end (until
            then validation and checkpoints are of the weights themselves); 0 for these. It is less in a training so
            short that the average would reach back over more than a tenth of it, to weights that had learned nothing.

    Raises:
        ValueError: if a count, the rate, the ratio, the range, the ramp or the momentum is none, or attack or objective
            have another range.

    Example:
        >>> recipe = pt.recipes.certified(len(x_train), epsilon=0.1)
        >>> model = recipe.trainer(network)
        >>> model.fit(recipe.batches(x_train, y_train), epochs=recipe.epochs)
    """

    num_images: int
    attack: Attack | None
    objective: Objective
    companions: Companions
    ratio: str
    batch_size: int
    epochs: int
    learning_rate: float
    max_shift: int
    flip: bool
    bounds: Bounds | None
    ramp: tuple[float, float] | None = None
    ema_momentum: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("num_images", 1), ("batch_size", 1), ("epochs", 1), ("max_shift", 0)):
            check_count(name, getattr(self, name), least, "Give a whole number.")
        check_positive("learning_rate", self.learning_rate, "Give e.g. 2e-3.")
        check_bounds(self.bounds)
        object.__setattr__(self, "bounds", self.bounds and tuple(self.bounds))
        if self.max_shift and self.bounds is None:
            raise ValueError(
                "`bounds` must say what shifts move in: its lower end. Received: bounds=None with "
                f"max_shift={self.max_shift}. Give the pixel range, or max_shift=0."
            )
        check_choice("flip", self.flip, (False, True))
        Ratio.parse(self.ratio)
        check_share("ema_momentum", self.ema_momentum, "Give e.g. 0.998, or 0 for the weights themselves.")
        for name in ("attack", "objective"):
            theirs = getattr(getattr(self, name), "bounds", None)
            if isinstance(theirs, (tuple, list)) and self.bounds is not None and tuple(theirs) != self.bounds:
                raise ValueError(
                    f"`bounds` must be those of the {name}. Received: bounds={self.bounds!r}, and {theirs!r} there. "
                    "Make the recipe anew with its range, or replace both."
                )
        if self.ramp is not None:
            object.__setattr__(self, "ramp", self._checked_ramp())

    def _checked_ramp(self) -> tuple[float, float]:
        ends = tuple(self.ramp) if isinstance(self.ramp, (tuple, list, np.ndarray)) else ()
        is_pair = len(ends) == 2 and all(isinstance(end, numbers.Real) for end in ends) and 0 <= ends[0] <= ends[1] <= 1
        if not (is_pair and isinstance(self.objective, IntervalBounds)):
            raise ValueError(
                "`ramp` must be two rising shares of the training, of an `IntervalBounds`. Received: "
                f"ramp={self.ramp!r} with objective={self.objective!r}. Give e.g. (0.1, 0.5), or None with any "
                "objective."
            )
        return float(ends[0]), float(ends[1])

    @property
    def updates(self) -> int:
        """Updates of the weights in the whole training."""
        rounds = -(-self.num_images // self.batch_size)
        return self.epochs * rounds * Ratio.parse(self.ratio).updates_per_round

    def trainer(self, network: keras.Model, *, seed: int = 0) -> AdversarialTraining:
        """Wraps a network in a trainer that is compiled with Adam and accuracy.

        Args:
            network: as in `AdversarialTraining`; for `certified` all its layers need rules for bounds.
            seed: of the attack and the companions.
        """
        objective = self.objective
        if self.ramp is not None and isinstance(objective, IntervalBounds):  # as `__post_init__` has made sure
            begin, end = (round(share * self.updates) for share in self.ramp)
            objective = dataclasses.replace(objective, ramp=(begin, end))
        model = AdversarialTraining(
            network,
            attack=self.attack,
            objective=objective,
            companions=self.companions,
            ratio=self.ratio,
            seed=seed,
        )
        first, second = (round(share * self.updates) for share in _DROPS)
        boundaries = first, max(second, first + 1)
        rates = [share * self.learning_rate for share in _RATES]
        schedule = schedules.piecewise_learning_rate(boundaries, rates)
        momentum = min(self.ema_momentum, 1 - 1 / (_AVERAGED * self.updates))
        average = {"use_ema": True, "ema_momentum": momentum} if momentum > 0 else {}
        model.compile(keras.optimizers.Adam(schedule, **average), metrics=["accuracy"])
        return model

    def batches(self, images: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> tf.data.Dataset:
        """One pass over images, in another order and with other shifts and flips each time.

        Args:
            images: shape `(num_images, height, width, channels)`; without shifts and flips of any shape.
            labels: shape `(num_images, ...)`.
            seed: of order, shifts and flips, a whole number >= 0.

        Raises:
            ValueError: if there are other than `num_images` images or labels, images that are none, or shifts and flips
                of what has no height, width and channels, or of images that a shift may move out of sight.
        """
        check_count("seed", seed, 0, "Give a whole number.")
        for name, given in (("images", images), ("labels", labels)):
            if isinstance(given, tf.data.Dataset) or not np.ndim(given):
                raise ValueError(
                    f"`{name}` must be an array. Received: {type(given).__name__}. A dataset of images and labels, in "
                    "batches of the recipe's `batch_size`, is for `fit` as it is."
                )
            if len(given) != self.num_images:
                raise ValueError(
                    f"`{name}` must be those that the recipe was made for: its schedule counts them. Received: "
                    f"{len(given):,} for num_images={self.num_images:,}. Make the recipe with their number."
                )
        images = np.asarray(images)
        check_image_type(tf.as_dtype(images.dtype), tf.TensorShape(images.shape), self.bounds)
        moves = self.max_shift or self.flip
        if moves and images.ndim != 4:
            raise ValueError(
                "shifts and flips are of images of shape (height, width, channels). Received: "
                f"{images.shape[1:]}. Give images without channels one, as in `images[..., None]`; for anything else "
                "make the recipe with max_shift=0 and flip=False."
            )
        if self.max_shift and self.max_shift >= min(images.shape[1:3]):
            raise ValueError(
                "`max_shift` must be less than height and width, as it would move images out of sight. Received: "
                f"max_shift={self.max_shift} of images of {images.shape[1:]}. Give a pixel or two, or 0."
            )
        batches = tf.data.Dataset.from_tensor_slices((images, labels))
        batches = batches.shuffle(self.num_images, seed=seed, reshuffle_each_iteration=True)
        if moves:
            draws = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).batch(2)
            batches = tf.data.Dataset.zip(batches, draws).map(self._moved, tf.data.AUTOTUNE)
        return batches.batch(self.batch_size).prefetch(tf.data.AUTOTUNE)

    @tf.autograph.experimental.do_not_convert
    def _moved(self, example: tuple[tf.Tensor, tf.Tensor], draw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image, label = example
        if self.max_shift and self.bounds:
            around = [[self.max_shift] * 2] * 2 + [[0, 0]]
            padded = tf.pad(image, around, constant_values=tf.cast(self.bounds[0], image.dtype))
            image = tf.image.stateless_random_crop(padded, image.shape, draw)
        if self.flip:
            image = tf.image.stateless_random_flip_left_right(image, draw + 1)
        return image, label


def certified(
    num_images: int,
    *,
    epsilon: float,
    bounds: Bounds | None = (0.0, 1.0),
    natural_weight: float = 0.8,
    max_shift: int = 1,
    flip: bool = True,
    epochs: int = 40,
) -> Recipe:
    """Makes the best recipe that the study found: interval bounds, small batches, shifts and flips.

    No attack takes part, and robustness can be proved (`pt.verify`). It is for networks of few layers, all of which
    bounds have rules for, and was found on grey images of 28 x 28 pixels at a radius of .1; docs/study.md says how far
    it travels.

    Args:
        num_images: number of training images.
        epsilon: L-inf radius on the scale of the pixels.
        bounds: pixel range; None for no limits, without shifts.
        natural_weight: share of the natural cross-entropy after the ramp: more for accuracy, less for robustness.
        max_shift: largest shift in pixels.
        flip: whether mirror images are of the same class; not so for digits.
        epochs: passes over the images.

    Example:
        >>> certified(60_000, epsilon=0.1).updates
        96000
    """
    recipe = _recipe(num_images, epsilon, bounds, batch_size=25, epochs=epochs, max_shift=max_shift, flip=flip)
    objective = IntervalBounds(epsilon=epsilon, bounds=bounds, natural_weight=natural_weight)
    threat.check_scale(epsilon, bounds)
    return dataclasses.replace(recipe, objective=objective, ramp=_RAMP)


def balanced(
    num_images: int,
    *,
    epsilon: float,
    bounds: Bounds | None = (0.0, 1.0),
    max_shift: int = 1,
    flip: bool = True,
    epochs: int = 42,
) -> Recipe:
    """Makes `certified` with more weight on accuracy, smaller batches and averaged weights.

    Less is proved, and more leaks. It takes longer at the same passes, as its batches have 12 images.

    Args:
        num_images: number of training images.
        epsilon: L-inf radius on the scale of the pixels.
        bounds: pixel range; None for no limits, without shifts.
        max_shift: largest shift in pixels.
        flip: whether mirror images are of the same class; not so for digits.
        epochs: passes over the images.

    Example:
        >>> balanced(60_000, epsilon=0.1).batch_size
        12
    """
    recipe = certified(
        num_images, epsilon=epsilon, bounds=bounds, natural_weight=0.87, max_shift=max_shift, flip=flip, epochs=epochs
    )
    return dataclasses.replace(recipe, batch_size=12, ema_momentum=0.998)


def light(
    num_images: int,
    *,
    epsilon: float,
    bounds: Bounds | None = (0.0, 1.0),
    max_shift: int = 1,
    flip: bool = True,
    epochs: int = 34,
) -> Recipe:
    """Makes the study's recipe for networks that bounds have no rules for: PGD of four steps, shifts and flips.

    Args:
        num_images: number of training images.
        epsilon: L-inf radius on the scale of the pixels.
        bounds: pixel range; None for no limits, without shifts.
        max_shift: largest shift in pixels.
        flip: whether mirror images are of the same class; not so for digits.
        epochs: passes over the images.

    Example:
        >>> light(50_000, epsilon=8 / 255).attack.num_steps
        4
    """
    recipe = _recipe(num_images, epsilon, bounds, batch_size=50, epochs=epochs, max_shift=max_shift, flip=flip)
    return dataclasses.replace(recipe, attack=pgd(epsilon=epsilon, step_size=0.4 * epsilon, num_steps=4, bounds=bounds))


def pineat(num_images: int, *, epsilon: float, bounds: Bounds | None = (0.0, 1.0), epochs: int = 20) -> Recipe:
    """Makes the paper's method at 1/1 with PGD of eight steps.

    Args:
        num_images: number of training images.
        epsilon: L-inf radius on the scale of the pixels.
        bounds: pixel range; None for no limits.
        epochs: passes over the images, each batch of which makes two updates.

    Example:
        >>> pineat(50_000, epsilon=8 / 255).updates
        20000
    """
    recipe = _recipe(num_images, epsilon, bounds, batch_size=100, epochs=epochs, max_shift=0, flip=False)
    attack = pgd(epsilon=epsilon, step_size=0.2 * epsilon, num_steps=8, bounds=bounds)
    return dataclasses.replace(recipe, attack=attack, companions=ReverseSymmetry(), ratio="1/1")


def _recipe(num_images: int, epsilon: float, bounds: Bounds | None, **settings: Any) -> Recipe:
    """Cross-entropy without an attack, at the study's learning rate."""
    check_epsilon(epsilon)
    check_bounds(bounds)
    return Recipe(
        num_images=num_images,
        attack=None,
        objective=CrossEntropy(),
        companions=NoCompanions(),
        ratio="1/0",
        learning_rate=2e-3,
        bounds=bounds,
        **settings,
    )
