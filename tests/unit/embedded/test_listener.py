"""What listens at a port is named as far as the system tells."""

import os
import socket
from pathlib import Path

import pytest

from membridge.embedded import listener


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_program_of_ones_own_is_named_with_its_process(family: socket.AddressFamily, address: str) -> None:
    with socket.create_server((address, 0), family=family) as server:
        port = server.getsockname()[1]
        found = listener.listener_at(port)
        name = Path(f"/proc/{os.getpid()}/comm").read_text("ascii").strip()
        assert (found.pid, found.program, found.words) == (os.getpid(), name, f"pid {os.getpid()} ({name})")
        assert listener.is_taken(address, port)
        assert listener.free_near(address, port) not in {None, port}
    assert not listener.is_taken(address, port)


def test_a_program_of_another_user_is_named_by_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_process_with", lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        said = listener.listener_at(server.getsockname()[1])
    assert said.pid == 0
    assert said.words == f"a program of user {listener._user(os.getuid())}"
    assert listener._user(4_000_000) == "4000000"


def test_where_the_system_does_not_tell_the_port_is_still_known_to_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_sockets", lambda _: [])
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert listener.listener_at(server.getsockname()[1]).words == "another program"


def test_a_connection_to_a_port_is_no_listener_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert listener.listener_at(client.getsockname()[1]).words == "another program"
