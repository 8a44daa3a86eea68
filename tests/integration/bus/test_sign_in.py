"""Signing in with a credentials file, as operators of a server with JWTs write one, and with a seed file."""

import asyncio
import base64
import json
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus import nkeys
from membridge.bus.connection import connect
from membridge.bus.errors import KeyFileError
from membridge.bus.nkeys import UserKey
from membridge.bus.options import BusOptions
from membridge.bus.sign_in import SignIn
from membridge.embedded.nats_server import start_nats
from membridge.errors import CredentialsError
from tests.fixtures.nats import QUICK
from tests.fixtures.pace import pause

ACCOUNT, OPERATOR, USER = 0, 14 << 3, 20 << 3


@dataclass(frozen=True, slots=True)
class Issuer:
    """An operator, an account or a user: a key under the prefix of its kind."""

    prefix: int
    key: UserKey = field(default_factory=nkeys.new_key)

    @property
    def public(self) -> str:
        raw = bytes([self.prefix]) + base64.b32decode(self.key.public)[1:33]
        return nkeys.encoded(raw)

    def token(self, subject: str, claims: dict[str, object], **more: int) -> str:
        """Return a JWT about `subject` that this one signed."""
        body = {"jti": "test", "iat": 1, "iss": self.public, "sub": subject, "nats": {"version": 2, **claims}, **more}
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        text = ".".join(_url(json.dumps(part).encode()) for part in (head, body))
        return f"{text}.{_url(base64.b64decode(self.key.sign(text.encode())))}"


def _url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Trusted:
    """A server that trusts an operator, with one account."""

    url: str
    account: Issuer

    def credentials(self, file: Path, user: Issuer, **more: int) -> Path:
        """Write the credentials file of `user`, as `nsc generate creds` does."""
        jwt = self.account.token(user.public, {"type": "user", "subs": -1, "data": -1, "payload": -1}, **more)
        file.write_text(
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            "************************* IMPORTANT *************************\nNKEY Seed printed below\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.key.seed}\n------END USER NKEY SEED------\n"
        )
        return file


@pytest.fixture
def trusted(tmp_path: Path) -> Generator[Trusted]:
    """A server in operator mode."""
    operator, account, system = Issuer(OPERATOR), Issuer(ACCOUNT), Issuer(ACCOUNT)
    limits = {"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1}
    about, about_system = (
        operator.token(one.public, {"type": "account", "limits": {**limits, "wildcards": True}})
        for one in (account, system)
    )
    itself = operator.token(operator.public, {"type": "operator"})
    config = tmp_path / "operator.conf"
    config.write_text(
        f"operator: {itself}\nresolver: MEMORY\nsystem_account: {system.public}\n"
        f"resolver_preload: {{ {account.public}: {about}, {system.public}: {about_system} }}\n"
        "http: 127.0.0.1:-1\njetstream: enabled\n"
    )
    with start_nats(tmp_path / "nats", config=config) as server:
        yield Trusted(server.url, account)


def _options(url: str, *, credentials: Path | None = None, nkey_seed: Path | None = None) -> BusOptions:
    options = BusOptions(urls=(url,), name="test", jetstream=False, pace=QUICK)
    return replace(options, credentials=credentials, nkey_seed=nkey_seed)


async def test_a_credentials_file_signs_in(trusted: Trusted, tmp_path: Path) -> None:
    file = trusted.credentials(tmp_path / "user.creds", Issuer(USER))

    async with connect(_options(trusted.url, credentials=file), deadline=Deadline.after(10.0)) as bus:
        assert bus.connected


async def test_credentials_of_another_account_or_that_expired_are_refused(trusted: Trusted, tmp_path: Path) -> None:
    stranger = Trusted(trusted.url, Issuer(ACCOUNT))
    for file in (
        stranger.credentials(tmp_path / "stranger.creds", Issuer(USER)),
        trusted.credentials(tmp_path / "expired.creds", Issuer(USER), exp=2),
    ):
        with pytest.raises(CredentialsError, match="refused the credentials"):
            async with connect(_options(trusted.url, credentials=file), deadline=Deadline.after(10.0)):
                pass


async def test_a_seed_that_was_away_or_damaged_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[Exception] = []

    def noting(self: SignIn, really: Callable[[SignIn], tuple[bytes, UserKey]] = SignIn._read) -> tuple[bytes, UserKey]:
        try:
            return really(self)
        except KeyFileError as error:
            failed.append(error)
            raise

    monkeypatch.setattr(SignIn, "_read", noting)
    seed, key = tmp_path / "user.seed", nkeys.new_key()
    seed.write_text(f"{key.seed}\n")
    config = tmp_path / "users.conf"
    config.write_text(
        f"jetstream: enabled\nhttp: 127.0.0.1:-1\nauthorization {{ users: [{{ nkey: {key.public} }}] }}\n"
    )
    with ExitStack() as first:
        server = first.enter_context(start_nats(tmp_path / "nats", config=config))
        async with connect(_options(server.url, nkey_seed=seed), deadline=Deadline.after(10.0)) as bus:
            first.close()
            seed.unlink()
            port = int(server.url.rpartition(":")[2])
            with start_nats(tmp_path / "nats", port=port, config=config):
                await _failed_again(failed, "cannot be read: No such file")
                seed.write_text(key.seed[:-1])
                await _failed_again(failed, "is damaged")
                seed.write_text(key.seed)
                async with asyncio.timeout(30.0):
                    while not bus.connected:
                        await pause()


async def _failed_again(failed: list[Exception], reason: str) -> None:
    """Return when another two connections failed for `reason`."""
    async with asyncio.timeout(30.0):
        while sum(reason in str(error) for error in failed) < 2:
            await pause()


def test_the_public_key_goes_with_a_seed_and_the_jwt_with_credentials(tmp_path: Path) -> None:
    assert SignIn().callbacks() == {}
    assert set(SignIn(seed=tmp_path / "seed").callbacks()) == {"signature_cb"}
    assert set(SignIn(credentials=tmp_path / "creds").callbacks()) == {"signature_cb", "user_jwt_cb"}
