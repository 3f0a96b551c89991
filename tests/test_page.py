"""The report of a sweep: what its text holds, and what a browser makes of it on a desk and on a phone."""

import base64
import functools
import hashlib
import html.parser
import io
import json
import re
import shutil
import subprocess
from html import unescape

import numpy as np
import pytest
from made_up import tidy
from matplotlib.image import imsave

from experiments import paper
from experiments.config import ExperimentConfig
from experiments.sweep import page, tables

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = """<img src=x onerror="document.title='owned'"> & 'A' </script><!-- $title"""
VARIANTS = {"original": "Original", "advnat": "AdvNat-1/1", "advran": "AdvRan-1/1", "pineat": "PINEAT-1/1"}
SHARES = ("a_train", "a_test", "r_train", "r_test", "p_e_nat", "p_e_adv", "p_max")
GAPS = {"nat": "a", "adv": "r"}


def row(group, label, figures, seeds=(0, 1, 2), **flags):
    """A row whose seeds differ a little, with the gaps that follow from its figures."""
    rng = np.random.default_rng(len(label))
    runs = []
    for seed in seeds:
        config = ExperimentConfig(seed=seed, **{"dataset": "fmnist", "width": 1, "updates": 400, **flags})
        shares = {**dict.fromkeys(SHARES, 0.5)}
        shares |= {name: value + rng.normal(scale=0.002) for name, value in figures.items()}
        shares |= {f"gap_{kind}": (1 + shares[f"{a}_train"] - shares[f"{a}_test"]) / 2 for kind, a in GAPS.items()}
        runs.append((config, shares | {"seconds": 180.0}))
    return group, label, runs


def table1(seeds=(0, 1, 2), others=()):
    """The 13 rows of the paper's Table 1 on Fashion-MNIST, with figures near those of the paper."""
    rows = [("", "Natural", "pgd", "natural")]
    rows += [(a.upper(), label, a, variant) for a in ("pgd", "dist", "diff") for variant, label in VARIANTS.items()]
    configs = [ExperimentConfig(dataset="fmnist", attack=attack, variant=variant) for _, _, attack, variant in rows]
    figures = [{name: 0.45 + 0.5 * paper.paper_row(config)[name] for name in SHARES} for config in configs]
    return tidy(*others, *(
        row(group, label, values, seeds, attack=attack, variant=variant)
        for (group, label, attack, variant), values in zip(rows, figures)
    ))  # fmt: skip


def hostile():
    """Two rows whose names would be a script, the title and the group with them."""
    return tidy(
        row(HOSTILE, HOSTILE, {"r_test": 0.6}, attack="pgd", variant="pineat"),
        row(HOSTILE, "Original", {"r_test": 0.7}, attack="pgd", variant="original"),
    )


def report(runs, title="Table 1", references=("Original",), examples=1):
    pictures = [(HOSTILE, png())] * examples
    return page.report(runs, title=title, references=references, examples=pictures)


@functools.cache
def usual():
    """The runs of Table 1 and their report, made once."""
    runs = table1()
    return runs, report(runs)


def png():
    """A picture of 3 x 2 pixels."""
    file = io.BytesIO()
    imsave(file, np.zeros((2, 3)), format="png")
    return file.getvalue()


