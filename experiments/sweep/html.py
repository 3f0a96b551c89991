"""The results of a sweep as one page: a plot to explore, tables to sort, and nothing that a network is needed for."""

import base64
import hashlib
import json
import pathlib
import re
import string
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from experiments import command_line, statistics
from experiments.sweep import tables
from experiments.sweep.records import WITHOUT_EFFECT

ABOUT = {
    "a_train": "accuracy on natural training images (members)",
    "a_test": "accuracy on natural test images (non-members)",
    "r_train": "accuracy on training images under attack",
    "r_test": "accuracy on test images under attack",
    "p_e_nat": "membership inference by a threshold on the cross-entropy of natural images, in-sample",
    "p_e_adv": "membership inference by a threshold on the cross-entropy of adversarial images, in-sample",
    "p_max": "the larger of P_Enat and P_Eadv",
    "gap": "membership inference by calling a member whatever is classified correctly; natural or adversarial images, "
    "whichever leaks more",
    "minutes": "training, as the process measured it",
    "gradient_passes": "of the training, each over 100 images",
    "forwards": "of the training in units of one forward pass of 100 images; a backward pass costs 1 to the images and "
    "2 to images and weights",
}
"""What the figures are, in a line each."""

X_AXES = ("p_max", "p_e_nat", "p_e_adv", "gap", "minutes", "forwards")
Y_AXES = ("r_test", "a_test", "r_train", "a_train", "p_max")
SIGNIFICANT = 0.05

_TITLES = {**tables.COLUMNS, **tables.COSTS}
_NUM_MARKS = 7  # shapes and colours for groups, in report.html and report.css


def report(
    results: Sequence[tables.RowResult],
    *,
    title: str,
    references: Sequence[str],
    examples: Sequence[tuple[str, bytes]] | None = None,
) -> str:
    """The page, complete in itself.

    Args:
        results: rows with at least one finished run each.
        title: its headline.
        references: labels of the rows that those of their group are tested against.
        examples: captions and PNG files to show.

    Raises:
        ValueError: if there are no results.
    """
    if not results:
        raise ValueError("A report needs results. Received: none. Finish a run first, or select other rows.")
    style, script = _file("report.css"), _file("report.js")
    rows = _rows(results)
    tested = tables.tests(results, references)
    return string.Template(_file("report.html")).substitute(
        title=escape(title),
        style=style,
        style_hash=_csp_hash(style),
        script=script,
        script_hash=_csp_hash(script),
        summary=_summary(results),
        x_options=_options(X_AXES),
        y_options=_options(Y_AXES),
        groups=_group_filters(rows),
        table=_table(rows),
        tests=_tests_table(rows, tested) if tested else "",
        tests_hidden="" if tested else "hidden",
        examples="\n".join(_example(caption, png) for caption, png in examples or ()),
        examples_hidden="" if examples else "hidden",
        floor=_floor_text(rows),
        about="\n".join(_definition(_typeset(title), _typeset(ABOUT[name])) for name, title in _TITLES.items()),
        common_flags=_codes(differing_flags(results)[0]),
        flags="\n".join(_definition(escape(row.result.row.title), _codes(row.flags) or "none") for row in rows),
        data=_json(_data(rows)),
    )


def differing_flags(results: Sequence[tables.RowResult]) -> tuple[list[str], list[list[str]]]:
    """The flags that all rows have in common, and for each row those that it does not share with all others.

    Seeds and what changes no result, such as directories, are left out.
    """
    flags = [command_line.to_flags(r.row.configs[0], without=("seed", *WITHOUT_EFFECT)).splitlines() for r in results]
    common = set(flags[0]).intersection(*flags)
    return [flag for flag in flags[0] if flag in common], [[f for f in row if f not in common] for row in flags]


def _file(name: str) -> str:
    return pathlib.Path(__file__).with_name(name).read_text(encoding="utf-8")


def _csp_hash(text: str) -> str:
    """Lets this very text run, so that a script or style smuggled in by data does not."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(value: dict) -> str:
    """JSON for a script element: `<` is escaped, which could end it or open a comment."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _typeset(title: str) -> str:
    """A_train with a subscript."""
    return re.sub(r"\b([A-Z])_(\w+)", r"\1<sub>\2</sub>", escape(title))


