"""Hooks of the documentation site: pages and pictures from elsewhere in the repository; the leaderboard; examples."""

import io
import itertools
import json
import pathlib
import re
from typing import Any

import griffe
import matplotlib
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

matplotlib.use("Agg")
from matplotlib import pyplot

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "study" / "results"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds BUILD_NOTES.md, and the tables and pictures of the committed results."""
    for path in (ROOT / "BUILD_NOTES.md", *RESULTS.glob("**/*.md"), *RESULTS.glob("**/*.png")):
        name = path.relative_to(RESULTS.parent if RESULTS in path.parents else ROOT).as_posix()
        added = File.generated(config, name, abs_src_path=str(path))
        added.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(added)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points links that are right in the repository to where the site has their targets."""
    if page.file.src_uri == "BUILD_NOTES.md":
        return re.sub(r"\]\((?:README\.md)", "](index.md", markdown.replace("](docs/", "]("))
    if page.file.src_uri == "zoo.md":
        return markdown.replace("<!-- leaderboard -->", leaderboard())
    return re.sub(r"\]\(((?:\.\./)*)\.\./experiments/study/results(?=/)", r"](\1results", markdown)


_COLUMNS = (
    "network",
    "accuracy",
    "AutoAttack leaves",
    "P_MAX",
    "no leak, 95 %",
    "RMIA's AUC",
    "verified",
    "passes of 100 images",
)


def leaderboard() -> str:
    """Tabulates and draws the cards of the zoo, a section a data set: robust ones first."""
    cards: dict[str, dict[str, dict]] = {}
    for path in sorted((ROOT / "zoo").glob("**/*.json")):
        name = path.relative_to(ROOT / "zoo").with_suffix("").as_posix()
        card = json.loads(path.read_text(encoding="utf-8"))
        cards.setdefault(card["data"]["name"], {})[name] = card
    return "\n\n".join(_section(data, found) for data, found in cards.items())


def _section(data: str, cards: dict[str, dict]) -> str:
    first = next(iter(cards.values()))
    counts = f"{first['data']['num_members']:,} members and {first['data']['num_non_members']:,} non-members"
    lines = [f"| {' | '.join(_COLUMNS)} |", "|" + " --- |" * len(_COLUMNS)]
    for name, card in sorted(cards.items(), key=lambda item: -item[1]["robustness"]["accuracies"][-1]):
        shadow, figures = (card["shadow"] or {}).get("RMIA online"), card["figures"]
        cells = (
            f'<span title="{card["sentence"]}">{name}</span>',
            _figure(figures["a_test"]),
            _figure(_left(card)),
            _figure(figures["p_max"]),
            f"{card['noise_floor']['p_max_upper_95']:.3f}",
            _figure(shadow["auc"]) if shadow else "",
            _figure(figures["v_test"]) if figures["v_test"] else "no rule",
            f"{card['training']['forward_passes_of_100_images']:,}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    threat, num = first["threat"], first["robustness"]["num"]
    about = (
        f"{counts}; AutoAttack on {num:,} of them, radius {threat['epsilon']:g} ({threat['norm']}); "
        "95 % intervals. RMIA's AUC is that of the method in the study, where it is on record, not of this network."
    )
    return "\n\n".join([f"### {data}", _picture(cards), "\n".join(lines), about])


def _left(card: dict) -> dict[str, float]:
    """What AutoAttack leaves, as the cards have figures."""
    (low, high), value = card["robustness"]["intervals_95"][-1], card["robustness"]["accuracies"][-1]
    return {"value": value, "low": low, "high": high}


def _figure(figure: dict[str, float]) -> str:
    return f"{figure['value']:.3f}<br><small>[{figure['low']:.3f}, {figure['high']:.3f}]</small>"


def _picture(cards: dict[str, dict]) -> str:
    """Draws robustness against leakage; areas are costs. The SVG takes its colour from the page, light or dark."""
    ink = "#010203"
    plain = {name: ink for name in ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor")}
    with pyplot.rc_context({**plain, "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 13}):
        figure, axis = pyplot.subplots(figsize=(7.5, 4.4), layout="constrained")
        by_leak = sorted(cards.items(), key=lambda item: item[1]["figures"]["p_max"]["value"])
        for (name, card), height in zip(by_leak, itertools.cycle((8, -18, 24, -34))):  # neighbours' names lie apart
            leak, left = card["figures"]["p_max"], _left(card)
            spread = {"xerr": _lengths(leak), "yerr": _lengths(left)}
            axis.errorbar(leak["value"], left["value"], **spread, fmt="none", ecolor="#2a8fd0", alpha=0.7)
            area = 40 + card["training"]["forward_passes_of_100_images"] / 200
            axis.scatter(leak["value"], left["value"], s=area, color="#2a8fd0", linewidths=0)
            label = name.partition("/")[2]
            axis.annotate(label, (leak["value"], left["value"]), (9, height), textcoords="offset points")
        axis.axvspan(
            0.5, max(card["noise_floor"]["p_max_upper_95"] for card in cards.values()), color="#888888", alpha=0.2
        )
        axis.set(xlabel="leakage: P_MAX (grey: no leak to be seen)", ylabel="robustness: AutoAttack leaves")
        axis.spines[["top", "right"]].set_visible(False)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
        pyplot.close(figure)
    svg = " ".join(drawn.getvalue().partition("<svg")[2].replace(ink, "currentColor").split())
    words = "Robustness against leakage; the area of a point is what its training cost."
    return f"<figure><svg {svg}<figcaption>{words}</figcaption></figure>"


def _lengths(figure: dict[str, float]) -> list[list[float]]:
    return [[max(0.0, figure["value"] - figure["low"])], [max(0.0, figure["high"] - figure["value"])]]


class Examples(griffe.Extension):
    """Shows the section that Keras calls "Example" as what Google's style calls "Examples": code and its output."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
