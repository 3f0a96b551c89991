"""The paper's nine observations as statements, tested on the runs of a sweep.

    python -m experiments.study.observations --flagfile=table1_fmnist.flags --flagfile=ratios_fmnist.flags \\
        --overlay=study.flags --seeds=0-4

Takes the flags of a sweep, several flag files at once, runs nothing, and reads the records of what is done. A statement
is a set of comparisons of two rows over paired seeds; rows of other methods than the paper's are left out. A comparison
counts for it or against it if the 95 % interval of the mean difference lies on that side of 0, or, where rows are said
to be similar, within or beyond a margin; else it is undecided. A statement about all cases holds if all count for it
and fails if one counts against it; one about most cases holds or fails once undecided ones could not turn it. Costs are
counted passes, which have no spread.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments import command_line, files, paper, statistics
from experiments.sweep import plan, tables
from experiments.sweep.tables import RowResult
from pineat_tf.report import Markdown, markdown_table, quoted

MARGIN = 0.01
"""Shares that differ by less are similar: about what two runs of one recipe differ by in the literature."""

COST_MARGIN = 0.1
"""Costs whose ratio differs from 1 by less are similar."""


class Comparison(NamedTuple):
    """Two rows and what their difference says.

    Attributes:
        text: what is compared.
        difference: of the figure, with its interval.
        verdict: 1 for the statement, -1 against it, 0 undecided.
    """

    text: str
    difference: statistics.Difference
    verdict: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statement:
    """Something that the paper says, or that its table says against it.

    Attributes:
        name: as "1a": the paper's number and a letter.
        text: what is said.
        of_most: about most cases rather than all.
        compare: makes its comparisons from the rows.
    """

    name: str
    text: str
    of_most: bool
    compare: Callable[["Rows"], list[Comparison]]

    def verdict(self, comparisons: Sequence[Comparison]) -> str:
        """What the comparisons come to: "holds", "does not hold", "undecided", or "not run" without any."""
        num = len(comparisons)
        won, lost = (sum(comparison.verdict == side for comparison in comparisons) for side in (1, -1))
        if not num:
            return "not run"
        if self.of_most:
            return "holds" if 2 * won > num else "does not hold" if 2 * (num - lost) <= num else "undecided"
        return "holds" if won == num else "does not hold" if lost else "undecided"


class Rows:
    """The rows that were run, by attack and by what was trained.

    Args:
        results: rows with at least one run each; ablations of the paper's methods and additions to them are left out.

    Raises:
        ValueError: if no row is left, or two are of one method.
    """

    def __init__(self, results: Sequence[RowResult]):
        self._rows: dict[tuple[str, str, str], RowResult] = {}
        for result in results:
            if paper.is_its_method(result.row.configs[0]):
                before = self._rows.setdefault(_key(result), result)
                if before is not result:
                    titles = f"{before.row.title!r} and {result.row.title!r}"
                    raise ValueError(f"two rows are of one method of the paper: {titles}. Choose by --only.")
        if not self._rows:
            raise ValueError("no row is of a method as the paper has it; take e.g. --flagfile=table1_fmnist.flags")
        self.attacks = [name for name in ("pgd", "dist", "diff") if (name, "original", "1/0") in self._rows]
        self.natural = self._rows.get(("none", "natural", "0/1"))

    def get(self, attack: str, variant: str, ratio: str = "1/1") -> RowResult | None:
        """The row of one method, or None if it was not run."""
        return self._rows.get((attack, variant, ratio))

    def against(self, figure: str, sign: int, *others: str, ratios: Sequence[str] = ("1/1",)) -> list[Comparison]:
        """PINEAT against other variants of the same attack: better if the figure is larger (sign 1) or smaller (-1)."""
        pairs = [
            (self.get(attack, "pineat", ratio), self.get(attack, other, "1/0" if other == "original" else "1/1"))
            for attack in self.attacks
            for other in others
            for ratio in ratios
        ]
        return _sided(pairs, figure, sign)

    def similar(self, figure: str, *others: str) -> list[Comparison]:
        """PINEAT-1/1 against other variants of the same attack: similar if within the margin."""
        pairs = [
            (self.get(attack, "pineat"), self.get(attack, other, _ratio(other)))
            for attack in self.attacks
            for other in others
        ]
        if figure == "cost":
            return _costs(pairs, _within(COST_MARGIN))
        return _compared(pairs, figure, _within(MARGIN))

    def chain(self, figure: str, sign: int, ratios: Sequence[Sequence[str]]) -> list[Comparison]:
        """PINEAT's ratios against the ones before them: rising along a chain (sign 1) or falling (-1)."""
        pairs = [
            (self.get(attack, "pineat", later), self.get(attack, "pineat", earlier))
            for attack in self.attacks
            for chain in ratios
            for earlier, later in zip(chain, chain[1:])
        ]
        return _sided(pairs, figure, sign)

    def private_as_natural(self, ratios: Sequence[str]) -> list[Comparison]:
        """PINEAT's leakage against that of natural training."""
        pairs = [(self.get(attack, "pineat", ratio), self.natural) for attack in self.attacks for ratio in ratios]
        return _sided(pairs, "p_max", -1)

    def undominated(self) -> list[Comparison]:
        """PINEAT-1/1 against every other variant: against the statement if the other is better in one of accuracy,
        robustness and leakage, and no worse in any of them and, within the margin, in cost, by the means."""
        found = []
        for attack in self.attacks:
            mine = self.get(attack, "pineat")
            for variant in ("original", "advnat", "advran"):
                other = self.get(attack, variant, _ratio(variant))
                if mine and other:
                    found.append(_domination(mine, other))
        return [comparison for comparison in found if comparison]


