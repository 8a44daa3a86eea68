"""Field types with bounds, for structs of every schema."""

from typing import Annotated

from msgspec import Meta

#: The largest integer that every JSON reader keeps exact, and the largest that a 32-bit column holds.
MOST_WHOLE, MOST_NUMBER = 2**53 - 1, 2**31 - 1
#: Bytes of the largest body that is read, a bulk reply or a proposal; no text in it is longer.
MOST_TEXT = 32 << 20
#: Entries of a list or map that needs no closer bound: a body of that size holds no more.
MANY = Meta(max_length=MOST_TEXT // 2)

Whole = Annotated[int, Meta(ge=0, le=MOST_WHOLE)]
Number = Annotated[int, Meta(ge=0, le=MOST_NUMBER)]
#: By how much a count grew or shrank.
Change = Annotated[int, Meta(ge=-MOST_WHOLE, le=MOST_WHOLE)]
#: What a column of SQLite holds.
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Instant = Annotated[str, Meta(max_length=64)]
Line = Annotated[str, Meta(max_length=256)]
#: A path of a file, or a sentence for people.
Sentence = Annotated[str, Meta(max_length=4_096)]
#: Text from another program or an older version, up to the size of a body.
Text = Annotated[str, Meta(max_length=MOST_TEXT)]
#: A value of a SQLite column that JSON has too; a row with a blob does not travel.
Value = Int64 | float | Text | None
Uuid = Annotated[str, Meta(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")]
#: The id of a task or an artifact in a request: any text, so that an unknown one is `not_found`.
Named = Annotated[str, Meta(min_length=1, max_length=64)]
#: Name of a context or an agent, given by a front end: any text.
FreeName = Annotated[str, Meta(min_length=1, max_length=200)]
#: Name of a worker: one token of a subject.
Slug = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Label = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:=-]{0,62}\Z")]
Labels = Annotated[list[Label], Meta(max_length=32)]
#: Why a task waits, failed or ended: as long as an error of its program.
Reason = Annotated[str, Meta(max_length=65_536)]
Limit = Annotated[int, Meta(ge=1, le=1_000)]
