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

import pandas as pd

from experiments import command_line, files, paper, statistics
from experiments.statistics import Difference
from experiments.sweep import plan, tables
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
    difference: Difference
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


Pairs = Sequence[tuple[str | None, str | None]]
"""Titles of rows to compare, None for those that were not run."""


class Rows:
    """The rows that were run, by attack and by what was trained.

    Args:
        runs: of `results.tidy`; ablations of the paper's methods and additions to them are left out.

    Raises:
        ValueError: if no row is left, or two are of one method.
    """

    def __init__(self, runs: pd.DataFrame):
        self.runs = runs[runs["config"].map(paper.is_its_method)]
        if self.runs.empty:
            raise ValueError("no row is of a method as the paper has it; take e.g. --flagfile=table1_fmnist.flags")
        self._titles: dict[tuple[str, str, str], str] = {}
        for title, config in tables.rows(self.runs)["config"].items():
            attack = "none" if config.variant == "natural" else config.attack
            before = self._titles.setdefault((attack, config.variant, str(config.round_ratio)), title)
            if before is not title:
                raise ValueError(
                    f"two rows are of one method of the paper: {before!r} and {title!r}. Choose by --only."
                )
        self.attacks = [name for name in ("pgd", "dist", "diff") if (name, "original", "1/0") in self._titles]
        self.natural = self._titles.get(("none", "natural", "0/1"))

    def get(self, attack: str, variant: str, ratio: str = "") -> str | None:
        """The title of the row of one method, of ratio 1/1 unless it says otherwise; None if it was not run."""
        return self._titles.get((attack, variant, ratio or ("1/0" if variant == "original" else "1/1")))

    def against(self, figure: str, sign: int, *others: str, ratios: Sequence[str] = ("1/1",)) -> list[Comparison]:
        """PINEAT against other variants of the same attack: better if the figure is larger (sign 1) or smaller (-1)."""
        pairs = [
            (self.get(attack, "pineat", ratio), self.get(attack, other))
            for attack in self.attacks
            for other in others
            for ratio in ratios
        ]
        return self.compared(pairs, figure, _on_side(sign))

    def similar(self, figure: str, *others: str) -> list[Comparison]:
        """PINEAT-1/1 against other variants of the same attack: similar if within the margin."""
        pairs = [(self.get(attack, "pineat"), self.get(attack, other)) for attack in self.attacks for other in others]
        return self.compared(pairs, figure, _within(COST_MARGIN if figure == "forwards" else MARGIN))

    def chain(self, figure: str, sign: int, ratios: Sequence[Sequence[str]]) -> list[Comparison]:
        """PINEAT's ratios against the ones before them: rising along a chain (sign 1) or falling (-1)."""
        pairs = [
            (self.get(attack, "pineat", later), self.get(attack, "pineat", earlier))
            for attack in self.attacks
            for chain in ratios
            for earlier, later in zip(chain, chain[1:])
        ]
        return self.compared(pairs, figure, _on_side(sign))

    def private_as_natural(self, ratios: Sequence[str]) -> list[Comparison]:
        """PINEAT's leakage against that of natural training."""
        pairs = [(self.get(attack, "pineat", ratio), self.natural) for attack in self.attacks for ratio in ratios]
        return self.compared(pairs, "p_max", _on_side(-1))

    def compared(self, pairs: Pairs, figure: str, verdict: Callable[[Difference], int]) -> list[Comparison]:
        """Compares pairs of rows over the seeds that both have.

        Costs ("forwards") are compared by the share that the first has more than the second; they are counted, so they
        are certain.
        """
        found = []
        for title, other in pairs:
            if not title or not other:
                continue
            if figure == "forwards":
                more = self._cost(title) / self._cost(other) - 1
                difference = Difference(more, more, more, None, int((self.runs["title"] == title).sum()))
                text = f"{title} against {other}, passes (as a share)"
            else:
                difference = statistics.difference(self.runs, title, other, figure)
                text = f"{title} against {other}, {tables.COLUMNS[figure]}"
            if difference:
                found.append(Comparison(text, difference, verdict(difference)))
        return found

    def undominated(self) -> list[Comparison]:
        """PINEAT-1/1 against every other variant: against the statement if the other is better in one of accuracy,
        robustness and leakage, and no worse in any of them and, within the margin, in cost, by the means."""
        pairs = [
            (self.get(a, "pineat"), self.get(a, v)) for a in self.attacks for v in ("original", "advnat", "advran")
        ]
        found = [self._domination(mine, other) for mine, other in pairs if mine and other]
        return [comparison for comparison in found if comparison]

    def _domination(self, mine: str, other: str) -> Comparison | None:
        """Whether another row is no worse in anything and better in something; None if they share no seed."""
        signs = {"a_test": 1, "r_test": 1, "p_max": -1}
        differences = {name: statistics.difference(self.runs, mine, other, name) for name in signs}
        if not all(differences.values()):
            return None
        gains = {name: -sign * differences[name].mean for name, sign in signs.items()}
        is_no_dearer = self._cost(other) <= (1 + COST_MARGIN) * self._cost(mine)
        is_dominated = min(gains.values()) >= 0 and max(gains.values()) > 0 and is_no_dearer
        worst = min(gains, key=gains.get)
        text = f"{mine} against {other}, what the other is worst in: {tables.COLUMNS[worst]}"
        return Comparison(text, differences[worst], -1 if is_dominated else 1)

    def no_more_than_the_gap(self) -> list[Comparison]:
        """P_Eadv over the gap attack on the same queries, with PGD: for the statement if not above the margin."""
        found = []
        for variant in ("original", "pineat"):
            of_row = self.runs[self.runs["title"] == self.get("pgd", variant)]
            if len(of_row):
                excess = (of_row["p_e_adv"] - of_row["gap_adv"]).to_numpy()
                difference, over = (statistics.paired_difference(excess, 0 * excess + by) for by in (0.0, MARGIN))
                text = f"{self.get('pgd', variant)}, P_Eadv over the gap attack"
                found.append(Comparison(text, difference, _on_side(-1)(over)))
        return found

    def diff_advnat(self, figure: str) -> list[Comparison]:
        """Diff's AdvNat-1/1 against its PINEAT-1/1: for the statement if smaller."""
        return self.compared([(self.get("diff", "advnat"), self.get("diff", "pineat"))], figure, _on_side(-1))

    def _cost(self, title: str) -> float:
        return self.runs.loc[self.runs["title"] == title, "forwards"].mean()