RATIOS = ("1/1", "1/2", "2/1", "1/3", "2/2", "3/1", "1/4", "2/3", "3/2", "4/1")
_EQUAL_ROUNDS = (("2/1", "1/2"), ("3/1", "2/2", "1/3"), ("4/1", "3/2", "2/3", "1/4"))
_EQUAL_COMPANIONS = (("4/1", "3/1", "2/1", "1/1"), ("3/2", "2/2", "1/2"), ("2/3", "1/3"))
_EQUAL_ADVERSARIAL = (("1/1", "1/2", "1/3", "1/4"), ("2/1", "2/2", "2/3"), ("3/1", "3/2"))
_BY_RATIO = (("4/1", "3/1", "2/1", "3/2", "1/1", "2/3", "1/2", "1/3", "1/4"),)


def _key(result: RowResult) -> tuple[str, str, str]:
    config = result.row.configs[0]
    attack = "none" if config.variant == "natural" else config.attack
    return attack, config.variant, str(config.round_ratio)


def _ratio(variant: str) -> str:
    return "1/0" if variant == "original" else "1/1"


def _side(difference: statistics.Difference) -> int:
    """Which side of 0 a difference is on: 1, -1, or 0 if its interval holds 0."""
    if difference.low is None:
        return 0
    return 1 if difference.low > 0 else -1 if difference.high < 0 else 0


def _within(margin: float) -> Callable[[statistics.Difference], int]:
    """Whether a difference is within a margin (1), beyond it (-1), or neither is certain (0)."""

    def verdict(difference: statistics.Difference) -> int:
        if difference.low is None:
            return 0
        if -margin <= difference.low and difference.high <= margin:
            return 1
        return -1 if difference.low > margin or difference.high < -margin else 0

    return verdict


def _sided(pairs: Sequence[tuple[RowResult | None, RowResult | None]], figure: str, sign: int) -> list[Comparison]:
    """Pairs of rows compared for the first to have the larger figure (sign 1) or the smaller (-1)."""

    def verdict(difference: statistics.Difference) -> int:
        return sign * _side(difference)

    return _costs(pairs, verdict) if figure == "cost" else _compared(pairs, figure, verdict)


def _compared(
    pairs: Sequence[tuple[RowResult | None, RowResult | None]],
    figure: str,
    verdict: Callable[[statistics.Difference], int],
) -> list[Comparison]:
    comparisons = []
    for row, other in pairs:
        difference = row.difference(other, figure) if row and other else None
        if difference:
            text = f"{row.row.title} against {other.row.title}, {tables.COLUMNS[figure]}"
            comparisons.append(Comparison(text, difference, verdict(difference)))
    return comparisons


def _costs(
    pairs: Sequence[tuple[RowResult | None, RowResult | None]], verdict: Callable[[statistics.Difference], int]
) -> list[Comparison]:
    """Costs compared by the share that the first has more than the second; they are counted, so they are certain."""
    comparisons = []
    for row, other in pairs:
        if row and other:
            more = _cost(row) / _cost(other) - 1
            difference = statistics.Difference(more, more, more, None, len(row.records))
            text = f"{row.row.title} against {other.row.title}, passes (as a share)"
            comparisons.append(Comparison(text, difference, verdict(difference)))
    return comparisons


def _cost(row: RowResult) -> float:
    return row.estimate("forwards").mean


