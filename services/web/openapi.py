"""The OpenAPI 3.1 document of a service, from its routes and the structs that they name."""

from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import msgspec

from membridge import __version__
from schemas.errors import TABLE, ErrorCode
from schemas.node import Empty
from schemas.web import ErrorBody, Problem
from services.web.errors import PROBLEM
from services.web.routes import AnyRoute, Call, Endpoint, Kind, Method, Route, Text

#: A part of the document.
Json = dict[str, Any]

OPENAPI = Route("openapi", Method.GET, "/openapi.json", Empty, Text, "This document.", None, kind=Kind.TEXT)
_REF = "#/components/schemas/{name}"
#: What any route may answer, and beside that one with a permission, and one with a body.
_ALWAYS = (
    ErrorCode.INVALID_REQUEST, ErrorCode.TOO_LARGE, ErrorCode.MISDIRECTED, ErrorCode.RATE_LIMITED,
    ErrorCode.UNAVAILABLE, ErrorCode.DEADLINE_EXCEEDED,
)  # fmt: skip
_GUARDED = (ErrorCode.UNAUTHORIZED, ErrorCode.FORBIDDEN)
_WITH_BODY = (ErrorCode.UNSUPPORTED_MEDIA_TYPE,)


def endpoint(routes: Sequence[AnyRoute], title: str) -> Endpoint:
    """Return the route that shows the document of `routes` and of itself."""

    # Made when it is first asked for: most processes never are, and making it takes a megabyte.
    @cache
    def text() -> Text:
        return Text(body=msgspec.json.encode(document([*routes, OPENAPI], title)).decode())

    async def show(_: Empty, __: Call) -> Text:
        return text()

    return OPENAPI.bind(show)


def document(routes: Sequence[AnyRoute], title: str) -> Json:
    """Return the document of `routes`."""
    kinds = [kind for route in routes for kind in (route.request, route.reply) if kind is not Text]
    unique = list(dict.fromkeys([*kinds, ErrorBody, Problem]))
    schemas, components = msgspec.json.schema_components(unique, ref_template=_REF)
    components = portable(components)
    named = dict(zip(unique, schemas, strict=True))
    paths: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, named, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": _refusals(),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key, or the cookie of `login`."},
            },
        },
    }


def portable(part: Json) -> Json:
    """Return a schema with patterns as JSON Schema has them: `$` is the end there, and Python's `\\Z` is a letter."""
    return {name: _portable(name, value) for name, value in part.items()}


def _portable(name: str, value: object) -> object:
    if name == "pattern" and isinstance(value, str):
        return value.replace(r"\Z", "$")
    if isinstance(value, dict):
        return portable(cast("Json", value))
    if isinstance(value, list):
        return [_portable("", one) for one in cast("list[object]", value)]
    return value


def _operation(route: AnyRoute, named: dict[Any, Json], components: dict[str, Json]) -> Json:
    operation: Json = {"operationId": route.name, "summary": route.summary}
    fields = components[route.request.__name__]
    properties, required = fields.get("properties", {}), fields.get("required", [])
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": properties[name]} for name in route.path_fields
    ]
    others = {name: schema for name, schema in properties.items() if name not in route.path_fields}
    needed = [name for name in required if name in others]
    if route.has_body and others:
        schema = (
            named[route.request]
            if not route.path_fields
            else {"type": "object", "properties": others, "required": needed}
        )
        operation["requestBody"] = {"required": bool(needed), "content": {"application/json": {"schema": schema}}}
    elif not route.has_body:
        parameters += [
            {"name": name, "in": "query", "required": name in needed, "schema": schema}
            for name, schema in others.items()
        ]
    if route.streams and route.kind is not Kind.FILE:
        described = {"required": False, "schema": {"type": "string"}, "description": "The last item that was seen."}
        parameters += [{"name": "Last-Event-ID", "in": "header", **described}]
        parameters += [{"name": "last_event_id", "in": "query", **described}]
    if parameters:
        operation["parameters"] = parameters
    operation["responses"] = {**_reply(route, named), **_errors(route)}
    if route.permission is not None:
        operation["security"] = [{"key": []}]
        operation["x-scope"] = route.permission.scope
        operation["x-role"] = route.permission.role
    else:
        operation["security"] = []
    return operation


def _reply(route: AnyRoute, named: dict[Any, Json]) -> Json:
    if route.kind is Kind.SOCKET:
        return {
            "101": {"description": "Messages `{id, data}`; `data` is as `x-item` says.", "x-item": named[route.reply]}
        }
    content_type, schema = route.content_type.partition(";")[0], named.get(route.reply, {"type": "string"})
    if route.kind is Kind.EVENTS:
        content_type = "text/event-stream"
    elif route.kind is Kind.TEXT and content_type == "application/json":
        schema = {"type": "object"}
    return {str(route.status): {"description": route.summary, "content": {content_type: {"schema": schema}}}}


def _errors(route: AnyRoute) -> Json:
    codes = [
        *_ALWAYS,
        *(_GUARDED if route.permission is not None else (ErrorCode.FORBIDDEN,) if route.writes else ()),
        *(_WITH_BODY if route.has_body else ()),
        *route.errors,
    ]
    return {
        str(status): {"$ref": f"#/components/responses/{status}"}
        for status in sorted({TABLE[one].http for one in codes})
    }


def _refusals() -> Json:
    """Return the answers with an error, by status: routes refer to them, so that the document stays small."""
    forms = {"application/json": ErrorBody, PROBLEM: Problem}
    content = {form: {"schema": {"$ref": _REF.format(name=kind.__name__)}} for form, kind in forms.items()}
    by_status: dict[int, list[str]] = {}
    for code, mapping in TABLE.items():
        by_status.setdefault(mapping.http, []).append(code.value)
    return {
        str(status): {"description": ", ".join(found), "content": content}
        for status, found in sorted(by_status.items())
    }
