"""The records of the study, and how its page prints what they say."""

import functools
import pathlib
import re

import pandas as pd

from experiments.shadow import outputs
from experiments.statistics import Difference
from experiments.sweep import plan

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "study" / "results"
RATIOS = ("4/1", "3/1", "2/1", "3/2", "1/1", "2/2", "2/3", "1/2", "1/3", "1/4")
INTERVAL = r"[+-]?\.\d{4} \[[+-]?\.\d{4}, [+-]?\.\d{4}\]"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def words(name: str) -> str:
    return " ".join(read(name).split())


@functools.cache
def fmnist() -> pd.DataFrame:
    """All runs of the study on Fashion-MNIST, under the titles of their rows."""
    files = [f"--flagfile={name}_fmnist.flags" for name in ("table1", "ratios", "ablations", "recipes")]
    return _finished(*files, "--overlay=study.flags", "--seeds=0-4", folder="study_fmnist")


@functools.cache
def cifar10() -> pd.DataFrame:
    return _finished("--flagfile=table1_cifar10.flags", "--overlay=study_cifar10.flags", folder="study_cifar10")


@functools.cache
def certified() -> pd.DataFrame:
    return _finished("--flagfile=certified_fmnist.flags", folder="certified_fmnist")


@functools.cache
def universal() -> pd.DataFrame:
    files = ("--flagfile=universal_fmnist.flags", "--overlay=study.flags,scarce.flags")
    return _finished(*files, folder="universal_fmnist")


@functools.cache
def factorial() -> pd.DataFrame:
    files = ("--flagfile=factorial_fmnist.flags", "--overlay=study.flags,scarce.flags")
    return _finished(*files, folder="factorial_fmnist")


@functools.cache
def best() -> pd.DataFrame:
    files = ("--flagfile=best_fmnist.flags", "--overlay=study.flags,scarce.flags")
    return _finished(*files, folder="best_fmnist")


@functools.cache
def candidates(data: str) -> pd.DataFrame:
    overlays = {"fmnist": "study.flags,scarce.flags", "cifar10": "study_cifar10.flags,scarce_cifar10.flags"}
    files = (f"--flagfile=candidates_{data}.flags", f"--overlay={overlays[data]}")
    return _finished(*files, folder=f"candidates_{data}")


@functools.cache
def transfer() -> pd.DataFrame:
    files = ("--flagfile=transfer_digits.flags", "--overlay=study.flags,scarce.flags")
    return _finished(*files, folder="transfer_digits")


@functools.cache
def on_test_split() -> pd.DataFrame:
    """Accuracy and robust accuracy of the networks of `best` on the official test split."""
    return pd.read_csv(RESULTS / "best_fmnist" / "test_split.csv")


@functools.cache
def shadow_best() -> dict[str, outputs.Study]:
    return outputs.read(RESULTS / "shadow_best_fmnist" / "shadow_best.json")


@functools.cache
def scale() -> pd.DataFrame:
    return _finished("--flagfile=scale_fmnist.flags", "--overlay=study.flags", folder="scale_fmnist")


@functools.cache
def shadow() -> dict[str, outputs.Study]:
    return outputs.read(RESULTS / "shadow_fmnist" / "shadow.json")


@functools.cache
def defences() -> dict[str, outputs.Study]:
    return outputs.read(RESULTS / "shadow_defences_fmnist" / "shadow_defences.json")


def _finished(*arguments: str, folder: str) -> pd.DataFrame:
    return plan.read(["x", *arguments, f"--runs_file={RESULTS}/{folder}/runs.csv"], "").finished()


def short(value: float, digits: int = 4, sign: str = "+") -> str:
    return re.sub(r"^([+-]?)0\.", r"\1.", f"{value:{sign}.{digits}f}")


def interval(difference: Difference) -> str:
    return f"{short(difference.mean)} [{short(difference.low)}, {short(difference.high)}]"


def interval_of_less(difference: Difference) -> str:
    return f"{short(-difference.mean, sign='')} [{short(-difference.high, sign='')}, {short(-difference.low, sign='')}]"


def side(difference: Difference) -> str:
    return "more" if difference.low > 0 else "less" if difference.high < 0 else "open"