RATIOS = ("1/1", "1/2", "2/1", "1/3", "2/2", "3/1", "1/4", "2/3", "3/2", "4/1")
_EQUAL_ROUNDS = (("2/1", "1/2"), ("3/1", "2/2", "1/3"), ("4/1", "3/2", "2/3", "1/4"))
_EQUAL_COMPANIONS = (("4/1", "3/1", "2/1", "1/1"), ("3/2", "2/2", "1/2"), ("2/3", "1/3"))
_EQUAL_ADVERSARIAL = (("1/1", "1/2", "1/3", "1/4"), ("2/1", "2/2", "2/3"), ("3/1", "3/2"))
_BY_RATIO = (("4/1", "3/1", "2/1", "3/2", "1/1", "2/3", "1/2", "1/3", "1/4"),)


def _on_side(sign: int) -> Callable[[Difference], int]:
    """For the statement (1) where the interval lies on this side of 0, against it (-1) on the other, else undecided."""

    def verdict(difference: Difference) -> int:
        if difference.low is None:
            return 0
        return sign if difference.low > 0 else -sign if difference.high < 0 else 0

    return verdict


def _within(margin: float) -> Callable[[Difference], int]:
    """For the statement (1) where the interval lies within a margin, against it (-1) beyond it, else undecided (0)."""

    def verdict(difference: Difference) -> int:
        if difference.low is None:
            return 0
        if -margin <= difference.low and difference.high <= margin:
            return 1
        return -1 if difference.low > margin or difference.high < -margin else 0

    return verdict


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
              compare=lambda rows: rows.against("forwards", -1, "original")),
    Statement(name="4b", text="PINEAT-1/1 costs as much as AdvNat-1/1 and AdvRan-1/1.", of_most=False,
              compare=lambda rows: rows.similar("forwards", "advnat", "advran")),
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
              compare=lambda rows: rows.chain("forwards", -1, _BY_RATIO)),
    Statement(name="x1", text="Against 5: with TRADES, the best, AdvNat-1/1 leaks less than PINEAT-1/1.", of_most=False,
              compare=lambda rows: rows.diff_advnat("p_max")),
    Statement(name="x2", text="Against 5: with TRADES, AdvNat-1/1 costs less than PINEAT-1/1.", of_most=False,
              compare=lambda rows: rows.diff_advnat("forwards")),
    Statement(name="x3", text="With PGD, P_Eadv is no more than the gap attack (within the margin).", of_most=False,
              compare=Rows.no_more_than_the_gap),
)  # fmt: skip
"""The observations by their numbers, and three things that the paper's own table says."""


@command_line.program
def main(argv: list[str]) -> None:
    """Does what a command line says."""
    sweep = plan.read(argv, __doc__)
    if sweep is None:
        return
    runs = sweep.finished()
    if runs.empty:
        raise ValueError(f"there is no run of these rows in {str(sweep.runs.path)!r}; run experiments.sweep first")
    rows = Rows(runs)
    tested = [(statement, statement.compare(rows)) for statement in STATEMENTS]
    sweep.output_dir.mkdir(parents=True, exist_ok=True)
    files.write_text(sweep.output_dir / "observations.md", _markdown(sweep.title, tested, sorted(set(runs["seed"]))))
    files.write_json(sweep.output_dir / "observations.json", [_as_dict(*pair) for pair in tested])
    print(_summary(tested))


def _summary(tested: Sequence[tuple[Statement, list[Comparison]]]) -> str:
    lines = [("", "statement", "verdict", "for", "undecided", "against")]
    for statement, comparisons in tested:
        counts = (str(sum(comparison.verdict == side for comparison in comparisons)) for side in (1, 0, -1))
        lines.append((statement.name, statement.text, Markdown(f"**{statement.verdict(comparisons)}**"), *counts))
    return markdown_table(lines)


def _markdown(title: str, tested: Sequence[tuple[Statement, list[Comparison]]], seeds: Sequence[int]) -> str:
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
    varied = f"Seeds {', '.join(map(str, seeds))}, which vary the training and never the images."
    parts = [f"# Observations 1 to 9: {quoted(title)}", _summary(tested), notes, varied]
    return "\n\n".join([*parts, "## Comparisons", markdown_table(lines)]) + "\n"


def _as_dict(statement: Statement, comparisons: Sequence[Comparison]) -> dict:
    found = [{"text": c.text, "verdict": c.verdict, **c.difference._asdict()} for c in comparisons]
    verdict = statement.verdict(comparisons)
    return {"name": statement.name, "text": statement.text, "verdict": verdict, "comparisons": found}


if __name__ == "__main__":
    sys.exit(main())
