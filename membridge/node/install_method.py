"""How membridge was installed, judged by where its files lie. Pure; queries no package manager."""

from pathlib import Path

from schemas.node import InstallMethod


def install_method(prefix: Path, package: Path) -> InstallMethod:
    """Return how an environment in the folder `prefix`, which runs the package in the folder `package`, was made.

    pipx keeps environments in `pipx/venvs`, uv those of its tools in `uv/tools`; a package outside of its environment
    is a source checkout.
    """
    if not package.is_relative_to(prefix):
        return InstallMethod.SOURCE
    parts = prefix.parts
    if "pipx" in parts and "venvs" in parts:
        return InstallMethod.PIPX
    if "uv" in parts and "tools" in parts:
        return InstallMethod.UV
    return InstallMethod.PIP
