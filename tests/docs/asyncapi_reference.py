"""Writes docs/reference/asyncapi.json, the NATS side as AsyncAPI 3: `python -m tests.docs.asyncapi_reference`.

It is made of the catalogue of docs/reference/nats.md. Types are JSON Schema, as msgspec derives it from the structs.
"""

import json
import re
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from membridge import __version__
from schemas import subjects
from schemas.errors import ErrorReply
from schemas.events import Event, Progress
from schemas.node import Job, NodePresence
from schemas.proposal import ProposalAnnouncement
from schemas.subjects import Impact, Operation
from schemas.task_events import TaskEvent
from schemas.web import AuditEntry
from services.web.openapi import portable
from tests.docs.nats_reference import owned, sections

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "asyncapi.json"

#: What a token of a subject is.
TOKENS = {
    "project": "A canonical id: `membridge project list`.",
    "node": "A node id: `membridge nodes`.",
    "worker": "The name of a worker: `membridge worker list`.",
    "kind": "The kind of the event, in snake case.",
    "task": "The id of a task.",
    "by": "Who tells it: the coordinator, a worker, or the id of an API key.",
    "job": "The id of a job.",
}
#: What Membridge publishes beside the answers: name, subject, types, and what it is.
PUBLISHED: tuple[tuple[str, str, tuple[type, ...], str], ...] = (
    ("events", subjects.EVENT, tuple(kind for kind in Event.__args__ if kind is not Progress), "Facts of a project."),
    ("progress", subjects.PROGRESS, (Progress,), "Where a running job is."),
    ("proposals", subjects.PROPOSAL, (ProposalAnnouncement,), "Rows that a secondary offers to the primary."),
    ("jobs", subjects.JOB, (Job,), "The last state of each push, pull and other job."),
    ("task_events", subjects.TASK_EVENT, (TaskEvent,), "What happens to a task."),
    ("workers", subjects.WORKER_PRESENCE, (NodePresence,), "A worker says that it is there."),
    ("web_audit", subjects.WEB_AUDIT, (AuditEntry,), "What was changed over HTTP or denied, and by whom."),
)

Json = dict[str, Any]


def document() -> Json:
    """Return the document."""
    asked = [operation for _, operations in sections() for operation in operations]
    types = list(
        dict.fromkeys(
            [
                *(kind for operation in asked for kind in (operation.request, operation.reply)),
                *(kind for _, _, kinds, _ in PUBLISHED for kind in kinds),
                *(bucket.value for _, _, buckets in owned() for bucket in buckets),
                ErrorReply,
            ]
        )
    )
    found, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    components = portable(components)
    schemas = dict(zip(types, found, strict=True))
    channels: Json = {"reply": {"address": None, "description": "The inbox that a request names.", "messages": {}}}
    operations: Json = {}
    for owner, several in sections():
        for operation in several:
            _ask(operation, owner, channels, operations)
    for name, subject, kinds, summary in PUBLISHED:
        _publish(name, subject, kinds, summary, channels, operations)
    channels["reply"]["messages"]["error"] = {"$ref": "#/components/messages/error"}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Membridge on NATS",
            "version": __version__,
            "description": "One claude-mem memory on several machines. Bodies are JSON; an unknown field is ignored.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "up": {"host": "127.0.0.1:4222", "protocol": "nats", "description": "The server of `membridge up`."}
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "schemas": components,
            "messages": {
                **{kind.__name__: {"name": kind.__name__, "payload": schemas[kind]} for kind in types},
                "error": _error(schemas[ErrorReply]),
            },
        },
        "x-buckets": {
            bucket.name: {
                "owner": owner,
                "value": schemas[bucket.value],
                "ttlSeconds": bucket.ttl,
                "history": bucket.history,
            }
            for owner, _, buckets in owned()
            for bucket in buckets
        },
    }


def render() -> str:
    """Return the text of the file."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def _ask(operation: Operation[Any, Any], owner: str, channels: Json, operations: Json) -> None:
    name = re.sub(r"[{}]", "", operation.subject.removeprefix("membridge.")).replace(".", "_")
    channels[name] = _channel(operation.subject, (operation.request,))
    reply = operation.reply.__name__
    channels["reply"]["messages"][reply] = {"$ref": f"#/components/messages/{reply}"}
    operations[name] = {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{name}"},
        "summary": f"{operation.name}: {owner}",
        "messages": [{"$ref": f"#/channels/{name}/messages/{operation.request.__name__}"}],
        "reply": {
            "channel": {"$ref": "#/channels/reply"},
            "messages": [{"$ref": f"#/channels/reply/messages/{one}"} for one in (reply, "error")],
        },
        "x-deadline-seconds": operation.deadline,
        "x-impact": Impact(operation.impact).value,
    }


def _publish(name: str, subject: str, kinds: tuple[type, ...], summary: str, channels: Json, operations: Json) -> None:
    channels[name] = _channel(subject, kinds)
    stream = next(
        (one.name for _, streams, _ in owned() for one in streams if subjects.wildcard(subject) in one.subjects), None
    )
    channels[name]["description"] = f"Kept in the stream {stream}." if stream else "Not kept."
    operations[name] = {
        "action": "send",
        "channel": {"$ref": f"#/channels/{name}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{name}/messages/{kind.__name__}"} for kind in kinds],
    }


def _channel(subject: str, kinds: Iterable[type]) -> Json:
    channel: Json = {
        "address": subject,
        "messages": {kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"} for kind in kinds},
    }
    if tokens := [token for _, token, _, _ in string.Formatter().parse(subject) if token]:
        channel["parameters"] = {token: {"description": TOKENS[token]} for token in tokens}
    return channel


def _error(schema: Json) -> Json:
    headers = {"Nats-Service-Error": {"type": "string"}, "Nats-Service-Error-Code": {"type": "string"}}
    return {
        "name": "error",
        "summary": "What failed, why, and what to do.",
        "headers": {"type": "object", "properties": headers, "required": list(headers)},
        "payload": schema,
    }


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
