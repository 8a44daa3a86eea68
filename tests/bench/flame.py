"""A flame graph of collapsed stacks, as `py-spy record -f raw` writes them, as a small SVG: what takes 1 % or more.

The width of a box is its share of the samples; below it is what called it. The text of a box is its title, too.
"""

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

WIDTH, HEIGHT, LEAST = 1_200, 17, 0.01
#: Frames that every stack begins with say nothing.
OUTSIDE = ("runpy", "click/core.py", "cli/command.py", "cli/main.py", "cli/service.py", "asyncio/runners.py")
COLOURS = {"services/": "#e8a33d", "membridge/": "#e8c33d", "schemas/": "#d8d05a", "sqlalchemy/": "#b98ac9",
           "asyncpg/": "#b98ac9", "nats/": "#7fb3d5"}  # fmt: skip


@dataclass(slots=True)
class _Box:
    samples: int = 0
    above: "dict[str, _Box]" = field(default_factory=dict[str, "_Box"])


def draw(stacks: Iterable[str], title: str) -> str:
    """Return the SVG of collapsed stacks: `outermost;…;innermost number` on each line."""
    whole = _Box()
    for line in stacks:
        text, _, number = line.rpartition(" ")
        box = whole
        box.samples += int(number)
        for frame in (re.sub(r":\d+\)$", ")", one) for one in text.split(";")):
            if not any(known in frame for known in OUTSIDE):
                box = box.above.setdefault(frame, _Box())
                box.samples += int(number)
    depth = _depth(whole, whole.samples)
    height = (depth + 1) * HEIGHT + 24
    boxes = "".join(_boxes(whole, whole.samples, 0.0, height - 20))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="10"><rect width="100%" height="100%" fill="#fff"/>{boxes}'
        f'<text x="4" y="{height - 6}" font-size="11">{html.escape(title)}</text></svg>\n'
    )


def _depth(box: _Box, whole: int) -> int:
    above = [one for one in box.above.values() if one.samples >= LEAST * whole]
    return 1 + max((_depth(one, whole) for one in above), default=0)


def _boxes(box: _Box, whole: int, left: float, bottom: int) -> Iterable[str]:
    for name, one in sorted(box.above.items()):
        width = WIDTH * one.samples / whole
        if one.samples >= LEAST * whole:
            label = html.escape(name)
            shown = html.escape(_fitting(name.partition(" (")[0], width))
            colour = next((known for part, known in COLOURS.items() if part in name), "#c9c9c9")
            yield (
                f'<g><title>{label} {one.samples / whole:.0%}</title><rect x="{left:.1f}" y="{bottom - HEIGHT}" '
                f'width="{width:.1f}" height="{HEIGHT - 1}" fill="{colour}" rx="1"/>'
                f'<text x="{left + 2:.1f}" y="{bottom - 5}">{shown}</text></g>'
            )
            yield from _boxes(one, whole, left, bottom - HEIGHT)
        left += width


def _fitting(text: str, width: float) -> str:
    room = int((width - 4) / 5.6)
    return text if len(text) <= room else text[: room - 1] + "…" if room > 3 else ""


def write(stacks: Path, to: Path, title: str) -> None:
    """Draw a file of collapsed stacks."""
    to.write_text(draw(stacks.read_text(encoding="utf-8").splitlines(), title), encoding="utf-8")
