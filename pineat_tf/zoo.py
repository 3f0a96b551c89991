"""Trained networks with a card each: what was measured of them, how they were made, and what they are not good for."""

import hashlib
import json
import os
import pathlib
from typing import Any

import keras

from pineat_tf.checks import check_choice

__all__ = ["DIRECTORY", "card", "list", "load"]

DIRECTORY = "PINEAT_TF_ZOO"
"""The environment variable that names the folder of networks, where it is not the folder `zoo` of a clone."""


def list(*, directory: str | os.PathLike[str] | None = None) -> tuple[str, ...]:
    """Returns the names of the networks that there are, in the order of the alphabet.

    Args:
        directory: of the networks and cards; None for what the environment variable `PINEAT_TF_ZOO` names, else the
            folder `zoo` of the clone that the library is used from. An installed wheel brings no networks.

    Raises:
        ValueError: if there is no such folder.

    Example:
        >>> "digits/pineat-1-1" in pt.zoo.list()
        True
    """
    folder = _folder(directory)
    cards = (path for path in folder.rglob("*.json") if path.with_suffix(".keras").exists())
    return tuple(sorted(path.relative_to(folder).with_suffix("").as_posix() for path in cards))


def card(name: str, *, directory: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Reads what is known of a network.

    Args:
        name: one of `list()`.
        directory: as for `list`.

    Returns:
        "sentence" (what it is), "data", "training" (flags, seed, cost), "threat", "figures" (by the names of
        `Report.to_dict`, each "value" with the ends "low" and "high" of its 95 % interval), "noise_floor", "robustness"
        (`Robustness.to_dict()`), "shadow" (attackers with shadow models, None where none are on record), "check" (for
        tests), "licence", "limits", "versions" and "file".

    Raises:
        ValueError: if there is no network of this name, or the file is no card.

    Example:
        >>> figures = pt.zoo.card("digits/pineat-1-1")["figures"]
        >>> figures["r_test"]["low"] < figures["r_test"]["value"] < figures["r_test"]["high"]
        True
    """
    path = _path(name, ".json", directory)
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found["file"]["sha256"]  # noqa: B018 (raises if it is no card)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} must be a card. Received: a file without {error}. Fetch it again.") from error
    return found


def load(name: str, *, directory: str | os.PathLike[str] | None = None) -> keras.Model:
    """Loads a network, in Keras' safe mode and without an optimizer.

    Args:
        name: one of `list()`.
        directory: as for `list`.

    Returns:
        The network, from images in the range of its card to logits, in float32.

    Raises:
        ValueError: if there is no network of this name, or its file is not the one that its card speaks of.

    Example:
        >>> pt.zoo.load("digits/pineat-1-1").output_shape
        (None, 10)
    """
    path, stated = _path(name, ".keras", directory), card(name, directory=directory)["file"]["sha256"]
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != stated:
        raise ValueError(
            f"{str(path)!r} must be the file that its card was made of. Received: a file of SHA-256 {found[:12]}... in "
            f"place of {stated[:12]}... . Fetch both again."
        )
    network: keras.Model = keras.saving.load_model(path, compile=False, safe_mode=True)
    return network


def _path(name: str, suffix: str, directory: str | os.PathLike[str] | None) -> pathlib.Path:
    check_choice("name", name, list(directory=directory))
    return _folder(directory) / f"{name}{suffix}"


def _folder(directory: str | os.PathLike[str] | None) -> pathlib.Path:
    clone = pathlib.Path(__file__).parents[1] / "zoo"
    folder = pathlib.Path(directory or os.environ.get(DIRECTORY) or clone).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"`directory` must be a folder of networks and cards. Received: {str(folder)!r}, which is none. The wheel "
            f"brings no networks, a clone of the repository does: name its folder `zoo` here or in {DIRECTORY}."
        )
    return folder