# What the page is about


def _summary(results: Sequence[tables.RowResult]) -> str:
    records = [record for result in results for record in result.records.values()]
    flags = [record["flags"] for record in records]
    data = [record["data"] for record in records]
    versions = {name: _joined(record["versions"][name] for record in records) for name in records[0]["versions"]}
    sentences = (
        f"{_counted(len(results), 'row')}, {_counted(len(records), 'run')} with {_seeds(results)}, on "
        f"{_joined(each['name'] for each in data)}: {_range(each['num_members'] for each in data)} members (training "
        f"images) and {_range(each['num_non_members'] for each in data)} non-members (test images).",
        f"{_network(flags)}, {_range(record['cost']['updates'] for record in records)} updates, "
        f"{_joined(each['precision'] for each in flags)}.",
    )
    made_with = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f'<p class="lead">{escape(sentences[0])} {escape(sentences[1])}</p>\n'
        f'<p class="muted">Made with {escape(made_with)}.</p>'
    )


def _counted(num: int, noun: str) -> str:
    return f"{num:,} {noun}{'' if num == 1 else 's'}"


def _network(flags: Sequence[dict]) -> str:
    names = list(dict.fromkeys(each["network"] for each in flags))
    widths = _joined(f"width {each['width']}" if each["width"] else "the paper's width" for each in flags)
    return f"Network{'' if len(names) == 1 else 's'} {_joined(names)} of {widths}"


def _seeds(results: Sequence[tables.RowResult]) -> str:
    """`seed 3`, `seeds 0 and 2` or `seeds 0 to 4`."""
    seeds = sorted({seed for result in results for seed in result.records})
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'' if len(seeds) == 1 else 's'} {_joined(seeds)}"


def _joined(values: Iterable) -> str:
    """Every value once: `0, 1 and 2`."""
    texts = [str(value) for value in dict.fromkeys(values)]
    return " and ".join(part for part in (", ".join(texts[:-1]), texts[-1]) if part)


def _range(values: Iterable[int]) -> str:
    values = set(values)
    return " to ".join(f"{value:,}" for value in sorted({min(values), max(values)}))


# Rows and groups


class _Row(NamedTuple):
    """A row as the page has it."""

    number: int
    result: tables.RowResult
    group: int
    group_title: str
    mark: int  # its group's shape and colour; that of rows without a group is 0
    flags: list[str]


def _rows(results: Sequence[tables.RowResult]) -> list[_Row]:
    names = list(dict.fromkeys(result.row.group for result in results))
    named = [name for name in names if name]
    ungrouped = [result.row.label for result in results if not result.row.group]
    titles = {"": ungrouped[0] if len(ungrouped) == 1 else "no group"}
    marks = {name: 1 + number % _NUM_MARKS for number, name in enumerate(named)}
    _, flags = differing_flags(results)
    return [
        _Row(number, result, names.index(group), titles.get(group, group), marks.get(group, 0), own_flags)
        for number, (result, own_flags) in enumerate(zip(results, flags))
        for group in [result.row.group]
    ]


def _mark(mark: int) -> str:
    return f'<svg class="mark g{mark}" aria-hidden="true"><use href="#mark-{mark}"/></svg>'


def _group_filters(rows: Sequence[_Row]) -> str:
    groups = dict.fromkeys((row.group, row.mark, row.group_title) for row in rows)
    return "\n".join(
        f'<label class="check"><input type="checkbox" checked data-group-filter="{group}"> {_mark(mark)} '
        f"{escape(title)}</label>"
        for group, mark, title in groups
    )


def _row_header(row: _Row, beneath: str = "") -> str:
    group, label = row.result.row.group, row.result.row.label
    group = f'<span class="muted">{escape(group)}</span> ' if group else ""
    title = f'<span class="title">{_mark(row.mark)} {group}{escape(label)}</span>'
    return f'<th scope="row" data-value="{escape(row.result.row.title)}">{title}{beneath}</th>'


# The plot


def _options(names: Sequence[str]) -> str:
    return "\n".join(f'<option value="{name}">{escape(_TITLES[name])}</option>' for name in names)


