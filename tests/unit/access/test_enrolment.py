"""Revoking: saved before the node is told, applied again when asked again, never of the server's own machine."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from membridge.access.enrolment import Enrolment
from membridge.access.members import Membership
from membridge.access.nkeys import provide_key
from membridge.access.offboarding import Offboarding
from membridge.access.server_files import Listening, ServerFiles, own_member
from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.message import Message
from membridge.bus.options import BusOptions
from membridge.bus.service import Call
from membridge.errors import (
    BusUnavailableError,
    DeadlineExceededError,
    InvalidRequestError,
    MembridgeError,
    NotFoundError,
)
from schemas.access import Member, RevokeRequest
from schemas.identity import NodeId, ProjectId, canonical_id
from schemas.leadership import LeaderRecord
from schemas.node import Empty

A, B, P = NodeId("a"), NodeId("b"), canonical_id("p")
CALL = Call("0", "membridge.access.revoke", {}, Deadline.after(60.0), "someone@a")


class Recorded(Offboarding):
    """Records which members were notified, and which ones the saved membership had then."""

    def __init__(self, server_files: ServerFiles) -> None:
        super().__init__(A, {})
        self.notified: list[tuple[str, list[str]]] = []
        self._files = server_files

    async def notify(self, member: Member, by: str) -> dict[ProjectId, LeaderRecord]:
        self.notified.append((member.node, [one.node for one in self._files.membership().enrolled()]))
        return await super().notify(member, by)


class Server:
    """A server that reads its configuration when it is asked to, except while it fails."""

    def __init__(self, server_files: ServerFiles) -> None:
        self.server_files, self.fails, self.reads = server_files, False, ""

    async def apply(self, membership: Membership) -> None:
        self.server_files.write_config(membership)
        if self.fails:
            raise BusUnavailableError("the server does not read its configuration")
        self.reads = (self.server_files.folder / "accounts.conf").read_text()


class Place:
    """An enrolment service with its machine a, and b that joined with a key."""

    def __init__(self, folder: Path) -> None:
        self.server_files = ServerFiles(folder / "access", Listening.of("127.0.0.1:4222"))
        membership = own_member(self.server_files, Membership(), A, ["p"], now="now")
        self.server_files.write_config(membership)
        self.key = provide_key(folder / "b.seed")
        member = Member(node=B, keys={P: self.key}, enrolled_at="now")
        membership = Membership(projects=membership.projects, members=membership.members | {B: member})
        self.offboarding, self.server = Recorded(self.server_files), Server(self.server_files)
        self.enrolment = Enrolment(
            self.server_files.folder,
            membership,
            self.server_files.enrolment_address(),
            self.server.apply,
            self.offboarding,
        )

    async def revoke(self, node: str) -> list[str]:
        """Return who is in after `node` was revoked."""
        reply = await self.enrolment.revoke(RevokeRequest(node=NodeId(node)), CALL)
        return [member.node for member in reply.members if member.revoked_at is None]


@pytest.fixture
async def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    await made.enrolment.start()
    assert made.key in made.server.reads
    return made


async def test_the_servers_own_machine_cannot_be_revoked(place: Place) -> None:
    with pytest.raises(InvalidRequestError, match="a runs this server and cannot be revoked") as refused:
        await place.revoke("a")
    assert (refused.value.field, "stop `membridge up`" in (refused.value.remedy or "")) == ("node", True)
    assert [member.node for member in place.server_files.membership().enrolled()] == ["a", "b"]
    assert (place.offboarding.notified, (place.server_files.folder / "access.log").exists()) == ([], False)


async def test_a_node_is_told_once_the_roster_is_saved_without_it(place: Place) -> None:
    assert await place.revoke("b") == ["a"]
    assert place.offboarding.notified == [("b", ["a"])]
    assert place.key not in place.server.reads


async def test_a_roster_that_cannot_be_saved_leaves_the_node_in_and_untold(place: Place) -> None:
    saved = place.server_files.folder / "roster.json"
    body = saved.read_bytes()
    saved.unlink()
    (saved / "in the way").mkdir(parents=True)
    with pytest.raises((MembridgeError, OSError)):
        await place.revoke("b")
    assert place.offboarding.notified == []
    assert [member.node for member in place.enrolment.membership.enrolled()] == ["a", "b"]
    (saved / "in the way").rmdir()
    saved.rmdir()
    saved.write_bytes(body)
    assert await place.revoke("b") == ["a"]
    assert place.key not in place.server.reads


async def test_asked_again_after_a_server_that_did_not_read_it_shuts_the_key_out(place: Place) -> None:
    place.server.fails = True
    with pytest.raises(BusUnavailableError):
        await place.revoke("b")
    assert place.key in place.server.reads
    since = place.server_files.membership().members[B].revoked_at
    assert since is not None

    place.server.fails = False
    assert await place.revoke("b") == ["a"]
    assert place.key not in place.server.reads
    assert place.server_files.membership().members[B].revoked_at == since
    # It happened once.
    log = await place.enrolment.show_log(Empty(), CALL)
    assert [record.action for record in log.records] == ["revoked"]


async def test_who_was_never_in_cannot_be_revoked(place: Place) -> None:
    with pytest.raises(NotFoundError, match="there is no member c"):
        await place.revoke("c")


class Silent(Bus):
    """A connection on which nothing is answered."""

    def __init__(self) -> None:
        super().__init__(BusOptions(urls=("nats://127.0.0.1:1",), name="silent"))
        self.waited: list[Deadline] = []

    @property
    def max_payload(self) -> int:
        return 1 << 20

    async def request(
        self, subject: str, body: bytes = b"", *, deadline: Deadline, headers: Mapping[str, str] | None = None
    ) -> Message:
        del body, headers
        self.waited.append(deadline)
        raise DeadlineExceededError(f"{subject} took too long")


async def test_telling_takes_its_time_once_however_many_projects_are_silent() -> None:
    accounts: dict[ProjectId, Bus] = {canonical_id(name): Silent() for name in ("p", "q", "r")}
    member = Member(node=B, keys=dict.fromkeys(accounts, "U"), enrolled_at="now")
    assert await Offboarding(A, accounts).notify(member, "someone@a") == {}
    waited = [until.at for bus in accounts.values() if isinstance(bus, Silent) for until in bus.waited]
    assert len(waited) > len(accounts)
    assert len(set(waited)) == 1
