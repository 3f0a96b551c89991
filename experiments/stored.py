"""Networks from files of others: what is a program is run only if it is trusted."""

import hashlib
import inspect
import io
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import h5py
import keras
import tensorflow as tf

from experiments.datasets.reading import check_can_hold, listed, opened_zip, reading

SAVED_MODEL = "saved_model.pb"

_MOST_CONFIG_BYTES = 16 << 20
_MODULES = (
    "layers",
    "models",
    "initializers",
    "regularizers",
    "constraints",
    "activations",
    "dtype_policies",
    "random",
)
_PROGRAMS = (  # layers of Keras that run code, or read files, that their file names
    "Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer",
    "StringLookup", "IntegerLookup", "IndexLookup", "TextVectorization",
)  # fmt: skip
_DEEPEST = 200  # levels of a config; nested networks have some ten each
_HOW = (
    "Such a file is a program: whoever made it decides what it does here, with your rights. Give --trust if you know "
    "who that is."
)


def is_network(path: str) -> bool:
    """Tells if a path looks like that of a network: a .keras, .h5 or .tflite file, or a SavedModel's folder."""
    return path.endswith((".keras", ".h5", ".hdf5", ".tflite")) or os.path.isfile(os.path.join(path, SAVED_MODEL))


def load_network(path: str, *, image_shape: tuple[int, ...] | None = None, trust: bool = False) -> keras.Model:
    """Loads a network from a .keras or HDF5 file, or a SavedModel's folder.

    A file of Keras' built-in layers (and pineat_tf's registered ones) is data. What holds a Lambda, an object that is
    neither, or a graph of TensorFlow, is a program, and loaded only if it is trusted.

    Args:
        path: of the network.
        image_shape: height, width, channels of the images that a SavedModel will be shown, whose file may not say it.
        trust: whether to load programs too.

    Raises:
        ValueError: if it cannot be read, is damaged, or is a program that is not trusted.

    Example:
        >>> load_network("run/network.keras").output_shape  # doctest: +SKIP
        (None, 10)
    """
    if os.path.isdir(path):
        if not os.path.isfile(os.path.join(path, SAVED_MODEL)):
            raise ValueError(f"{path!r} is no network: a folder without {SAVED_MODEL}. Give a .keras file.")
        if not trust:
            raise ValueError(f"{path!r} is a SavedModel, whose operations can read and write files. {_HOW}")
        return _guarded(path, lambda: _saved_model(path, image_shape))
    config = _config_of_zip(path) if path.endswith(".keras") else _config_of_hdf5(path)
    foreign = sorted({name for name in _objects(config) if name})
    if foreign and not trust:
        raise ValueError(f"{path!r} holds objects that are not plain layers of Keras: {listed(foreign)}. {_HOW}")
    network = _guarded(path, lambda: keras.saving.load_model(path, compile=False, safe_mode=not trust))
    if not isinstance(network, keras.Model) or not network.layers:
        raise ValueError(f"{path!r} cannot be used as a network: it has no layers. Save a whole model.")
    return network


def _guarded(path: str, load: Callable[[], keras.Model]) -> keras.Model:
    try:
        return load()
    except RecursionError:
        raise ValueError(f"{path!r} cannot be used as a network: its layers are nested too deeply.") from None
    except Exception as error:  # of configs that Keras did not write, it raises whatever it stumbles over
        text = " ".join(str(error).split())[:500]
        raise ValueError(f"{path!r} cannot be used as a network: {type(error).__name__}: {text}") from error


def _config_of_zip(path: str) -> Any:
    with opened_zip(path) as archive:
        missing = {"config.json", "model.weights.h5"} - set(archive.namelist())
        if missing:
            raise ValueError(f"{path!r} is no network of Keras 3: it lacks {listed(sorted(missing))}.")
        check_can_hold(f"config.json of {path!r}", archive.getinfo("config.json").file_size, 0, _MOST_CONFIG_BYTES)
        config = _parsed(archive.read("config.json"), path)
        if not isinstance(config, dict) or not isinstance(config.get("config"), dict):
            raise ValueError(f"{path!r} is no network of Keras 3: its config.json describes none. Save it again.")
        weights = archive.read("model.weights.h5")
    _check_hdf5(io.BytesIO(weights), path)
    return config


def _config_of_hdf5(path: str) -> Any:
    return _parsed(_check_hdf5(path, path) or b"", path)


