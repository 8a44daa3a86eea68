"""The output of an attempt on its way in: the parts of a large one, and the object that one over 64 KiB becomes."""

from membridge.errors import InvalidRequestError, TooLargeError
from membridge.system import clock
from schemas.leases import OutputPart, Report
from schemas.results import Artifact
from services.coordinator.engine.ids import output_id
from services.coordinator.port import Port

#: Bytes of an output that is kept in its row; a larger one becomes an object.
INLINE = 64 << 10
#: What the keys of large outputs begin with; the task's id and the output's follow.
ARTIFACTS = "artifacts/"


class Outputs:
    """The parts that came so far, by lease."""

    def __init__(self, port: Port, most_bytes: int) -> None:
        self._port, self._most_bytes = port, most_bytes
        self._parts: dict[str, list[str]] = {}

    def add(self, part: OutputPart) -> None:
        """Keep a part; one that came before is ignored. Errors: TooLargeError, InvalidRequestError."""
        parts = self._parts.setdefault(part.lease_id, [])
        if part.index < len(parts):
            return
        if part.index > len(parts):
            raise InvalidRequestError(f"expected part {len(parts)} of the output, got part {part.index}", field="index")
        if sum(map(len, parts)) + len(part.text) > self._most_bytes:
            raise TooLargeError(f"the output is too large: at most {self._most_bytes:,} bytes are allowed")
        parts.append(part.text)

    def whole(self, report: Report) -> str | None:
        """Return the output of a report, from its parts where it has some. Raises InvalidRequestError."""
        if not report.parts:
            return report.output
        parts = self._parts.get(report.lease_id, [])
        if len(parts) != report.parts:
            raise InvalidRequestError(f"only {len(parts)} of {report.parts} parts of the output arrived", field="parts")
        return "".join(parts)

    async def keep(self, artifact: Artifact, output: str) -> str:
        """Put a large output into the object store; return its key. Errors: the store's.

        A report repeated after a lost answer writes the same object, so none is left over.
        """
        key = f"{ARTIFACTS}{artifact.task_id}/{artifact.id}"
        await self._port.store(key, output.encode())
        return key

    def forget(self, lease_id: str) -> None:
        """Drop the parts of a lease that ended."""
        self._parts.pop(lease_id, None)


def is_large(output: str) -> bool:
    """Whether an output is too large for a row."""
    return len(output) > INLINE or len(output.encode()) > INLINE


def artifact_of(report: Report, content: str | None) -> Artifact:
    """Return the artifact of a success; `content` is None for a large one."""
    return Artifact(
        id=output_id(report.lease_id),
        task_id=report.task_id,
        job_id=report.lease_id,
        created_at=clock.stamp(),
        content=content,
    )
