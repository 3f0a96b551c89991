"""Images and labels in whatever structure `fit` takes, as batches.

Served: arrays `(x, y)` or `(x, y, weights)` of NumPy, TensorFlow, lists, or anything that can be sliced; dictionaries
`{"image": ..., "label": ...}` of TensorFlow Datasets; `tf.data.Dataset`, batched or not; `keras.utils.PyDataset`; and
what gives batches or single examples of these when iterated, such as generators and PyTorch's loaders. Whether a
stream is batched is told by its elements: by the network's input shape where it has one, else by the labels. Images of
one batch have one size; it may differ from batch to batch where the network leaves it open.
"""

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from pineat_tf.checks import (
    MIXED_SIZES,
    check_arrays,
    check_batch,
    check_count,
    check_image_type,
    check_trainable,
    data_errors_as_value_errors,
)
from pineat_tf.heads import check_logits_head, noise_like
from pineat_tf.pixel_scale import warn_of_scale
from pineat_tf.types import Bounds

__all__ = ["Batches", "Data", "as_batches", "fit_arguments"]

Data: TypeAlias = tf.data.Dataset | keras.utils.PyDataset | tuple | Mapping | Iterable
"""Images and labels in a structure of `pineat_tf.data`. Only `fit` and `evaluate` respect weights of examples."""

_KERAS_BATCH_SIZE = 32
_LOOK = 1024  # images whose scale is looked at
_ENDLESS = (itertools.cycle, itertools.repeat, itertools.count)


@dataclasses.dataclass(frozen=True)
class Batches:
    """Batches `(images, labels)` of `num` examples: `passes` begins a pass, of which there may be `several`.

    What `passes` gives may have weights, which are left out.
    """

    passes: Callable[[], Iterator[tuple]]
    several: bool = True
    num: int | None = None  # not known

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return (parts[:2] for parts in self.passes())


def as_batches(
    data: Data,
    batch_size: int,
    *,
    network: keras.Model | None = None,
    max_examples: int | None = None,
    several_passes: bool = False,
    name: str = "data",
) -> Batches:
    """Gives images and labels as batches. Of arrays, one batch at a time becomes tensors.

    Args:
        data: finite; see the module. Weights are left out.
        batch_size: images a batch, where the data is not batched already.
        network: its input shape tells batched from unbatched data; None goes by the labels.
        max_examples: how many examples to take, the first ones; None for all.
        several_passes: whether more than one pass is needed, which no generator has.
        name: what the argument is called in errors.

    Raises:
        ValueError: if the data is endless, empty arrays, of another structure, or lacks a second pass that is needed.
    """
    check_count("batch_size", batch_size, 1, "It is how many images are predicted at once.")
    if max_examples is not None:
        check_count("max_examples", max_examples, 1, "It is how many examples are measured; leave it out for all.")
    shape = _image_shape(network)
    if isinstance(data, tf.data.Dataset):
        if data.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError(f"`{name}` never ends. Received: a dataset with `repeat()`. Give one pass over it.")
        batches = Batches(_dataset(data, batch_size, shape, name))
    elif isinstance(data, keras.utils.PyDataset):
        if data.num_batches is None:
            raise ValueError(f"`{name}` never ends. Received: a PyDataset without `__len__`. Give one pass over it.")
        batches = Batches(lambda: _batched_items((data[i] for i in range(data.num_batches)), batch_size, shape, name))
    elif _are_arrays(data):
        batches = _arrays(data, batch_size, name)
    else:
        batches = _iterable(data, batch_size, shape, name)
    if several_passes and not batches.several:
        raise ValueError(
            f"`{name}` is passed over more than once, and a generator has one pass. Received: {type(data).__name__}. "
            "Give arrays, a `keras.utils.PyDataset`, or `tf.data.Dataset.from_generator(function, ...)`."
        )
    if max_examples is None:
        return batches
    return Batches(
        lambda: _first(batches, max_examples), batches.several, batches.num and min(batches.num, max_examples)
    )


