"""The files of the console: published bytes of others, what a browser loads, and how large it is."""

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

from services.gateway.service import CONSOLE
from services.web.pages import Site

VENDOR = CONSOLE / "vendor"
#: Bytes of all that a browser may load, compressed.
MOST = 60 << 10


@pytest.fixture(scope="module")
def site() -> Site:
    return Site(CONSOLE)


def listed() -> dict[str, str]:
    """Return the sha512 of each listed file by its name."""
    packages = json.loads((VENDOR / "vendor.json").read_text("utf-8"))
    for one in packages:
        assert one["name"]
        assert re.fullmatch(r"\d+\.\d+\.\d+", one["version"])
        assert one["licence"] in {"MIT", "Apache-2.0"}
        assert re.fullmatch(r"sha512-[A-Za-z0-9+/]{86}==", one["integrity"])
        assert any(file["from"] == "LICENSE" for file in one["files"])
    return {file["file"]: file["sha512"] for one in packages for file in one["files"]}


def test_files_of_others_are_the_published_bytes_and_all_are_listed() -> None:
    found = {
        file.name: base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode()
        for file in VENDOR.iterdir()
        if file.name != "vendor.json"
    }
    assert found == listed()


def test_all_that_a_browser_may_load_is_small(site: Site) -> None:
    sizes = {name: len(file.packed) for name, file in site.files.items()} | {"index": len(site.index.packed)}
    assert sum(sizes.values()) <= MOST, sizes


def test_the_only_inline_script_is_the_import_map_that_the_policy_names(site: Site) -> None:
    text = gzip.decompress(site.index.packed).decode()
    inline = re.findall(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", text, re.DOTALL)
    assert len(inline) == 1
    hashed = base64.b64encode(hashlib.sha256(inline[0].encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{hashed}';" in site.index.policy
    for address in json.loads(inline[0])["imports"].values():
        assert address.removeprefix(f"{site.base}/") in site.files
    assert not re.search(r"\bstyle=|\bon\w+=|<style", text)


def test_every_file_that_the_index_names_is_there(site: Site) -> None:
    text = gzip.decompress(site.index.packed).decode()
    named = re.findall(r'(?:href|src)="([^"]+)"', text)
    wrong = [one for one in named if one.startswith("/console") and one.removeprefix(f"{site.base}/") not in site.files]
    assert wrong == []


def test_no_file_makes_html_out_of_text_or_reaches_another_server() -> None:
    refused = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://(?!www\.w3\.org)"
    )
    for file in [*CONSOLE.glob("*.html"), *CONSOLE.glob("css/*"), *CONSOLE.glob("app/**/*"), *CONSOLE.glob("pages/*")]:
        if file.is_file():
            assert not refused.search(file.read_text("utf-8")), file.name


def test_an_address_changes_with_the_content(tmp_path: Path) -> None:
    folder = tmp_path / "console"
    folder.mkdir()
    (folder / "app").mkdir()
    (folder / "index.html").write_text("<p>{{base}}</p>")
    (folder / "app" / "main.js").write_text("go(1);")
    before = Site(folder)
    (folder / "app" / "main.js").write_text("go(2);")
    after = Site(folder)
    assert before.version != after.version
    assert before.index.tag != after.index.tag
