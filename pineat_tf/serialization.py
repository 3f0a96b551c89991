"""Strategies in Keras' files: how a frozen dataclass becomes a config and comes back; and what tells values apart."""

import dataclasses
import functools
import hashlib
import inspect
import types
from collections.abc import Mapping
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from pineat_tf.types import network_of

__all__ = ["T", "class_content", "identity", "network_identity", "serializable"]

T = TypeVar("T")


def serializable(target: T) -> T:
    """Registers a class or function, so that `.keras` files may name it; a decorator.

    It is registered under the package that defines it, so that nothing of a user's takes the place of the library's.

    A dataclass gets `get_config` and `from_config`, which hold its fields. Fields may be numbers, strings, tuples of
    these, and whatever is registered itself. A class that is no dataclass brings both methods along.

    Example:
        >>> @serializable
        ... @dataclasses.dataclass(frozen=True)
        ... class Margin:
        ...     width: float
        >>> Margin(0.1).get_config()
        {'width': 0.1}
    """
    cls: Any = target
    if dataclasses.is_dataclass(target):
        cls.get_config, cls.from_config = _get_config, classmethod(_from_config)
    return keras.saving.register_keras_serializable(package=cls.__module__.partition(".")[0])(target)


def _get_config(self: Any) -> dict[str, Any]:
    """The fields, as `from_config` takes them."""
    fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    return {name: keras.saving.serialize_keras_object(value) for name, value in fields.items()}


def _from_config(cls: type[T], config: dict[str, Any]) -> T:
    """The strategy of these fields."""
    return cls(**{name: _as_tuple(keras.saving.deserialize_keras_object(value)) for name, value in config.items()})


def _as_tuple(value: Any) -> Any:
    """JSON knows lists only, where the fields of a frozen dataclass are tuples."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def identity(value: Any) -> str:
    """Tells values apart by content: equal strings stand for values that do the same, in any process.

    Numbers, strings, tuples, lists, dictionaries, arrays and tensors count by content, dataclasses and objects with
    `get_config` by their class with its code and by their fields, and registered functions by their name.

    Args:
        value: what is to be told apart.

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: if the value, or a part of it, has none: a closure, a lambda, a plain function, or an object of
            which nothing says what it consists of.

    Example:
        >>> identity(pgd(epsilon=0.1, step_size=0.02, num_steps=8)) == identity(
        ...     pgd(epsilon=0.1, step_size=0.02, num_steps=9))
        False
    """
    return hashlib.sha256(repr(_content(value)).encode()).hexdigest()


def _content(value: Any) -> Any:
    """The value as nested tuples of what `repr` tells apart."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, tf.DType, np.dtype)):
        return type(value).__name__, value
    if isinstance(value, Mapping):
        return "dict", tuple((_content(key), _content(part)) for key, part in value.items())
    if isinstance(value, functools.partial):
        return "partial", _content(value.func), _content(value.args), _content(dict(sorted(value.keywords.items())))
    if isinstance(value, (np.ndarray, np.generic, tf.Tensor, tf.Variable, keras.Variable)):
        array = np.ascontiguousarray(value)
        return "array", array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).hexdigest()
    if isinstance(value, type) or inspect.isfunction(value):
        return _named(value)
    if isinstance(value, keras.Model):
        return "network", network_identity(value)
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return class_content(type(value)), _content(fields)
    if hasattr(value, "get_config"):
        return class_content(type(value)), _content(value.get_config())
    if isinstance(value, (tuple, list)):
        return type(value).__name__, tuple(map(_content, value))
    raise ValueError(_no_identity(value))


def network_identity(network: keras.Model) -> str:
    """Tells networks apart by architecture, precision and weights; the names of layers do not count.

    A trainer or a compute twin is told by its network.

    Raises:
        ValueError: if the network cannot say what it consists of.
    """
    network = network_of(network)
    try:
        config = network.get_config()
    except NotImplementedError as error:
        raise ValueError(
            f"The network must say what it consists of. Received: {type(network).__name__} without `get_config`. Write "
            "one that gives the arguments of its constructor."
        ) from error
    layers = (network, *network._flatten_layers(include_self=False))
    names = {layer.name: f"#{index}" for index, layer in enumerate(layers)}
    own = [class_content(type(layer)) for layer in layers if not type(layer).__module__.startswith("keras.")]
    policies = [layer.dtype_policy.name for layer in layers]
    weights = [_content(np.asarray(weights)) for weights in network.get_weights()]
    digest = hashlib.sha256(repr((type(network).__qualname__, _unnamed(config, names), own, policies)).encode())
    digest.update(repr(weights).encode())
    return digest.hexdigest()


def class_content(cls: type) -> Any:
    """A class by its name and, where it is none of a package's that is installed, the code of its methods."""
    name = f"{cls.__module__}.{cls.__qualname__}"
    if cls.__module__.split(".")[0] in ("keras", "pineat_tf", "tensorflow", "numpy", "builtins"):
        return name
    methods = [part for base in cls.__mro__[:-1] for part in vars(base).values() if inspect.isfunction(part)]
    # What `dataclasses` writes says no more than the fields do, and holds closures of its own.
    written = [m for m in methods if m.__code__.co_filename != "<string>" and m.__name__ != "__repr__"]
    own = [method for method in written if method.__module__ == cls.__module__]
    for method in own:
        cells = dict(zip(method.__code__.co_freevars, method.__closure__ or ()))
        if set(cells) - {"__class__"}:
            raise ValueError(_no_identity(method))
    return name, tuple(_code(method.__code__) for method in own)


def _code(code: types.CodeType) -> Any:
    consts = tuple(_code(const) if isinstance(const, types.CodeType) else repr(const) for const in code.co_consts)
    return code.co_name, code.co_code, code.co_names, consts


def _named(value: Any) -> Any:
    """A class or function by its name, where that is enough."""
    module = value.__module__ or ""
    registered = keras.saving.get_registered_name(value) != value.__name__
    is_known = module.split(".")[0] in ("keras", "pineat_tf", "tensorflow", "numpy", "builtins")
    is_whole = "<" not in value.__qualname__ and not getattr(value, "__closure__", None)
    if isinstance(value, type):
        return class_content(value)
    if not is_whole or not (is_known or registered):
        raise ValueError(_no_identity(value))
    return f"{module}.{value.__qualname__}", None if is_known else _code(value.__code__)


def _no_identity(value: Any) -> str:
    return (
        "A function or object must say what it consists of, so that it can be told from others. Received: "
        f"{value!r}. Write it as a frozen dataclass whose fields are its settings, or register a function of a module "
        "by `pineat_tf.serialization.serializable`."
    )


def _unnamed(config: Any, names: Mapping[str, str]) -> Any:
    """The config with layers by number, without what differs from one building of a network to the next."""
    if isinstance(config, Mapping):
        left_out = ("compile_config", "shared_object_id", "build_config")
        return {key: _unnamed(part, names) for key, part in sorted(config.items()) if key not in left_out}
    if isinstance(config, (list, tuple)):
        return [_unnamed(part, names) for part in config]
    if isinstance(config, str):
        return names.get(config, config)
    if isinstance(config, (bool, int, float)) or config is None:
        return config
    return _unnamed(keras.saving.serialize_keras_object(config), names)
