"""Runs as tables, a line a row of the sweep: means, the best marked, tests against a reference, the paper's figures."""

import math
from collections.abc import Sequence

import pandas as pd

from experiments import paper, statistics
from experiments.statistics import Difference, Estimate
from pineat_tf.report import Markdown, markdown_table

COLUMNS = {**{name: title for name, title in paper.COLUMNS.items() if name != "hours"}, "gap": "gap attack"}
"""Figures of a run that are shares -> what the tables call them."""

OPTIONAL = {"v_test": "V_test", "epsilon_spent": "privacy epsilon"}
"""Of runs with --verify, and with --dp_noise."""

COSTS = {"minutes": "minutes", "gradient_passes": "gradient passes", "forwards": "forward passes"}
"""What a training costs; passes are over 100 images each, whatever the batches."""

TESTED = {"a_test": "A_test", "r_test": "R_test", "p_max": "P_MAX"}
LARGER_IS_BETTER = ("a_train", "a_test", "r_train", "r_test", "v_test")


def columns(runs: pd.DataFrame) -> dict[str, str]:
    """`COLUMNS`, and those of `OPTIONAL` that a run has."""
    return COLUMNS | {name: title for name, title in OPTIONAL.items() if runs[name].notna().any()}


def rows(runs: pd.DataFrame) -> pd.DataFrame:
    """The first run of each row, by title, with its number of "seeds"."""
    first = runs.drop_duplicates("title").set_index("title", drop=False)
    return first.assign(seeds=runs.groupby("title")["seed"].apply(lambda seeds: " ".join(map(str, sorted(seeds)))))


def estimates(runs: pd.DataFrame) -> pd.DataFrame:
    """`statistics.Estimate`s of all figures and costs, by title; of NaN where not every run of a row has one."""
    return statistics.summary(runs, [*columns(runs), *COSTS])


def noise_floors(runs: pd.DataFrame) -> list[tuple[float, float]]:
    """The noise floors that occur, as (mean, upper end of 95 %), from the lowest up."""
    first = rows(runs)
    return sorted(set(zip(first["noise_floor.mean"], first["noise_floor.upper_95"])))


def marks(runs: pd.DataFrame) -> dict[tuple[str, str], str]:
    """The best figures, as the paper marks them: "bold" of all rows, "underline" of a group of several.

    Returns:
        (title of the row, name of the figure) -> mark.
    """
    means, groups = estimates(runs), rows(runs)["group"]
    marked = {}
    for name in (*columns(runs), "minutes"):
        printed = means[name].map(lambda one: round(one.mean, 1 if name == "minutes" else 4))  # noqa: B023
        for titles in groups.groupby(groups).groups.values():
            if len(titles) > 1:
                marked |= dict.fromkeys([(title, name) for title in _best(printed[titles])], "underline")
        marked |= dict.fromkeys([(title, name) for title in _best(printed)], "bold")
    return marked


def markdown(runs: pd.DataFrame) -> str:
    """The results as Markdown: mean and standard deviation, the best marked, the paper's figures beneath each row."""
    marked, means, shown = marks(runs), estimates(runs), columns(runs)
    lines = [("method", "seeds", *shown.values(), "noise floor", *COSTS.values())]
    for title, row in rows(runs).iterrows():
        cells = [_marked(cell(name, means.loc[title, name]), marked.get((title, name))) for name in (*shown, *COSTS)]
        cells.insert(len(shown), f"{row['noise_floor.mean']:.4f}")
        lines.append((title, str(len(row["seeds"].split())), *cells))
        of_paper = paper.paper_row(row["config"])
        if of_paper:
            shares = [f"{of_paper[name]:.4f}" if name in of_paper else "" for name in shown]
            floor = paper.noise_floor(paper.dataset_of(row["config"]))
            cells = (*shares, f"{floor:.4f}", f"{of_paper['hours']:.2f} h", "", "")
            lines.append((Markdown("*in the paper, at full scale*"), "1", *cells))
    return markdown_table(lines)


