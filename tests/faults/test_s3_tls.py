"""S3 over https with an authority of one's own: trusted when it is named, refused when it is not."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from membridge.aio.deadline import Deadline
from membridge.errors import StoreUnavailableError
from membridge.objectstore.s3.client import S3Options, open_s3


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "ca.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    return tmp_path / "ca.pem"


@asynccontextmanager
async def in_front_of(endpoint: str, authority: Path) -> AsyncGenerator[str]:
    """Speak TLS on a port of its own and pass everything on."""
    upstream = urlsplit(endpoint)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority, authority.with_name("key.pem"))
    running: list[asyncio.Task[None]] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(upstream.hostname, upstream.port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(pump(reader, up_writer))
                group.create_task(pump(up_reader, writer))
        except BaseExceptionGroup:
            return
        finally:
            writer.close()
            up_writer.close()

    async with asyncio.TaskGroup() as group:
        server = await asyncio.start_server(
            lambda reader, writer: running.append(group.create_task(serve(reader, writer))), "127.0.0.1", 0, ssl=context
        )
        async with server:
            yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for task in running:
            task.cancel()


async def test_an_own_authority_is_trusted_when_it_is_named(s3_options: S3Options, authority: Path) -> None:
    async with in_front_of(s3_options.endpoint, authority) as endpoint:
        options = replace(s3_options, endpoint=endpoint, ca_file=authority)
        async with open_s3(options) as store:
            await store.put("k", b"by https", deadline=Deadline.after(20.0))
            assert await store.get("k", deadline=Deadline.after(20.0)) == b"by https"


async def test_a_certificate_of_nobody_we_know_is_refused(s3_options: S3Options, authority: Path) -> None:
    async with (
        in_front_of(s3_options.endpoint, authority) as endpoint,
        open_s3(replace(s3_options, endpoint=endpoint)) as store,
    ):
        with pytest.raises(StoreUnavailableError):
            await store.put("k", b"x", deadline=Deadline.after(20.0))
