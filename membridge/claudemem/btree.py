"""SQLite's file format, as far as it leads from a changed page to the rows that may have changed with it.

Plain functions over pages. A page of a b-tree begins with its kind; an overflow page, a page of the free list and one
that the pointer map holds begin with a page number or a small kind, which cannot be mistaken for one.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from membridge.claudemem.wal import CannotTellError

#: Reads a page by number, from 1.
Pages = Callable[[int], bytes]
#: Rowids from the first, which is not among them, to the last.
Range = tuple[int, int]

ALL: Final[Range] = (-(1 << 63) - 1, (1 << 63) - 1)

_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE = 2, 5, 10, 13
_KINDS = frozenset({_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE})
#: Pages of a file beyond which the first byte of a page number may look like the kind of a b-tree's page.
MOST_PAGES = 2 << 24
#: The page with the byte by which SQLite locks the file; it holds nothing.
_LOCK_BYTE = 0x4000_0000
_FREE_PAGE, _OVERFLOW_FIRST, _OVERFLOW_NEXT = 2, 3, 4
#: Levels of a tree, and pages of one row, beyond which a file is not what SQLite writes.
_MOST_LEVELS, _MOST_OVERFLOW = 64, 1 << 20


@dataclass(frozen=True, slots=True)
class File:
    """One state of a database file, and what its first page says of its layout."""

    page: Pages
    page_size: int
    page_count: int

    @property
    def usable(self) -> int:
        """Bytes of a page that SQLite uses."""
        return self.page_size - self.page(1)[20]

    @property
    def has_pointers(self) -> bool:
        """Whether there is a pointer map: auto_vacuum is on."""
        return _u32(self.page(1), 52) != 0


def ranges_of(file: File, changed: Iterable[int], roots: Iterable[int]) -> dict[int, set[Range]]:
    """Return, for the root of each table, the rowids that lie on changed pages. Raises CannotTellError."""
    if file.page_count >= MOST_PAGES:
        raise CannotTellError(f"it has {file.page_count} pages")
    found: dict[int, set[Range]] = {root: set() for root in roots}
    held = [number for number in sorted(changed) if number <= file.page_count and not _holds_nothing(file, number)]
    trees = [number for number in held if number == 1 or _kind(file.page(number), number) in _KINDS]
    overflow = set(held).difference(trees)
    if file.has_pointers:
        owners = {_owner(file, number) for number in overflow} - {0}
    elif _are_explained(file, overflow, trees):
        owners = set[int]()
    else:
        raise CannotTellError("an overflow page changed alone")
    for number in owners.union(trees):
        _add(file, number, found)
    return found


def _holds_nothing(file: File, number: int) -> bool:
    """Whether a page is of the pointer map, or the one with the byte by which the file is locked."""
    return number == _LOCK_BYTE // file.page_size + 1 or (file.has_pointers and _pointer_page(file, number) == number)


def _add(file: File, number: int, found: dict[int, set[Range]]) -> None:
    """Add the rowids of a table's leaf to those of the table that it belongs to, if it is one of them."""
    page = file.page(number)
    if _kind(page, number) != _LEAF_TABLE:
        return
    if not _u16(page, _start(number) + 3):
        # Only a table without a row has a leaf without one.
        if number in found:
            found[number].add(ALL)
        return
    rowid = _rowid(page, _cell(page, number, 0))
    for root, ranges in found.items():
        place = _descend(file, root, rowid, number)
        if place is not None:
            ranges.add(place)
            return


def _descend(file: File, root: int, rowid: int, wanted: int) -> Range | None:
    """Return the range of the leaf that holds a rowid in a table's tree, None unless that is the page `wanted`."""
    first, last = ALL
    number = root
    for _ in range(_MOST_LEVELS):
        page = file.page(number)
        kind = _kind(page, number)
        if kind == _LEAF_TABLE:
            return (first, last) if number == wanted else None
        if kind != _INTERIOR_TABLE:
            raise CannotTellError(f"page {number} of a table's tree is of kind {kind}")
        low, high = 0, _u16(page, _start(number) + 3)
        cells = high
        while low < high:
            middle = (low + high) // 2
            if _varint(page, _cell(page, number, middle) + 4)[0] >= rowid:
                high = middle
            else:
                low = middle + 1
        if low:
            first = _varint(page, _cell(page, number, low - 1) + 4)[0]
        if low < cells:
            at = _cell(page, number, low)
            last = _varint(page, at + 4)[0]
            number = _u32(page, at)
        else:
            number = _u32(page, _start(number) + 8)
        if not 0 < number <= file.page_count:
            raise CannotTellError(f"page {number} of a table's tree does not exist")
    raise CannotTellError("a table's tree has no leaves")