class Page(html.parser.HTMLParser):
    """The elements of a page with their attributes."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def attributes(self, tag):
        return [attrs for each, attrs in self.elements if each == tag]


def cells(text, title):
    """The cells of a row of the results by their column."""
    start = text.index(f'<tr><th scope="row" data-value="{title}">')
    line = text[start : text.index("</tr>", start)]
    return dict(
        zip((*tables.COLUMNS, *tables.COSTS, "noise_floor"), re.findall(r"<td.*?</td>", line, re.DOTALL), strict=True)
    )


def figure(text):
    """The JSON of the plot."""
    return json.loads(re.search(r'<script type="application/json" id="figure">(.*?)</script>', text, re.DOTALL)[1])


# ---------------------------------------------------------------- the text


def test_nothing_is_fetched_and_only_its_own_scripts_run():
    _, text = usual()
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    policy = next(m["content"] for m in Page(text).attributes("meta") if "http-equiv" in m)
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts] == allowed
    assert not [a for a in Page(text).attributes("link") + Page(text).attributes("script") if "href" in a or "src" in a]


def test_hostile_names_stay_text():
    text = report(hostile(), title=HOSTILE)
    assert "onerror" not in [name for _, attributes in Page(text).elements for name in attributes]
    assert "</script><!--" not in text.partition('id="figure">')[2].partition("</script>")[0]
    assert all("<img" not in trace["name"] for trace in figure(text)["data"])  # Plotly would take it for markup


def test_all_rows_are_in_the_tables_and_in_the_plot():
    runs, text = usual()
    titles = list(runs["title"].unique())
    assert re.findall(r'<tr><th scope="row" data-value="([^"]*)">', text.partition('id="tests"')[0]) == titles
    assert [trace["name"] for trace in figure(text)["data"]] == [*titles, "front: beaten by no other row"]


def test_a_cell_has_mean_spread_interval_and_the_papers_figure():
    runs, text = usual()
    cell = cells(text, "PGD PINEAT-1/1")["r_test"]
    estimate = tables.estimates(runs).loc["PGD PINEAT-1/1", "r_test"]
    assert f"{estimate.mean:.4f} ± {estimate.sd:.4f}" in cell
    assert f"[{estimate.low:.4f}, {estimate.high:.4f}]" in cell
    assert "paper: 0.6824" in cell


def test_a_single_run_has_neither_spread_nor_interval_nor_test():
    text = report(table1(seeds=(3,)))
    assert "±" not in cells(text, "Natural")["a_test"] and "[" not in cells(text, "Natural")["a_test"]
    assert not figure(text)["data"][0]["error_x"]["visible"]
    assert set(re.findall(r'<span class="interval">p (\S+)', text.partition('id="tests"')[2])) == {"-"}


def test_the_best_are_marked_as_in_the_other_tables():
    runs, text = usual()
    tags, marks = {"bold": "<strong>", "underline": "<u>"}, tables.marks(runs)
    for title in runs["title"].unique():
        for name, cell in cells(text, title).items():
            assert all((tag in cell) == (kind == marks.get((title, name))) for kind, tag in tags.items())


def test_flags_are_told_apart_from_those_of_all_rows():
    common, own = page.differing_flags(usual()[0])
    assert "--dataset=fmnist" in common and not any("output_dir" in flag or "seed" in flag for flag in common)
    assert own["PGD PINEAT-1/1"] == ["--attack=pgd", "--variant=pineat"]


def test_the_page_says_what_is_in_it():
    facts = dict(page._facts(usual()[0]))
    assert facts["runs"] == "39 with seeds 0, 1, 2" and facts["members (training images)"] == "10,000"
    mixed = dict(page._facts(table1(others=[row("", "Wide", {}, width=4)])))
    assert mixed["network"] == "fmnist_vgg (width 4), fmnist_vgg (width 1)"


def test_paired_differences_say_what_is_significant():
    runs = tidy(
        row("PGD", "Original", {"r_test": 0.7, "p_max": 0.60}, attack="pgd", variant="original"),
        row("PGD", "PINEAT-1/1", {"r_test": 0.6, "p_max": 0.55}, attack="pgd", variant="pineat"),
    )
    (test,) = page._tests(runs, ["Original"])
    verdicts = dict(zip(tables.TESTED, [cell["verdict"] for cell in test["cells"]]))
    assert (verdicts["r_test"], verdicts["p_max"]) == ("worse", "better")
    assert "Paired differences" not in report(runs, references=())


def test_a_report_needs_results():
    with pytest.raises(ValueError, match="needs results"):
        page.report(tidy(), title="Nothing", references=())


# ---------------------------------------------------------------- the plot


def test_the_view_begins_at_the_rows_that_are_robust():
    runs = usual()[0].copy()
    runs.loc[runs["title"] == "Natural", ["r_test", "p_max"]] = 0.01, 0.9
    estimates = tables.estimates(runs)
    for name, fragile in (("r_test", 0.01), ("p_max", 0.9)):
        low, high = page._range(estimates, name)
        assert not low <= fragile <= high
        assert all(low < one.low and one.high < high for one in estimates[name].drop("Natural"))


def test_the_own_method_is_labelled_and_intervals_are_drawn():
    data = page.plot(usual()[0]).data
    labelled = [trace.text[0] for trace in data if trace.mode == "markers+text"]
    assert labelled == [f"{group} PINEAT-1/1" for group in ("PGD", "DIST", "DIFF")]
    assert all(trace.error_y.visible for trace in data[:-1])


@pytest.mark.parametrize("x, y", page.VIEWS)
def test_every_view_holds_all_rows_the_front_that_none_beats_and_noise_floors_of_leakage(x, y):
    estimates = tables.estimates(usual()[0])
    view = page._view(estimates, [(0.5044, 0.5087)], x, y)
    points = list(zip([p[0] for p in view.traces["x"][:-1]], [p[0] for p in view.traces["y"][:-1]]))
    assert points == [(a.mean, b.mean) for a, b in zip(estimates[x], estimates[y])]
    sign_x, sign_y = (1 if name in tables.LARGER_IS_BETTER else -1 for name in (x, y))
    front = list(zip(view.traces["x"][-1], view.traces["y"][-1]))
    for a, b in points:
        beaten = any(sign_x * c >= sign_x * a and sign_y * d >= sign_y * b and (c, d) != (a, b) for c, d in points)
        assert ((a, b) in front) != beaten
    assert len(view.layout["shapes"]) == (x, y).count("p_max")


# ---------------------------------------------------------------- in a browser

CHECKS = """
setTimeout(() => {
  const sort = document.querySelectorAll("#results thead button")[2];
  const values = () => [...document.querySelectorAll("#results tbody tr")].map((r) => +r.cells[2].dataset.value);
  sort.click();
  const rising = values();
  sort.click();
  const found = { title: document.title, rising, falling: values(), overflow: 0 };
  found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  found.marks = document.querySelectorAll("#plot .scatterlayer .point").length;
  found.legend = [...document.querySelectorAll("#plot .legendtext")].map((t) => t.textContent);
  document.body.innerHTML = "";
  const pre = Object.assign(document.createElement("pre"), { id: "found", textContent: JSON.stringify(found) });
  document.body.append(pre);
}, 1500);
"""


def in_browser(text, width, directory):
    """Loads the page in a browser window so wide, sorts a table twice and gives what stands there."""
    digest = base64.b64encode(hashlib.sha256(CHECKS.encode()).digest()).decode()
    text = text.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    (directory / "page.html").write_text(text.replace("</body>", f"<script>{CHECKS}</script></body>"), "utf-8")
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={directory / 'profile'}"]
    command += [f"--window-size={width},1000", "--virtual-time-budget=20000", "--dump-dom"]
    run = subprocess.run([*command, (directory / "page.html").as_uri()], capture_output=True, text=True, timeout=1200)
    found = re.search(r'<pre id="found">(.*?)</pre>', run.stdout, re.DOTALL)
    assert found, run.stderr[-2000:]
    return json.loads(unescape(found[1]))


@pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")
@pytest.mark.parametrize("made_up, width", [(table1, 500), (hostile, 1280)])
def test_in_a_browser_tables_sort_and_the_plot_is_drawn(made_up, width, tmp_path):
    runs = made_up()
    titles = list(runs["title"].unique())
    found = in_browser(report(runs, title=HOSTILE), width, tmp_path)
    assert found["title"] == HOSTILE
    assert found["rising"] == sorted(found["rising"]) and found["falling"] == found["rising"][::-1]
    assert len(found["rising"]) == len(titles)
    assert found["overflow"] == 0
    assert found["legend"] == [*titles, "front: beaten by no other row"]
