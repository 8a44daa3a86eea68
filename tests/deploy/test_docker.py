"""The image and the compose file, without a container: what their lines say is read, run, and asked how it is."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from membridge.embedded.nats_server import start_nats
from membridge.settings import StoreKind, all_groups, load
from membridge.settings.table import table_of
from tests.fixtures.pace import pause
from tests.fixtures.ports import free_port

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
#: What .env gives.
DOTENV = {"NATS_PASSWORD": "m0", "POSTGRES_PASSWORD": "m1", "MINIO_PASSWORD": "m2" * 8, "RUNTIME_API_KEY": "m3" * 16}
OURS = ("coordinator", "gateway")
PATIENCE = 300.0


def instructions() -> list[tuple[str, str]]:
    """Return the lines of the Dockerfile, continued ones joined: instruction and rest."""
    text = re.sub(r"^#.*\n", "", (DOCKER / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest) for line in lines if line for word, _, rest in [line.partition(" ")]]


def composed() -> dict[str, Any]:
    """Return the compose file with the variables of .env in their places."""
    text = (DOCKER / "compose.yaml").read_text("utf-8")
    filled = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: DOTENV[found[1]], text)
    return yaml.safe_load(filled)


SERVICES: dict[str, dict[str, Any]] = composed()["services"]


def test_hadolint_finds_no_mistake() -> None:
    command = [Path(sys.executable).with_name("hadolint"), "--no-color", DOCKER / "Dockerfile"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)

    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_the_image_runs_as_nobody_in_particular_and_is_checked() -> None:
    last = [word for word, _ in instructions()][::-1].index("FROM")
    final = dict(instructions()[-last:])

    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", final["USER"])
    assert "--interval" in final["HEALTHCHECK"]
    assert json.loads(final["ENTRYPOINT"]) == ["membridge"]
    # One image for both processors: nothing in it names one.
    assert not re.search(r"amd64|x86|arm64|aarch64", str(instructions()))


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_may_little_and_is_limited(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert {"mem_limit", "pids_limit", "restart"} <= service.keys()
    assert not service["image"].endswith("latest")
    assert ":" in service["image"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert name == "buckets" or service["healthcheck"]["start_period"]


def test_nothing_runs_without_its_password() -> None:
    text = (DOCKER / "compose.yaml").read_text("utf-8")

    # `$$` is a dollar of the container's own shell.
    assert re.findall(r"\$\{\w+(?!\w*:\?)[^}]*\}|(?<!\$)\$\w", text) == []
    assert {*re.findall(r"\$\{(\w+):\?", text)} == {*DOTENV}


@pytest.mark.parametrize("name", OURS)
def test_what_our_containers_are_given_are_settings(name: str, tmp_path: Path) -> None:
    environ = SERVICES[name]["environment"]
    settings = load(environ, tmp_path)

    assert environ.keys() <= {item.declared.env for item in table_of(all_groups())}
    assert settings.warnings == ()
    assert settings.store.backend is StoreKind.S3
    assert settings.nats.urls == ("nats://node:m0@nats:4222",)


def test_services_wait_for_what_they_need() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other == "buckets" else "service_healthy"
            assert how == {"condition": wanted}, name


@contextmanager
def nats_of_compose(folder: Path) -> Generator[str]:
    """Run the NATS server of the compose file; give its port."""
    (folder / "nats").mkdir()
    password = SERVICES["nats"]["environment"]["MEMBRIDGE_NATS_PASSWORD_HASH"]
    for file in (DOCKER / "nats.conf", ROOT / "deploy" / "nats" / "limits.conf"):
        text = file.read_text("utf-8").replace("$MEMBRIDGE_NATS_PASSWORD_HASH", password)
        (folder / "nats" / file.name).write_text(text)
    with start_nats(folder / "nats" / "data", config=folder / "nats" / "nats.conf") as server:
        yield server.url.rpartition(":")[2]


@pytest.fixture
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment that the first stage of the Dockerfile makes, by its own lines; its pip may use a cache."""
    root = tmp_path_factory.mktemp("image")
    (root / "src").mkdir()
    (root / "bin").mkdir()
    (root / "bin" / "python").symlink_to(sys.executable)
    environ = {**os.environ, "PATH": f"{root / 'bin'}:/usr/bin:/bin", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = {"requirements.lock ./": ["requirements.lock"], ". ./": [*filter(None, listed.stdout.split("\0"))]}
    first = [word for word, _ in instructions()].index("FROM")
    stage = instructions()[first + 1 :]
    for word, rest in stage[: [word for word, _ in stage].index("FROM")]:
        if word == "COPY":
            for file in filter(_is_sent, files[rest]):
                (root / "src" / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / file, root / "src" / file)
        elif word == "RUN":
            command = ["sh", "-euc", rest.replace("/opt/membridge", str(root / "opt"))]
            done = subprocess.run(
                command, cwd=root / "src", env=environ, capture_output=True, text=True, check=False, timeout=PATIENCE
            )
            assert done.returncode == 0, done.stdout + done.stderr
        else:
            assert word in {"ENV", "WORKDIR"}
    return root / "opt"


def _is_sent(file: str) -> bool:
    """Whether .dockerignore lets a file be sent to the build."""
    sent = True
    for line in (DOCKER / "Dockerfile.dockerignore").read_text("utf-8").splitlines():
        pattern, kept = line.removeprefix("!"), line.startswith("!")
        if pattern and not pattern.startswith(("#", "**")) and (file == pattern or file.startswith(f"{pattern}/")):
            sent = kept
    return sent


@pytest.mark.real
async def test_what_the_image_has_serves_and_its_health_check_knows(image: Path, tmp_path: Path) -> None:
    # One test of both: the environment takes longer to make than to try.
    for name in OURS:
        (tmp_path / name).mkdir()
        await _served(name, image, tmp_path / name)


async def _served(name: str, image: Path, tmp_path: Path) -> None:
    port = free_port()
    final = dict(instructions())
    variables = dict(re.findall(r"(\w+)=(\S+)", final["ENV"]))
    health: list[str] = SERVICES[name]["healthcheck"].get("test", ["CMD"])[1:] or json.loads(
        final["HEALTHCHECK"].partition("CMD ")[2]
    )
    command = SERVICES[name].get("command", json.loads(final["CMD"]))
    with nats_of_compose(tmp_path) as nats:
        environ = {
            **variables,
            **{key: value for key, value in SERVICES[name]["environment"].items() if not key.startswith("MINIO")},
            "PATH": f"{image}/bin:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "STATE_DIRECTORY": str(tmp_path / "state"),
            "MEMBRIDGE_NATS_URL": f"nats://node:m0@127.0.0.1:{nats}",
            "MEMBRIDGE_GATEWAY_LISTEN": variables["MEMBRIDGE_GATEWAY_LISTEN"].replace("8733", str(port)),
            "DATABASE_URL": "",
        }
        check = [part.replace("8733", str(port)) for part in health]

        def is_well() -> bool:
            asked = subprocess.run(check, env=environ, capture_output=True, text=True, check=False, timeout=PATIENCE)
            return asked.returncode == 0

        assert not is_well()
        service = await asyncio.create_subprocess_exec(*("membridge", *command), env=environ)
        try:
            while not is_well():
                assert service.returncode is None
                await pause()
            if name == "gateway":
                assert _status(port, "/api/runtime/llm-tasks") == 401
        finally:
            service.terminate()
        assert await service.wait() == 0
        assert not is_well()


def _status(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as refused:
        return refused.code