def fit_arguments(model: keras.Model, method: Callable, args: tuple, kwargs: dict, bounds: Bounds | None) -> dict:
    """Arguments of `keras.Model.fit` or `.evaluate` as Keras takes them, with their images and labels checked.

    Arrays are checked here, as a whole, and streams where they are read: a step that XLA compiles cannot raise.
    `bounds` are those of training images. Bad images or labels raise `ValueError`.
    """
    if method is keras.Model.fit:
        check_trainable(model.network)
    given = dict(inspect.signature(method).bind(model, *args, **kwargs).arguments)
    given.pop("self", None)
    given |= given.pop("kwargs", {})
    if given.get("y") is None and _are_arrays(given.get("x")):
        given |= dict(zip(("x", "y", "sample_weight"), _parts(given["x"], "x")))
    batch_size = given.get("batch_size") or _KERAS_BATCH_SIZE
    if given.get("y") is not None:
        given["x"], given["y"] = _checked_training_arrays(model, given["x"], given["y"], bounds)
    else:
        given["x"] = _checked_stream(model, given.get("x"), batch_size, bounds, "x")
        if isinstance(given["x"], tf.data.Dataset):
            given.pop("batch_size", None)  # the dataset has its own, and its own order
            if method is keras.Model.fit:
                given.setdefault("shuffle", False)
    validation = given.get("validation_data")
    if _are_arrays(validation):
        x, y, *weights = _parts(validation, "validation_data")
        given["validation_data"] = (*_checked_training_arrays(model, x, y, None), *weights)
    elif validation is not None:
        size = given.get("validation_batch_size") or batch_size
        given["validation_data"] = _checked_stream(model, validation, size, None, "validation_data")
    return given


def _checked_training_arrays(model: keras.Model, x: Any, y: Any, bounds: Bounds | None) -> tuple[Any, Any]:
    _check_single(x, y, "x")
    x, y = _sliceable(x, "x"), _sliceable(y, "y")
    _check_lengths(x, y, "x")
    warn_of_scale(model.network, bounds=bounds, images=x[:_LOOK])
    check_image_type(tf.as_dtype(x.dtype), tf.TensorShape(x.shape), bounds)
    _build(model, x.shape)
    check_arrays(x, y, bounds=bounds, num_classes=check_logits_head(model.network, x[:2]))
    return x, y


def _build(model: keras.Model, shape: Any) -> None:
    if not model.network.built:  # its weights are made as its first batch would
        with model.distribute_strategy.scope():
            model.build((None, *shape[1:]))


def _checked_stream(model: keras.Model, data: Any, batch_size: int, bounds: Bounds | None, name: str) -> Any:
    """The stream with checked batches `(x, y)` or `(x, y, weights)`; what is none of ours as it is."""
    if isinstance(data, (list, tuple)):
        data = _Listed(data)
    if isinstance(data, tf.data.Dataset):
        data = _batched_dataset(data, batch_size, _image_shape(model.network), name)
        spec = data.element_spec[0]
        if spec.shape.rank is not None:
            check_image_type(spec.dtype, spec.shape, bounds)
            _build(model, spec.shape)
    images = noise_like(spec.shape, spec.dtype) if isinstance(data, tf.data.Dataset) else None
    num_classes = check_logits_head(model.network, images) if model.network.built else None

    @tf.autograph.experimental.do_not_convert  # which would take a second to read our code
    def checked(x: Any, y: Any, *weights: Any) -> tuple:
        natural, _ = check_batch(x, y, bounds=bounds, num_classes=num_classes)
        with tf.control_dependencies([natural]):
            x = tf.identity(x)
        if shape is not None and tf.is_tensor(x):
            x = tf.ensure_shape(x, [None, *shape])  # where the stream does not say it, older Keras cannot flatten
        return x, tf.identity(y), *weights

    shape = _image_shape(model.network)
    if isinstance(data, tf.data.Dataset):
        return data.map(checked)
    if isinstance(data, keras.utils.PyDataset):
        return _CheckedPyDataset(data, lambda item: checked(*_parts(item, name)))
    if not _is_iterable(data) or isinstance(data, tf.distribute.DistributedDataset):
        return data  # batches in parts, one a replica, are checked in the step
    return _as_dataset(data, lambda: (checked(*p) for p in _batched_items(iter(data), batch_size, shape, name)), shape)