def _owner(file: File, number: int) -> int:
    """Return the page of a tree that an overflow page belongs to by the pointer map, 0 for a free page."""
    for _ in range(_MOST_OVERFLOW):
        place = _pointer_page(file, number)
        offset = 5 * (number - place - 1)
        page = file.page(place)
        kind, parent = page[offset], _u32(page, offset + 1)
        if kind == _OVERFLOW_FIRST:
            return parent
        if kind != _OVERFLOW_NEXT:
            if kind == _FREE_PAGE:
                return 0
            raise CannotTellError(f"the pointer map says {kind} of page {number}, which is of no tree")
        number = parent
    raise CannotTellError("the pointer map goes round")


def _pointer_page(file: File, number: int) -> int:
    """Return the page of the pointer map that has the entry of a page; it is its own."""
    if number == 1:
        return 0
    entries = file.usable // 5 + 1
    place = (number - 2) // entries * entries + 2
    return place + 1 if place == _LOCK_BYTE // file.page_size + 1 else place


def _are_explained(file: File, overflow: set[int], trees: list[int]) -> bool:
    """Whether each of these pages belongs to a row of a changed page, or to none."""
    left = set(overflow)
    for number in trees:
        for first in _overflowing(file, number):
            left.difference_update(_chain(file, first))
        if not left:
            return True
    left.difference_update(_free(file))
    return not left


def _overflowing(file: File, number: int) -> Iterator[int]:
    """Yield the first overflow page of each cell of a page that has one."""
    page, usable = file.page(number), file.usable
    kind = _kind(page, number)
    if kind == _INTERIOR_TABLE:
        return
    most = usable - 35 if kind == _LEAF_TABLE else (usable - 12) * 64 // 255 - 23
    least = (usable - 12) * 32 // 255 - 23
    for cell in range(_u16(page, _start(number) + 3)):
        at = _cell(page, number, cell) + (4 if kind == _INTERIOR_INDEX else 0)
        payload, at = _varint(page, at)
        if kind == _LEAF_TABLE:
            _, at = _varint(page, at)
        if payload > most:
            local = least + (payload - least) % (usable - 4)
            yield _u32(page, at + (local if local <= most else least))


def _chain(file: File, first: int) -> Iterator[int]:
    number = first
    for _ in range(_MOST_OVERFLOW):
        if not 0 < number <= file.page_count:
            return
        yield number
        number = _u32(file.page(number), 0)
    raise CannotTellError("a row's overflow pages go round")


def _free(file: File) -> Iterator[int]:
    for trunk in _chain(file, _u32(file.page(1), 32)):
        yield trunk
        page = file.page(trunk)
        count = min(_u32(page, 4), file.usable // 4 - 2)
        yield from struct.unpack_from(f">{count}I", page, 8)


def _start(number: int) -> int:
    return 100 if number == 1 else 0


def _kind(page: bytes, number: int) -> int:
    return page[_start(number)]


def _cell(page: bytes, number: int, index: int) -> int:
    start = _start(number)
    head = 12 if page[start] in {_INTERIOR_INDEX, _INTERIOR_TABLE} else 8
    return _u16(page, start + head + 2 * index)


def _rowid(page: bytes, at: int) -> int:
    _, at = _varint(page, at)
    return _varint(page, at)[0]


def _varint(page: bytes, at: int) -> tuple[int, int]:
    """Return a variable-length number, signed as rowids are, and where it ends."""
    value = 0
    for offset in range(8):
        byte = page[at + offset]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + offset + 1
    value = value << 8 | page[at + 8]
    return (value - (1 << 64) if value >> 63 else value), at + 9


def _u16(page: bytes, at: int) -> int:
    return page[at] << 8 | page[at + 1]


def _u32(page: bytes, at: int) -> int:
    return int.from_bytes(page[at : at + 4], "big")