def _data(rows: Sequence[_Row]) -> dict:
    """What the plot shows."""
    figures = {
        name: {
            "title": title,
            "larger_is_better": name in tables.LARGER_IS_BETTER,
            "is_share": name in tables.COLUMNS,
            "has_floor": name.startswith("p_"),
        }
        for name, title in _TITLES.items()
    }
    shown = [
        {
            "title": row.result.row.title,
            "label": row.result.row.label,
            "group": row.group,
            "mark": row.mark,
            "seeds": _seeds([row.result]),
            "flags": row.flags,
            "figures": {name: _figure(row.result, name) for name in _TITLES},
            "paper": _paper_shares(row.result),
        }
        for row in rows
    ]
    return {
        "figures": figures,
        "order": list(_TITLES),
        "rows": shown,
        "floors": sorted({round(row.result.noise_floor["mean"], 4) for row in rows}),
    }


def _paper_shares(result: tables.RowResult) -> dict[str, float] | None:
    """The paper's figures but for its hours, which are of another machine."""
    return result.paper and {name: value for name, value in result.paper.items() if name in tables.COLUMNS}


def _figure(result: tables.RowResult, name: str) -> dict:
    estimate = result.estimate(name)
    return {
        "mean": estimate.mean,
        "low": estimate.low,
        "high": estimate.high,
        "text": _mean_text(result, name),
        "interval": _interval(result, name),
        "values": list(result.values(name).values()),
    }


# The table


def _table(rows: Sequence[_Row]) -> str:
    marked = tables.marks([row.result for row in rows])
    titles = {**tables.COLUMNS, "noise_floor": "noise floor", **tables.COSTS}
    head = "".join(_column_header(name, title) for name, title in titles.items())
    body = "\n".join(_table_row(row, marked) for row in rows)
    return (
        f'<thead><tr><th scope="col" data-sort="text">method</th>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>"
    )  # fmt: skip


def _column_header(name: str, title: str) -> str:
    better = "larger" if name in tables.LARGER_IS_BETTER else "smaller"
    about = ABOUT.get(name, "what P is on average of a network that leaks nothing")
    return f'<th scope="col" data-sort="{better}" title="{escape(about)}">{_typeset(title)}</th>'


def _table_row(row: _Row, marked: dict) -> str:
    beneath = _line("sd", _seeds([row.result])) + _line("interval", "95 % interval")
    beneath += _line("paper", "in the paper") if row.result.paper else ""
    cells = [_cell(row.result, name, marked.get((row.result.row.title, name))) for name in _TITLES]
    mean, upper = row.result.noise_floor["mean"], row.result.noise_floor["upper_95"]
    lines = _line("value", f"{mean:.4f}") + _line("sd", f"95 %: {upper:.4f}")
    cells.insert(len(tables.COLUMNS), f'<td data-value="{mean!r}">{lines}</td>')
    return f'<tr data-row="{row.number}" data-group="{row.group}">{_row_header(row, beneath)}{"".join(cells)}</tr>'


def _cell(result: tables.RowResult, name: str, mark: str | None) -> str:
    """Mean, spread, interval and the paper's figure beneath each other, in the order of the row's header."""
    mean, _, sd = tables.cell(result, name).partition(" ± ")
    interval = _interval(result, name)
    value = {
        "bold": f'<strong>{mean}</strong><span class="unseen"> best</span>',
        "underline": f'<u>{mean}</u><span class="unseen"> best of its group</span>',
    }.get(mark, mean)
    lines = f'<span class="value">{value}</span>' + _line("sd", f"± {sd}" if sd else "\N{NO-BREAK SPACE}")
    lines += _line("interval", interval or "\N{NO-BREAK SPACE}")
    if result.paper and name in result.paper:
        lines += _line("paper", f"{result.paper[name]:.4f}")
    elif result.paper and name == "minutes":
        lines += _line("paper", f"{result.paper['hours']:.2f} h")
    hint = f' title="95 % interval {interval}"' if interval else ""
    return f'<td data-value="{result.estimate(name).mean!r}"{hint}>{lines}</td>'


def _line(kind: str, text: str) -> str:
    return f'<span class="{kind}">{escape(text)}</span>'


