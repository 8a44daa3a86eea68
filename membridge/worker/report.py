"""The report of an attempt, its output in parts where one message does not hold it.

The same for a worker and for a gateway that reports for one over HTTP; how a message is sent is theirs.
"""

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from membridge.errors import RemoteError
from schemas.leases import OutputPart, Report

#: Characters of an output in one message; JSON makes at most six bytes of each.
PIECE = 128 << 10


async def send(
    report: Report, *, part: Callable[[OutputPart], Awaitable[object]], end: Callable[[Report], Awaitable[object]]
) -> None:
    """Send a report, by `part` what precedes it and by `end` itself. Errors: those of the two."""
    output = report.output or ""
    pieces = [output[at : at + PIECE] for at in range(0, len(output), PIECE)] if len(output) > PIECE else []
    last = replace(report, output=None, parts=len(pieces)) if pieces else report

    async def once() -> None:
        for index, text in enumerate(pieces):
            await part(
                OutputPart(
                    lease_id=report.lease_id,
                    task_id=report.task_id,
                    worker_id=report.worker_id,
                    index=index,
                    text=text,
                )
            )
        await end(last)

    try:
        await once()
    except RemoteError as error:
        # A new tenure has none of the parts: send them again from the first.
        if not pieces or error.field not in {"index", "parts"}:
            raise
        await once()
