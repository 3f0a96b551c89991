"""The HTML report of a sweep: one file with an interactive plot, sortable tables and the flags of every row."""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jinja2
import markupsafe
import pandas as pd
import plotly.graph_objects as go
import plotly.offline

from experiments import command_line, paper
from experiments.figures import pareto, style
from experiments.results import WITHOUT_EFFECT
from experiments.statistics import Difference, Estimate
from experiments.sweep import tables

GLOSSARY = {
    "a_train": "accuracy on natural training images (members)",
    "a_test": "accuracy on natural test images (non-members)",
    "r_train": "accuracy on training images under attack",
    "r_test": "accuracy on test images under attack",
    "v_test": "share of the test images that are proved to withstand every noise of the attack's radius",
    "epsilon_spent": "of differential privacy, with the delta of --dp_delta: an upper bound, by accounting",
    "p_e_nat": "membership inference by a threshold on the cross-entropy of natural images, in-sample",
    "p_e_adv": "membership inference by a threshold on the cross-entropy of adversarial images, in-sample",
    "p_max": "the larger of P_Enat and P_Eadv",
    "gap": "membership inference by calling a member whatever is classified correctly; natural or adversarial images, "
    "whichever leaks more",
    "minutes": "of training, as the process measured it",
    "gradient_passes": "of the training, each over 100 images",
    "forwards": "cost of the training in forward passes of 100 images; a backward pass costs 1 to the images and 2 to "
    "images and weights",
}
"""What each figure means, in one line."""

VIEWS = (
    ("p_max", "r_test"), ("p_max", "a_test"), ("forwards", "p_max"), ("forwards", "r_test"),
    ("a_test", "r_test"), ("minutes", "p_max"), ("p_e_nat", "p_e_adv"),
)  # fmt: skip
"""The pairs of figures (x, y) that the plot can show, the first one to begin with."""

_TITLES = {**tables.COLUMNS, **tables.OPTIONAL, **tables.COSTS}
_SIGNIFICANT = 0.05
_OUTLYING = 0.5  # of the best robust accuracy: rows below it are left out of the first view
_OWN_METHOD = "PINEAT"


def report(
    runs: pd.DataFrame, *, title: str, references: Sequence[str], examples: Sequence[tuple[str, bytes]] = ()
) -> str:
    """Renders the page, complete in itself.

    Args:
        runs: of `results.tidy`.
        title: its headline.
        references: labels of the rows that the other rows of their group are tested against.
        examples: captions and PNG files to show.

    Raises:
        ValueError: if there are no runs.
    """
    if runs.empty:
        raise ValueError("A report needs results. Received: none. Finish a run first, or select other rows.")
    environment = jinja2.Environment(loader=jinja2.PackageLoader("experiments.sweep", "."), autoescape=True)
    common, own = differing_flags(runs)
    scripts = (plotly.offline.get_plotlyjs(), environment.get_template("page.js").render())
    return environment.get_template("page.html").render(
        title=title,
        scripts=[markupsafe.Markup(script) for script in scripts],
        script_hashes=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
        plot=markupsafe.Markup(_as_script(plot(runs))),
        facts=_facts(runs),
        floors=tables.noise_floors(runs),
        columns=tables.columns(runs) | tables.COSTS,
        larger_is_better=tables.LARGER_IS_BETTER,
        rows=_rows(runs),
        tested=tables.TESTED,
        tests=_tests(runs, references),
        glossary={_TITLES[name]: GLOSSARY[name] for name in (*tables.columns(runs), *tables.COSTS)},
        common_flags=common,
        flags=own,
        examples=[(caption, base64.b64encode(png).decode()) for caption, png in examples],
    )


def differing_flags(runs: pd.DataFrame) -> tuple[list[str], dict[str, list[str]]]:
    """Splits the rows' flags into those that all of them share, and the others of each row by its title.

    Seeds and flags that change no result, such as directories, are left out.
    """
    configs = tables.rows(runs)["config"]
    flags = [command_line.to_flags(config, without=("seed", *WITHOUT_EFFECT)).splitlines() for config in configs]
    common = set(flags[0]).intersection(*flags)
    own = {title: [flag for flag in row if flag not in common] for title, row in zip(configs.index, flags)}
    return [flag for flag in flags[0] if flag in common], own


