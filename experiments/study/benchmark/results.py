"""From raw timings to medians, ratios, a table and a picture."""

import contextlib
import dataclasses
import importlib.metadata
import pathlib
import statistics
from collections.abc import Iterable, Sequence

from experiments import files
from experiments.study.benchmark import counts, worker
from experiments.study.benchmark.work import EVALUATION, EVALUATION_BATCH, MATMUL, TRAINING, Work
from pineat_tf.report import markdown_table


def summarised(timings: Iterable[dict], matmul: dict[str, float]) -> list[dict]:
    """One row for each engine, task, width and precision.

    Args:
        timings: `{"engine", "task", "width", "precision", "updates_per_second": [one a repeat]}`.
        matmul: GFLOP/s of a large matrix product, by precision, measured in the same run.

    Returns:
        The rows, with images and updates a second (median, smallest, largest), the ratio to the plain `tf.function`
        loop and to the fastest PyTorch of the same width and precision (medians of the ratios within each
        repeat), and for training the rate in GFLOP/s by counted operations and its share of `matmul`.
    """
    rows = []
    timings = [timing for timing in timings if timing["task"] != MATMUL]
    for timing in timings:
        alike = [t for t in timings if all(t[key] == timing[key] for key in ("width", "precision"))]
        rate, size = timing["updates_per_second"], batch_size(timing["task"])
        row = {key: timing[key] for key in ("engine", "task", "width", "precision")}
        row |= {
            "updates_per_second": statistics.median(rate),
            "images_per_second": round(size * statistics.median(rate), 1),
            "images_per_second_range": [round(size * min(rate), 1), round(size * max(rate), 1)],
            "ratio_to_tf_function": _ratio(timing, [t for t in alike if t["engine"] == "tf.function"]),
            "ratio_to_fastest_pytorch": _ratio(timing, [t for t in alike if t["engine"].startswith("pytorch")]),
        }
        if timing["task"] in TRAINING and timing["engine"] == "pineat_tf":
            config = worker.config_of(timing["task"], timing["width"], timing["precision"])
            gflops = counts.by_formula(config).flops * row["images_per_second"] / 1e9
            row |= {"gflops": round(gflops, 1), "share_of_matmul": round(gflops / matmul[timing["precision"]], 3)}
        rows.append(row)
    return rows


def batch_size(task: str) -> int:
    """How many images one update or one prediction of the task has."""
    return Work.batch_size if task in TRAINING else EVALUATION_BATCH


def costs() -> list[dict]:
    """Gradient passes and operations of an update of each training task at width 1: counted and by the formula."""
    rows = []
    for task in TRAINING:
        config = dataclasses.replace(worker.config_of(task, 1, "float32"), batch_size=4)
        counted, formula = counts.counted(config), counts.by_formula(config)
        rows.append(
            {
                "task": task,
                "gradient_passes": counted.gradient_passes,
                "gradient_passes_formula": formula.gradient_passes,
                "mflops": round(counted.flops / 1e6, 2),
                "mflops_formula": round(formula.flops / 1e6, 2),
            }
        )
    return rows


def to_markdown(rows: Sequence[dict]) -> str:
    """The rows as a Markdown table, the fastest engine of each task first."""
    titles = ("width", "precision", "task", "engine", "images/s", "/ tf.function", "/ PyTorch", "share of matmul")
    table = [titles]
    order = {task: place for place, task in enumerate([*TRAINING, *EVALUATION])}
    key = lambda row: (row["width"], row["precision"], order[row["task"]], -row["images_per_second"])  # noqa: E731
    for row in sorted(rows, key=key):
        ratios = [row["ratio_to_tf_function"], row["ratio_to_fastest_pytorch"], row.get("share_of_matmul")]
        cells = [row["width"], row["precision"], row["task"], row["engine"], f"{row['images_per_second']:,.0f}"]
        cells += ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        table.append([str(cell) for cell in cells])
    return markdown_table(table)


def write_picture(path: str | pathlib.Path, rows: Sequence[dict]) -> None:
    """Bars of PGD training speed, one panel for each width and precision."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in rows if row["task"] == "pgd original"]
    panels = sorted(
        {(row["width"], row["precision"]) for row in rows}, key=lambda panel: (panel[0], panel[1] != "float32")
    )
    lines = max(1, len({width for width, _ in panels}))
    columns = max(1, -(-len(panels) // lines))
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(5 * columns, 2.6 * lines), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, panel in zip(axes.flat, panels):
        bars = sorted((r for r in rows if (r["width"], r["precision"]) == panel), key=lambda r: r["images_per_second"])
        colours = ["#c44e52" if row["engine"] == "pineat_tf" else "#8c9bb0" for row in bars]
        drawn = axis.barh([r["engine"] for r in bars], [r["images_per_second"] for r in bars], color=colours)
        axis.bar_label(drawn, fmt="{:,.0f}", padding=3)
        axis.margins(x=0.15)
        axis.set_title(f"width {panel[0]}, {panel[1]}", loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("images a second, PGD-8 adversarial training, batches of 100")
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    pyplot.close(figure)


def versions() -> dict[str, str]:
    """Versions of the libraries that took part."""
    names = ("tensorflow", "keras", "torch", "adversarial-robustness-toolbox", "foolbox", "cleverhans", "torchattacks")
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _ratio(timing: dict, others: Sequence[dict]) -> float | None:
    """The median, over the repeats, of this rate over the best of the others' at the same task."""
    rates = [other["updates_per_second"] for other in others if other["task"] == timing["task"]]
    if not rates:
        return None
    return statistics.median(own / max(at_once) for own, *at_once in zip(timing["updates_per_second"], *rates))
