"""Records of finished runs: the contents of their metrics.json, found again by their flags."""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterator

from experiments import files
from experiments.config import ExperimentConfig

WITHOUT_EFFECT = ("output_dir", "overwrite", "resume", "data_dir", "paper_dataset", "export", "checkpoint_seconds")
"""Flags that change no figure: a run is known by the others."""
_FIGURES = {"flags", "a_test", "r_test", "p_max", "cost", "seconds", "noise_floor"}


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
        self._by_key = {_key(record["flags"]): record for record in self._stored()}

    def find(self, config: ExperimentConfig) -> dict | None:
        """The record of a run with the same flags, or None."""
        return self._by_key.get(_key(config.to_dict()))

    def add(self, name: str, metrics: dict) -> None:
        """Keeps the contents of a metrics.json in a file of this name and a few letters that tell its flags."""
        key = _key(metrics["flags"])
        digest = hashlib.sha256(key.encode()).hexdigest()[:8]
        self.path.mkdir(parents=True, exist_ok=True)
        text = json.dumps(metrics, allow_nan=False, separators=(",", ":"))
        files.write_text(self.path / f"{name}-{digest}.json", text + "\n")
        self._by_key[key] = metrics

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
        if not _FIGURES <= record.keys() or not isinstance(record["flags"], dict):
            raise ValueError("it lacks figures of a run")
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{str(path)!r} is no record of a run: {error}. Move it elsewhere; records are written by runs and sweeps."
        ) from error
    return record


def _key(flags: dict) -> str:
    """What tells runs apart; a flag that an older record does not know had its default."""
    known = ExperimentConfig().to_dict(without=WITHOUT_EFFECT)
    values = {name: flags.get(name, default) for name, default in known.items()}
    if values["dataset"] in ("npz", "image_folder"):  # where the place is what tells data apart
        values["data"] = pathlib.PurePath(flags.get("data_dir", "")).name
    return json.dumps(values, sort_keys=True)
