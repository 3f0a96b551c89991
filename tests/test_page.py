"""The report of a sweep: what its text holds, and what a browser makes of it on a desk and on a phone."""

import base64
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
from made_up import record_of
from matplotlib.image import imsave

from experiments import paper
from experiments.config import ExperimentConfig
from experiments.sweep import page, tables
from experiments.sweep.grid import Row

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = """<img src=x onerror="document.title='owned'"> & 'A' </script><!-- $title"""
VARIANTS = {"original": "Original", "advnat": "AdvNat-1/1", "advran": "AdvRan-1/1", "pineat": "PINEAT-1/1"}
SHARES = ("a_train", "a_test", "r_train", "r_test", "p_e_nat", "p_e_adv", "p_max")
GAPS = {"nat": "a", "adv": "r"}


def record(config, **figures):
    """A made-up record with the gaps and the cost that follow from its figures and flags."""
    shares = {**dict.fromkeys(SHARES, 0.5), **figures}
    shares |= {f"gap_{kind}": (1 + shares[f"{a}_train"] - shares[f"{a}_test"]) / 2 for kind, a in GAPS.items()}
    updates = config.scaled_updates
    costs = {"gradient_passes": 9 * updates, "forward_units": 19 * updates}
    return record_of(config, seconds=180.0, **costs, **shares)


def result(group, label, figures, seeds=(0, 1, 2), **flags):
    """A row whose seeds differ a little."""
    flags = {"dataset": "fmnist", "width": 1, "updates": 400, **flags}
    configs = tuple(ExperimentConfig(seed=seed, **flags) for seed in seeds)
    rng = np.random.default_rng(len(label))
    records = {
        config.seed: record(config, **{name: value + rng.normal(scale=0.002) for name, value in figures.items()})
        for config in configs
    }
    return tables.RowResult(Row(group=group, label=label, configs=configs), records)


def table1(seeds=(0, 1, 2)):
    """The 13 rows of the paper's Table 1 on Fashion-MNIST, with figures near those of the paper."""
    rows = [("", "Natural", "pgd", "natural")]
    rows += [(a.upper(), label, a, variant) for a in ("pgd", "dist", "diff") for variant, label in VARIANTS.items()]
    configs = [ExperimentConfig(dataset="fmnist", attack=attack, variant=variant) for _, _, attack, variant in rows]
    figures = [{name: 0.45 + 0.5 * paper.paper_row(config)[name] for name in SHARES} for config in configs]
    return [
        result(group, label, values, seeds, attack=attack, variant=variant)
        for (group, label, attack, variant), values in zip(rows, figures)
    ]


def hostile():
    """Two rows whose names would be a script, the title and the group with them."""
    return [
        result(HOSTILE, HOSTILE, {"r_test": 0.6}, attack="pgd", variant="pineat"),
        result(HOSTILE, "Original", {"r_test": 0.7}, attack="pgd", variant="original"),
    ]


def report(results, title="Table 1", references=("Original",), examples=1):
    pictures = [(HOSTILE, png())] * examples
    return page.report(results, title=title, references=references, examples=pictures)


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
    text = report(table1())
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
    results = table1()
    text, titles = report(results), [result.row.title for result in results]
    assert re.findall(r'<tr><th scope="row" data-value="([^"]*)">', text.partition('id="tests"')[0]) == titles
    assert [trace["name"] for trace in figure(text)["data"]] == [*titles, "front: beaten by no other row"]


def test_a_cell_has_mean_spread_interval_and_the_papers_figure():
    results = table1()
    cell = cells(report(results), "PGD PINEAT-1/1")["r_test"]
    row = next(r for r in results if r.row.title == "PGD PINEAT-1/1")
    estimate = row.estimate("r_test")
    assert f"{estimate.mean:.4f} ± {estimate.sd:.4f}" in cell
    assert f"[{estimate.low:.4f}, {estimate.high:.4f}]" in cell
    assert f"paper: {row.paper['r_test']:.4f}" in cell


def test_a_single_run_has_neither_spread_nor_interval_nor_test():
    text = report(table1(seeds=(3,)))
    assert "±" not in cells(text, "Natural")["a_test"] and "[" not in cells(text, "Natural")["a_test"]
    assert not figure(text)["data"][0]["error_x"]["visible"]
    assert set(re.findall(r'<span class="interval">p (\S+)', text.partition('id="tests"')[2])) == {"-"}


