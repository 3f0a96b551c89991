"""The report of a sweep: what its text holds, and what a browser makes of it on a desk and on a phone."""

import base64
import dataclasses
import hashlib
import html.parser
import io
import json
import re
import shutil
import subprocess
from html import escape, unescape

import numpy as np
import pytest
from made_up import record_of
from matplotlib.image import imsave

from experiments import paper
from experiments.config import ExperimentConfig
from experiments.sweep import html as sweep_html
from experiments.sweep import tables
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
    return sweep_html.report(results, title=title, references=references, examples=pictures)


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


def cells(text, row):
    """The cells of a row of the results by their column."""
    line = next(line for line in text.splitlines() if line.startswith(f'<tr data-row="{row}"'))
    names = (*tables.COLUMNS, "noise_floor", *tables.COSTS)
    return dict(zip(names, re.findall(r"<td.*?</td>", line), strict=True))


def data(text):
    """The JSON of the plot."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


# ---------------------------------------------------------------- the text


def test_nothing_is_fetched():
    text = report(table1())
    page = Page(text)
    assert "http" not in text.lower().replace("http-equiv", "")
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.elements}
    links = [
        attrs[name] for _, attrs in page.elements for name in ("src", "href", "srcset", "action") if attrs.get(name)
    ]
    assert links and all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert "@import" not in text and set(re.findall(r"url\((.*?)\)", text)) == {"#inside"}


def test_the_policy_lets_only_its_own_style_and_script_run():
    text = report(table1())
    (policy,) = [attrs["content"] for attrs in Page(text).attributes("meta") if "http-equiv" in attrs]
    directives = dict(part.strip().split(None, 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'" and directives["img-src"] == "data:"
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert directives[f"{tag}-src"] == f"'sha256-{digest}'"
    assert not any("style" in attrs or any(name.startswith("on") for name in attrs) for _, attrs in Page(text).elements)


def test_hostile_names_stay_text():
    text = report(hostile(), title=HOSTILE)
    assert "<img src=x" not in text and text.count("<script") == 2 and text.count("</script>") == 2
    assert [tag for tag, _ in Page(text).elements].count("img") == 1  # the example
    assert f"<h1>{escape(HOSTILE)}</h1>" in text and "$title" in text
    shown = data(text)["rows"][0]
    assert (shown["label"], shown["title"]) == (HOSTILE, f"{HOSTILE} {HOSTILE}")


def test_all_rows_are_in_the_table_and_in_the_plot():
    results = table1()
    text = report(results)
    assert [attrs["data-row"] for attrs in Page(text).attributes("tr") if "data-row" in attrs] == [
        str(number) for number in range(13)
    ]
    shown = data(text)["rows"]
    assert [row["title"] for row in shown] == [r.row.title for r in results]
    assert [row["group"] for row in shown] == [0] + 4 * [1] + 4 * [2] + 4 * [3]
    assert [row["mark"] for row in shown] == [0] + 4 * [1] + 4 * [2] + 4 * [3]
    assert shown[4]["figures"]["r_test"]["mean"] == results[4].estimate("r_test").mean
    assert shown[4]["figures"]["r_test"]["values"] == list(results[4].values("r_test").values())
    assert shown[4]["paper"]["p_max"] == 0.6052 and "hours" not in shown[4]["paper"]


def test_groups_have_filters_and_rows_without_one_are_named_after_the_only_label():
    text = report(table1())
    filters = re.findall(r'data-group-filter="(\d)"> <svg class="mark (g\d)".*?</svg> (\w+)</label>', text)
    assert filters == 2 * [("0", "g0", "Natural"), ("1", "g1", "PGD"), ("2", "g2", "DIST"), ("3", "g3", "DIFF")]
    several = [result("", "A", {}), result("", "B", {}), result("PGD", "A", {})]
    assert re.findall(r"</svg> ([\w ]+)</label>", report(several))[:2] == ["no group", "PGD"]


def test_a_cell_has_mean_spread_interval_and_the_papers_figure():
    row = result("PGD", "PINEAT-1/1", {}, seeds=(0, 1), attack="pgd", variant="pineat")
    for seed, value in enumerate((0.61, 0.63)):  # mean 0.62, sd 0.01 sqrt(2), half the interval 12.706 * 0.01
        row.records[seed]["r_test"] = value
    cell = cells(report([row]), 0)["r_test"]
    assert f'data-value="{row.estimate("r_test").mean!r}" title="95 % interval [0.4929, 0.7471]"' in cell
    assert re.findall(r'<span class="(\w+)">([^<]*)</span>', cell) == [
        ("value", "0.6200"), ("sd", "± 0.0141"), ("interval", "[0.4929, 0.7471]"), ("paper", "0.6824"),
    ]  # fmt: skip


def test_a_single_run_has_neither_spread_nor_interval_nor_tests():
    text = report(table1(seeds=(0,)), examples=0)
    assert '<span class="sd">seed 0</span>' in text
    assert "±" not in "".join(cells(text, 4).values()) and "title=" not in "".join(cells(text, 4).values())
    assert data(text)["rows"][4]["figures"]["r_test"]["low"] is None
    assert '<em class="better">better</em></span>' not in text and "p -" in text
    assert 'aria-labelledby="examples" hidden' in text and 'aria-labelledby="differences" >' in text


def test_the_best_are_marked_as_in_the_other_tables():
    results = table1()
    marked = tables.marks(results)
    text = report(results)
    for number, row in enumerate(results):
        for name, cell in cells(text, number).items():
            mark = marked.get((row.row.title, name))
            assert ("<strong>" in cell, "<u>" in cell) == (mark == "bold", mark == "underline"), (row.row.title, name)
    assert {"bold", "underline"} == set(marked.values())


def test_costs_and_noise_floor_are_columns():
    shown = cells(report(table1()), 4)
    assert ">0.5044<" in shown["noise_floor"] and ">95 %: 0.5087<" in shown["noise_floor"]
    assert ">3.0<" in shown["minutes"] and ">3.90 h<" in shown["minutes"]
    assert ">3,600<" in shown["gradient_passes"]


def test_flags_are_told_apart_from_those_of_all_runs():
    results = [
        result("PGD", "A", {}, attack="pgd", learning_rates=(1e-3, 1e-4), boundaries=(300,), data_dir="/home/me"),
        result("PGD", "B", {}, attack="pgd", learning_rates=(1e-3, 1e-4), boundaries=(300,), random_start=False),
        result("Dist", "A", {}, attack="dist", learning_rates=(1e-3, 1e-4), boundaries=(300,)),
    ]
    common, differing = sweep_html.differing_flags(results)
    assert differing == [
        ["--attack=pgd", "--random_start=true"],
        ["--attack=pgd", "--random_start=false"],
        ["--attack=dist", "--random_start=true"],
    ]
    assert {"--width=1", "--learning_rates=0.001,0.0001", "--boundaries=300", "--dataset=fmnist"} <= set(common)
    text = report(results)
    assert [row["flags"] for row in data(text)["rows"]] == differing
    assert "/home/me" not in text and "--seed" not in text and "<code>--width=1</code>" in text


def test_the_page_says_what_is_in_it():
    text = unescape(report(table1()))
    assert "13 rows, 39 runs with seeds 0 to 2, on fmnist: 10,000 members (training images) and 9,000 non" in text
    assert "Network fmnist_vgg of width 1, 400 updates, float32." in text
    assert "Made with pineat_tf 0.1.0, keras 3.15.1." in text
    assert "leaks nothing scores 0.5044 on average (95\N{NO-BREAK SPACE}%: below 0.5087)" in text


def test_what_differs_between_runs_is_listed():
    results = [result("A", "a", {}, seeds=(4,), width=0), result("B", "b", {}, (1, 4), updates=4000, network="mlp")]
    text = unescape(report(results))
    assert "2 rows, 3 runs with seeds 1 and 4, on" in text
    assert "Networks fmnist_vgg and mlp of the paper's width and width 1, 400 to 4,000 updates" in text


def test_paired_differences_say_what_is_significant():
    figures = {"a_test": 0.9, "r_test": 0.6, "p_max": 0.6}
    better = {"a_test": 0.9, "r_test": 0.7, "p_max": 0.5}
    rows = [result("PGD", label, values) for label, values in (("Original", figures), ("Another", better))]
    for seed, noise in enumerate((0.001, 0.0, -0.001)):
        for name, value in better.items():
            rows[1].records[seed][name] = rows[0].records[seed][name] + value - figures[name] + noise
    ((_, _, differences),) = tables.tests(rows, ["Original"])
    text = report(rows)
    (line,) = [line for line in text.splitlines() if line.startswith("<tr data-group")]
    assert re.findall(r'<span class="value">(.*?)</span>', line) == ["+0.0000", "+0.1000", "−0.1000"]
    verdicts = [re.findall(r'<em class="(\w+)">\1</em>', cell) for cell in line.split("<td")[3:]]
    assert verdicts == [[], ["better"], ["better"]]
    assert line.count("p &lt; 0.001") == sum(d.p_value < 0.001 for d in differences.values()) == 2
    (worse,) = [t for t in report(rows, references=["Another"]).splitlines() if t.startswith("<tr data-group")]
    assert re.findall(r"<em.*?>(\w+)</em>", worse) == ["worse", "worse"]


def test_other_references_or_none():
    assert 'aria-labelledby="differences" hidden' in report(table1(), references=["Nobody"])
    both = report(table1(), references=["Original", "PINEAT-1/1"])
    assert len([line for line in both.splitlines() if line.startswith("<tr data-group")]) == 2 * 9


def test_a_report_needs_results():
    with pytest.raises(ValueError, match="A report needs results"):
        report([])


def test_rows_that_the_paper_does_not_have_go_without():
    row = result("PGD", "PINEAT-2/1", {}, attack="pgd", variant="pineat", ratio="2/1")
    text = report([row])
    assert 'class="paper"' not in text and data(text)["rows"][0]["paper"] is None


# ---------------------------------------------------------------- in a browser

PRELUDE = r"""
const errors = [];
addEventListener("error", (event) => errors.push(String(event.message)));
addEventListener("securitypolicyviolation", (event) => errors.push(event.violatedDirective));
for (const kind of ["error", "warn"]) console[kind] = (...parts) => errors.push(parts.join(" "));
const all = (selector) => [...document.querySelectorAll(selector)];
const one = (selector) => document.querySelector(selector);
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const titles = () => all("#table tbody tr").filter((row) => !row.hidden).map((row) => row.cells[0].dataset.value);
const overflow = () => document.documentElement.scrollWidth - innerWidth;
const set = (selector, value) => {
  one(selector).value = value;
  one(selector).dispatchEvent(new Event("change"));
};
const own = () => all(".point:not(.of-paper)");

