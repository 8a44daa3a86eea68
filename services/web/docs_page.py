"""The routes of a service for people: one page without script or style, made from the declarations."""

from collections.abc import Sequence
from functools import cache
from html import escape

from schemas.node import Empty
from services.web.routes import AnyRoute, Call, Endpoint, Kind, Method, Route, Text

DOCS = Route(
    "docs", Method.GET, "/docs", Empty, Text, "The routes, for people.", None, kind=Kind.TEXT,
    content_type="text/html; charset=utf-8",
)  # fmt: skip


def endpoint(routes: Sequence[AnyRoute], title: str) -> Endpoint:
    """Return the route that shows `routes` and itself."""

    @cache
    def text() -> Text:
        return Text(body=page([*routes, DOCS], title))

    async def show(_: Empty, __: Call) -> Text:
        return text()

    return DOCS.bind(show)


def page(routes: Sequence[AnyRoute], title: str) -> str:
    """Return the page of `routes`."""
    rows = "\n".join(_row(route) for route in sorted(routes, key=lambda one: (one.path, one.method)))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title></head>'
        f'<body><h1>{escape(title)}</h1><p><a href="/openapi.json">openapi.json</a> has each field and bound.</p>'
        "<table><thead><tr><th>route</th><th>does</th><th>fields</th><th>needs</th></tr></thead><tbody>\n"
        f"{rows}\n</tbody></table></body></html>\n"
    )


def _row(route: AnyRoute) -> str:
    permission = route.permission
    if permission is None:
        needs = "nothing"
    else:
        needs = f"{permission.role} of {permission.scope}" if permission.scope else f"{permission.role}"
    cells = (f"{route.method} {route.path}", route.summary, ", ".join(route.fields), needs)
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
