"""The records of the study, and how its page prints what they say."""

import functools
import pathlib
import re

import numpy as np
import pandas as pd

from experiments.shadow import outputs
from experiments.statistics import Difference, difference, holm
from experiments.study.records import RESULTS, SCARCE, finished, sweep

ROOT = pathlib.Path(__file__).parents[1]
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
    return finished(*files, "--overlay=study.flags", "--seeds=0-4", folder="study_fmnist")


@functools.cache
def cifar10() -> pd.DataFrame:
    return finished("--flagfile=table1_cifar10.flags", "--overlay=study_cifar10.flags", folder="study_cifar10")


certified = functools.partial(sweep, "certified_fmnist")
universal = functools.partial(sweep, "universal_fmnist", *SCARCE)
factorial = functools.partial(sweep, "factorial_fmnist", *SCARCE)
candidates = functools.partial(sweep, "candidates_fmnist", *SCARCE)
candidates_cifar10 = functools.partial(sweep, "candidates_cifar10", "study_cifar10.flags", "scarce_cifar10.flags")
best = functools.partial(sweep, "best_fmnist", *SCARCE)
balanced = functools.partial(sweep, "balanced_fmnist", *SCARCE)
scale = functools.partial(sweep, "scale_fmnist", "study.flags")
companions_on_top = functools.partial(sweep, "companions_fmnist", *SCARCE)
scaled = functools.partial(sweep, "scaled_fmnist", *SCARCE)
scaled_cifar10 = functools.partial(sweep, "scaled_cifar10", "study_cifar10.flags", "residual_cifar10.flags")
best_cifar10 = functools.partial(sweep, "best_cifar10", "study_cifar10.flags", "residual_cifar10.flags")
widths = functools.partial(sweep, "widths_fmnist", *SCARCE)
transfer = functools.partial(sweep, "transfer_digits", *SCARCE)


@functools.cache
def on_test_split(folder: str) -> pd.DataFrame:
    """Accuracy and robust accuracy of the networks of a sweep on the official test split."""
    return pd.read_csv(RESULTS / folder / "test_split.csv")


@functools.cache
def shadows(name: str) -> dict[str, outputs.Study]:
    """What a study of shadow models has of each method."""
    folder = RESULTS / name
    return outputs.read((folder if folder.is_dir() else RESULTS / f"{name}_fmnist") / f"{name}.json")


shadow, defences, shadow_best, shadow_balanced, shadow_digits = (
    functools.partial(shadows, name)
    for name in ("shadow", "shadow_defences", "shadow_best", "shadow_balanced", "shadow_digits")
)


def of_networks(studies: dict[str, outputs.Study]) -> pd.DataFrame:
    """The figures of all networks that a study of shadow models trained; networks of one seed have the same half."""
    return pd.DataFrame(
        [{"title": title, "seed": half, **run} for title, one in studies.items() for half, run in enumerate(one.runs)]
    )


def worst(study: outputs.Study) -> str:
    """The query, natural or adversarial, by which RMIA finds more in a method's networks."""
    return max(("natural", "adversarial"), key=lambda queries: np.mean(study.of("RMIA online", queries).values("auc")))


def rmia(study: outputs.Study, figure: str) -> list[float]:
    """What RMIA reaches against each network of a method, by the worse query."""
    return study.of("RMIA online", worst(study)).values(figure)


def short(value: float, digits: int = 4, sign: str = "+") -> str:
    return re.sub(r"^([+-]?)0\.", r"\1.", f"{value:{sign}.{digits}f}")


def interval(difference: Difference) -> str:
    return f"{short(difference.mean)} [{short(difference.low)}, {short(difference.high)}]"


def interval_of_less(difference: Difference) -> str:
    return f"{short(-difference.mean, sign='')} [{short(-difference.high, sign='')}, {short(-difference.low, sign='')}]"


def adjusted(runs: pd.DataFrame, reference: str, figure: str) -> dict[str, float]:
    """The p-values of all other rows against a reference, by Holm."""
    rows = [title for title in runs["title"].unique() if title != reference]
    return dict(zip(rows, holm([difference(runs, title, reference, figure).p_value for title in rows])))


def side(difference: Difference) -> str:
    return "more" if difference.low > 0 else "less" if difference.high < 0 else "open"
