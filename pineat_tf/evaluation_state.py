"""The state of an evaluation in a file that is whole at any moment and that no other evaluation takes up."""

import hashlib
import json
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from pineat_tf.files import replacing

__all__ = ["EvaluationState"]

_PROBE = 16  # images of which the logits are kept
_TOLERANCE = 1e-2


class EvaluationState:
    """The stage that is reached and who is fooled.

    Args:
        path: the file, or None to keep nothing.
        fingerprint: what tells evaluations apart.
        logits: of the first natural images: networks that differ by what no config says give others.
        num_radii: radii without 0.
        num_attacks: attacks of the ensemble.
        save_seconds: how long results may go unwritten.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        fingerprint: str,
        logits: np.ndarray,
        *,
        num_radii: int,
        num_attacks: int,
        save_seconds: float,
    ) -> None:
        self.path, self.fingerprint = pathlib.Path(path) if path else None, fingerprint
        self.probe = np.asarray(logits[:_PROBE], np.float64)
        self.stages = (num_radii, num_attacks)
        self.stage, self.batches = (0, 0), 0
        self.save_seconds, self._saved = save_seconds, time.monotonic()

    def restore(self, fooled_at: np.ndarray, fooled_by: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes up the file, if there is one, and returns who is fooled.

        Raises:
            ValueError: if the file is no state, is damaged, or is of another evaluation.
        """
        if not self.path or not self.path.exists():
            return fooled_at, fooled_by
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            content = kept["content"]
            if kept["checksum"] != _checksum(content):
                raise ValueError("its checksum does not fit")
            probe, same = np.array(content["probe"], np.float64), content["fingerprint"] == self.fingerprint
            if same:
                fooled_at, fooled_by = self._checked(content, len(fooled_at))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"{str(self.path)!r} is no state of an evaluation: {error}. Remove it.") from error
        same = same and probe.shape == self.probe.shape
        if not same or not np.allclose(probe, self.probe, rtol=_TOLERANCE, atol=_TOLERANCE):
            raise ValueError(
                f"{str(self.path)!r} is of an evaluation of other weights, images, labels, attacks or radii. Remove it "
                "to start over, or name another file."
            )
        (radius, rank), self.batches = content["stage"], content["batches"]
        self.stage = (radius, rank)
        return fooled_at, fooled_by

    def _checked(self, content: dict[str, Any], num: int) -> tuple[np.ndarray, np.ndarray]:
        """Who is fooled, if all entries are whole numbers in their ranges: a checksum can be made for any content."""
        radii, attacks = self.stages
        radius, rank = content["stage"]
        whole = [*content["fooled_at"], *content["fooled_by"], radius, rank, content["batches"]]
        if any(type(number) is not int for number in whole):
            raise ValueError("its entries are no whole numbers")
        at, by = (np.array(content[name], np.int64) for name in ("fooled_at", "fooled_by"))
        in_range = len(at) == len(by) == num and at.min() >= -1 and at.max() <= radii
        in_range = in_range and by.min() >= -1 and by.max() < attacks and bool(np.all((by >= 0) == (at > 0)))
        if not (in_range and 1 <= radius <= radii and 0 <= rank <= attacks and content["batches"] >= 0):
            raise ValueError("its entries are out of range")
        return at, by

    def keep(self, fooled: Sequence[np.ndarray], stage: tuple[int, int], batches: int, now: bool = False) -> None:
        """Writes the file, if it is time."""
        if not self.path or not (now or time.monotonic() - self._saved > self.save_seconds):
            return
        content = {
            "fingerprint": self.fingerprint,
            "probe": self.probe.tolist(),
            "stage": list(stage),
            "batches": batches,
            "fooled_at": fooled[0].tolist(),
            "fooled_by": fooled[1].tolist(),
        }
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps({"checksum": _checksum(content), "content": content}), encoding="utf-8")
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Removes the file."""
        if self.path:
            self.path.unlink(missing_ok=True)


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