def _as_dataset(data: Iterable, passes: Callable[[], Iterator[tuple]], shape: tuple | None) -> Any:
    """Batches as a dataset that begins another pass in each epoch; sizes that the network leaves open may vary."""
    begun = passes()
    first = next(begun, None)
    if first is None:
        return data  # Keras says that there is nothing
    sizes = [first[0].shape[1:] if shape is None else shape, *(part.shape[1:] for part in first[1:])]
    specs = tuple(tf.TensorSpec([None, *size], part.dtype) for size, part in zip(sizes, first))
    rest = itertools.chain([first], begun)
    return tf.data.Dataset.from_generator(
        lambda: rest if isinstance(data, Iterator) else passes(), output_signature=specs
    )


class _Listed(keras.utils.PyDataset):
    """Batches of a list."""

    def __init__(self, batches: list | tuple):
        super().__init__()
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Any:
        return self._batches[index]


class _CheckedPyDataset(keras.utils.PyDataset):
    """A PyDataset whose batches are checked."""

    def __init__(self, data: keras.utils.PyDataset, checked: Callable):
        super().__init__(data.workers, data.use_multiprocessing, data.max_queue_size)
        self._data, self._checked = data, checked

    @property
    def num_batches(self) -> int | None:
        return self._data.num_batches

    def __getitem__(self, index: int) -> Any:
        return self._checked(self._data[index])

    def on_epoch_begin(self) -> None:
        self._data.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self._data.on_epoch_end()


def _dataset(data: tf.data.Dataset, batch_size: int, shape: tuple | None, name: str) -> Callable:
    batched = _batched_dataset(data, batch_size, shape, name).prefetch(2)

    def passes() -> Iterator:
        with data_errors_as_value_errors():
            yield from batched

    return passes


def _as_array(part: Any) -> Any:
    return part if isinstance(part, (np.ndarray, tf.Tensor)) else np.asarray(part)


def _batched_dataset(data: tf.data.Dataset, batch_size: int, shape: tuple | None, name: str) -> tf.data.Dataset:
    """The dataset as batches `(x, y)`, or with weights where there are some."""
    parts = _parts(data.element_spec, name)
    if not isinstance(data.element_spec, tuple):
        data = data.map(lambda element: _parts(element, name))
    return data.batch(batch_size) if _is_single(parts[0].shape, parts[1].shape, shape) else data


def _iterable(data: Any, batch_size: int, shape: tuple | None, name: str) -> Batches:
    if isinstance(data, _ENDLESS):
        raise ValueError(f"`{name}` never ends. Received: {data!r}. Give one pass over it.")
    if not _is_iterable(data):
        raise ValueError(
            f"`{name}` must be two arrays of equal length, images and labels, or a finite dataset of batches `(x, y)`. "
            f"Received: {_described(data)}."
        )
    return Batches(lambda: _batched_items(iter(data), batch_size, shape, name), not isinstance(data, Iterator))


def _is_iterable(data: Any) -> bool:
    """Whether it gives batches or examples when iterated, as loaders and generators do."""
    return isinstance(data, Iterable) and not isinstance(data, (str, bytes, Mapping, tf.Tensor, np.ndarray))


def _batched_items(items: Iterator, batch_size: int, shape: tuple | None, name: str) -> Iterator[tuple]:
    """Batches with their weights, of batches or single examples."""
    items = (tuple(map(_as_array, _parts(item, name))) for item in items)
    first = next(items, None)
    if first is None:
        return
    items = itertools.chain([first], items)
    if not _is_single(first[0].shape, first[1].shape, shape):
        yield from items
        return
    while group := list(itertools.islice(items, batch_size)):
        if len({part.shape for part, *_ in group}) > 1:
            raise ValueError(f"{MIXED_SIZES} Received: shapes {sorted({tuple(part.shape) for part, *_ in group})}.")
        yield tuple(np.stack(parts) for parts in zip(*group))


def _arrays(data: Any, batch_size: int, name: str) -> Batches:
    images, labels, *_ = _parts(data, name)
    images, labels = _sliceable(images, name), _sliceable(labels, name)
    _check_lengths(images, labels, name)

    def passes() -> Iterator[tuple]:
        for start in range(0, len(images), batch_size):
            yield tuple(np.asarray(part[start : start + batch_size]) for part in (images, labels))

    return Batches(passes, num=len(images))


def _first(batches: Iterable, num: int) -> Iterator[tuple]:
    """Batches up to so many examples."""
    for x, y in batches:
        yield x[:num], y[:num]
        num -= len(x)
        if num <= 0:
            return