def plot(runs: pd.DataFrame) -> go.Figure:
    """Draws every row with its 95 % intervals, the noise floor and the front, with a menu of the pairs of figures."""
    looks, (_, flags) = style.looks(runs), differing_flags(runs)
    seeds = tables.rows(runs)["seeds"]
    estimates, floors = tables.estimates(runs), tables.noise_floors(runs)
    views = [_view(estimates, floors, x, y) for x, y in VIEWS]
    figure = go.Figure()
    for number, (title, look) in enumerate(looks.items()):
        is_own = _OWN_METHOD in look.label.upper()
        figure.add_scatter(
            **{name: views[0].traces[name][number] for name in ("x", "y", "error_x", "error_y")},
            name=_text(title),
            mode="markers+text" if is_own else "markers",
            text=[_text(title) if is_own else ""],
            textposition="top center",
            marker={"color": look.colour, "size": 10, "symbol": style.SYMBOLS[number % len(style.SYMBOLS)]},
            hovertext=["<br>".join(map(_text, [_seeds(seeds[title].split()), *flags[title]]))],
            hovertemplate="<b>%{fullData.name}</b><br>%{xaxis.title.text} %{x}, %{yaxis.title.text} %{y}<br>"
            "%{hovertext}<extra></extra>",
        )
    front = {name: views[0].traces[name][-1] for name in ("x", "y")}
    line = {"shape": "hv", "color": "grey", "width": 1}
    figure.add_scatter(**front, name="front: beaten by no other row", mode="lines", line=line, hoverinfo="skip")
    menu = [{"label": view.label, "method": "update", "args": [view.traces, view.layout]} for view in views]
    menus = [{"buttons": menu, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}]
    margin = {"l": 60, "r": 20, "t": 60, "b": 50}
    figure.update_layout(updatemenus=menus, template="plotly_white", height=620, margin=margin, **views[0].layout)
    return figure.update_layout(legend={"orientation": "h", "y": -0.12})


class _View(NamedTuple):
    """The parts that a choice of axes changes: values of each trace, the front's last, and parts of the layout."""

    label: str
    traces: dict[str, list]
    layout: dict


def _view(estimates: pd.DataFrame, floors: Sequence[tuple[float, float]], x: str, y: str) -> _View:
    means = [(a.mean, b.mean) for a, b in zip(estimates[x], estimates[y])]
    signs = [-1 if name in tables.LARGER_IS_BETTER else 1 for name in (x, y)]
    front = [means[i] for i in pareto.front([(signs[0] * a, -signs[1] * b) for a, b in means])]
    traces = {
        "x": [[a] for a, _ in means] + [[a for a, _ in front]],
        "y": [[b] for _, b in means] + [[b for _, b in front]],
        "error_x": [_bars(estimate) for estimate in estimates[x]] + [{}],
        "error_y": [_bars(estimate) for estimate in estimates[y]] + [{}],
    }
    layout = {
        "xaxis": {"title": {"text": _TITLES[x]}, "range": _range(estimates, x)},
        "yaxis": {"title": {"text": _TITLES[y]}, "range": _range(estimates, y)},
        "shapes": _noise_floors(floors, x, y),
    }
    return _View(f"{_TITLES[y]} against {_TITLES[x]}", traces, layout)


def _bars(estimate: Estimate) -> dict:
    half = 0.0 if estimate.sd is None else estimate.high - estimate.mean
    return {"array": [half], "thickness": 1, "width": 3, "visible": bool(half)}


def _range(estimates: pd.DataFrame, name: str) -> list[float]:
    """The region of the rows that are robust at all; a double click on the plot shows the others too."""
    robust = estimates["r_test"].map(lambda one: one.mean)
    shown = estimates.loc[robust >= _OUTLYING * robust.max(), name]
    low = min(one.mean if one.low is None else one.low for one in shown)
    high = max(one.mean if one.high is None else one.high for one in shown)
    margin = 0.06 * (high - low) or 0.01
    return [low - margin, high + margin]


