"""A hook of mkdocs: pages and pictures that live elsewhere in the repository, and links to them."""

import pathlib
import re

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
