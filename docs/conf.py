"""The documentation as a site. `just docs` builds it from the repository's root and fails at each warning.

The pages are plain Markdown that a code host shows as well. The navigation of the site is made of docs/index.md: each
of its sections is a caption, each page that it links is an entry.
"""

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
INDEX = "docs/index"

project = "Membridge"
author = "the authors of Membridge"
extensions = ["myst_parser"]
root_doc = INDEX
source_suffix = {".md": "markdown"}
include_patterns = ["*.md", "docs/**.md", "deploy/**.md", "hooks/**.md"]
exclude_patterns = [".*", "build", "tests", "**/node_modules"]
nitpicky = True

myst_heading_anchors = 4

html_theme = "furo"
html_title = "Membridge"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"footer_icons": []}


def navigation(text: str, folder: str) -> str:
    """Return the tables of contents that the sections of a page give, as MyST writes them; `folder` is the page's."""
    written: list[str] = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        pages: list[str] = []
        for name, link in re.findall(r"\[([^]]+)\]\(([^)#]+\.md)\)", section):
            page = (ROOT / folder / link).resolve().relative_to(ROOT).with_suffix("").as_posix()
            # The READMEs at the top have the same heading in each language.
            pages.append(f"{name} </{page}>" if page.startswith("README") else f"/{page}")
        entries = "\n".join(dict.fromkeys(pages))
        written.append(f"```{{toctree}}\n:hidden:\n:caption: {section.splitlines()[0]}\n\n{entries}\n```\n")
    return "\n".join(written)


def _with_navigation(_: Sphinx, page: str, source: list[str]) -> None:
    if page == INDEX:
        source[0] += "\n" + navigation(source[0], "docs")


def _with_language(_: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Tell the browser, and what reads a page aloud, the language of a translation."""
    del template, doctree
    if page.endswith(".uk") or "/uk/" in page:
        context["language"] = "uk"


def _with_start(app: Sphinx, error: Exception | None) -> None:
    """Lead the address of the site itself to its index."""
    if error is None:
        page = f'<!doctype html><title>{project}</title><meta http-equiv="refresh" content="0; url={INDEX}.html">\n'
        (Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect what this file adds."""
    app.connect("source-read", _with_navigation)
    app.connect("html-page-context", _with_language)
    app.connect("build-finished", _with_start)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