def _noise_floors(floors: Sequence[tuple[float, float]], x: str, y: str) -> list[dict]:
    """Dashed lines where P_MAX of a network that leaks nothing would be on average."""
    lines = []
    for mean, _ in floors:
        for axis, other, name in (("x", "y", x), ("y", "x", y)):
            if name == "p_max":
                ends = {f"{axis}0": mean, f"{axis}1": mean, f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper"}
                label = {"text": f"noise floor {mean:.4f}", "font": {"color": "grey"}}
                lines.append({"type": "line", "line": {"dash": "dash", "color": "grey"}, "label": label, **ends})
    return lines


def _rows(runs: pd.DataFrame) -> list[dict]:
    marks, estimates, shown = tables.marks(runs), tables.estimates(runs), [*tables.columns(runs), *tables.COSTS]
    rows = []
    for title, row in tables.rows(runs).iterrows():
        of_paper = paper.paper_row(row["config"]) or {}
        cells = [
            {
                "value": "" if tables.cell(name, one) == "-" else one.mean,
                "text": tables.cell(name, one),
                "interval": _interval(name, one),
                "mark": marks.get((title, name)),
                "paper": f"{of_paper[name]:.4f}" if name in of_paper else "",
            }
            for name, one in estimates.loc[title, shown].items()
        ]
        if of_paper:
            cells[shown.index("minutes")]["paper"] = f"{of_paper['hours']:.2f} h"
        floor = row["noise_floor.mean"]
        rows.append({"title": title, "seeds": _seeds(row["seeds"].split()), "floor": floor, "cells": cells})
    return rows


def _interval(name: str, estimate: Estimate) -> str:
    """The 95 % interval of a mean; empty for a single run, and for what is the same in every run."""
    digits = {"minutes": 1, "gradient_passes": 0, "forwards": 0}.get(name, 4)
    return f"[{estimate.low:,.{digits}f}, {estimate.high:,.{digits}f}]" if estimate.sd else ""


def _tests(runs: pd.DataFrame, references: Sequence[str]) -> list[dict]:
    tested = []
    for line in tables.tests(runs, references).to_dict("records"):
        cells = [
            {
                "value": line[name].mean,
                "text": tables.signed_interval(line[name]),
                "p": tables.p_text(line[name].p_value),
                "verdict": _verdict(name, line[name]),
            }
            for name in tables.TESTED
        ]
        tested.append({"title": line["title"], "against": line["against"], "pairs": line["pairs"], "cells": cells})
    return tested


def _verdict(name: str, difference: Difference) -> str:
    if difference.p_value is None or difference.p_value >= _SIGNIFICANT:
        return ""
    return "better" if (difference.mean > 0) == (name in tables.LARGER_IS_BETTER) else "worse"


def _facts(runs: pd.DataFrame) -> list[tuple[str, str]]:
    """Data, networks, seeds and versions of the runs: one value where they have it in common, else all."""
    widths = runs["flags.width"].map(lambda width: width or "as in the paper")
    versions = [(name.removeprefix("versions."), _joined(runs[name].dropna())) for name in runs if "versions." in name]
    return [
        ("rows", f"{runs['title'].nunique()}"),
        ("runs", f"{len(runs)} with {_seeds(sorted(set(runs['seed'])))}"),
        ("data", _joined(runs["data.name"])),
        ("members (training images)", _joined(runs["data.num_members"].map("{:,}".format))),
        ("non-members (test images)", _joined(runs["data.num_non_members"].map("{:,}".format))),
        ("network", _joined(f"{name} (width {width})" for name, width in zip(runs["flags.network"], widths))),
        ("updates", _joined(runs["cost.updates"].map("{:,}".format))),
        ("precision", _joined(runs["flags.precision"])),
        ("made with", ", ".join(f"{name} {version}" for name, version in versions)),
    ]


def _seeds(seeds: Sequence) -> str:
    return f"seed{'' if len(seeds) == 1 else 's'} {_joined(seeds)}"


def _joined(values: Iterable) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))


def _text(text: str) -> str:
    """Text that Plotly shows as it is, which would take `<b>` for markup."""
    return str(markupsafe.escape(text))


def _as_script(figure: go.Figure) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(json.loads(figure.to_json()), separators=(",", ":")).replace("<", "\\u003c")


def _digest(script: str) -> str:
    """Lets this very script run, and none that data might smuggle in (Content-Security-Policy)."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
