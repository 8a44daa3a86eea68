"""nats-server.conf: what is shipped works, and so do its blocks that are ready to enable."""

import re
import subprocess
from pathlib import Path

import pytest

from membridge.embedded.nats_server import bundled_config, find_binary, start_nats

#: A block that is ready to enable: its lines begin with "#" and no blank after it.
BLOCK = re.compile(r"^#(?=\S| {4})", re.MULTILINE)


def checked(config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(find_binary()), "-t", "-c", str(config)], capture_output=True, text=True, check=False, timeout=30
    )


def blocks(text: str) -> dict[str, str]:
    """The blocks that are commented out, by the word they begin with and their place."""
    found: dict[str, str] = {}
    for match in re.finditer(r"^#(\w+) \{\n(?:#.*\n)*?#\}$", text, re.MULTILINE):
        found[f"{match.group(1)}-{match.start()}"] = match.group(0)
    return found


def test_the_shipped_file_is_valid_and_runs(tmp_path: Path) -> None:
    result = checked(bundled_config())
    assert result.returncode == 0, result.stderr
    with start_nats(tmp_path) as server:
        assert server.url.startswith("nats://127.0.0.1:")


def test_it_keeps_acknowledged_writes_and_listens_on_loopback_only() -> None:
    text = bundled_config().read_text(encoding="utf-8")
    assert re.search(r"^\s*sync_interval: always$", text, re.MULTILINE)
    assert re.search(r"^listen: 127\.0\.0\.1:4222$", text, re.MULTILINE)
    assert re.search(r"^http: 127\.0\.0\.1:8222$", text, re.MULTILINE)
    assert "SD-card profile" in text


def test_tls_users_and_leafnodes_are_ready_to_enable() -> None:
    names = {name.partition("-")[0] for name in blocks(bundled_config().read_text(encoding="utf-8"))}
    assert {"authorization", "tls", "leafnodes"} <= names


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    folder = tmp_path / "tls"
    folder.mkdir()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
         "-keyout", str(folder / "server.key"), "-out", str(folder / "server.crt")],
        check=True, capture_output=True,
    )  # fmt: skip
    (folder / "ca.crt").write_bytes((folder / "server.crt").read_bytes())
    return folder


def test_every_block_is_valid_once_it_is_enabled(tmp_path: Path, certificate: Path) -> None:
    text = bundled_config().read_text(encoding="utf-8")
    for name, block in blocks(text).items():
        enabled = text.replace(block, BLOCK.sub("", block)).replace("/etc/membridge/tls", str(certificate))
        config = tmp_path / f"{name}.conf"
        config.write_text(enabled, encoding="utf-8")
        result = checked(config)
        assert result.returncode == 0, f"{name}: {result.stderr}"
