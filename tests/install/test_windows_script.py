"""`deploy/install.ps1` by its syntax tree: no PowerShell runs here, so what can be known without one is checked.

It was never run on Windows. What it leaves to Python is run in `tests/unit/installation/test_windows_client.py`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter_powershell
from tree_sitter import Language, Node, Parser

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "install.ps1"
PARSER = Parser(Language(tree_sitter_powershell.language()))
#: Cmdlets of the modules that Windows PowerShell 5.1 and PowerShell 7 both load: Core, Management and Utility.
CMDLETS = frozenset(
    {
        "Add-Content", "Add-Member", "Add-Type", "Clear-Content", "Clear-Item", "Clear-Variable", "Compare-Object",
        "ConvertFrom-Csv", "ConvertFrom-Json", "ConvertFrom-StringData", "ConvertTo-Csv", "ConvertTo-Html",
        "ConvertTo-Json", "Convert-Path", "Copy-Item", "Export-Clixml", "Export-Csv", "ForEach-Object", "Format-Custom",
        "Format-List", "Format-Table", "Format-Wide", "Get-ChildItem", "Get-Command", "Get-Content", "Get-Culture",
        "Get-Date", "Get-Event", "Get-Help", "Get-Host", "Get-Item", "Get-ItemProperty", "Get-Location", "Get-Member",
        "Get-Module", "Get-Process", "Get-PSDrive", "Get-Random", "Get-Service", "Get-Unique", "Get-Variable",
        "Group-Object", "Import-Clixml", "Import-Csv", "Import-Module", "Invoke-Command", "Invoke-Expression",
        "Invoke-RestMethod", "Invoke-WebRequest", "Join-Path", "Measure-Command", "Measure-Object", "Move-Item",
        "New-Item", "New-ItemProperty", "New-Module", "New-Object", "New-TimeSpan", "New-Variable", "Out-Default",
        "Out-File", "Out-Host", "Out-Null", "Out-String", "Pop-Location", "Push-Location", "Read-Host", "Remove-Item",
        "Remove-ItemProperty", "Remove-Module", "Remove-Variable", "Rename-Item", "Resolve-Path", "Select-Object",
        "Select-String", "Select-Xml", "Set-Content", "Set-Item", "Set-ItemProperty", "Set-Location", "Set-StrictMode",
        "Set-Variable", "Sort-Object", "Split-Path", "Start-Process", "Start-Sleep", "Stop-Process", "Tee-Object",
        "Test-Path", "Wait-Process", "Where-Object", "Write-Debug", "Write-Error", "Write-Host", "Write-Information",
        "Write-Output", "Write-Progress", "Write-Verbose", "Write-Warning",
    }
)  # fmt: skip
#: Verbs that `Get-Verb` lists, of those that a script of this kind could need.
VERBS = frozenset(
    {
        "Add", "Clear", "Copy", "Find", "Get", "Install", "Invoke", "Move", "New", "Remove", "Rename", "Resolve",
        "Restore", "Select", "Set", "Start", "Stop", "Test", "Uninstall", "Update", "Write",
    }
)  # fmt: skip
#: What the installers of every system leave alone; see `test_modes.py` for install.sh.
UNTOUCHED = (".claude", "claude-mem", ".claude.json")
#: What only one of the two PowerShells has: operators of 7, and what 5.1 alone can do.
OF_ONE_POWERSHELL = r"\?\?|\?\.|&&|\|\||\$IsWindows|\bclean\s*\{|Get-WmiObject|-Parallel|-AsHashtable"


def parsed(text: bytes) -> Node:
    return PARSER.parse(text).root_node


def walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from walk(child)


def of_type(node: Node, *kinds: str) -> list[Node]:
    return [one for one in walk(node) if one.type in kinds]


def text_of(node: Node) -> str:
    return (node.text or b"").decode()


def faults(root: Node) -> list[str]:
    """Return where the grammar does not understand it."""
    return [f"{one.start_point}: {text_of(one)[:60]}" for one in walk(root) if one.type == "ERROR" or one.is_missing]


def functions(root: Node) -> dict[str, Node]:
    return {text_of(one.children[1]): one for one in of_type(root, "function_statement")}


def called(root: Node) -> list[str]:
    """Return the names of the commands that are called by name; a program is called with `&` and a variable."""
    return [
        text_of(name)
        for command in of_type(root, "command")
        for name in command.children
        if name.type == "command_name"
    ]


def unknown_calls(root: Node) -> set[str]:
    """Return the calls of what is neither a function of the script nor a cmdlet by its full name, as an alias."""
    return {name for name in called(root) if name not in CMDLETS and name not in functions(root)}


def parameters(block: Node) -> list[str]:
    return [text_of(of_type(one, "variable")[0]).lstrip("$") for one in of_type(block, "script_parameter")]


@pytest.fixture(scope="module")
def script() -> Node:
    return parsed(SCRIPT.read_bytes())


def test_the_grammar_understands_every_line(script: Node) -> None:
    assert faults(script) == []


@pytest.mark.parametrize("broken", ["if ($a { 1 }", "function Get-It { param( }", 'Write-Output "open', "}"])
def test_the_grammar_notices_a_mistake(broken: str) -> None:
    assert faults(parsed(broken.encode()))


def test_the_last_line_calls_the_one_function_and_nothing_else_runs(script: Node) -> None:
    comment, block, body = script.children
    *before, last = [one for one in body.children if one.type != "comment"]

    assert (comment.type, block.type) == ("comment", "param_block")
    assert {one.type for one in before} == {"function_statement"}
    assert text_of(last) == "Install-Membridge @PSBoundParameters"
    assert SCRIPT.read_text("ascii").endswith(f"\n{text_of(last)}\n")


def test_a_download_that_is_cut_off_runs_nothing() -> None:
    """Wherever it ends, the rest does not parse, or defines functions and calls none."""
    whole = SCRIPT.read_bytes()
    call = whole.rindex(b"Install-Membridge @")

    for end in range(0, call + len(b"Install-Membridge"), 97):
        root = parsed(whole[:end])
        statements = [one for part in root.children if part.type == "statement_list" for one in part.children]
        assert faults(root) or {one.type for one in statements} <= {"function_statement", "comment"}


def test_every_call_is_of_a_function_or_a_cmdlet_by_its_full_name(script: Node) -> None:
    assert unknown_calls(script) == set()
    assert set(functions(script)) <= set(called(script))


@pytest.mark.parametrize("line", ["ls", "gci C:\\", "rm x", "Get-Thing", "curl x", "1 | % { 2 }"])
def test_an_alias_or_an_unknown_command_is_found(line: str) -> None:
    assert unknown_calls(parsed(line.encode()))


def test_functions_have_approved_verbs_and_noun(script: Node) -> None:
    assert all(re.fullmatch(r"[A-Z][a-z]+-[A-Z][A-Za-z]+", name) for name in functions(script))
    assert {name.partition("-")[0] for name in functions(script)} <= VERBS


def test_it_is_strict_stops_at_errors_and_asks_should_process(script: Node) -> None:
    main = text_of(functions(script)["Install-Membridge"])

    assert "Set-StrictMode -Version Latest" in main
    assert "$ErrorActionPreference = 'Stop'" in main
    assert main.count("$PSCmdlet.ShouldProcess(") == 2
    for part in (text_of(script.children[1]), main):
        assert part.count("[CmdletBinding(SupportsShouldProcess)]") == 1


def test_each_parameter_is_documented_and_handed_on(script: Node) -> None:
    comment, block = script.children[:2]
    documented = re.findall(r"^\.PARAMETER (\w+)\n\S", text_of(comment), re.MULTILINE)
    main = of_type(functions(script)["Install-Membridge"], "param_block")[0]

    assert parameters(block) == ["Uninstall", "DryRun", "Prefix", "Version", "From"]
    assert documented == parameters(block) == parameters(main)
    for heading in (".SYNOPSIS", ".DESCRIPTION", ".EXAMPLE"):
        assert f"\n{heading}\n" in text_of(comment)


def test_it_runs_in_both_powershells() -> None:
    text = SCRIPT.read_bytes()

    assert text.isascii(), "Windows PowerShell 5.1 reads a file without a mark in the code page of the machine"
    assert not re.search(OF_ONE_POWERSHELL, text.decode("ascii"))


def test_what_belongs_to_claude_is_not_named() -> None:
    for file in (SCRIPT, ROOT / "membridge" / "installation" / "windows_client.py"):
        text = file.read_text("utf-8").lower()
        assert not [name for name in UNTOUCHED if name in text]


def test_packages_come_as_wheels_with_their_checksums(script: Node) -> None:
    lines = [text_of(one) for one in of_type(script, "command") if "'install'" in text_of(one)]

    assert len(lines) == 2
    assert all("'--no-deps'" in line for line in lines)
    assert "'--only-binary=:all:', '--require-hashes', '--requirement'" in lines[1]


def test_what_it_names_exists(script: Node) -> None:
    """Paths inside the environment, and what it calls there."""
    text = text_of(script)

    for inside in re.findall(r"\$package -ChildPath '([^']+)'", text):
        name = inside.replace("\\", "/")
        places = [ROOT / "membridge" / name, ROOT / name.removeprefix("embedded/")]
        assert any(one.is_file() for one in places), inside
    assert (ROOT / "membridge" / "cli" / "main.py").is_file()
    assert "'membridge.cli.main', 'validate'" in text


def test_it_is_in_the_wheel_beside_install_sh() -> None:
    included = (ROOT / "pyproject.toml").read_text("utf-8")

    assert '"deploy/install.ps1" = "membridge/embedded/install.ps1"' in included


def test_it_stays_thin() -> None:
    assert len(SCRIPT.read_text("ascii").splitlines()) <= 180
