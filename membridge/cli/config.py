"""`membridge config`: what is configured, where it comes from, and what can be."""

import os
from pathlib import Path

import click

from membridge.cli import tables
from membridge.cli.command import DefaultGroup, Invocation, command
from membridge.settings import locations, render_reference, shown
from schemas.subjects import Impact
from schemas.wire import Wire

COLUMNS = ("setting", "*value", "*from")


class ShownSetting(Wire, frozen=True, kw_only=True):
    """One setting as `config show --json` prints it."""

    key: str
    value: str
    origin: str
    env: str
    unit: str


class ShownSettings(Wire, frozen=True, kw_only=True):
    """All settings, and what the doctor would say of them."""

    settings: list[ShownSetting]
    warnings: list[str]


class ConfigFile(Wire, frozen=True, kw_only=True):
    """A place where a configuration file is looked for."""

    path: str
    found: bool


class ConfigFiles(Wire, frozen=True, kw_only=True):
    """All of them, the one that wins last."""

    files: list[ConfigFile]


class Reference(Wire, frozen=True, kw_only=True):
    """The reference page."""

    markdown: str


@command("show", impact=Impact.READ, warns=False)
def show(invocation: Invocation) -> None:
    """Print each setting and its origin; secrets are masked."""
    lines = [
        ShownSetting(key=line.key, value=line.value, origin=line.origin, env=line.env, unit=line.unit)
        for line in shown(invocation.settings)
    ]
    invocation.show(ShownSettings(settings=lines, warnings=list(invocation.settings.warnings)), _print_settings)


@command("path", impact=Impact.READ)
def path(invocation: Invocation) -> None:
    """Print the paths of the configuration files."""
    where = locations(os.environ, Path.home())
    files = [ConfigFile(path=str(file), found=file.exists()) for file in (where.config, where.enrolled, where.legacy)]
    invocation.show(ConfigFiles(files=files), _print_files)


@command("reference", impact=Impact.READ)
def reference(invocation: Invocation) -> None:
    """Print the page that documents every setting."""
    page = Reference(markdown=render_reference())
    invocation.show(page, lambda reply: click.echo(reply.markdown, nl=False))


config = DefaultGroup(
    "config", default="show", commands=[show, path, reference], summary="Show the settings, and where each comes from."
)


def _print_settings(reply: ShownSettings) -> None:
    rows = [(line.key, _value(line), tables.short(line.origin)) for line in reply.settings]
    tables.table(COLUMNS, rows, empty="no settings")
    for warning in reply.warnings:
        tables.line(f"\nwarning: {warning}")


def _value(line: ShownSetting) -> str:
    return tables.short(line.value) + (f" {line.unit}" if line.unit and line.value else "")


def _print_files(reply: ConfigFiles) -> None:
    for file in reply.files:
        click.echo(f"{file.path}{'' if file.found else '  (does not exist)'}")
