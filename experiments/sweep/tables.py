"""The rows of a sweep as tables: means with spread, the best marked, tests against a reference, the paper's figures."""

import csv
import dataclasses
import io
from collections.abc import Sequence

from experiments import paper, statistics
from experiments.sweep.grid import Row
from experiments.sweep.records import Records
from pineat_tf.report import Markdown, markdown_table

COLUMNS = {**{name: title for name, title in paper.COLUMNS.items() if name != "hours"}, "gap": "gap attack"}
"""Figures of a run that are shares -> what the tables call them."""

COSTS = {"minutes": "minutes", "gradient_passes": "gradient passes", "forwards": "forward passes"}
"""What a training costs; passes are over 100 images each, whatever the batches."""

_BATCH = 100
TESTED = {"a_test": "A_test", "r_test": "R_test", "p_max": "P_MAX"}
LARGER_IS_BETTER = ("a_train", "a_test", "r_train", "r_test")
_MARKED = (*COLUMNS, "minutes")


def figures_of(record: dict) -> dict[str, float]:
    """The figures of one run that tables show, by name."""
    shares = {name: record[name] for name in COLUMNS if name != "gap"}
    costs = {
        "minutes": record["seconds"]["training"] / 60,
        "gradient_passes": record["cost"]["gradient_passes"] * record["flags"]["batch_size"] / _BATCH,
        "forwards": record["cost"]["forward_units"] * record["flags"]["batch_size"] / _BATCH,
    }
    return {**shares, "gap": max(record["gap_nat"], record["gap_adv"]), **costs}


@dataclasses.dataclass(frozen=True)
class RowResult:
    """A row with what its runs gave.

    Attributes:
        row: what was run.
        records: of the seeds that are done, by seed.
    """

    row: Row
    records: dict[int, dict]

    def values(self, name: str) -> dict[int, float]:
        """One figure of every run, by seed."""
        return {seed: figures_of(record)[name] for seed, record in self.records.items()}

    def estimate(self, name: str) -> statistics.Estimate:
        """The mean of one figure over the seeds."""
        return statistics.estimate(list(self.values(name).values()))

    def difference(self, other: "RowResult", name: str) -> statistics.Difference | None:
        """By how much a figure exceeds that of another row, over the seeds that both have; None without any."""
        mine, others = self.values(name), other.values(name)
        seeds = sorted(mine.keys() & others.keys())
        if not seeds:
            return None
        return statistics.paired_difference([mine[seed] for seed in seeds], [others[seed] for seed in seeds])

    @property
    def noise_floor(self) -> dict[str, float]:
        """Of its in-sample thresholds, which depends on the data alone: "mean" and "upper_95"."""
        return next(iter(self.records.values()))["noise_floor"]

    @property
    def paper(self) -> dict[str, float] | None:
        """The row of the paper's Table 1 for the same method, if it has one."""
        return paper.paper_row(self.row.configs[0])


def results(rows: Sequence[Row], records: Records) -> list[RowResult]:
    """The rows of which at least one run is done, with the records of their runs."""
    found = [
        RowResult(row, {c.seed: record for c in row.configs if (record := records.find(c)) is not None}) for row in rows
    ]
    return [result for result in found if result.records]


def noise_floors(rows: Sequence[RowResult]) -> list[tuple[float, float]]:
    """The noise floors that occur, as (mean, upper end of 95 %), from the lowest up."""
    return sorted({(row.noise_floor["mean"], row.noise_floor["upper_95"]) for row in rows})


def best_of(rows: Sequence[RowResult], name: str) -> float | None:
    """The best mean of a figure over rows, as it is printed; None where no row is better than another."""
    printed = [_rounded(name, row.estimate(name).mean) for row in rows]
    if len(set(printed)) < 2:
        return None
    return max(printed) if name in LARGER_IS_BETTER else min(printed)


def marks(rows: Sequence[RowResult]) -> dict[tuple[str, str], str]:
    """Which figures are the best, as in the paper: "bold" of all rows, "underline" of a group of several.

    Returns:
        (title of the row, name of the figure) -> mark.
    """
    marked = {}
    for name in _MARKED:
        best = best_of(rows, name)
        for row in rows:
            group = [other for other in rows if other.row.group == row.row.group]
            value = _rounded(name, row.estimate(name).mean)
            if best is not None and value == best:
                marked[row.row.title, name] = "bold"
            elif len(group) > 1 and value == best_of(group, name):
                marked[row.row.title, name] = "underline"
    return marked


