"""Strategies in Keras' files: how a frozen dataclass becomes a config and comes back."""

import dataclasses
from typing import Any, TypeVar

import keras

T = TypeVar("T")


def serializable(target: T) -> T:
    """Registers a class or function, so that `.keras` files may name it; a decorator.

    A dataclass gets `get_config` and `from_config`, which hold its fields. Fields may be numbers, strings, tuples of
    these, and whatever is registered itself. A class that is no dataclass brings both methods along.

    Example:
        >>> @serializable
        ... @dataclasses.dataclass(frozen=True)
        ... class LinfBall:
        ...     epsilon: float
        >>> LinfBall(0.1).get_config()
        {'epsilon': 0.1}
    """
    if dataclasses.is_dataclass(target):
        target.get_config = _get_config
        target.from_config = classmethod(_from_config)
    return keras.saving.register_keras_serializable(package="pineat_tf")(target)


def _get_config(self) -> dict[str, Any]:
    """The fields, as `from_config` takes them."""
    fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    return {name: keras.saving.serialize_keras_object(value) for name, value in fields.items()}


def _from_config(cls: type[T], config: dict[str, Any]) -> T:
    """The strategy of these fields."""
    return cls(**{name: _as_tuple(keras.saving.deserialize_keras_object(value)) for name, value in config.items()})


def _as_tuple(value: Any) -> Any:
    """JSON knows lists only, where the fields of a frozen dataclass are tuples."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