def _are_arrays(data: Any) -> bool:
    """Whether it is arrays of examples, rather than a stream."""
    if isinstance(data, Mapping):
        return True
    return isinstance(data, (tuple, list)) and len(data) in (1, 2, 3) and not all(map(_is_pair, data))


def _is_pair(part: Any) -> bool:
    """Whether something in a list is a batch `(x, y)` of arrays, so that the list is one of batches."""
    values = part.values() if isinstance(part, Mapping) else part
    return isinstance(part, (tuple, Mapping)) and any(hasattr(of, "shape") for of in values)


def _parts(element: Any, name: str) -> tuple:
    """Images, labels and, where there are some, weights."""
    if isinstance(element, Mapping) and "image" in element and "label" in element:
        parts = (element["image"], element["label"])
    elif isinstance(element, (tuple, list)) and len(element) in (2, 3):
        parts = tuple(element)
    else:
        raise ValueError(
            f"`{name}` must be images and labels, `(x, y)`, `(x, y, weights)` or a dictionary of 'image' and 'label'. "
            f"Received: {_described(element)}."
        )
    _check_single(*parts[:2], name)
    return parts[:2] if len(parts) == 3 and parts[2] is None else parts


def _check_single(x: Any, y: Any, name: str) -> None:
    for part, what in ((x, "inputs"), (y, "outputs")):
        several = isinstance(part, (list, tuple)) and any(hasattr(of, "shape") and of.shape for of in part)
        if isinstance(part, Mapping) or several:
            raise ValueError(
                f"`{name}` must have one array of images and one of labels; networks of several {what} are not served. "
                f"Received: {_described(part)}. Fix all but one of them inside a network around it."
            )
        if isinstance(part, (tf.RaggedTensor, tf.SparseTensor, tf.RaggedTensorSpec, tf.SparseTensorSpec)):
            raise ValueError(
                f"`{name}` must be dense. Received: {type(part).__name__}. Bring images to one size, and sparse "
                "tensors to dense ones by `tf.sparse.to_dense`."
            )


def _sliceable(part: Any, name: str) -> Any:
    """An array, or what can be sliced as one without being in memory."""
    if hasattr(part, "shape") and hasattr(part, "dtype") and not hasattr(part, "iloc"):
        return part
    try:
        part = np.asarray(part)
    except ValueError as error:
        raise ValueError(f"`{name}` must be arrays, with images of one size. Received: {error}.") from error
    if part.dtype == object or part.ndim == 0:
        raise ValueError(f"`{name}` must be arrays of numbers, of one size. Received: {_described(part)}.")
    return part


def _check_lengths(images: Any, labels: Any, name: str) -> None:
    lengths = [part.shape[0] if len(part.shape) else 0 for part in (images, labels)]
    if lengths[0] != lengths[1] or not lengths[0]:
        raise ValueError(
            f"`{name}` must be two arrays of equal length: as many labels as images, and at least one. "
            f"Received: {lengths[0]} images, {lengths[1]} labels, shapes {tuple(images.shape)}, {tuple(labels.shape)}."
        )


def _image_shape(network: keras.Model | None) -> tuple | None:
    """The shape of one image, None where the network does not say."""
    shape = getattr(network, "input_shape", None) if network is not None and network.built else None
    return tuple(shape[1:]) if isinstance(shape, tuple) and shape and not isinstance(shape[0], tuple) else None


def _is_single(x: Any, y: Any, image_shape: tuple | None) -> bool:
    """Whether images and labels of these shapes are an example, not a batch."""
    x, y = tf.TensorShape(x), tf.TensorShape(y)
    if y.rank is None or x.rank is None:
        return False
    is_image = image_shape is not None and x.rank == len(image_shape) and x.is_compatible_with(image_shape)
    return y.rank == 0 or (is_image and y.rank == 1)


def _described(data: Any) -> str:
    if isinstance(data, Mapping):
        return f"a dictionary of {sorted(map(str, data))}"
    if isinstance(data, (tuple, list)):
        kinds = [f"{type(part).__name__}{list(part.shape) if hasattr(part, 'shape') else ''}" for part in data[:5]]
        return f"{type(data).__name__} of {len(data)}: {kinds}"
    shape = getattr(data, "shape", None)
    return f"{type(data).__name__}{'' if shape is None else f' of shape {tuple(shape)}'}"
