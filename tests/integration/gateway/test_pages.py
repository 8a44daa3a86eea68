"""The console's files over HTTP: who gets them, under which policy, and for how long a browser keeps them."""

import gzip
from pathlib import Path

import pytest

from membridge.bus.connection import Bus
from services.gateway.service import CONSOLE
from services.web.pages import Site
from tests.fixtures.gateway import gateway_of

BROWSER = ["Accept: text/html,application/xhtml+xml"]


async def test_a_browser_gets_the_console_without_a_key(bus: Bus, nats_url: str, tmp_path: Path) -> None:
    site = Site(CONSOLE)
    async with gateway_of(bus, nats_url, tmp_path, RUNTIME_API_KEY="r" * 24) as gateway:
        front = await gateway.ask("GET", "/", headers=BROWSER)
        assert (front.status, front.headers["location"]) == (302, "/console/")
        # A program is told what it can ask instead.
        assert (await gateway.ask("GET", "/")).status == 404
        for path in ("/console", "/console/", "/console/tasks/x?status=failed"):
            page = await gateway.ask("GET", path, headers=BROWSER)
            assert page.status == 200
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert page.headers["cache-control"] == "no-cache"
            policy = page.headers["content-security-policy"]
            for part in (
                "default-src 'none'", "style-src 'self'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'",
                "frame-ancestors 'none'", "require-trusted-types-for 'script'", "trusted-types 'none'",
            ):  # fmt: skip
                assert part in policy
            assert "unsafe" not in policy
            assert page.headers["x-content-type-options"] == "nosniff"
        tag = page.headers["etag"]
        assert (await gateway.ask("GET", "/console/", headers=[f"If-None-Match: {tag}"])).status == 304

        main = f"{site.base}/app.js"
        file = await gateway.ask("GET", main, headers=["Accept-Encoding: gzip"])
        assert "immutable" in file.headers["cache-control"]
        assert file.headers["content-type"].startswith("text/javascript")
        assert (file.headers["content-encoding"], gzip.decompress(file.body)) == (
            "gzip", gzip.decompress(site.files["app.js"].packed),
        )  # fmt: skip
        plain = await gateway.ask("GET", main)
        assert plain.body == gzip.decompress(file.body)
        assert (await gateway.ask("HEAD", main)).status == 200
        # A page of an older version gets the file, and does not keep it.
        old = await gateway.ask("GET", "/console/files/0123456789abcdef/app.js")
        assert (old.status, old.headers["cache-control"]) == (200, "no-store")
        for missing in ("none.js", "index.html", "%2e%2e/service.py", "..%2f..%2fservice.py", "LICENSE"):
            assert (await gateway.ask("GET", f"/console/files/x/{missing}")).status == 404, missing
        assert (await gateway.ask("POST", "/console/")).status == 405


@pytest.mark.parametrize("path", ["/", "/console/", "/console/files/x/app.js"])
async def test_the_pages_answer_to_no_other_host_name(bus: Bus, nats_url: str, tmp_path: Path, path: str) -> None:
    async with gateway_of(bus, nats_url, tmp_path) as gateway:
        assert (await gateway.ask("GET", path, headers=BROWSER, host="evil.example")).status == 421


async def test_pages_never_count_for_rates(bus: Bus, nats_url: str, tmp_path: Path) -> None:
    async with gateway_of(bus, nats_url, tmp_path) as gateway:
        for _ in range(600):
            assert (await gateway.ask("GET", "/console/")).status == 200
        # Nor do they use up what requests may have.
        assert (await gateway.ask("GET", "/api/membridge/projects")).status == 200