def _mean_text(result: tables.RowResult, name: str) -> str:
    return tables.cell(result, name).partition(" ± ")[0]


def _interval(result: tables.RowResult, name: str) -> str:
    """The 95 % interval of a mean; empty of a single run, and of what is the same in every run."""
    estimate = result.estimate(name)
    if not estimate.sd:
        return ""
    digits = {"minutes": 1, "gradient_passes": 0, "forwards": 0}.get(name, 4)
    return f"[{estimate.low:,.{digits}f}, {estimate.high:,.{digits}f}]"


# Paired differences

_Tested = tuple[tables.RowResult, tables.RowResult, dict[str, statistics.Difference]]


def _tests_table(rows: Sequence[_Row], tested: Sequence[_Tested]) -> str:
    by_title = {row.result.row.title: row for row in rows}
    ends = {name: _largest_end([differences[name] for _, _, differences in tested]) for name in tables.TESTED}
    lines = []
    for result, reference, differences in tested:
        row, label = by_title[result.row.title], escape(reference.row.label)
        cells = "".join(_difference_cell(name, differences[name], ends[name]) for name in tables.TESTED)
        pairs = next(iter(differences.values())).num
        lines.append(
            f'<tr data-group="{row.group}">{_row_header(row)}<td class="text" data-value="{label}">{label}</td>'
            f'<td data-value="{pairs}">{pairs}</td>{cells}</tr>'
        )
    head = "".join(_column_header(name, title) for name, title in tables.TESTED.items())
    body = "\n".join(lines)
    return (
        '<thead><tr><th scope="col" data-sort="text">method</th><th scope="col" data-sort="text" class="text">'
        f'against</th><th scope="col" data-sort="larger">pairs</th>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>'
    )


def _difference_cell(name: str, difference: statistics.Difference, end: float) -> str:
    verdict = _verdict(name, difference)
    p_value = escape(f"p {tables.p_text(difference.p_value)}")
    word = f', <em class="{verdict}">{verdict}</em>' if verdict else ""
    interval = "" if difference.low is None else f"[{_signed(difference.low)}, {_signed(difference.high)}]"
    return (
        f'<td data-value="{difference.mean!r}"><div class="difference">{_interval_picture(difference, end, verdict)}'
        f"<div>{_line('value', _signed(difference.mean))}{_line('sd', interval)}"
        f'<span class="sd">{p_value}{word}</span></div></div></td>'
    )


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def _verdict(name: str, difference: statistics.Difference) -> str:
    if difference.p_value is None or difference.p_value >= SIGNIFICANT:
        return ""
    return "better" if (difference.mean > 0) == (name in tables.LARGER_IS_BETTER) else "worse"


def _largest_end(differences: Sequence[statistics.Difference]) -> float:
    ends = [abs(end) for d in differences for end in (d.mean, d.low, d.high) if end is not None]
    return max(ends) or 1.0


def _interval_picture(difference: statistics.Difference, end: float, verdict: str) -> str:
    """The interval on a line with zero in its middle; `end` is how far the line goes either way."""
    low, mean, high = (
        40 + 36 * (difference.mean if value is None else value) / end
        for value in (difference.low, difference.mean, difference.high)
    )
    return (
        f'<svg class="forest {verdict}" viewBox="0 0 80 14" aria-hidden="true"><path class="zero" d="M40 0V14"/>'
        f'<path d="M{low:.1f} 7H{high:.1f}"/><circle cx="{mean:.1f}" cy="7" r="3.5"/></svg>'
    )


# Pictures, and how to read it all


def _example(caption: str, png: bytes) -> str:
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _floor_text(rows: Sequence[_Row]) -> str:
    floors = tables.noise_floors([row.result for row in rows])
    return " or ".join(f"{mean:.4f} on average (95\N{NO-BREAK SPACE}%: below {upper:.4f})" for mean, upper in floors)


def _definition(term: str, text: str) -> str:
    return f"<div><dt>{term}</dt><dd>{text}</dd></div>"


def _codes(flags: Sequence[str]) -> str:
    return " ".join(f"<code>{escape(flag)}</code>" for flag in flags)