def markdown(rows: Sequence[RowResult]) -> str:
    """The results as Markdown: mean and standard deviation, the best marked, the paper's figures beneath each row."""
    marked = marks(rows)
    lines = [("method", "seeds", *COLUMNS.values(), "noise floor", *COSTS.values())]
    for row in rows:
        cells = [_marked(cell(row, name), marked.get((row.row.title, name))) for name in (*COLUMNS, *COSTS)]
        cells.insert(len(COLUMNS), f"{row.noise_floor['mean']:.4f}")
        lines.append((row.row.title, str(len(row.records)), *cells))
        if row.paper:
            of_paper = [f"{row.paper[name]:.4f}" if name in row.paper else "" for name in COLUMNS]
            floor = paper.noise_floor(paper.dataset_of(row.row.configs[0]))
            cells = (*of_paper, f"{floor:.4f}", f"{row.paper['hours']:.2f} h", "", "")
            lines.append((Markdown("*in the paper, at full scale*"), "1", *cells))
    return markdown_table(lines)


def tests_markdown(rows: Sequence[RowResult], references: Sequence[str]) -> str:
    """Paired differences of every row from the reference rows of its group, with 95 % intervals and p-values."""
    lines = [("method", "against", "pairs", *TESTED.values(), *(f"p ({title}, Holm)" for title in TESTED.values()))]
    for row, reference, differences in tests(rows, references):
        cells = [signed_interval(difference) for difference in differences.values()]
        p_values = [p_text(difference.p_value) for difference in differences.values()]
        pairs = next(iter(differences.values())).num
        lines.append((row.row.title, reference.row.label, str(pairs), *cells, *p_values))
    return markdown_table(lines) if len(lines) > 1 else ""


def tests(
    rows: Sequence[RowResult], references: Sequence[str]
) -> list[tuple[RowResult, RowResult, dict[str, statistics.Difference]]]:
    """Every row with each reference row of its group, and their paired differences by figure.

    The p-values of one figure against one reference label are adjusted for their number (Holm).
    """
    pairs = [
        (row, reference)
        for label in references
        for row in rows
        for reference in rows
        if reference.row.label == label and reference.row.group == row.row.group and reference is not row
    ]
    found = []
    for row, reference in pairs:
        differences = {name: row.difference(reference, name) for name in TESTED}
        if all(differences.values()):
            found.append((row, reference, differences))
    for label in {reference.row.label for _, reference, _ in found}:
        for name in TESTED:
            _adjust([differences for _, reference, differences in found if reference.row.label == label], name)
    return found


def _adjust(family: Sequence[dict[str, statistics.Difference]], name: str) -> None:
    tested = [differences for differences in family if differences[name].p_value is not None]
    adjusted = statistics.holm([differences[name].p_value for differences in tested])
    for differences, p_value in zip(tested, adjusted):
        differences[name] = differences[name]._replace(p_value=p_value)


def csv_text(rows: Sequence[RowResult]) -> str:
    """Every figure of every row with its mean, standard deviation and 95 % interval, and the paper's, as CSV."""
    output = io.StringIO()
    names = (*COLUMNS, *COSTS)
    spread = ("mean", "sd", "low", "high")
    writer = csv.writer(output, lineterminator="\n")
    columns = [f"{name}_{part}" for name in names for part in spread]
    writer.writerow(["group", "label", "seeds", *columns, "noise_floor", *(f"paper_{name}" for name in paper.COLUMNS)])
    for row in rows:
        cells = [getattr(row.estimate(name), part) for name in names for part in spread]
        of_paper = [row.paper[name] if row.paper else None for name in paper.COLUMNS]
        seeds = " ".join(map(str, sorted(row.records)))
        figures = ["" if value is None else f"{value:.6g}" for value in (*cells, row.noise_floor["mean"], *of_paper)]
        writer.writerow(map(csv_cell, [row.row.group, row.row.label, seeds, *figures]))
    return output.getvalue()


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


def cell(row: RowResult, name: str) -> str:
    """A mean with its standard deviation, as tables print it."""
    estimate = row.estimate(name)
    if name in ("gradient_passes", "forwards"):
        return f"{estimate.mean:,.0f}"
    digits = 1 if name == "minutes" else 4
    spread = "" if estimate.sd is None else f" ± {estimate.sd:.{digits}f}"
    return f"{estimate.mean:.{digits}f}{spread}"


def interval_text(row: RowResult, name: str) -> str:
    """The 95 % interval of a mean; empty for a single run, and for what is the same in every run."""
    estimate = row.estimate(name)
    digits = {"minutes": 1, "gradient_passes": 0, "forwards": 0}.get(name, 4)
    return f"[{estimate.low:,.{digits}f}, {estimate.high:,.{digits}f}]" if estimate.sd else ""


def signed_interval(difference: statistics.Difference) -> str:
    """A difference with the ends of its interval."""
    interval = "" if difference.low is None else f" [{difference.low:+.4f}, {difference.high:+.4f}]"
    return f"{difference.mean:+.4f}{interval}"


def p_text(p_value: float | None) -> str:
    """A p-value as tables print it; a dash where there is none."""
    if p_value is None:
        return "-"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _marked(text: str, mark: str | None) -> str:
    marked = {"bold": f"**{text}**", "underline": f"<u>{text}</u>"}
    return Markdown(marked[mark]) if mark in marked else text


def _rounded(name: str, value: float) -> float:
    return round(value, 1 if name == "minutes" else 4)