def _check_hdf5(file: str | io.BytesIO, path: str) -> bytes | str | None:
    """Gives the config of an HDF5 file of which no part is elsewhere or larger than can be meant."""
    stored = len(file.getbuffer()) if isinstance(file, io.BytesIO) else os.path.getsize(path)
    try:
        with reading(path), h5py.File(file, "r") as content:
            stated, groups = 0, [content]
            for group in groups:
                for name in group:
                    link, item = group.get(name, getlink=True), None
                    if isinstance(link, h5py.HardLink):
                        item = group[name]
                    if isinstance(item, h5py.Group):
                        groups.append(item)
                    elif isinstance(item, h5py.Dataset) and not item.external and not item.is_virtual:
                        stated += item.nbytes
                    else:
                        raise ValueError(f"{path!r} has weights elsewhere: {name[:80]!r}. Do not trust the file.")
                if len(groups) > 100_000:
                    raise ValueError(f"{path!r} has more than 100,000 groups of weights.")
            check_can_hold(repr(path), stated, stored)
            return content.attrs.get("model_config")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path!r} is damaged: {type(error).__name__}: {error}.") from error


def _depth(part: Any) -> int:
    """How deep lists and dictionaries are nested."""
    depth, parts = 0, [part]
    while parts:
        parts = [
            inner
            for outer in parts
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        depth += 1
    return depth


def _parsed(text: bytes | str, path: str) -> Any:
    try:
        config = json.loads(text)
        if _depth(config) > _DEEPEST:  # some versions of Python read it, and Keras would stumble
            raise RecursionError
        return config
    except (ValueError, TypeError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise ValueError(
            f"{path!r} has no config of a network that can be read: {why}. Save a whole model, not its weights alone."
        ) from error


def _objects(config: Any) -> Iterator[str]:
    """The names of all objects of a config that plain Keras does not make; empty ones for the others."""
    entries = [config]
    while entries:
        entry = entries.pop()
        if isinstance(entry, dict):
            if "class_name" in entry:
                yield "" if _is_plain(entry) else str(entry["class_name"])
            entries += [value for key, value in entry.items() if key != "compile_config"]  # which is not read here
        elif isinstance(entry, list):
            entries += entry


def _is_plain(entry: dict) -> bool:
    name, module, registered = (entry.get(key) for key in ("class_name", "module", "registered_name"))
    if not isinstance(name, str) or name in _PROGRAMS:
        return False
    if name.startswith("__"):
        return name != "__lambda__"  # Python's tuples, slices, ...
    if name == "function":
        return isinstance(entry.get("config"), str) and hasattr(keras.activations, entry["config"])
    for own in (name, registered):  # HDF5 has no name but the registered one
        if isinstance(own, str) and own.startswith("pineat_tf>"):
            return keras.saving.get_registered_object(own) is not None
    if module is not None and (not isinstance(module, str) or module.split(".")[0] != "keras"):
        return False
    name = "Model" if name == "Functional" and module is None else name
    places = [keras, *(getattr(keras, name) for name in _MODULES)] if module is None else [sys.modules.get(module)]
    kinds = (keras.Operation, keras.Model, keras.initializers.Initializer, keras.regularizers.Regularizer)
    kinds += (keras.constraints.Constraint, keras.DTypePolicy, keras.random.SeedGenerator)
    found = next((vars(place)[name] for place in places if place and name in vars(place)), None)
    return inspect.isclass(found) and issubclass(found, kinds)


@keras.saving.register_keras_serializable(package="pineat_tf_stored")
class _Served(keras.layers.Layer):
    """A SavedModel's function as a layer.

    Args:
        served: what was loaded, which keeps the function's variables alive.
        call: the function.
        content: what tells the SavedModel from others, in a layer's config, as its weights are none of Keras.
    """

    def __init__(self, served: tf.Module, call: Callable, content: str, **options):
        super().__init__(trainable=False, **options)
        self._served, self._serve, self._content = served, call, content

    def get_config(self) -> dict:
        """Returns the content that identifies the layer; nothing recreates it."""
        return super().get_config() | {"content": self._content}

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = self._serve(inputs)
        return next(iter(outputs.values())) if isinstance(outputs, dict) else outputs


def _saved_model(path: str, image_shape: tuple[int, ...] | None) -> keras.Model:
    with reading(pathlib.Path(path, SAVED_MODEL)):
        served = tf.saved_model.load(path)
    call = getattr(served, "serve", None) or served.signatures.get("serving_default")
    if call is None or image_shape is None:
        raise ValueError("it has neither a function `serve`, as of Keras' exports, nor a signature `serving_default`")
    inputs = keras.Input(image_shape)
    return keras.Model(inputs, _Served(served, call, _content_of_folder(path))(inputs))


def _content_of_folder(path: str) -> str:
    digest = hashlib.sha256()
    for file in sorted(file for file in pathlib.Path(path).rglob("*") if file.is_file()):
        with open(file, "rb") as content:
            digest.update(repr((file.relative_to(path).as_posix(), _digest(content))).encode())
    return digest.hexdigest()


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while part := file.read(1 << 20):
        digest.update(part)
    return digest.hexdigest()
