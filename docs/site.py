"""Hooks of the documentation site: pages and pictures from elsewhere in the repository; examples in docstrings."""

import pathlib
import re
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

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
    return re.sub(r"\]\(\.\./experiments/study/results(?=/)", "](results", markdown)


class Examples(griffe.Extension):
    """Shows the section that Keras calls "Example" as what Google's style calls "Examples": code and its output."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
