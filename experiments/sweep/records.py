"""Records of finished runs: the contents of their metrics.json, found again by their flags."""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Iterator, Sequence

from experiments import files, method
from experiments.config import ExperimentConfig, names
from pineat_tf.report import SCHEMA_VERSION

WITHOUT_EFFECT = names(scope="run")
"""Flags that change no figure: a run is known by the others."""
_FIGURES = (
    "a_train", "a_test", "r_train", "r_test", "p_e_nat", "p_e_adv", "p_max", "gap_nat", "gap_adv", "noise_floor.mean",
    "noise_floor.upper_95", "seconds.training", "cost.gradient_passes", "cost.forward_units", "cost.updates",
    "data.num_members", "data.num_non_members", "flags.seed", "flags.batch_size",
)  # fmt: skip
_SHARES = _FIGURES[:11]
_COUNTS = ("cost.gradient_passes", "cost.forward_units", "cost.updates", "data.num_members", "data.num_non_members")
_MOST = 1e18


class Records:
    """A folder of JSON files, one a finished run.

    Several sweeps may share it: a run that one has done the other finds, whatever its row is called.

    Args:
        path: the folder; made when the first record is written.

    Raises:
        ValueError: if a file there is no record.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        self._by_key = {key(record["flags"]): record for record in self._stored()}

    def find(self, config: ExperimentConfig) -> dict | None:
        """The record of a run with the same flags and data, or None; data that are not here count as the same."""
        record = self._by_key.get(key(config.to_dict()))
        recorded = record and record["data"].get("fingerprint")
        if recorded:
            with contextlib.suppress(ValueError, OSError):
                return record if method.data_fingerprint(config) == recorded else None
        return record

    def add(self, name: str, metrics: dict) -> None:
        """Keeps the contents of a metrics.json in a file of this name and a few letters that tell its flags."""
        its_key = key(metrics["flags"])
        self.path.mkdir(parents=True, exist_ok=True)
        text = json.dumps(metrics, allow_nan=False, separators=(",", ":"))
        files.write_text(self._file(name, its_key), text + "\n")
        self._by_key[its_key] = metrics

    def check_writable(self, name: str, config: ExperimentConfig) -> None:
        """Raises `OSError` if the record of a run could not be kept."""
        self.path.mkdir(parents=True, exist_ok=True)
        files.check_replaceable(self._file(name, key(config.to_dict())))

    def _file(self, name: str, its_key: str) -> pathlib.Path:
        return self.path / f"{name}-{hashlib.sha256(its_key.encode()).hexdigest()[:8]}.json"

    def __len__(self) -> int:
        return len(self._by_key)

    def _stored(self) -> Iterator[dict]:
        for path in sorted(self.path.glob("*.json")):
            yield read(path)


def read(path: pathlib.Path) -> dict:
    """Reads a record, or the metrics.json of a run.

    Raises:
        ValueError: if the file is none.
    """
    try:
        record = files.read_json(path)
        _check(record)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and not isinstance(error, IsADirectoryError):
            raise
        raise ValueError(
            f"{str(path)!r} is no record of a run: {' '.join(str(error).split())[:300]}. Move it elsewhere; records "
            "are written by runs and sweeps."
        ) from error
    return record


def _check(record: object) -> None:
    """Raises `ValueError`, which names the field, unless all that tables, pages and comparisons read is there."""
    if not isinstance(record, dict):
        raise ValueError(f"it is {type(record).__name__} in place of an object")
    for name in _FIGURES:
        value = _at(record, name)
        if not is_number(value):
            raise ValueError(f"its {name} is no finite number" if value is not None else f"it lacks {name}")
        if name in _SHARES and not 0 <= value <= 1:
            raise ValueError(f"its {name} is no share")
        if name in _COUNTS and not 0 < value < _MOST or name == "seconds.training" and not 0 <= value < _MOST:
            raise ValueError(f"its {name} is out of range")
    version = record.get("schema_version", 1)
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise ValueError(f"its schema_version is none of 1 .. {SCHEMA_VERSION}")
    versions = record.get("versions")
    if not isinstance(versions, dict) or not all(isinstance(version, str) for version in versions.values()):
        raise ValueError("it lacks versions")
    if not isinstance(_at(record, "data.name"), str):
        raise ValueError("it lacks data.name")
    for field in dataclasses.fields(ExperimentConfig):
        if not _is_like(record["flags"].get(field.name, field.default), field.default):
            raise ValueError(f"its flags.{field.name} is no value of that flag")


def _at(record: dict, name: str) -> object:
    """The value at a path of names, None where there is none."""
    value: object = record
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def is_number(value: object) -> bool:
    """Whether it is a finite number that fits in 64 bits."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < 1 << 63 if isinstance(value, int) else math.isfinite(value)


def _is_like(value: object, default: object) -> bool:
    """Whether a value can be that of a flag with this default; JSON has lists for tuples, and 1 for 1.0."""
    if isinstance(default, tuple):
        kind = str if any(isinstance(item, str) for item in default) else float
        return isinstance(value, (list, tuple)) and all(_is_like(item, kind()) for item in value)
    if isinstance(default, (int, float)) and not isinstance(default, bool):
        return is_number(value) and (isinstance(default, float) or isinstance(value, int))
    return isinstance(value, type(default))


def deciding(flags: dict, *, without: Sequence[str] = ()) -> dict:
    """The flags that decide figures, but for those in `without`; what an older record does not know had its default."""
    fields = dataclasses.fields(ExperimentConfig)
    known = {field.name: field.default for field in fields if field.name not in (*WITHOUT_EFFECT, *without)}
    return {name: flags.get(name, default) for name, default in known.items()}


def key(flags: dict, *, without: Sequence[str] = ()) -> str:
    """What tells runs apart: the flags that decide figures, and which data of its owner's a run had.

    Args:
        flags: of a run, as in its metrics.json.
        without: names of flags to leave out, as ("seed",) for what the runs of a row have in common.
    """
    values = deciding(flags, without=without)
    data = data_name(values["dataset"], flags.get("data_dir", ""))
    if data != values["dataset"]:
        values["data"] = data
    return json.dumps(values, sort_keys=True)


def data_name(dataset: str, data_dir: str) -> str:
    """What tells data apart: the name of the place of those that have none of their own."""
    return pathlib.PurePath(data_dir).name or dataset if dataset in ("npz", "image_folder") else dataset
