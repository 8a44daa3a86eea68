"""Wheels of this tree for the installer: of any version, with a lock file that names nothing.

What membridge needs comes from the environment of the tests, by PYTHONPATH: to install it anew costs a minute.
"""

import hashlib
import re
import subprocess
import sys
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = "membridge/embedded/requirements.lock"
VERSION = "membridge/__init__.py"


def build(folder: Path) -> Path:
    """Build the wheel of this tree."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", folder, ROOT], check=True, capture_output=True, timeout=120)
    return next(folder.glob("membridge-*.whl"))


def variant(wheel: Path, version: str, folder: Path, *, broken: bool = False) -> Path:
    """Write a wheel like `wheel` of another version, that needs nothing; a broken one cannot be imported."""
    was = wheel.name.split("-")[1]
    target = folder / wheel.name.replace(f"-{was}-", f"-{version}-")
    record: list[str] = []
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(target, "w") as copy:
        for item in source.infolist():
            name = item.filename.replace(f"membridge-{was}.dist-info", f"membridge-{version}.dist-info")
            if name.endswith("/RECORD"):
                last = name
                continue
            body = _changed(name, source.read(item), version, broken=broken)
            copy.writestr(name, body)
            digest = urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(body)}\n")
        copy.writestr(last, "".join([*record, f"{last},,\n"]))
    return target


def _changed(name: str, body: bytes, version: str, *, broken: bool) -> bytes:
    if name == LOCK:
        return b""
    if name.endswith(".dist-info/METADATA"):
        return re.sub(rb"(?m)^Version: .*$", f"Version: {version}".encode(), body)
    if name == VERSION:
        text = re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', body.decode())
        return text.encode()
    if name == "membridge/cli/installation.py" and broken:
        return b"import no_such_module\n"
    return body


def dependencies(folder: Path) -> Path:
    """Return a folder for PYTHONPATH with all packages of this environment but membridge and what installs."""
    import msgspec  # noqa: PLC0415 - only to find the folder

    installed = Path(msgspec.__file__).parents[1]
    folder.mkdir()
    for entry in installed.iterdir():
        if not re.match(r"(_?membridge|pip|setuptools|_virtualenv|distutils|__pycache__)|.*\.pth$", entry.name):
            (folder / entry.name).symlink_to(entry)
    return folder
