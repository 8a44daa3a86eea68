"""A folder of files as pages in a browser, without a key: what they show, they ask of routes that need one.

Every address below the site's own is its index, which routes by path itself; the other files are below an address that
names their content, so that a browser keeps them for good and never mixes two versions. Nothing here counts for rates.
"""

import asyncio
import base64
import gzip
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from aiohttp import hdrs, web

from membridge.aio import threads
from membridge.errors import NotFoundError
from services.web.bundle import bundled, joined
from services.web.errors import HEADERS
from services.web.streaming import taken_within

#: The file that answers for every page, and what in it stands for the address of the other files.
INDEX, BASE = "index.html", "{{base}}"
#: What own modules and style sheets become.
SCRIPT, SHEET = "app.js", "app.css"
#: Characters of a digest in an address.
SHOWN = 16
#: Seconds that a browser has to read an answer.
SEND = 30.0
#: For a file whose address changes with its content.
FOR_GOOD = "public, max-age=31536000, immutable"
TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_INLINE = re.compile(r'<script type="importmap">(.*?)</script>', re.DOTALL)


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is sent: compressed, with the hash of its content as its tag."""

    packed: bytes
    content_type: str
    tag: str
    #: The policy of a page; empty for what is no page.
    policy: str = ""


class Site:
    """The files of a folder, read once; its index is at the address of the folder's name.

    Of its own modules and style sheets a browser gets one file each: what `app/main.js` imports, and what is in `css`.
    """

    def __init__(self, folder: Path) -> None:
        def text_of(name: str) -> str:
            return (folder / name).read_text(encoding="utf-8")

        sheets = sorted(one.relative_to(folder).as_posix() for one in folder.glob("css/*.css"))
        found = {
            SCRIPT: bundled(text_of, "app/main.js").encode(),
            SHEET: joined(map(text_of, sheets)).encode(),
            **{
                file.relative_to(folder).as_posix(): file.read_bytes()
                for file in sorted([*folder.glob("*"), *folder.glob("vendor/*")])
                if file.suffix in TYPES and file.name != INDEX
            },
        }
        whole = sha256()
        for name, body in found.items():
            whole.update(f"{name}\0{len(body)}\0".encode() + body)
        self.at, self.version = f"/{folder.name}", whole.hexdigest()[:SHOWN]
        self.base = f"{self.at}/files/{self.version}"
        self.files = {name: _file(body, TYPES[Path(name).suffix]) for name, body in found.items()}
        text = text_of(INDEX).replace(BASE, self.base)
        self.index = _file(text.encode(), TYPES[".html"], _policy(text))

    def front(self, request: web.Request) -> web.Response:
        """Send a browser to the index. Raises NotFoundError for any other client."""
        if "text/html" not in request.headers.get(hdrs.ACCEPT, ""):
            raise NotFoundError("there is nothing at this address", remedy="GET /openapi.json lists every route")
        return web.Response(status=302, headers={**HEADERS, hdrs.LOCATION: f"{self.at}/"})

    def page(self, request: web.Request) -> web.Response:
        """Answer with the index."""
        return _answer(request, self.index, "no-cache")

    def found(self, request: web.Request) -> web.Response:
        """Answer with a file. Raises NotFoundError."""
        file = self.files.get(request.match_info["name"])
        if file is None:
            raise NotFoundError("the page has no such file", remedy=f"open {self.at}/")
        # An open page of another version gets what it asks for, and does not keep it.
        current = request.match_info["version"] == self.version
        return _answer(request, file, FOR_GOOD if current else "no-store")


def add_to(app: web.Application, folder: Path, check_host: Callable[[web.Request], object]) -> None:
    """Have an application answer with the site of a folder, which is read when a browser first asks.

    `check_host` raises for a host name that the application does not answer to.
    """
    lock, read = asyncio.Lock(), list[Site]()

    def add(path: str, answer: Callable[[Site, web.Request], web.Response]) -> None:
        async def send(request: web.Request) -> web.StreamResponse:
            check_host(request)
            async with lock:
                # Most gateways never see a browser, and its files take half a megabyte.
                if not read:
                    read.append(await threads.run(Site, folder))
            response = answer(read[0], request)
            async with taken_within(SEND, request, "page"):
                await response.prepare(request)
                await response.write_eof()
            return response

        for method in (hdrs.METH_GET, hdrs.METH_HEAD):
            app.router.add_route(method, path, send)

    at = f"/{folder.name}"
    add("/", Site.front)
    add(f"{at}/files/{{version}}/{{name:.+}}", Site.found)
    add(at, Site.page)
    add(f"{at}/{{page:.*}}", Site.page)


def _answer(request: web.Request, file: File, caching: str) -> web.Response:
    headers = {**HEADERS, hdrs.CACHE_CONTROL: caching, hdrs.ETAG: file.tag, hdrs.VARY: hdrs.ACCEPT_ENCODING}
    if file.policy:
        headers |= {"Content-Security-Policy": file.policy, "Cross-Origin-Opener-Policy": "same-origin"}
    if file.tag in request.headers.get(hdrs.IF_NONE_MATCH, ""):
        return web.Response(status=304, headers=headers)
    headers[hdrs.CONTENT_TYPE] = file.content_type
    if "gzip" not in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
        return web.Response(body=gzip.decompress(file.packed), headers=headers)
    headers[hdrs.CONTENT_ENCODING] = "gzip"
    return web.Response(body=file.packed, headers=headers)


def _file(body: bytes, content_type: str, policy: str = "") -> File:
    packed = gzip.compress(body, 9, mtime=0)
    return File(packed, content_type, f'"{sha256(body + policy.encode()).hexdigest()[:SHOWN]}"', policy)


def _policy(text: str) -> str:
    """Return the policy of a page: scripts are this server's own and the one import map that is in the page."""
    hashes = (base64.b64encode(sha256(found.encode()).digest()).decode() for found in _INLINE.findall(text))
    scripts = " ".join(["'self'", *(f"'sha256-{one}'" for one in hashes)])
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'self'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
