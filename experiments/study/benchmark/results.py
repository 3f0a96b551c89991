"""From raw timings to medians, ratios, a table and a picture."""

import contextlib
import dataclasses
import importlib.metadata
import pathlib
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from experiments import files
from experiments.study.benchmark import counts, worker
from experiments.study.benchmark.work import EVALUATION, EVALUATION_BATCH, MATMUL, METHODS, TRAINING, Work
from pineat_tf.report import markdown_table

_KIND = ["width", "precision", "task"]
_LIBRARIES = ("tensorflow", "keras", "torch", "adversarial-robustness-toolbox", "foolbox", "cleverhans", "torchattacks")


def summarised(timings: Sequence[dict], matmul: dict[str, float]) -> list[dict]:
    """One row for each engine, task, width and precision.

    Args:
        timings: `{"engine", "task", "width", "precision", "updates_per_second": [one a repeat]}`.
        matmul: GFLOP/s of a large matrix product, by precision, measured in the same run.

    Returns:
        The rows, with images and updates a second (median, smallest, largest), the ratio to the plain `tf.function`
        loop and to the fastest PyTorch of the same width and precision (medians of the ratios within each
        repeat), and for training the rate in GFLOP/s by counted operations and its share of `matmul`.
    """
    rates = pd.DataFrame(
        [(*(t[name] for name in (*_KIND, "engine")), turn, rate)
         for t in timings if t["task"] != MATMUL for turn, rate in enumerate(t["updates_per_second"])],
        columns=[*_KIND, "engine", "turn", "rate"],
    )  # fmt: skip
    for name, others in (
        ("tf", rates["engine"] == "tf.function"),
        ("torch", rates["engine"].str.startswith("pytorch")),
    ):
        best = rates[others].groupby([*_KIND, "turn"])["rate"].max().rename(name)
        rates = rates.join(best, on=[*_KIND, "turn"])
    rows = []
    for (engine, task, width, precision), turns in rates.groupby(["engine", "task", "width", "precision"], sort=False):
        size, rate = batch_size(task), turns["rate"]
        row = {"engine": engine, "task": task, "width": width, "precision": precision}
        row |= {
            "updates_per_second": float(rate.median()),
            "images_per_second": round(size * float(rate.median()), 1),
            "images_per_second_range": [round(size * float(rate.min()), 1), round(size * float(rate.max()), 1)],
            "ratio_to_tf_function": _median(rate / turns["tf"]),
            "ratio_to_fastest_pytorch": _median(rate / turns["torch"]),
        }
        if task not in EVALUATION and engine == "pineat_tf":
            flops = counts.by_formula(worker.config_of(task, width, precision)).flops
            gflops = flops * row["images_per_second"] / 1e9
            row |= {"gflops": round(gflops, 1), "share_of_matmul": round(gflops / matmul[precision], 3)}
        rows.append(row)
    return rows


def batch_size(task: str) -> int:
    """How many images one update or one prediction of the task has."""
    return EVALUATION_BATCH if task in EVALUATION else Work.batch_size


def costs() -> list[dict]:
    """Gradient passes and operations of an update of each training task at width 1: counted and by the formula."""
    rows = []
    for task in TRAINING:
        config = dataclasses.replace(worker.config_of(task, 1, "float32"), batch_size=4)
        row: dict = {"task": task}
        for suffix, found in (("", counts.counted(config)), ("_formula", counts.by_formula(config))):
            row[f"gradient_passes{suffix}"] = found.gradient_passes
            row[f"mflops{suffix}"] = round(found.flops / 1e6, 2)
        rows.append(row)
    return rows


def to_markdown(rows: Sequence[dict]) -> str:
    """The rows as a Markdown table, the fastest engine of each task first."""
    order = {task: place for place, task in enumerate([*TRAINING, *METHODS, *EVALUATION])}
    table = [("width", "precision", "task", "engine", "images/s", "/ tf.function", "/ PyTorch", "share of matmul")]
    for row in sorted(rows, key=lambda r: (r["width"], r["precision"], order[r["task"]], -r["images_per_second"])):
        ratios = [row["ratio_to_tf_function"], row["ratio_to_fastest_pytorch"], row.get("share_of_matmul")]
        cells = [row["width"], row["precision"], row["task"], row["engine"], f"{row['images_per_second']:,.0f}"]
        table.append([*map(str, cells), *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios)])
    return markdown_table(table)


def write_picture(path: str | pathlib.Path, rows: Sequence[dict]) -> None:
    """Bars of PGD training speed, one panel for each width and precision."""
    frame = pd.DataFrame(
        [row for row in rows if row["task"] == "pgd original"], columns=[*_KIND, "engine", "images_per_second"]
    )
    panels = sorted(frame.groupby(["width", "precision"]), key=lambda one: (one[0][0], one[0][1] != "float32"))
    lines = max(1, frame["width"].nunique())
    columns = max(1, -(-len(panels) // lines))
    figure = Figure(figsize=(5 * columns, 2.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flat
    for ((width, precision), bars), axis in zip(panels, axes):
        bars = bars.sort_values("images_per_second", kind="stable")
        colours = ["#c44e52" if engine == "pineat_tf" else "#8c9bb0" for engine in bars["engine"]]
        axis.bar_label(axis.barh(bars["engine"], bars["images_per_second"], color=colours), fmt="{:,.0f}", padding=3)
        axis.margins(x=0.15)
        axis.set_title(f"width {width}, {precision}", loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes:  # those that are left
        axis.set_visible(False)
    figure.supxlabel("images a second, PGD-8 adversarial training, batches of 100")
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def versions() -> dict[str, str]:
    """Versions of the libraries that took part."""
    found = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _median(ratios: pd.Series) -> float | None:
    return None if ratios.isna().any() else float(ratios.median())
