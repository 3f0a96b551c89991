"""The batches of a training run: the same whether it was interrupted or not."""

import keras
import numpy as np
import tensorflow as tf

from experiments.datasets.types import Split
from pineat_tf import accelerate
from pineat_tf.checks import check_choice, check_count
from pineat_tf.seeds import as_seed, fold

MIXINGS = ("none", "cutmix", "mixup")

_ORDER, _CROPS, _FLIPS, _MIXTURES = range(4)  # the independent streams of random numbers of a run


def training_batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    first_round: int,
    num_rounds: int,
    pad: int = 0,
    flip: bool = False,
    mixing: str = "none",
    num_classes: int | None = None,
    data_format: str | None = None,
) -> tf.data.Dataset:
    """Gives the batches of the rounds `first_round .. num_rounds - 1` of a training run.

    Stateless: the batch of round r is a function of the split, the batch size, the seed, r and the augmentation,
    whether training began at round 0 or was resumed at r. A pass over the data has `num // batch_size` rounds (an
    incomplete last batch is dropped) and a permutation of its own.

    Args:
        split: images `(num, height, width, channels)` with their labels, of which one copy is held.
        batch_size: images a round, at most `num`.
        seed: of the permutations and of the augmentation; a whole number of 64 bits.
        first_round: the round to begin with, >= 0.
        num_rounds: the round to stop before, >= `first_round`.
        pad: random crops of the original size after `pad` zero pixels were added at each side.
        flip: mirrors each image left to right with probability 1/2.
        mixing: "mixup" averages each image and its label with those of another one of the batch, "cutmix" takes a box
            of it; shares are uniform, one a batch. Labels are rows of shares then. (The layers of Keras have a random
            state, of which a round would not be a function.)
        num_classes: of the rows.
        data_format: "channels_last" or "channels_first", for crops and flips; that of Keras if None.

    Returns:
        `num_rounds - first_round` pairs of images `(batch_size, height, width, channels)` float32
        and labels `(batch_size,)` int64, or `(batch_size, num_classes)` float32 with `mixing`, of static shape.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> from experiments.datasets import load
        >>> digits = load("digits").train
        >>> run = dict(batch_size=64, seed=0, num_rounds=1000, pad=1)
        >>> resumed = training_batches(digits, first_round=400, **run)
        >>> int(resumed.cardinality())
        600
    """
    _check_rounds(split, batch_size, first_round, num_rounds, pad)
    data_format = keras.config.image_data_format() if data_format is None else data_format
    check_choice("data_format", data_format, ("channels_last", "channels_first"))
    check_choice("mixing", mixing, MIXINGS)
    moved = pad or flip or mixing == "cutmix"
    if moved:
        _check_format(split.images.shape, data_format)
    rows_first = [0, 2, 3, 1] if data_format == "channels_first" else [0, 1, 2, 3]
    base_seed = as_seed(seed)

    @tf.autograph.experimental.do_not_convert  # which would take half a second to read our code
    def batch_of(round_number: tf.Tensor, rows: tf.Tensor, data: Split) -> tuple[tf.Tensor, tf.Tensor]:
        """The batch of a round, from the numbers of its images."""
        batch, labels = tf.gather(data.images, rows), tf.gather(data.labels, rows)
        if moved:
            batch = tf.transpose(batch, rows_first)
        if pad:
            batch = _random_crop(batch, fold(base_seed, _CROPS, round_number), pad)
        if flip:
            batch = _random_flip(batch, fold(base_seed, _FLIPS, round_number))
        if mixing != "none":
            seed_of_mixture = fold(base_seed, _MIXTURES, round_number)
            batch, labels = _mixed(batch, tf.one_hot(labels, num_classes), seed_of_mixture, mixing)
        if moved:
            batch = tf.transpose(batch, np.argsort(rows_first))
        return batch, labels

    numbers = tf.data.Dataset.range(first_round, num_rounds)
    rows = _rows(len(split.labels), batch_size, base_seed, first_round, num_rounds)
    rounds = tf.data.Dataset.zip(numbers, rows, _everything(split))
    batches = rounds.map(batch_of, num_parallel_calls=len(accelerate.cores()), deterministic=True)
    counted = batches.apply(tf.data.experimental.assert_cardinality(num_rounds - first_round))
    options = tf.data.Options()  # rewriting the graph of the pipeline would copy the images
    options.experimental_optimization.apply_default_optimizations = False
    options.autotune.enabled = False  # nothing here to tune, and its thread can hold up the end of `fit` by 2 seconds
    return counted.prefetch(2).with_options(options)


