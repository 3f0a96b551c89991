"""The HTML report of a sweep: one file with an interactive plot, sortable tables and the flags of every row."""

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import jinja2
import markupsafe
import plotly.graph_objects as go
import plotly.offline

from experiments import command_line
from experiments.figures import pareto, style
from experiments.sweep import tables
from experiments.sweep.records import WITHOUT_EFFECT
from experiments.sweep.tables import RowResult

GLOSSARY = {
    "a_train": "accuracy on natural training images (members)",
    "a_test": "accuracy on natural test images (non-members)",
    "r_train": "accuracy on training images under attack",
    "r_test": "accuracy on test images under attack",
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

_TITLES = {**tables.COLUMNS, **tables.COSTS}
_SIGNIFICANT = 0.05
_OUTLYING = 0.5  # of the best robust accuracy: rows below it are left out of the first view
_OWN_METHOD = "PINEAT"


def report(
    results: Sequence[RowResult],
    *,
    title: str,
    references: Sequence[str],
    examples: Sequence[tuple[str, bytes]] = (),
) -> str:
    """Renders the page, complete in itself.

    Args:
        results: rows with at least one finished run each.
        title: its headline.
        references: labels of the rows that the other rows of their group are tested against.
        examples: captions and PNG files to show.

    Raises:
        ValueError: if there are no results.
    """
    if not results:
        raise ValueError("A report needs results. Received: none. Finish a run first, or select other rows.")
    environment = jinja2.Environment(loader=jinja2.PackageLoader("experiments.sweep", "."), autoescape=True)
    common, own = differing_flags(results)
    scripts = (plotly.offline.get_plotlyjs(), environment.get_template("page.js").render())
    return environment.get_template("page.html").render(
        title=title,
        scripts=[markupsafe.Markup(script) for script in scripts],
        script_hashes=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
        plot=markupsafe.Markup(_as_script(plot(results))),
        facts=_facts(results),
        floors=tables.noise_floors(results),
        columns=_TITLES,
        larger_is_better=tables.LARGER_IS_BETTER,
        rows=_rows(results),
        tested=tables.TESTED,
        tests=_tests(results, references),
        glossary={_TITLES[name]: text for name, text in GLOSSARY.items()},
        common_flags=common,
        flags=[(result.row.title, flags) for result, flags in zip(results, own)],
        examples=[(caption, base64.b64encode(png).decode()) for caption, png in examples],
    )


def differing_flags(results: Sequence[RowResult]) -> tuple[list[str], list[list[str]]]:
    """Splits the rows' flags into those that all of them share, and the others of each row.

    Seeds and flags that change no result, such as directories, are left out.
    """
    flags = [command_line.to_flags(r.row.configs[0], without=("seed", *WITHOUT_EFFECT)).splitlines() for r in results]
    common = set(flags[0]).intersection(*flags)
    return [flag for flag in flags[0] if flag in common], [[f for f in row if f not in common] for row in flags]


def plot(results: Sequence[RowResult]) -> go.Figure:
    """Draws every row with its 95 % intervals, the noise floor and the front, with a menu of the pairs of figures."""
    looks = style.looks([(result.row.group, result.row.label) for result in results])
    views = [_view(results, x, y) for x, y in VIEWS]
    figure = go.Figure()
    _, flags = differing_flags(results)
    for number, result in enumerate(results):
        colour, _ = looks[result.row.group, result.row.label]
        is_own = _OWN_METHOD in result.row.label.upper()
        figure.add_scatter(
            **{name: views[0].traces[name][number] for name in ("x", "y", "error_x", "error_y")},
            name=_text(result.row.title),
            mode="markers+text" if is_own else "markers",
            text=[_text(result.row.label) if is_own else ""],
            textposition="top center",
            marker={"color": colour, "size": 10, "symbol": style.SYMBOLS[number % len(style.SYMBOLS)]},
            hovertext=["<br>".join(map(_text, [_seeds([result]), *flags[number]]))],
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
    """What one choice of axes changes: values of each trace, the front's last, and parts of the layout."""

    label: str
    traces: dict[str, list]
    layout: dict


def _view(results: Sequence[RowResult], x: str, y: str) -> _View:
    estimates = {name: [result.estimate(name) for result in results] for name in (x, y)}
    signs = [-1 if name in tables.LARGER_IS_BETTER else 1 for name in (x, y)]
    means = [tuple(estimates[name][i].mean for name in (x, y)) for i in range(len(results))]
    front = [means[i] for i in pareto.front([(signs[0] * a, -signs[1] * b) for a, b in means])]
    traces = {
        "x": [[a] for a, _ in means] + [[a for a, _ in front]],
        "y": [[b] for _, b in means] + [[b for _, b in front]],
        "error_x": [_bars(estimate) for estimate in estimates[x]] + [{}],
        "error_y": [_bars(estimate) for estimate in estimates[y]] + [{}],
    }
    label = f"{_TITLES[y]} against {_TITLES[x]}"
    return _View(label, traces, {
        "xaxis": {"title": {"text": _TITLES[x]}, "range": _range(results, x)},
        "yaxis": {"title": {"text": _TITLES[y]}, "range": _range(results, y)},
        "shapes": _noise_floors(results, x, y),
    })  # fmt: skip


def _bars(estimate) -> dict:
    half = 0.0 if estimate.sd is None else estimate.high - estimate.mean
    return {"array": [half], "thickness": 1, "width": 3, "visible": bool(half)}


def _range(results: Sequence[RowResult], name: str) -> list[float]:
    """The region of the rows that are robust at all; a double click on the plot shows the others too."""
    best = max(result.estimate("r_test").mean for result in results)
    shown = [r.estimate(name) for r in results if r.estimate("r_test").mean >= _OUTLYING * best]
    low = min(e.mean if e.low is None else e.low for e in shown)
    high = max(e.mean if e.high is None else e.high for e in shown)
    margin = 0.06 * (high - low) or 0.01
    return [low - margin, high + margin]


def _noise_floors(results: Sequence[RowResult], x: str, y: str) -> list[dict]:
    """Dashed lines where a network that leaks nothing would be on average, on axes of leakage."""
    lines = []
    for mean, _ in tables.noise_floors(results):
        for axis, other, name in (("x", "y", x), ("y", "x", y)):
            if name.startswith("p_"):
                ends = {f"{axis}0": mean, f"{axis}1": mean, f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper"}
                label = {"text": f"noise floor {mean:.4f}", "font": {"color": "grey"}}
                lines.append({"type": "line", "line": {"dash": "dash", "color": "grey"}, "label": label, **ends})
    return lines


def _rows(results: Sequence[RowResult]) -> list[dict]:
    marks = tables.marks(results)
    return [
        {
            "title": result.row.title,
            "seeds": _seeds([result]),
            "floor": result.noise_floor["mean"],
            "cells": [
                {
                    "value": result.estimate(name).mean,
                    "text": tables.cell(result, name),
                    "interval": tables.interval_text(result, name),
                    "mark": marks.get((result.row.title, name)),
                    "paper": _of_paper(result, name),
                }
                for name in _TITLES
            ],
        }
        for result in results
    ]


def _of_paper(result: RowResult, name: str) -> str:
    if result.paper and name in result.paper:
        return f"{result.paper[name]:.4f}"
    return f"{result.paper['hours']:.2f} h" if result.paper and name == "minutes" else ""


def _tests(results: Sequence[RowResult], references: Sequence[str]) -> list[dict]:
    tested = []
    for result, reference, differences in tables.tests(results, references):
        cells = [
            {
                "value": difference.mean,
                "text": tables.signed_interval(difference),
                "p": tables.p_text(difference.p_value),
                "verdict": _verdict(name, difference),
            }
            for name, difference in differences.items()
        ]
        pairs = next(iter(differences.values())).num
        tested.append({"title": result.row.title, "against": reference.row.label, "pairs": pairs, "cells": cells})
    return tested


def _verdict(name: str, difference) -> str:
    if difference.p_value is None or difference.p_value >= _SIGNIFICANT:
        return ""
    return "better" if (difference.mean > 0) == (name in tables.LARGER_IS_BETTER) else "worse"


def _facts(results: Sequence[RowResult]) -> list[tuple[str, str]]:
    """What the runs have in common or differ in: data, networks, seeds, versions."""
    records = [record for result in results for record in result.records.values()]
    versions = {name: _joined(record["versions"][name] for record in records) for name in records[0]["versions"]}
    return [
        ("rows", f"{len(results)}"),
        ("runs", f"{len(records)} with {_seeds(results)}"),
        ("data", _joined(record["data"]["name"] for record in records)),
        ("members (training images)", _joined(f"{record['data']['num_members']:,}" for record in records)),
        ("non-members (test images)", _joined(f"{record['data']['num_non_members']:,}" for record in records)),
        ("network", _joined(_network(record["flags"]) for record in records)),
        ("updates", _joined(f"{record['cost']['updates']:,}" for record in records)),
        ("precision", _joined(record["flags"]["precision"] for record in records)),
        ("made with", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]


def _network(flags: dict) -> str:
    return f"{flags['network']} (width {flags['width'] or 'as in the paper'})"


def _seeds(results: Sequence[RowResult]) -> str:
    seeds = sorted({seed for result in results for seed in result.records})
    return f"seed{'' if len(seeds) == 1 else 's'} {_joined(seeds)}"


def _joined(values) -> str:
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
