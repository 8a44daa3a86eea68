"""The next version: which one there is, and the installer's command that goes to it.

The package index is asked by the client that built this environment, with its configuration: mirrors and proxies apply.
"""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import membridge
from membridge.errors import NotFoundError, RefusedError, UnavailableError
from membridge.system.receipt import Receipt

#: Seconds that the package index may take to answer.
INDEX = 60
_DECLARED = re.compile(r'(?m)^version = "(.+)"$')
_WHEEL = re.compile(r"membridge-([^-]+)-.*\.whl")
_COMPILED = re.compile(r"(?m)^membridge==(\S+)")


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest version, and where it is: a source tree, a wheel, or the package index (None)."""

    version: str
    source: Path | None

    @property
    def is_newer(self) -> bool:
        """Whether it is newer than the one that runs, by the numbers of both."""
        return _numbers(self.version) > _numbers(membridge.__version__)


def newest(receipt: Receipt, source: Path | None) -> Newest:
    """Return the newest version in `source`, or where this installation came from. Blocking.

    Errors: NotFoundError for a source that is gone, UnavailableError for an index that does not answer.
    """
    noted = receipt.facts.get("source", "index")
    place = source or (Path(noted) if noted.startswith("/") else None)
    if place is None:
        return Newest(_in_index(), None)
    if not place.exists():
        raise NotFoundError(
            f"{place}, from where membridge was installed, is gone",
            remedy="name a source tree or a wheel: `membridge upgrade --from PATH`",
        )
    return Newest(_of(place), place)


def command(receipt: Receipt, to: Newest) -> list[str]:
    """Return the command that installs a version in place of this one."""
    if not receipt.script.is_file():
        raise NotFoundError(f"{receipt.script} is gone", remedy="run the install.sh of a source tree")
    where = ["--from", str(to.source)] if to.source else ["--version", to.version]
    return receipt.command(receipt.role, *where)


def needs_receipt(receipt: Receipt | None) -> Receipt:
    """Return the receipt. Raises RefusedError, with the right command, where another tool installed membridge."""
    if receipt is not None:
        return receipt
    tool = next((name for name in ("pipx", "uv") if name in Path(sys.prefix).parts), "")
    remedy = {"pipx": "run `pipx upgrade membridge`", "uv": "run `uv tool upgrade membridge`"}.get(
        tool, "upgrade it with the tool that installed it, or install it with install.sh"
    )
    raise RefusedError("this membridge was not installed by install.sh", remedy=remedy)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _of(place: Path) -> str:
    """Return the version of a source tree or a wheel."""
    if place.is_dir():
        project = place / "pyproject.toml"
        found = _DECLARED.search(project.read_text("utf-8")) if project.is_file() else None
    else:
        found = _WHEEL.fullmatch(place.name)
    if found is None:
        raise NotFoundError(f"{place} is neither a source tree nor a wheel of membridge")
    return found[1]


def _in_index() -> str:
    import json  # noqa: PLC0415 - only here

    uv = shutil.which("uv")
    if uv is not None:
        ask = [uv, "pip", "compile", "--quiet", "--no-deps", "--no-header", "--no-annotate", "-"]
    else:
        ask = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run"]
        ask += ["--no-deps", "--ignore-installed", "--report", "-", "membridge"]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            ask, input="membridge\n", capture_output=True, text=True, timeout=INDEX, check=True
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
        raise UnavailableError(
            f"the package index has no answer: {said[-1][:300]}",
            remedy="`membridge upgrade --from PATH` needs no index",
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(
            f"the package index was not asked: {error}", remedy="`membridge upgrade --from PATH` needs no index"
        ) from error
    if uv is None:
        return str(json.loads(done.stdout)["install"][0]["metadata"]["version"])
    found = _COMPILED.search(done.stdout)
    if found is None:
        raise UnavailableError(f"{uv} answered without a version", remedy="run `membridge upgrade --from PATH`")
    return found[1]
