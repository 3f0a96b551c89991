"""Finished runs as one tidy frame, a row a run, kept in a CSV file: tables, pictures and pages are made from it."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import filelock
import pandas as pd

from experiments import files, method
from experiments.config import ExperimentConfig, names
from pineat_tf.membership import noise_floor
from pineat_tf.report import SCHEMA_VERSION

METRICS = "metrics.json"
"""The file of a run's figures, in its folder."""
WITHOUT_EFFECT = names(scope="run")
"""Flags that change no figure: a run is known by the others."""

SHARES = ("a_train", "a_test", "r_train", "r_test", "p_e_nat", "p_e_adv", "p_max", "gap_nat", "gap_adv",
          "noise_floor.mean", "noise_floor.upper_95")  # fmt: skip
_COUNTS = ("cost.gradient_passes", "cost.forward_units", "cost.updates", "data.num_members", "data.num_non_members")
_TEXTS = ("group", "label", "data.name", "data.fingerprint")
_FLAGS = {field.name: field.default for field in dataclasses.fields(ExperimentConfig)}
_BEFORE = _FLAGS | {"pools": "split"}  # what runs had before there was the flag
_NOT_KEPT = ("output_dir", "overwrite", "resume", "seed")  # the seed has no default: a run without it is none
_BATCH = 100  # images; passes of tables are over so many each, whatever the batches
_MOST = 1e18
_LARGEST_FILE = 1 << 28  # bytes


class Runs:
    """The finished runs of a CSV file, which several sweeps may share: one finds what another has done.

    Args:
        path: the file; made when the first run is added.

    Raises:
        ValueError: if it is no file of runs.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        self._runs = _stored(self.path)

    def find(self, config: ExperimentConfig) -> dict[str, Any] | None:
        """The run with the same flags and data, or None; data that are not here count as the same."""
        run = self._runs.get(key(config.to_dict()))
        recorded = run and run.get("data.fingerprint")
        if recorded:
            with contextlib.suppress(ValueError, OSError):
                return run if method.data_fingerprint(config) == recorded else None
        return run

    def add(self, group: str, label: str, metrics: dict) -> None:
        """Keeps the contents of a metrics.json, beside what other processes have added meanwhile."""
        run = {"group": group, "label": label, **flat(metrics)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{self.path}.lock"):
            self._runs = _stored(self.path) | {key(flags_of(run)): run}
            write(self.path, list(self._runs.values()))

    def check_writable(self) -> None:
        """Raises `OSError` if runs could not be kept, and makes the folder."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        files.check_replaceable(self.path)

    def __len__(self) -> int:
        return len(self._runs)


def tidy(runs: Sequence[Mapping[str, Any]], configs: Sequence[ExperimentConfig]) -> pd.DataFrame:
    """The frame that tables are made from.

    Args:
        runs: each with its group and label.
        configs: those of the runs.

    Returns:
        A row a run, with all that is recorded of it and "config", "seed", "title" (group and label), "gap" (of the gap
        attack by which it leaks more), "minutes" of training, and passes over 100 images each: "gradient_passes" and
        "forwards". Its noise floor is that of P_MAX.
    """
    frame = pd.DataFrame([{"v_test": math.nan, "epsilon_spent": math.nan, **run} for run in runs])
    if frame.empty:
        return frame
    images = frame["flags.batch_size"] / _BATCH
    sizes = zip(frame["data.num_members"], frame["data.num_non_members"])
    floors = pd.DataFrame([noise_floor(*map(int, pair), audits=2) for pair in sizes], index=frame.index)
    return frame.assign(
        **{f"noise_floor.{name}": floors[name] for name in floors},
        config=list(configs),
        seed=[config.seed for config in configs],
        title=[f"{run['group']} {run['label']}".strip() for run in runs],
        gap=frame[["gap_nat", "gap_adv"]].max(axis=1),
        minutes=frame["seconds.training"] / 60,
        gradient_passes=frame["cost.gradient_passes"] * images,
        forwards=frame["cost.forward_units"] * images,
    )


def read_metrics(path: pathlib.Path) -> dict:
    """Reads the metrics.json of a run.

    Raises:
        ValueError: if the file is none, with the field that is wrong.
    """
    with _told_of(path):
        metrics = files.read_json(path)
        if not isinstance(metrics, dict):
            raise ValueError(f"it is {type(metrics).__name__} in place of an object")
        _check(flat(metrics))
        return metrics