def test_the_best_are_marked_as_in_the_other_tables():
    results = table1()
    text, tags = report(results), {"bold": "<strong>", "underline": "<u>", None: ""}
    for result in results:
        for name, cell in cells(text, result.row.title).items():
            mark = tables.marks(results).get((result.row.title, name)) if name != "noise_floor" else None
            assert all((tag in cell) == (kind == mark) for kind, tag in tags.items() if tag)


def test_flags_are_told_apart_from_those_of_all_rows():
    common, own = page.differing_flags(table1())
    assert "--dataset=fmnist" in common and not any("output_dir" in flag or "seed" in flag for flag in common)
    assert own[4] == ["--attack=pgd", "--variant=pineat"]


def test_the_page_says_what_is_in_it():
    facts = dict(page._facts(table1()))
    assert facts["runs"] == "39 with seeds 0, 1, 2" and facts["members (training images)"] == "10,000"
    mixed = dict(page._facts([*table1(), result("", "Wide", {}, width=4)]))
    assert mixed["network"] == "fmnist_vgg (width 1), fmnist_vgg (width 4)"


def test_paired_differences_say_what_is_significant():
    rows = [
        result("PGD", "Original", {"r_test": 0.7, "p_max": 0.60}, attack="pgd", variant="original"),
        result("PGD", "PINEAT-1/1", {"r_test": 0.6, "p_max": 0.55}, attack="pgd", variant="pineat"),
    ]
    ((test),) = page._tests(rows, ["Original"])
    verdicts = dict(zip(tables.TESTED, [cell["verdict"] for cell in test["cells"]]))
    assert (verdicts["r_test"], verdicts["p_max"]) == ("worse", "better")
    assert "Paired differences" not in report(rows, references=())


def test_a_report_needs_results():
    with pytest.raises(ValueError, match="needs results"):
        page.report([], title="Nothing", references=())


# ---------------------------------------------------------------- the plot


def test_the_view_begins_at_the_rows_that_are_robust():
    fragile = result("", "Natural", {"r_test": 0.01, "p_max": 0.9}, variant="natural")
    results = [fragile, *table1()[1:]]
    for name in ("r_test", "p_max"):
        low, high = page._range(results, name)
        assert not low <= fragile.estimate(name).mean <= high
        assert all(low < r.estimate(name).low and r.estimate(name).high < high for r in results[1:])


def test_the_own_method_is_labelled_and_intervals_are_drawn():
    data = page.plot(table1()).data
    assert [trace.text[0] for trace in data if trace.mode == "markers+text"] == ["PINEAT-1/1"] * 3
    assert all(trace.error_y.visible for trace in data[:-1])


@pytest.mark.parametrize("x, y", page.VIEWS)
def test_every_view_holds_all_rows_and_the_front_that_none_beats(x, y):
    results = table1()
    view = page._view(results, x, y)
    points = list(zip([p[0] for p in view.traces["x"][:-1]], [p[0] for p in view.traces["y"][:-1]]))
    assert points == [(r.estimate(x).mean, r.estimate(y).mean) for r in results]
    sign_x, sign_y = (1 if name in tables.LARGER_IS_BETTER else -1 for name in (x, y))
    front = list(zip(view.traces["x"][-1], view.traces["y"][-1]))
    for a, b in points:
        beaten = any(sign_x * c >= sign_x * a and sign_y * d >= sign_y * b and (c, d) != (a, b) for c, d in points)
        assert ((a, b) in front) != beaten


def test_the_noise_floor_is_on_axes_of_leakage_only():
    results = table1()
    assert len(page._view(results, "p_max", "r_test").layout["shapes"]) == 1
    assert len(page._view(results, "p_e_nat", "p_e_adv").layout["shapes"]) == 2
    assert not page._view(results, "a_test", "r_test").layout["shapes"]


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
@pytest.mark.parametrize("results, width", [(table1, 500), (hostile, 1280)])
def test_in_a_browser_tables_sort_and_the_plot_is_drawn(results, width, tmp_path):
    rows = results()
    found = in_browser(report(rows, title=HOSTILE), width, tmp_path)
    assert found["title"] == HOSTILE
    assert found["rising"] == sorted(found["rising"]) and found["falling"] == found["rising"][::-1]
    assert len(found["rising"]) == len(rows)
    assert found["overflow"] == 0
    assert found["legend"] == [*(row.row.title for row in rows), "front: beaten by no other row"]