def tests(runs: pd.DataFrame, references: Sequence[str]) -> pd.DataFrame:
    """Paired differences of every row from the reference rows of its group.

    Returns:
        A line a pair: "title", "against" (label of the reference), "pairs", and for each of `TESTED` its
        `statistics.Difference`, with p-values adjusted for the number of rows tested against that label (Holm).
    """
    first = rows(runs)[["title", "group", "label"]]
    pairs = first.merge(first, on="group", suffixes=("", "_other"))
    pairs = pairs[pairs["label_other"].isin(list(references)) & (pairs["title"] != pairs["title_other"])]
    order = {label: place for place, label in enumerate(references)}
    pairs = pairs.sort_values("label_other", key=lambda labels: labels.map(order), kind="stable")
    found = []
    for title, other, against in zip(pairs["title"], pairs["title_other"], pairs["label_other"]):
        differences = {name: statistics.difference(runs, title, other, name) for name in TESTED}
        if all(differences.values()):
            found.append({"title": title, "against": against, "pairs": differences["a_test"].num, **differences})
    tested = pd.DataFrame(found, columns=["title", "against", "pairs", *TESTED])
    for lines in tested.groupby("against").groups.values():
        for name in TESTED:
            tested.loc[lines, name] = pd.Series(_adjusted(tested.loc[lines, name]), index=lines, dtype=object)
    return tested


def tests_markdown(runs: pd.DataFrame, references: Sequence[str]) -> str:
    """The differences of `tests` as Markdown, with 95 % intervals and p-values; empty without any."""
    lines = [("method", "against", "pairs", *TESTED.values(), *(f"p ({title}, Holm)" for title in TESTED.values()))]
    for _, line in tests(runs, references).iterrows():
        differences = [line[name] for name in TESTED]
        cells = [*map(signed_interval, differences), *(p_text(one.p_value) for one in differences)]
        lines.append((line["title"], line["against"], str(line["pairs"]), *cells))
    return markdown_table(lines) if len(lines) > 1 else ""


def csv_text(runs: pd.DataFrame) -> str:
    """Every figure of every row with its mean, standard deviation and 95 % interval, and the paper's, as CSV."""
    first, means = rows(runs), estimates(runs)
    frame = first[["group", "label", "seeds"]].map(csv_cell)
    for name in means:
        spread = pd.DataFrame(means[name].tolist(), index=means.index)[["mean", "sd", "low", "high"]]
        frame = frame.join(spread.add_prefix(f"{name}_"))
    frame["noise_floor"] = first["noise_floor.mean"]
    of_paper = [paper.paper_row(config) or {} for config in first["config"]]
    for name in paper.COLUMNS:
        frame[f"paper_{name}"] = pd.Series([row.get(name) for row in of_paper], index=frame.index, dtype=float)
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def csv_cell(value: object) -> object:
    """A value for a CSV file, in which spreadsheets take for a formula what begins like one and is no number."""
    text = str(value)
    if not text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return value
    try:
        float(text)
    except ValueError:
        return "'" + text
    return value


def cell(name: str, estimate: Estimate) -> str:
    """A mean with its standard deviation, as tables print it; a dash where there is none."""
    if math.isnan(estimate.mean):
        return "-"
    if name in ("gradient_passes", "forwards"):
        return f"{estimate.mean:,.0f}"
    digits = 1 if name == "minutes" else 4
    spread = "" if estimate.sd is None else f" ± {estimate.sd:.{digits}f}"
    return f"{estimate.mean:.{digits}f}{spread}"


def signed_interval(difference: Difference) -> str:
    """A difference with the ends of its interval."""
    interval = "" if difference.low is None else f" [{difference.low:+.4f}, {difference.high:+.4f}]"
    return f"{difference.mean:+.4f}{interval}"


def p_text(p_value: float | None) -> str:
    """A p-value as tables print it; a dash where there is none."""
    if p_value is None:
        return "-"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _best(printed: pd.Series) -> list[str]:
    """Titles of the best figures; none where no row is better than another."""
    best = printed.max() if printed.name in LARGER_IS_BETTER else printed.min()
    return list(printed.index[printed == best]) if printed.nunique() > 1 else []


def _adjusted(differences: pd.Series) -> list[Difference]:
    p_values = statistics.holm([one.p_value for one in differences])
    return [one._replace(p_value=p_value) for one, p_value in zip(differences, p_values)]


def _marked(text: str, mark: str | None) -> str:
    marked = {"bold": f"**{text}**", "underline": f"<u>{text}</u>"}
    return Markdown(marked[mark]) if mark in marked else text