def read_csv(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads a file of runs.

    Raises:
        ValueError: if the file is none, with the line and the field that is wrong.
    """
    with _told_of(path):
        if not path.is_file():
            raise ValueError("it is not a file")
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError(f"it has more than {_LARGEST_FILE} bytes")
        try:
            cells = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8", index_col=False)
        except pd.errors.EmptyDataError:
            raise ValueError("it is empty") from None
        missing = [name for name in ("group", "label", *SHARES) if name not in cells]
        if missing:
            raise ValueError(f"it lacks {missing[0]}")
        runs = []
        for number, line in enumerate(cells.to_dict("records"), start=2):
            try:
                run = {name: _parsed(name, text) for name, text in line.items() if text}
                _check(run)
                runs.append({"group": line["group"], "label": line["label"], **run})
            except ValueError as error:
                raise ValueError(f"in line {number} {error}") from error
        return [_with_defaults(run) for run in runs]


def write(path: pathlib.Path, runs: Sequence[Mapping[str, Any]]) -> None:
    """Writes a file of runs, whole or not at all; numbers read back as the very same."""
    frame = pd.DataFrame(list(runs)).map(lambda value: json.dumps(value) if isinstance(value, (tuple, list)) else value)
    with files.replacing(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def flat(metrics: dict) -> dict[str, Any]:
    """The contents of a metrics.json as one row: names of columns with dots, no nested values but lists of plain ones.

    Args:
        metrics: as it reads back from the file.
    """
    plain = {name: value for name, value in metrics.items() if name != "membership"}
    (row,) = pd.json_normalize(plain, sep=".").to_dict("records")
    for one in metrics.get("membership") or ():
        of_signal = {name: value for name, value in one.items() if name not in _ABOUT}
        rates = {f"{rate['fpr']:g}": {n: v for n, v in rate.items() if n != "fpr"} for rate in one["tpr_at_fpr"]}
        nested = {one["queries"]: {one["signal"]: of_signal | {"tpr_at_fpr": rates}}}
        (found,) = pd.json_normalize({"membership": nested}, sep=".").to_dict("records")
        row |= found
    return _with_defaults(row)


_ABOUT = ("signal", "queries", "calibration", "num_members", "num_non_members", "noise_floor", "tpr_at_fpr")


def flags_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of a run by name."""
    return {name: run[f"flags.{name}"] for name in _FLAGS if f"flags.{name}" in run}


def config_of(run: Mapping[str, Any]) -> ExperimentConfig:
    """The flags of a run that decide figures, and where its data were.

    Raises:
        ValueError: if there can be no such run.
    """
    return ExperimentConfig(**deciding(flags_of(run)), data_dir=run.get("flags.data_dir", ""))


def deciding(flags: Mapping[str, Any], *, without: Sequence[str] = ()) -> dict[str, Any]:
    """The flags that decide figures, but for those in `without`; one that is missing had what runs had before it."""
    left_out = (*WITHOUT_EFFECT, *without)
    values = {name: flags.get(name, default) for name, default in _BEFORE.items() if name not in left_out}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def key(flags: Mapping[str, Any], *, without: Sequence[str] = ()) -> str:
    """What tells runs apart: the flags that decide figures, and which data of its owner's a run had.

    Args:
        flags: of a run, by name.
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


def is_number(value: object) -> bool:
    """Whether it is a finite number that fits in 64 bits."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < 1 << 63 if isinstance(value, int) else math.isfinite(value)


def _stored(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    return {key(flags_of(run)): run for run in read_csv(path)} if os.path.lexists(path) else {}


@contextlib.contextmanager
def _told_of(path: pathlib.Path):
    """Names the file in what goes wrong with its contents."""
    try:
        yield
    except (ValueError, IsADirectoryError, KeyError, OverflowError, TypeError, AttributeError, RecursionError) as error:
        why = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{str(path)!r} is no record of runs: {why}. Move it elsewhere; such files are written by runs and sweeps."
        ) from error


def _with_defaults(run: dict[str, Any]) -> dict[str, Any]:
    """The run without what is null, its lists as tuples, with the default of each flag that it does not know."""
    kept = {name: value for name, value in run.items() if value is not None or name.startswith("flags.")}
    run = {name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()}
    missing = {name: value for name, value in _BEFORE.items() if name not in _NOT_KEPT and f"flags.{name}" not in run}
    return run | {f"flags.{name}": value for name, value in missing.items()}


def _parsed(name: str, text: str) -> Any:
    """The value of a cell; text where it is nothing else."""
    default = _FLAGS.get(name.removeprefix("flags.")) if name.startswith("flags.") else 0.0
    if name in _TEXTS or name.startswith(("versions.", "machine.")) or isinstance(default, str):
        return text
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        if isinstance(default, tuple):
            return json.loads(text)
        value = int(text) if text.lstrip("-").isdecimal() else float(text)
        return int(value) if isinstance(default, int) and value == int(value) else value  # as pandas may write it
    except (ValueError, OverflowError, RecursionError):
        return text


def _check(run: Mapping[str, Any]) -> None:
    """Raises `ValueError`, which names the field, unless all that tables, pages and comparisons read is there."""
    verified, spent = (tuple({one} & run.keys()) for one in ("v_test", "epsilon_spent"))
    for name in (*SHARES, *verified, *spent, *_COUNTS, "seconds.training", "flags.seed", "flags.batch_size"):
        value = run.get(name)
        if not is_number(value):
            raise ValueError(f"its {name} is no finite number" if value is not None else f"it lacks {name}")
        if name in (*SHARES, *verified) and not 0 <= value <= 1:
            raise ValueError(f"its {name} is no share")
        if name in _COUNTS and not 0 < value < _MOST or name == "seconds.training" and not 0 <= value < _MOST:
            raise ValueError(f"its {name} is out of range")
    version = run.get("schema_version", 1)
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise ValueError(f"its schema_version is none of 1 .. {SCHEMA_VERSION}")
    versions = [value for name, value in run.items() if name.startswith("versions.")]
    if not versions or not all(isinstance(version, str) for version in versions):
        raise ValueError("it lacks versions")
    if not isinstance(run.get("data.name"), str):
        raise ValueError("it lacks data.name")
    for name, default in _FLAGS.items():
        if not _is_like(run.get(f"flags.{name}", default), default):
            raise ValueError(f"its flags.{name} is no value of that flag")


def _is_like(value: object, default: object) -> bool:
    """Whether a value can be that of a flag with this default; JSON has lists for tuples, and 1 for 1.0."""
    if isinstance(default, tuple):
        kind = str if any(isinstance(item, str) for item in default) else float
        return isinstance(value, (list, tuple)) and all(_is_like(item, kind()) for item in value)
    if isinstance(default, (int, float)) and not isinstance(default, bool):
        return is_number(value) and (isinstance(default, float) or isinstance(value, int))
    return isinstance(value, type(default))
