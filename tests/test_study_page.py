"""docs/study.md: a question a section, with its answer, its picture and tables that are those of the records."""

import json
import re

import numpy as np
import pytest
from study_records import RESULTS, cifar10, fmnist, read, shadow, short, side, universal

import pineat_tf as pt
from experiments.paper import paper_row
from experiments.statistics import difference, paired_difference
from experiments.sweep.tables import signed_interval

PAGE = read("docs/study.md")
SECTIONS = dict(re.findall(r"^## (.*?)\n\n(.*?)(?=\n## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
MOST, ROWS_OF_OBSERVATIONS = 7, 11  # of a table
OBSERVATIONS = "What of the paper's observations holds?"


def table(header: str, text: str = PAGE) -> list[list[str]]:
    """The cells of the table whose first line begins so."""
    (block,) = (block for block in text.split("\n\n") if block.startswith(f"| {header} |".replace("|  |", "| |")))
    return [line.strip("| ").split(" | ") for line in block.splitlines()[2:]]


def test_the_page_is_short():
    assert len(PAGE.splitlines()) <= 250
    assert len(read("docs/protocol.md").splitlines()) <= 60


@pytest.mark.parametrize("title", SECTIONS)
def test_a_section_is_a_question_with_its_answer_and_picture(title):
    answer, *rest = SECTIONS[title].split("\n\n")
    assert title.endswith("?") and re.fullmatch(r"\*\*[^*]+\.\*\*", answer, re.DOTALL)
    assert len(re.findall(r"[a-z)]\. [A-Z]", answer)) == 0  # one sentence
    assert re.search(r"^!\[[^]]+\]\(\S+\.png\)$", "\n\n".join(rest), re.MULTILINE)
    assert re.search(r"\]\(\.\./experiments/study/results/\S+\.md\)", "\n\n".join(rest))
    for block in rest:
        most = ROWS_OF_OBSERVATIONS if title == OBSERVATIONS else MOST
        assert not block.startswith("|") or 3 <= len(block.splitlines()) - 2 <= most


def test_questions_stand_in_their_order():
    firsts = (
        "Does PINEAT do",
        "Which ratio",
        "Does the gain survive",
        "What carries",
        "Is there a better",
        "Is there a recipe that wins",
        "Can robustness",
        "Does PINEAT serve",
    )
    lasts = ("Does it hold against stronger attackers", "Does it hold against stronger attacks")
    places = [PAGE.index(f"## {title}") for title in (*firsts, *lasts, "What of the paper's observations")]
    assert places == sorted(places)


def test_differences_stand_beside_those_of_the_paper():
    shown = table("PINEAT-1/1 against Original")
    for runs, data in ((fmnist(), "Fashion-MNIST"), (cifar10(), "CIFAR-10")):
        configs = runs.drop_duplicates("title").set_index("title")["config"]
        for attack, name in (("PGD", "PGD"), ("Dist", "Dist"), ("Diff", "TRADES")):
            pair = f"{attack} PINEAT-1/1", f"{attack} Original"
            pineat, original = (paper_row(configs[title]) for title in pair)
            row = [f"{data}, {name}", str(difference(runs, *pair, "p_max").num)]
            for figure in ("a_test", "r_test", "p_max"):
                row += [signed_interval(difference(runs, *pair, figure)), f"{pineat[figure] - original[figure]:+.4f}"]
            assert row == shown.pop(0)
    assert not shown


def test_what_attackers_find():
    shown = table("attacker, queries")
    original, pineat = (shadow()[name] for name in ("PGD Original", "PGD PINEAT-1/1"))
    for about, *cells in shown:
        found = []
        for figure in ("tpr_0.001", "auc"):
            values = [study.of(*about.split("; ")).values(figure) for study in (original, pineat)]
            found += [*(f"{np.mean(one):.4f}" for one in values), signed_interval(paired_difference(*values[::-1]))]
        assert cells == found
    assert len(shown) >= 5


def test_what_attacks_leave():
    shown, runs = table("method | R_test (PGD-20, 10,000 images)"), fmnist().query("seed == 4").set_index("title")
    for title, *cells in shown:
        name = title.lower().replace(" ", "-").replace("/", "-")
        found = json.loads((RESULTS / "study_fmnist" / "audits" / f"{name}-seed4.json").read_text())["robustness"]
        left, (low, high) = found["after_each_attack"][-1], found["intervals_95"][-1]
        figures = [short(left[attack], 3, "") for attack in ("apgd_ce", "apgd_t", "fab_t", "square")]
        r_test, p_max = (short(runs.loc[title, figure], sign="") for figure in ("r_test", "p_max"))
        expected = [r_test, *figures[:-1], f"{figures[-1]} [{short(low, 3, '')}, {short(high, 3, '')}]", p_max]
        assert [cell.strip("*") for cell in cells] == expected
    assert len(shown) >= 5


def test_how_examples_cluster():
    record = json.loads((RESULTS / "figure1_fmnist" / "figure1.json").read_text())
    kinds = ("reverse symmetry", "shuffled signs", "random points", "natural images")
    found = {name.split()[0]: one for name, one in record.items()}
    paper = read("docs/paper.md")
    for attack, *cells in table("original method", paper):
        figures = [found[attack]["alignment"], *(found[attack][f"dispersion with {kind}"] for kind in kinds)]
        assert cells == [f"{one['mean']:.2f}".removeprefix("0") for one in figures]
    assert all(one["alignment"]["low"] > 0.1 for one in found.values())  # they cluster

    def above(attack, more, less):
        return found[attack][f"dispersion with {more}"]["low"] > found[attack][f"dispersion with {less}"]["high"]

    assert "mirror images widen the clusters more than shuffled signs do.**" in paper
    assert all(above(attack, "reverse symmetry", "shuffled signs") for attack in found)
    assert "that no companion widens clusters more; with Dist random points do" in paper
    assert above("Dist", "random points", "reverse symmetry")
    assert min(found, key=lambda attack: found[attack]["alignment"]["mean"]) == "Diff"
    assert min(found, key=lambda attack: found[attack]["dispersion with reverse symmetry"]["mean"]) == "Diff"


def test_verdicts_are_those_of_the_observations():
    record = json.loads((RESULTS / "study_fmnist" / "observations.json").read_text(encoding="utf-8"))
    verdicts = {one["name"]: one["verdict"] for one in record}
    shown: dict[str, str] = {}
    for group, _, cell in table("", SECTIONS[OBSERVATIONS]):
        if cell in ("holds", "does not hold", "undecided"):
            shown[group] = cell
        else:
            shown |= dict(one.split(" ", 1) for one in cell.split(", "))
    assert shown == verdicts
    of_ratios = [verdict for name, verdict in verdicts.items() if name[0] in "6789"]
    counts = [of_ratios.count(verdict) for verdict in ("holds", "does not hold", "undecided")]
    assert len(of_ratios) == 8 and counts == [2, 2, 4]
    words = " ".join(SECTIONS[OBSERVATIONS].split())
    assert "of eight statements on ratios two hold, two do not, and four are undecided.**" in words
    assert [verdicts[name] for name in ("3a", "4a", "1a")] == ["holds", "holds", "does not hold"]
    assert "3b fails as PINEAT leaks less" in words
    (fails,) = (one["comparisons"] for one in record if one["name"] == "3b")
    assert all(one["high"] < 0 for one in fails if one["verdict"] < 0)


METHODS = ("PGD", "TRADES", "MART", "IKL", "AWP", "IBP", "MTL-IBP")


def of_methods(other: str, against: str, figure: str) -> dict:
    """A variant's paired difference from another, of each method of the sweep."""
    return {name: difference(universal(), f"{name} {other}", f"{name} {against}", figure) for name in METHODS}


def test_what_companions_bring_each_method():
    half = of_methods("PINEAT-1/1", "Original (half schedule)", "p_max")
    found = [of_methods("PINEAT-1/1", "Original", figure) for figure in ("a_test", "r_test", "p_max")]
    shown = table("PINEAT-1/1 with")
    assert shown == [[name, *(signed_interval(one[name]) for one in (*found, half))] for name in METHODS]
    assert {one.num for one in half.values()} == {3}


def names(said: str, other: str, against: str, figure: str) -> set[str]:
    """The methods of whose variants the intervals say "less", "more" or "open"."""
    return {name for name, one in of_methods(other, against, figure).items() if side(one) == said}


def test_what_is_said_of_methods_is_that_of_the_records():
    text, half = " ".join(SECTIONS["Does PINEAT serve every method of the field?"].split()), "Original (half schedule)"
    assert "**No: PINEAT-1/1 leaks less than the method itself with PGD, AWP and interval bounds alone," in text
    assert names("less", "PINEAT-1/1", "Original", "p_max") == {"PGD", "AWP", "IBP"}
    assert "every method leaks less on half its schedule, with five of the seven less than PINEAT-1/1.**" in text
    assert names("less", half, "Original", "p_max") == set(METHODS)
    assert len(names("more", "PINEAT-1/1", half, "p_max")) == 5
    assert "with TRADES, MART, IKL and MTL-IBP AdvNat-1/1 and AdvRan-1/1 are not told apart" in text
    for other in ("AdvNat-1/1", "AdvRan-1/1"):
        assert names("open", "PINEAT-1/1", other, "p_max") == {"TRADES", "MART", "IKL", "MTL-IBP"}
    assert "PINEAT-2/1 leaks less than the method with PGD, TRADES, IKL and AWP." in text
    assert names("less", "PINEAT-2/1", "Original", "p_max") == {"PGD", "TRADES", "IKL", "AWP"}
    assert "Half the schedule costs A_test with all seven; PINEAT-1/1 keeps more of it with TRADES, MART" in text
    assert names("less", half, "Original", "a_test") == set(METHODS)
    assert names("more", "PINEAT-1/1", half, "a_test") == {"TRADES", "MART", "IKL", "IBP", "MTL-IBP"}


def test_the_guide_says_of_methods_what_the_records_say():
    text, means = (
        " ".join(read("docs/guides/choosing.md").split()),
        universal().groupby("title").mean(numeric_only=True),
    )
    leaks = means.loc[[f"{name} Original" for name in METHODS], "p_max"].sort_values()
    assert "PGD and `AWP` leaked most, and gained most from companions" in text
    assert set(leaks.index[-2:]) == {"PGD Original", "AWP Original"} and leaks.index[0] == "IBP Original"
    gains = {name: one.mean for name, one in of_methods("PINEAT-1/1", "Original", "p_max").items()}
    assert set(sorted(gains, key=gains.get)[:2]) == {"PGD", "AWP"}
    assert "`IKL` leaked less than TRADES, at less accuracy" in text
    pair = "IKL Original", "TRADES Original"
    assert [side(difference(universal(), *pair, figure)) for figure in ("p_max", "a_test")] == ["less", "less"]
    bounds = means.loc["IBP Original"]
    assert f"and proved {short(bounds.v_test, 2, '')} for {short(bounds.r_test, 2, '')} under attack" in text
    costs = sorted(-one.mean for one in of_methods("Original (half schedule)", "Original", "a_test").values())
    assert f"with all seven, at {short(costs[0], 3, '')} to {short(costs[-1], 3, '')} of accuracy" in text


def test_readme_says_of_methods_and_proofs_what_the_records_say():
    text = " ".join(read("README.md").split())
    assert "(of seven methods of the field PINEAT-1/1 makes three leak less, half the schedule all seven)" in text
    assert len(METHODS) == 7 and len(names("less", "PINEAT-1/1", "Original", "p_max")) == 3
    assert len(names("less", "Original (half schedule)", "Original", "p_max")) == 7
    proved = pt.zoo.card("fmnist/bounds-small-cnn")["figures"]["v_test"]["value"]
    assert f"`pt.verify`: for {short(proved, 3, '')} of images that it never saw, of a network of the zoo)" in text


def test_noise_floors_are_those_of_the_tables():
    tables = ("study_fmnist/table1", "study_cifar10/table1"), ("best_fmnist/best", "best_cifar10/best")
    for name in (*tables[0], *tables[1]):
        (floor,) = set(re.findall(r"0\.\d{4} \(95 %: below 0\.\d{4}\)", (RESULTS / f"{name}.md").read_text("utf-8")))
        assert floor in " ".join(PAGE.split()) and (name in tables[1] or floor in read("docs/reproduce.md"))
