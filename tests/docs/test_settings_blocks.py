"""Every block of settings in the documentation is one that Membridge reads, without a warning."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    (page, textwrap.dedent(found))
    for page in PAGES
    for found in re.findall(r"^ *```toml\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
]
PATIENCE = 60.0


def test_there_are_some() -> None:
    assert {page.name for page, _ in BLOCKS} >= {"README.md", "README.uk.md", "second-machine.md"}


@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=[page.stem for page, _ in BLOCKS])
def test_a_block_is_read_whole(page: Path, block: str, tmp_path: Path) -> None:
    config = tmp_path / ".config" / "membridge" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(block, encoding="utf-8")
    config.chmod(0o600)

    shown = subprocess.run(
        [sys.executable, "-m", "membridge.cli.main", "config", "show", "--json"],
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False,
        timeout=PATIENCE,
    )  # fmt: skip

    assert (shown.returncode, shown.stderr) == (0, "")
    origins = [value["origin"] for value in json.loads(shown.stdout)["settings"]]
    settings = re.sub(r"^\[\[projects\]\]\n(.+\n)*", "", block, flags=re.MULTILINE)
    assert origins.count(str(config)) >= len(re.findall(r"^\w+ = ", settings, re.MULTILINE))
