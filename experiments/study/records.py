"""The records of the study: what its sweeps left in the folder of results."""

import functools
import pathlib

import pandas as pd

from experiments.sweep import plan

RESULTS = pathlib.Path(__file__).parent / "results"
SCARCE = "study.flags", "scarce.flags"
"""The overlays of most sweeps."""


@functools.cache
def sweep(name: str, *overlays: str) -> pd.DataFrame:
    """All runs, as `results.tidy`, of a sweep whose flag file and folder of records have the same name."""
    return finished(f"--flagfile={name}.flags", f"--overlay={','.join(overlays)}", folder=name)


def finished(*arguments: str, folder: str) -> pd.DataFrame:
    """The runs in a folder of records that a sweep of these flags has."""
    return plan.read(["", *arguments, f"--runs_file={RESULTS}/{folder}/runs.csv"], "").finished()
