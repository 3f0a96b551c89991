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
        save_seconds: how long results may go unwritten.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        fingerprint: str,
        logits: np.ndarray,
        *,
        save_seconds: float,
    ) -> None:
        self.path, self.fingerprint = pathlib.Path(path) if path else None, fingerprint
        self.probe = np.asarray(logits[:_PROBE], np.float64)
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
            if same:  # the checksum answers for what is in range
                fooled_at, fooled_by = (
                    np.array(content[name], np.int64).reshape(len(fooled_at)) for name in ("fooled_at", "fooled_by")
                )
                (radius, rank), batches = map(int, content["stage"]), int(content["batches"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"{str(self.path)!r} is no state of an evaluation: {error}. Remove it.") from error
        same = same and probe.shape == self.probe.shape
        if not same or not np.allclose(probe, self.probe, rtol=_TOLERANCE, atol=_TOLERANCE):
            raise ValueError(
                f"{str(self.path)!r} is of an evaluation of other weights, images, labels, attacks or radii. Remove it "
                "to start over, or name another file."
            )
        self.stage, self.batches = (radius, rank), batches
        return fooled_at, fooled_by

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
