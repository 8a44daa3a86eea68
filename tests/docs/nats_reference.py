"""Writes docs/reference/nats.md from `schemas` and the services: `python -m tests.docs.nats_reference`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from membridge.wiring.service import installed
from schemas import buckets, errors, streams, subjects
from schemas.buckets import Bucket
from schemas.claude_config import CLAUDE_CONFIG
from schemas.events import Event
from schemas.streams import Stream
from schemas.subjects import Operation
from schemas.wire import Wire

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "nats.md"

LEADERSHIP = subjects.LEADERSHIP_OPERATIONS
NODE = (subjects.ADD_PROJECT, subjects.REMOVE_PROJECT, subjects.PROJECTS)

_HEAD = """# NATS reference

Generated from `schemas/` and the declared services; a test compares it. Bodies are JSON. An unknown field is ignored,
an ill-typed one is answered with a 400-class service error that names it. `{project}` is a canonical id
(`membridge project list`), `{node}` a node id.

A reply that one message does not hold comes in several, with the header `Membridge-Part: 1/3` and so on. A request that
one message does not hold has no body but the headers `Membridge-Body-At`, an inbox of the caller, and
`Membridge-Body-Size`: it is fetched from that inbox in parts, each asked for by its offset in decimal.

With the stock CLI, on the machine where `membridge up` runs:

```sh
membridge nats-context
nats --context membridge request membridge.{project}.primary.status ''
nats --context membridge request membridge.runtime.stats ''
nats --context membridge micro ls
nats --context membridge micro info membridge-node
nats --context membridge micro stats membridge-node
nats --context membridge kv get leadership {project}
nats --context membridge kv watch heads
nats --context membridge stream view EVENTS
nats --context membridge subscribe 'membridge.{project}.event.>'
nats --context membridge events --js-advisory
```

`membridge.runtime` answers where a coordinator runs. A server that listens for other machines has an account for each
project and one for tasks; there the requests of the runtime take `--context membridge-tasks`.
"""

ACCESS = (subjects.INVITE, subjects.ENROL, subjects.ADMIT, subjects.REVOKE, subjects.MEMBERS, subjects.ACCESS_LOG)

_FACTS = f"""Facts, on `{subjects.EVENT}`, kept in the stream `EVENTS`; progress of running jobs on
`{subjects.PROGRESS}`, not kept.

What happens to a task, on `{subjects.TASK_EVENT}`, kept in the stream `TASKS`:
`TaskEvent`, of the kinds `status` (by `{subjects.COORDINATOR}`), `progress` and `stderr` (by a worker).

A worker says that it is there on `{subjects.WORKER_PRESENCE}` (`NodePresence`): every ten seconds, at
each change, and when a coordinator calls on `{subjects.ROLL_CALL}`.
"""

_ERRORS = """An error reply has the headers `Nats-Service-Error` (a sentence) and `Nats-Service-Error-Code`, and the
body `ErrorReply`: `code`, `message`, `remedy`, `field`, `request_id`.
"""


def render() -> str:
    """Return the page."""
    return "\n".join(
        [
            _HEAD,
            *(line for title, operations in sections() for line in (f"## {title}\n", *_operations(operations))),
            "## Events\n",
            _FACTS,
            "| type | fields |\n|---|---|",
            *_events(),
            "\n## Buckets\n",
            "| bucket | of | value | TTL | history |\n|---|---|---|---|---|",
            *(
                f"| `{bucket.name}` | {owner} | `{bucket.value.__name__}` "
                f"| {f'{bucket.ttl:g} s' if bucket.ttl else 'none'} | {bucket.history} |"
                for owner, _, held in owned()
                for bucket in held
            ),
            "\n## Streams\n",
            "| stream | of | subjects | forgets by |\n|---|---|---|---|",
            *(
                f"| `{stream.name}` | {owner} | {', '.join(f'`{subject}`' for subject in stream.subjects)} "
                f"| {stream.retention} |"
                for owner, held, _ in owned()
                for stream in held
            ),
            "\n## Errors\n",
            _ERRORS,
            "| code | NATS | HTTP | exit | try again |\n|---|---|---|---|---|",
            *(
                f"| `{code}` | {row.nats} | {row.http} | {row.exit} | {row.retry} |"
                for code, row in errors.TABLE.items()
            ),
            "",
        ]
    )


def sections() -> list[tuple[str, tuple[Operation[Any, Any], ...]]]:
    """Return the requests by who answers them."""
    return [
        ("Operations on one node, or on the primary (`membridge.{project}.primary.<name>`)", subjects.NODE_OPERATIONS),
        ("Leadership and presence, answered by any node of the project", LEADERSHIP),
        ("Projects of a node", NODE),
        *((f"Answered by {one.summary}", one.operations) for one in installed()),
        ("What a worker says of its leases", subjects.REPORTING_OPERATIONS),
        ("Orders, answered by the worker that they name", subjects.WORKER_OPERATIONS),
        ("Invitations and members, answered by `membridge up --listen`", ACCESS),
    ]


def owned() -> list[tuple[str, tuple[Stream, ...], tuple[Bucket[Wire], ...]]]:
    """Return the streams and buckets by their owner: nodes, each service, and what those with HTTP share."""
    return [
        ("nodes", streams.ALL, (*buckets.ALL, CLAUDE_CONFIG)),
        *((one.name, one.streams, one.buckets) for one in installed()),
        ("services with HTTP", streams.WEB, buckets.WEB),
    ]


def _operations(operations: Iterable[Operation[Any, Any]]) -> list[str]:
    lines: list[str] = []
    for operation in operations:
        lines.append(f"### {operation.name}\n")
        lines.append(f"`{operation.subject}`, {operation.impact}s, answered within {operation.deadline:g} s.\n")
        lines.append(f"Request `{operation.request.__name__}`{_fields(operation.request)}")
        lines.append(f"\nReply `{operation.reply.__name__}`{_fields(operation.reply)}\n")
    return lines


def _fields(kind: type[msgspec.Struct]) -> str:
    fields = msgspec.structs.fields(kind)
    if not fields:
        return ": no fields."
    names = ", ".join(f"`{field.name}`" + (" (required)" if field.required else "") for field in fields)
    return f": {names}."


def _events() -> list[str]:
    return [
        f"| `{kind.__struct_config__.tag}` | {', '.join(f'`{field.name}`' for field in msgspec.structs.fields(kind))} |"
        for kind in Event.__args__
    ]


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render(), encoding="utf-8")
