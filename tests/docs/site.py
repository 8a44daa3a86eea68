"""Builds the documentation as a site and checks it: `python -m tests.docs.site`, or `just docs`.

Sphinx fails at each warning: a link to a page or a heading that does not exist, a page outside the navigation, a code
block that its language's lexer cannot read. The pages that it wrote are then read as a browser would: every address
leads to a file of the site and to an id there, and nothing is loaded from elsewhere, so the site works offline.
"""

import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[2]
SITE = ROOT / "build" / "site"
#: The attributes of each tag that make a browser load something.
LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "use": "href"}


class Page(HTMLParser):
    """The ids of a page, what it links to, and what it loads."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loads: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take down what a tag names."""
        values = dict(attrs)
        if found := values.get("id"):
            self.ids.add(found)
        if tag == "a" and (target := values.get("href")):
            self.links.add(target)
        if (attribute := LOADS.get(tag)) and (target := values.get(attribute)):
            self.loads.add(target)


def build() -> None:
    """Build the site anew."""
    shutil.rmtree(SITE, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "--fail-on-warning",
        "--keep-going",
        "--quiet",
        "--nitpicky",
        "--fresh-env",
    ]
    doctrees = ROOT / ".cache" / "doctrees"
    command += ["--builder", "html", "--conf-dir", "docs", "--doctree-dir", str(doctrees), ".", str(SITE)]
    subprocess.run(command, cwd=ROOT, check=True)


def read(site: Path) -> dict[Path, Page]:
    """Return the pages of a built site."""
    pages: dict[Path, Page] = {}
    for file in sorted(site.rglob("*.html")):
        pages[file] = Page()
        pages[file].feed(file.read_text(encoding="utf-8"))
    return pages


def faults(site: Path) -> list[str]:
    """Return what is wrong with a built site: dead links, and what is loaded from elsewhere."""
    pages, found = read(site), list[str]()
    for file, page in pages.items():
        name = file.relative_to(site)
        for target in sorted(page.links | page.loads):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if target in page.loads and parts.scheme != "data":
                    found.append(f"{name} loads {target} from elsewhere")
                continue
            there = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            anchor = unquote(parts.fragment)
            if not there.is_file():
                found.append(f"{name} links to {target}, which the site does not have")
            elif anchor and there in pages and anchor not in pages[there].ids:
                found.append(f"{name} links to {target}, and there is no such heading")
    return found


def main() -> None:
    """Build and check; say what is wrong."""
    build()
    if found := faults(SITE):
        sys.exit("\n".join(found))
    sys.stdout.write(f"{SITE / 'index.html'}\n")


if __name__ == "__main__":
    main()
