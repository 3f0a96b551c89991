"""Records of finished runs: the contents of their metrics.json, found again by their flags."""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Iterator, Sequence

from experiments import files
from experiments.config import ExperimentConfig

WITHOUT_EFFECT = ("output_dir", "overwrite", "resume", "data_dir", "paper_dataset", "export", "checkpoint_seconds")
"""Flags that change no figure: a run is known by the others."""
_FIGURES = (
    "a_train", "a_test", "r_train", "r_test", "p_e_nat", "p_e_adv", "p_max", "gap_nat", "gap_adv", "noise_floor.mean",
    "noise_floor.upper_95", "seconds.training", "cost.gradient_passes", "cost.forward_units", "data.num_members",
    "data.num_non_members", "flags.seed", "flags.batch_size",
)  # fmt: skip


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
        """The record of a run with the same flags, or None."""
        return self._by_key.get(key(config.to_dict()))

    def add(self, name: str, metrics: dict) -> None:
        """Keeps the contents of a metrics.json in a file of this name and a few letters that tell its flags."""
        its_key = key(metrics["flags"])
        digest = hashlib.sha256(its_key.encode()).hexdigest()[:8]
        self.path.mkdir(parents=True, exist_ok=True)
        text = json.dumps(metrics, allow_nan=False, separators=(",", ":"))
        files.write_text(self.path / f"{name}-{digest}.json", text + "\n")
        self._by_key[its_key] = metrics

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
        record = json.loads(path.read_text(encoding="utf-8"))
        _check(record)
    except ValueError as error:
        raise ValueError(
            f"{str(path)!r} is no record of a run: {error}. Move it elsewhere; records are written by runs and sweeps."
        ) from error
    return record


def _check(record: object) -> None:
    for name in _FIGURES:
        value = record
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"its {name} is no finite number" if value is not None else f"it lacks {name}")
    if not isinstance(record.get("versions"), dict):
        raise ValueError("it lacks versions")


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