def _domination(mine: RowResult, other: RowResult) -> Comparison | None:
    """Whether another row is no worse in anything and better in something; None if they have no seed in common."""
    signs = {"a_test": 1, "r_test": 1, "p_max": -1}
    gains = {
        name: sign * other.difference(mine, name).mean for name, sign in signs.items() if other.difference(mine, name)
    }
    if not gains:
        return None
    is_no_dearer = _cost(other) <= (1 + COST_MARGIN) * _cost(mine)
    is_dominated = min(gains.values()) >= 0 and max(gains.values()) > 0 and is_no_dearer
    worst = min(gains, key=gains.get)
    difference = mine.difference(other, worst)
    text = f"{mine.row.title} against {other.row.title}, what the other is worst in: {tables.COLUMNS[worst]}"
    return Comparison(text, difference, -1 if is_dominated else 1)


def _gap_comparisons(rows: Rows) -> list[Comparison]:
    """P_Eadv over the gap attack on the same queries, by PGD: for the statement if not above the margin."""
    found = []
    for variant in ("original", "pineat"):
        row = rows.get("pgd", variant, _ratio(variant))
        if row:
            excess = [record["p_e_adv"] - record["gap_adv"] for record in row.records.values()]
            difference = statistics.paired_difference(excess, [0.0] * len(excess))
            text = f"{row.row.title}, P_Eadv over the gap attack"
            over = [value - MARGIN for value in excess]
            verdict = -_side(statistics.paired_difference(over, [0.0] * len(over)))
            found.append(Comparison(text, difference, verdict))
    return found


def _diff_advnat(rows: Rows, figure: str) -> list[Comparison]:
    """Diff's AdvNat-1/1 against its PINEAT-1/1: for the statement if smaller."""
    pair = [(rows.get("diff", "advnat"), rows.get("diff", "pineat"))]
    return _sided(pair, figure, -1)


STATEMENTS = (
    Statement(name="1a", text="PINEAT-1/1 has a higher A_test than Original in most cases.", of_most=True,
              compare=lambda rows: rows.against("a_test", 1, "original")),
    Statement(name="1b", text="PINEAT-1/1 has a higher A_test than AdvRan-1/1 in most cases.", of_most=True,
              compare=lambda rows: rows.against("a_test", 1, "advran")),
    Statement(name="1c", text="PINEAT-1/1 has a lower A_test than AdvNat-1/1.", of_most=False,
              compare=lambda rows: rows.against("a_test", -1, "advnat")),
    Statement(name="2a", text="PINEAT-1/1 has an R_test similar to that of Original.", of_most=False,
              compare=lambda rows: rows.similar("r_test", "original")),
    Statement(name="2b", text="PINEAT-1/1 has a higher R_test than AdvNat- and AdvRan-1/1 in most cases.", of_most=True,
              compare=lambda rows: rows.against("r_test", 1, "advnat", "advran")),
    Statement(name="3a", text="PINEAT-1/1 leaks less (P_MAX) than Original.", of_most=False,
              compare=lambda rows: rows.against("p_max", -1, "original")),
    Statement(name="3b", text="PINEAT-1/1 leaks as much as AdvNat-1/1.", of_most=False,
              compare=lambda rows: rows.similar("p_max", "advnat")),
    Statement(name="3c", text="PINEAT-1/1 leaks less than AdvRan-1/1 in most cases.", of_most=True,
              compare=lambda rows: rows.against("p_max", -1, "advran")),
    Statement(name="4a", text="PINEAT-1/1 costs less than Original.", of_most=False,
              compare=lambda rows: rows.against("cost", -1, "original")),
    Statement(name="4b", text="PINEAT-1/1 costs as much as AdvNat-1/1 and AdvRan-1/1.", of_most=False,
              compare=lambda rows: rows.similar("cost", "advnat", "advran")),
    Statement(name="5", text="PINEAT-1/1 is a good balance: no other variant of the same attack is better in one of "
              "A_test, R_test and P_MAX, no worse in the others, and no dearer by over 10 % (by the means).",
              of_most=False,
              compare=lambda rows: rows.undominated()),
    Statement(name="6a", text="With n + m fixed, A_test rises as n/m falls, in most cases.", of_most=True,
              compare=lambda rows: rows.chain("a_test", 1, _EQUAL_ROUNDS)),
    Statement(name="6b", text="Most ratios have a higher A_test than Original.", of_most=True,
              compare=lambda rows: rows.against("a_test", 1, "original", ratios=RATIOS)),
    Statement(name="7a", text="With m fixed, R_test falls as n/m falls, in most cases.", of_most=True,
              compare=lambda rows: rows.chain("r_test", -1, _EQUAL_COMPANIONS)),
    Statement(name="7b", text="Most ratios have a higher R_test than Original.", of_most=True,
              compare=lambda rows: rows.against("r_test", 1, "original", ratios=RATIOS)),
    Statement(name="8a", text="With n fixed, P_MAX falls as n/m falls, in most cases.", of_most=True,
              compare=lambda rows: rows.chain("p_max", -1, _EQUAL_ADVERSARIAL)),
    Statement(name="8b", text="All ratios leak less than Original.", of_most=False,
              compare=lambda rows: rows.against("p_max", -1, "original", ratios=RATIOS)),
    Statement(name="8c", text="Most ratios leak less than natural training.", of_most=True,
              compare=lambda rows: rows.private_as_natural(RATIOS)),
    Statement(name="9", text="The cost falls as n/m falls.", of_most=False,
              compare=lambda rows: rows.chain("cost", -1, _BY_RATIO)),
    Statement(name="x1", text="Against 5: by Diff, the best, AdvNat-1/1 leaks less than PINEAT-1/1.", of_most=False,
              compare=lambda rows: _diff_advnat(rows, "p_max")),
    Statement(name="x2", text="Against 5: by Diff, AdvNat-1/1 costs less than PINEAT-1/1.", of_most=False,
              compare=lambda rows: _diff_advnat(rows, "cost")),
    Statement(name="x3", text="By PGD, P_Eadv is no more than the gap attack (within the margin).", of_most=False,
              compare=_gap_comparisons),
)  # fmt: skip
"""The observations by their numbers, and three things that the paper's own table says."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: program name and arguments; `sys.argv` if None.

    Returns:
        The exit code: 0, or 2 for bad input.
    """
    return command_line.guarded(_run, argv)