def _check_rounds(split: Split, batch_size: int, first_round: int, num_rounds: int, pad: int) -> None:
    check_count("batch_size", batch_size, 1, "It is how many images a round has.")
    check_count("first_round", first_round, 0, "Rounds are counted from 0.")
    check_count("num_rounds", num_rounds, first_round, "It is the round to stop before, `first_round` the first.")
    check_count("pad", pad, 0, "It is how many pixels are added at each side.")
    if batch_size > len(split.labels):
        raise ValueError(
            "`batch_size` must not be larger than the data: every pass would be empty. Received: batch_size="
            f"{batch_size} for {len(split.labels)} images. Give a smaller batch or more images."
        )


def _check_format(shape: tuple[int, ...], data_format: str) -> None:
    """Refuses images whose channels are plainly not where the format has them: height would be cut off colours."""
    last, other = (shape[-1], shape[1]) if data_format == "channels_last" else (shape[1], shape[-1])
    if other in (1, 3) and last > 4:
        raise ValueError(
            f"images of shape {tuple(shape[1:])} do not look like {data_format}, by which crops and flips would go. "
            "Transpose them, or give `data_format` or Keras' `image_data_format`."
        )


def _rows(num: int, batch_size: int, base_seed: tf.Tensor, first_round: int, num_rounds: int) -> tf.data.Dataset:
    """The numbers of the images in each batch, from `first_round` on: elements `(batch_size,)` int64."""
    rounds_a_pass = num // batch_size

    @tf.autograph.experimental.do_not_convert
    def rows_of_pass(number: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(num, dtype=tf.int64), fold(base_seed, _ORDER, number), alg="philox"
        )
        used = order[: rounds_a_pass * batch_size]
        return tf.data.Dataset.from_tensor_slices(tf.reshape(used, (rounds_a_pass, batch_size)))

    passes = tf.data.Dataset.range(first_round // rounds_a_pass, -(-num_rounds // rounds_a_pass))
    return passes.flat_map(rows_of_pass).skip(first_round % rounds_a_pass)


def _everything(split: Split) -> tf.data.Dataset:
    """The whole split as an element, over and over: the same buffer each time, not a copy.

    A function that captures the images, as a constant or as a tensor, would be part of a reference cycle and keep them
    in memory, after the batches were given up, until Python's garbage collector comes round.
    """
    with tf.device("CPU:0"):
        tensors = Split(tf.identity(split.images), tf.identity(split.labels))  # tf.constant copies them twice
    return tf.data.Dataset.from_tensors(tensors).repeat()


def _random_crop(images: tf.Tensor, seed: tf.Tensor, pad: int) -> tf.Tensor:
    """Cuts a window of the original size out of each zero-padded image."""
    num, height, width, _ = images.shape
    top, left = tf.unstack(
        tf.random.stateless_uniform((2, num, 1), seed, maxval=2 * pad + 1, dtype=tf.int32, alg="philox")
    )
    padded = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
    lines, columns = top + tf.range(height), left + tf.range(width)
    return tf.gather(tf.gather(padded, lines, batch_dims=1), columns, axis=2, batch_dims=1)


def _random_flip(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors about half of the images left to right."""
    shape = (images.shape[0], 1, 1, 1)
    heads = tf.random.stateless_uniform(shape, seed, maxval=2, dtype=tf.int32, alg="philox")
    return tf.where(heads == 1, images[:, :, ::-1], images)


def _mixed(images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, mixing: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Each image and its label with a share of those of the one before it in the batch, whose order is random.

    A box has the share of the image's area, is centred anywhere, and counts by what of it lies in the image (Yun et
    al., "CutMix", ICCV 2019); else shares are of the pixels' values (Zhang et al., "mixup", ICLR 2018, alpha = 1).
    """
    share, middle, centre = tf.unstack(tf.random.stateless_uniform((3,), seed, alg="philox"))
    others, other_labels = tf.roll(images, 1, axis=0), tf.roll(labels, 1, axis=0)
    if mixing == "mixup":
        return images + share * (others - images), labels + share * (other_labels - labels)
    inside = [
        tf.abs((tf.range(length, dtype=tf.float32) + 0.5) / length - place) < tf.sqrt(share) / 2.0
        for length, place in ((images.shape[1], middle), (images.shape[2], centre))
    ]
    box = inside[0][:, tf.newaxis] & inside[1]
    share = tf.reduce_mean(tf.cast(box, tf.float32))
    return tf.where(box[:, :, tf.newaxis], others, images), labels + share * (other_labels - labels)
