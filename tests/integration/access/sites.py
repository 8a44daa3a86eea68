"""A server that others may join, and machines that did: real processes with homes of their own."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from nats.aio.client import Client

from membridge.bus.sign_in import SignIn
from membridge.testing.node_process import NodeProcess
from schemas.identity import ProjectId, canonical_id
from tests.fixtures.machines import SAMPLE, SOON, command
from tests.fixtures.pace import written_to
from tests.fixtures.ports import free_port

SHARED, OTHER = "shared", "other"


#: A Claude CLI that shouts its prompt.
_CLAUDE = """\
import json, sys
prompt = "2.0" if "--version" in sys.argv else sys.stdin.read()
print(json.dumps({"result": prompt.upper(), "is_error": False, "session_id": "s", "usage": {}}))
"""


@dataclass(slots=True)
class Site:
    """The first machine with its server, and a folder for the homes of more."""

    host: NodeProcess
    root: Path

    async def invite(self, *arguments: str) -> str:
        """Return the line of a new invitation."""
        return str((await command(self.host, "invite", *arguments))["line"])

    def machine(self, name: str, project: str = SHARED, **extra: str) -> NodeProcess:
        """Return a machine that has not joined yet."""
        return NodeProcess(name, self.root / name, "", project, extra={"MEMBRIDGE_NODE_ID": "", **extra})

    async def joined(self, name: str, project: str = SHARED, **extra: str) -> NodeProcess:
        """Return a machine that joined and is in step."""
        line = await self.invite("--node", name, "--project", project)
        machine = self.machine(name, project, **extra)
        code, output = await machine.command("join", line, "--once")
        assert code == 0, output
        return machine


@asynccontextmanager
async def site(root: Path, **extra: str) -> AsyncGenerator[Site]:
    """Run `membridge up` for other machines, with the sample database and a second, empty project."""
    home = root / "a"
    settings = {"MEMBRIDGE_NATS_LISTEN": f"127.0.0.1:{free_port()}", **extra}
    host = NodeProcess("a", home, "", SHARED, extra=settings)
    host.database.parent.mkdir(parents=True)
    shutil.copyfile(SAMPLE, host.database)
    shutil.copyfile(SAMPLE, home / "other.db")
    config = home / ".config" / "membridge" / "config.toml"
    config.parent.mkdir(parents=True, mode=0o700)
    config.write_text(f'[[projects]]\nname = "{OTHER}"\ndatabase = "{home}/other.db"\n')
    await host.start("up")
    try:
        await eventually(lambda: both_pushed(host), host)
        yield Site(host, root)
    finally:
        await host.stop()


async def both_pushed(host: NodeProcess) -> bool:
    """Whether both projects have a snapshot."""
    for project in (SHARED, OTHER):
        code, output = await host.command("status", "--json", "--project", project)
        if code or not json.loads(output)["project"]["mirror_seq"]:
            return False
    return True


async def eventually(wanted: Callable[[], Awaitable[bool]], machine: NodeProcess, seconds: float = SOON) -> None:
    """Ask until it is so; fail with the machine's log when it never is."""
    try:
        async with asyncio.timeout(seconds):
            while not await wanted():
                assert machine.process is None or machine.process.returncode is None, machine.log.read_text()
                await written_to(machine.log)
    except TimeoutError as error:
        raise AssertionError(machine.log.read_text()[-3000:]) from error


def seed_of(machine: NodeProcess, account: str) -> Path:
    """Return the file with a joined machine's key for a project's account, or the runtime's."""
    (found,) = (machine.home / ".config" / "membridge" / "keys").glob(f"*/{account}.seed")
    return found


@dataclass(slots=True)
class Attacker:
    """A raw client with the real key of a node: it may try anything."""

    client: Client
    project: ProjectId
    name: str
    refused: list[str]

    async def publish(
        self, subject: str, body: bytes = b"{}", *, reply: str = "", headers: dict[str, str] | None = None
    ) -> bool:
        """Publish and return whether the server let it through."""
        before = len(self.refused)
        await self.client.publish(subject, body, reply=reply, headers=headers)
        await self._heard()
        return len(self.refused) == before

    async def hears(self, subject: str) -> bool:
        """Subscribe and return whether the server let it."""
        before = len(self.refused)
        subscription = await self.client.subscribe(subject)  # pyright: ignore[reportUnknownMemberType] - an unused future is untyped
        await self._heard()
        await subscription.unsubscribe()
        return len(self.refused) == before

    async def _heard(self) -> None:
        """Wait until the server has said what it has to say; the first ping of nats-py may overtake what it follows."""
        await self.client.flush()
        await self.client.flush()

    async def store(self, subject: str, body: bytes, headers: dict[str, str] | None = None) -> dict[str, object]:
        """Store something where this node may; return JetStream's answer."""
        answer = await self.client.request(subject, body, timeout=5, headers=headers)
        return json.loads(answer.data)

    async def last(self, bucket: str, key: str) -> bytes:
        """Return the last value of a key of a bucket of this account, empty when there is none."""
        answer = await self.client.request(f"$JS.API.DIRECT.GET.KV_{bucket}.$KV.{bucket}.{key}", timeout=5)
        return b"" if (answer.headers or {}).get("Status") == "404" else answer.data


@asynccontextmanager
async def attacker(
    place: Site, machine: NodeProcess, project: str = SHARED, *, account: str | None = None
) -> AsyncGenerator[Attacker]:
    """Connect with a joined machine's key for a project, or another account, outside of its daemon."""
    seed = seed_of(machine, account or canonical_id(project))
    async with signed_in(place, seed, machine.name, project) as made:
        yield made


@asynccontextmanager
async def signed_in(place: Site, seed: Path, name: str, project: str = SHARED) -> AsyncGenerator[Attacker]:
    """Connect with the key in `seed`, beside which the authority's certificate is."""
    import ssl  # noqa: PLC0415 - here only

    refused: list[str] = []

    async def note(error: Exception) -> None:
        refused.append(str(error))

    client, sign_in = Client(), SignIn(seed=seed)
    sign_in.apply(client)
    await client.connect(
        f"tls://{place.host.extra['MEMBRIDGE_NATS_LISTEN']}",
        tls=ssl.create_default_context(cafile=seed.with_name("authority.pem")),
        inbox_prefix=f"_INBOX.{name}",
        error_cb=note,
        allow_reconnect=False,
        **sign_in.callbacks(),
    )
    try:
        yield Attacker(client, canonical_id(project), name, refused)
    finally:
        await client.close()


def shouting_claude(folder: Path) -> Path:
    """Make a Claude CLI in a folder that answers with its prompt in capitals."""
    path = folder / "claude"
    path.write_text(f"#!{sys.executable}\n{_CLAUDE}")
    path.chmod(0o700)
    return path
