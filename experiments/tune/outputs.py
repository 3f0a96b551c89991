"""What a search leaves: the tables, pictures and page of a sweep, a recommendation, and flag files."""

import pandas as pd

from experiments import command_line, files, results, statistics
from experiments.config import names
from experiments.sweep import outputs
from experiments.tune import points
from experiments.tune.points import FIGURES
from experiments.tune.search import Search
from pineat_tf.report import markdown_table

NAME = "tune"


def write(search: Search, report: pd.DataFrame | None = None) -> str:
    """Writes what a search has found, and what the runs on the test split say of the recommended settings.

    Args:
        search: with a run of the full length, at least.
        report: of `Search.report`; None before there is one.

    Returns:
        The recommendation, as Markdown.
    """
    plan, found = search.plan, search.found(search.plan.last)
    (best, reason), front = points.recommended(found, plan.limits), points.front(found)
    for old in plan.folder.glob("point-*.flags"):
        old.unlink()
    for point in {one.number: one for one in (*front, best)}.values():
        flags = command_line.to_flags(
            plan.trial(point.config, plan.last), without=(*names(recorded=False), "output_dir", "export")
        )
        files.write_text(
            plan.folder / f"point-{point.number}.flags", f"# Settings #{point.number} of a search.\n{flags}"
        )
    runs = [{**one.run, "group": ("beaten", "on the front")[one in front], "label": f"#{one.number}"} for one in found]
    frame = results.tidy(runs, [one.config for one in found])
    title = f"Settings for {results.data_name(plan.base.dataset, plan.base.data_dir)}"
    frame = frame if report is None else pd.concat([frame, report], ignore_index=True)
    outputs.write(frame, plan.folder, name=NAME, title=title, references=[])
    text = "\n\n".join([f"`point-{best.number}.flags` is recommended. {reason}", *_tables(search, report)])
    files.write_text(plan.folder / "recommendation.md", text + "\n")
    return text


def _tables(search: Search, report: pd.DataFrame | None) -> list[str]:
    plan, found = search.plan, search.found(search.plan.last)
    best, _ = points.recommended(found, plan.limits)
    lines = [("settings", *(FIGURES[name].title for name in best.figures), "keep the limits", "flags that differ")]
    for one in points.ranked(found, plan.limits):
        flags = " ".join(f"--{name}={command_line.text(value)}" for name, value in one.settings.items())
        keeps = "no" if points.missed(one, plan.limits) else "yes"
        lines.append((f"#{one.number}", *(_cell(*item) for item in one.figures.items()), keeps, flags or "none"))
    held_out = (
        "Judged on images that were held out of the training split; no run of the search has had a test image. Each "
        "line is one run, and the best of many runs looks better than it is."
    )
    if report is None:
        return [markdown_table(lines), held_out]
    means = statistics.summary(report, [FIGURES[name].column for name in best.figures]).iloc[0]
    rows = [("figure", f"#{best.number} in the search", "on test images", "95 % interval")]
    for (name, value), one in zip(best.figures.items(), means):
        low, high = (one.low, one.high) if name == "passes" else (max(0.0, one.low), min(1.0, one.high))
        interval = f"{_cell(name, low)} to {_cell(name, high)}"
        rows.append((FIGURES[name].title, _cell(name, value), _cell(name, one.mean), interval))
    excess = points.excess({name: one.mean for name, one in zip(best.figures, means)}, plan.limits)
    broken = ", ".join(f"--{FIGURES[name].limit}" for name, value in excess.items() if value > 0)
    of_report = (
        f"On the test split: {len(report)} trainings with fresh seeds, intervals of Student's t over these. Without a "
        f"leak P_MAX is about {report['noise_floor.mean'].iloc[0]:.4f}. Limits that do not hold: {broken or 'none'}."
    )
    return [markdown_table(lines), held_out, markdown_table(rows), of_report]


def _cell(name: str, value: float) -> str:
    return f"{value:{FIGURES[name].form}}"