function overlaps(boxes) {
  const hits = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3;
  return boxes.flatMap((a, i) => boxes.slice(i + 1).filter((b) => hits(a, b))).length;
}

function luminance(color) {
  const [r, g, b] = color.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

/** The text of least contrast with what is behind it: [contrast, text]. */
function faintest() {
  const parse = (text) => text.match(/[\d.]+/g).map(Number);
  const hasText = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  const behind = (node) => {
    const color = parse(getComputedStyle(node).backgroundColor);
    return color.length === 3 || color[3] === 1 ? color : behind(node.parentElement);
  };
  const shown = all("body *").filter((node) => node.tagName !== "OPTION" && node.checkVisibility() && hasText(node));
  const found = shown.map((node) => {
    const style = getComputedStyle(node);
    const ink = parse(node.closest("#plot") ? style.fill : style.color).slice(0, 3);
    return [contrast(ink, behind(node)), node.textContent.trim().slice(0, 40)];
  });
  return found.sort((a, b) => a[0] - b[0])[0];
}

addEventListener("load", async () => {
  const found = {};
  try {
    await check(found);
  } catch (error) {
    errors.push(String(error.stack));
  }
  parent.postMessage(JSON.stringify({ ...found, errors, width: innerWidth, overflow: overflow() }), "*");
});
"""

CHECKS = r"""
async function check(found) {
  await wait(100);
  found.before = titles();
  const column = (name) => [...one("#table thead tr").cells].findIndex((cell) => cell.textContent === name);
  const header = one("#table thead tr").cells[column("PMAX")];
  found.sorted = [0, 1, 2].map(() => {
    header.querySelector("button").click();
    return [header.getAttribute("aria-sort"), titles()];
  });
  const labels = all("#plot .label").map((label) => label.getBoundingClientRect());
  found.labels = [labels.length, overlaps(labels)];
  found.axisTitles = all("#plot .axis-title").map((node) => node.textContent);
  found.floor = all("#plot .floor").length;

  const point = one('.point[data-row="4"]');
  point.dispatchEvent(new Event("mouseenter"));
  const box = one("#tooltip").getBoundingClientRect();
  found.tooltip = [one("#tooltip").hidden, one("#tooltip").textContent, box.left >= 0 && box.right <= innerWidth];
  found.lit = all("tr.lit").map((row) => row.cells[0].dataset.value);
  found.tooltipOverflow = overflow();
  point.dispatchEvent(new Event("mouseleave"));
  await wait(400);
  found.left = one("#tooltip").hidden;
  point.focus();
  found.focused = [document.activeElement === point, one("#tooltip").hidden, point.getAttribute("aria-describedby")];
  document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
  found.escaped = one("#tooltip").hidden;

  found.paper = [all(".point.of-paper").length];
  one("#show-paper").click();
  found.paper.push(all(".point.of-paper").length);
  one("#show-paper").click();
  found.runs = [all("#plot .run").length];
  one("#show-runs").click();
  found.runs.push(all("#plot .run").length);

  const filters = all('[data-group-filter="1"]');
  filters[0].click();
  const differences = all(".differences tbody tr:not([hidden])");
  found.filtered = [own().length, titles().length, filters[1].checked, differences.length];
  all("[data-group-filter]").slice(0, 4).forEach((input) => input.checked && input.click());
  found.none = [own().length, one("#plot").textContent];
  all("[data-group-filter]").slice(0, 4).forEach((input) => input.click());
  found.again = [own().length, titles().length];

  found.axes = {};
  for (const x of [...one("#x-axis").options].map((option) => option.value)) {
    for (const y of [...one("#y-axis").options].map((option) => option.value)) {
      set("#x-axis", x);
      set("#y-axis", y);
      const isBroken = ({ value }) => /NaN|Infinity/.test(value);
      const broken = all("#plot *").filter((node) => [...node.attributes].some(isBroken));
      found.axes[`${x} ${y}`] = [own().length, broken.length, all("#plot .front").length];
    }
  }

  found.lines = {};
  for (const [id, kind] of [["show-intervals", "interval"], ["show-paper-lines", "paper"]]) {
    const visible = () => all(`#table .${kind}`).filter((node) => node.checkVisibility()).length;
    const before = visible();
    one(`#${id}`).click();
    found.lines[kind] = [before, visible()];
  }
  found.wideOverflow = overflow();
  const scroller = one("#table").parentElement;
  scroller.scrollLeft = 150;
  const edge = one("#table tbody th").getBoundingClientRect().left - scroller.getBoundingClientRect().left;
  found.scrolled = [scroller.scrollLeft, Math.round(edge)];

  for (const details of all("details")) details.open = true;
  own()[4].dispatchEvent(new Event("mouseenter"));
  found.schemes = [0, 1].map(() => {
    const scheme = [getComputedStyle(document.body).backgroundColor, one("#scheme").textContent, ...faintest()];
    one("#scheme").click();
    return scheme;
  });
}
"""

HOSTILE_CHECKS = r"""
async function check(found) {
  await wait(100);
  own()[0].dispatchEvent(new Event("mouseenter"));
  found.tooltip = one("#tooltip .title").textContent;
  await wait(200);
  found.title = document.title;
  found.images = all("img").map((image) => image.naturalWidth);
}
"""


def in_browser(text, checks, width, directory):
    """Runs the checks in a copy of the page, in a frame so wide, and gives what they found."""
    script = PRELUDE + checks
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = text.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    text = text.replace("<title>", f"<script>{script}</script>\n<title>", 1)
    (directory / "page.html").write_text(text, encoding="utf-8")
    (directory / "frame.html").write_text(
        f'<iframe src="page.html" style="border:0;width:{width}px;height:900px"></iframe><pre id="found"></pre>'
        '<script>addEventListener("message", (e) => (document.getElementById("found").textContent = e.data));</script>'
    )
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={directory / 'profile'}"]
    command += [f"--window-size={width + 100},1000", "--virtual-time-budget=20000", "--dump-dom"]
    run = subprocess.run([*command, (directory / "frame.html").as_uri()], capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="found">(.*?)</pre>', run.stdout, re.DOTALL)
    assert found and found[1], run.stderr[-2000:]
    return json.loads(unescape(found[1]))


needs_browser = pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")


@pytest.fixture(scope="module", params=[1280, 390], ids=["desk", "phone"])
def seen(request, tmp_path_factory):
    """What a browser of that width says of Table 1."""
    found = in_browser(report(table1()), CHECKS, request.param, tmp_path_factory.mktemp("browser"))
    assert found["errors"] == []
    assert found["width"] == request.param
    return found


@needs_browser
def test_nothing_but_tables_scrolls_sideways(seen):
    assert seen["overflow"] <= 0 and seen["tooltipOverflow"] <= 0 and seen["wideOverflow"] <= 0
    scrolled, edge = seen["scrolled"]
    assert scrolled > 0 and edge in (0, 1)  # the first column stays; it may have a border before it


@needs_browser
def test_a_header_sorts_by_means_and_gives_the_order_back(seen):
    results = table1()
    ranked = [r.row.title for r in sorted(results, key=lambda r: r.estimate("p_max").mean)]
    assert seen["before"] == [r.row.title for r in results]
    assert seen["sorted"] == [["ascending", ranked], ["descending", ranked[::-1]], [None, seen["before"]]]


@needs_browser
def test_a_point_tells_figures_and_flags(seen):
    hidden, text, inside = seen["tooltip"]
    assert not hidden and inside
    row = table1()[4]
    for part in ("PGD PINEAT-1/1", "--attack=pgd", "--variant=pineat", "seeds 0 to 2", "3,600"):
        assert part in text
    for name in ("r_test", "p_max", "gap"):
        estimate = row.estimate(name)
        assert f"{estimate.mean:.4f}[{estimate.low:.4f}, {estimate.high:.4f}]" in text
    assert "--width" not in text  # the same in all runs
    assert seen["lit"] == ["PGD PINEAT-1/1"]
    assert seen["left"] and seen["escaped"]
    assert seen["focused"] == [True, False, "tooltip"]


@needs_browser
def test_the_plot_has_all_rows_by_all_axes(seen):
    assert set(seen["axes"]) == {f"{x} {y}" for x in sweep_html.X_AXES for y in sweep_html.Y_AXES}
    assert all(found == [13, 0, 1] for found in seen["axes"].values()), seen["axes"]
    assert seen["axisTitles"] == ["R_test ↑ better", "← better P_MAX"] and seen["floor"] == 1
    assert seen["paper"] == [0, 13] and seen["runs"] == [39, 0]


@needs_browser
def test_labels_do_not_cover_each_other(seen):
    num, overlapping = seen["labels"]
    assert num >= 9 and overlapping == 0


@needs_browser
def test_groups_are_filtered_in_plot_and_tables_at_once(seen):
    assert seen["filtered"] == [9, 9, False, 6]
    assert seen["none"] == [0, "No group is selected."]
    assert seen["again"] == [13, 13]


@needs_browser
def test_intervals_and_the_papers_figures_come_and_go(seen):
    shares, rows = 8, 13
    assert seen["lines"]["interval"] == [0, rows * (1 + shares + 3)]  # the row's header, and the costs
    assert seen["lines"]["paper"] == [rows * (1 + 7 + 1), 0]  # the paper has no gap attack and no passes


@needs_browser
def test_both_schemes_can_be_read(seen):
    (light, to_dark, light_contrast, light_text), (dark, to_light, dark_contrast, dark_text) = seen["schemes"]
    assert light != dark and (to_dark, to_light) == ("Dark scheme", "Light scheme")
    assert light_contrast >= 4.5, light_text
    assert dark_contrast >= 4.5, dark_text


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_hostile_names_do_nothing(tmp_path, width):
    found = in_browser(report(hostile(), title=HOSTILE), HOSTILE_CHECKS, width, tmp_path)
    assert found["errors"] == [] and found["overflow"] <= 0
    assert (found["title"], found["images"]) == (HOSTILE, [3])
    assert found["tooltip"] == f"{HOSTILE} {HOSTILE}"


@needs_browser
def test_one_run_of_one_row_has_a_plot(tmp_path):
    checks = CHECKS.split("const column")[0] + "found.points = [own().length, all('#plot .whisker').length]; }"
    row = table1(seeds=(7,))[0]
    other = dataclasses.replace(row, row=dataclasses.replace(row.row, label="Other"))
    for rows in ([row], [row, other]):  # the same figures twice: every span is 0
        found = in_browser(report(rows, examples=0), checks, 390, tmp_path)
        assert found["errors"] == [] and found["points"] == [len(rows), len(rows)] and found["overflow"] <= 0
