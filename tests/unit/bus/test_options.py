"""What is wrong with an address or a credentials file is said before anything is sent."""

from pathlib import Path

import pytest

from membridge.bus.options import BusOptions, plain_url
from membridge.errors import CredentialsError, SettingsError

URL = ("nats://127.0.0.1:4222",)


@pytest.mark.parametrize("url", ["http://host:4222", "ws://host:4222", "host:4222", ""])
def test_only_nats_and_tls_addresses_are_taken(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        BusOptions(urls=(url,), name="test").check()
    assert refused.value.field == "nats_url"


def test_no_address_at_all_is_refused() -> None:
    with pytest.raises(SettingsError):
        BusOptions(urls=(), name="test").check()


def test_a_plain_address_needs_nothing_else() -> None:
    BusOptions(urls=("nats://a:4222", "tls://b:4222"), name="test").check()


def test_a_password_never_shows() -> None:
    assert plain_url("nats://user:swordfish@host:4222") == "nats://host:4222"
    assert BusOptions(urls=("nats://u:p@a:1", "nats://b:2"), name="test").where() == "nats://a:1, nats://b:2"


@pytest.mark.parametrize("content", [b"", b"not credentials\n", b"\xff\xfe", b"-----BEGIN NATS USER JWT-----\n"])
def test_a_file_that_holds_no_credentials_is_refused_instead_of_read_for_ever(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "node.creds"
    file.write_bytes(content)
    with pytest.raises(CredentialsError, match=r"node\.creds"):
        BusOptions(urls=URL, name="test", credentials=file).check()


def test_a_credentials_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="No such file"):
        BusOptions(urls=URL, name="test", credentials=tmp_path / "none").check()


def test_a_seed_that_is_no_users_is_refused_without_being_shown(tmp_path: Path) -> None:
    file = tmp_path / "seed"
    file.write_text("SAACCOUNTSEED", encoding="utf-8")
    with pytest.raises(CredentialsError) as refused:
        BusOptions(urls=URL, name="test", nkey_seed=file).check()
    assert "SAACCOUNTSEED" not in str(refused.value)


def test_a_ca_file_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    file.write_text("no certificate", encoding="utf-8")
    with pytest.raises(CredentialsError, match=r"ca\.crt"):
        BusOptions(urls=URL, name="test", ca_file=file).tls()


def test_without_an_own_ca_the_systems_trust_is_used() -> None:
    assert BusOptions(urls=URL, name="test").tls() is None