def _run(argv: list[str]) -> None:
    sweep = plan.read(argv, __doc__)
    if sweep is None:
        return
    results = tables.results(sweep.rows, sweep.records)
    if not results:
        raise ValueError(
            f"there is no record of these rows in {str(sweep.records.path)!r}; run experiments.sweep first"
        )
    rows = Rows(results)
    tested = [(statement, statement.compare(rows)) for statement in STATEMENTS]
    sweep.output_dir.mkdir(parents=True, exist_ok=True)
    text = _markdown(sweep.title, tested, results)
    files.write_text(sweep.output_dir / "observations.md", text)
    files.write_json(sweep.output_dir / "observations.json", [_as_dict(*pair) for pair in tested])
    print(_summary(tested))


def _summary(tested: Sequence[tuple[Statement, list[Comparison]]]) -> str:
    lines = [("", "statement", "verdict", "for", "undecided", "against")]
    for statement, comparisons in tested:
        counts = (str(sum(comparison.verdict == side for comparison in comparisons)) for side in (1, 0, -1))
        lines.append((statement.name, statement.text, Markdown(f"**{statement.verdict(comparisons)}**"), *counts))
    return markdown_table(lines)


def _markdown(title: str, tested: Sequence[tuple[Statement, list[Comparison]]], results: Sequence[RowResult]) -> str:
    seeds = sorted({seed for result in results for seed in result.records})
    lines = [("", "comparison", "difference", "pairs", "counts")]
    words = {1: "for", 0: "undecided", -1: "against"}
    for statement, comparisons in tested:
        for text, difference, verdict in comparisons:
            shown = tables.signed_interval(difference)
            lines.append((statement.name, text, shown, str(difference.num), words[verdict]))
    notes = (
        "A comparison counts where the 95 % interval of the mean paired difference (Student's t) lies on one side of "
        f"0; for what is said to be similar, within or beyond {MARGIN} (costs: {COST_MARGIN:.0%}). No correction is "
        "made for their number. Costs are counted forward passes. Statements x1 to x3 are what the paper's table says."
    )
    seeds_text = f"Seeds {', '.join(map(str, seeds))}, which vary the training and never the images."
    parts = [
        f"# Observations 1 to 9: {quoted(title)}",
        _summary(tested),
        notes,
        seeds_text,
        "## Comparisons",
        markdown_table(lines),
    ]
    return "\n\n".join(parts) + "\n"


def _as_dict(statement: Statement, comparisons: Sequence[Comparison]) -> dict:
    found = [{"text": c.text, "verdict": c.verdict, **c.difference._asdict()} for c in comparisons]
    return {
        "name": statement.name,
        "text": statement.text,
        "verdict": statement.verdict(comparisons),
        "comparisons": found,
    }


if __name__ == "__main__":
    sys.exit(main())
