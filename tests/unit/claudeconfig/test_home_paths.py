"""Home folders become $HOME, and nothing that only looks like one does."""

import pytest

from membridge.claudeconfig import home_paths
from membridge.claudeconfig.home_paths import Homes

HOMES = Homes("/home/me", "/home/me/.claude")
OTHER = Homes("/home/me", "/srv/claude")
#: A longer name of a home.
ANOTHER = "/home/me" + "n"


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("cat /home/me/x", "cat $HOME/x"), ("(/home/me)", "($HOME)"), ("In /home/me.", "In $HOME."),
        ('"/home/me/.claude/hooks/a b.sh"', '"$HOME/.claude/hooks/a b.sh"'), (f"{ANOTHER}/x", f"{ANOTHER}/x"),
        ("/data/home/me/x", "/data/home/me/x"), ("/home/me-too", "/home/me-too"), ("/home/me.old/x", "/home/me.old/x"),
        ("A=/home/me B=/home/me/c", "A=$HOME B=$HOME/c"),
    ],
)  # fmt: skip
def test_the_home_is_rewritten(text: str, becomes: str) -> None:
    assert home_paths.portable(text, HOMES).text == becomes


def test_another_configuration_folder_is_rewritten_too() -> None:
    assert home_paths.portable("/srv/claude/x /home/me/y", OTHER).text == (
        "${CLAUDE_CONFIG_DIR:-$HOME/.claude}/x $HOME/y"
    )


def test_lines_are_counted() -> None:
    found = home_paths.portable("a\n/home/me/x\n/home/you/y\nC:\\Users\\you\\z\n", HOMES)

    assert (found.rewritten, found.foreign) == ((2,), (3, 4))
    assert home_paths.first_own("a\nb /home/me\n", HOMES) == 2
    assert home_paths.first_own("a\n", HOMES) is None
    assert home_paths.quoted("cat \"/home/me/x\"\ncat '/home/me/x'\n", HOMES) == 2
    assert home_paths.quoted("echo 'a' /home/me/x\n", HOMES) is None


def test_a_machine_whose_home_is_the_root_rewrites_nothing() -> None:
    assert home_paths.portable("/x /y", Homes("/", "/.claude")).text == "/x /y"
    assert home_paths.portable("/x", Homes("", "/.claude")).text == "/x"


@pytest.mark.parametrize(
    ("command", "elsewhere"),
    [
        ("/opt/x --a", "/opt/x"), ("node $HOME/.claude/a.js", None), ("node /usr/bin/env", None),
        ("cat < /dev/null", None),
        ("$HOME/.claude/x /srv/y", "/srv/y"), ("curl http://localhost/x", None), ("C:\\tools\\x.exe", "C:\\"),
        ("${CLAUDE_CONFIG_DIR:-$HOME/.claude}/x", None),
    ],
)  # fmt: skip
def test_an_absolute_path_of_a_command_is_seen(command: str, elsewhere: str | None) -> None:
    assert home_paths.is_elsewhere(command) == elsewhere


def test_a_command_in_the_home_but_outside_the_configuration_is_seen() -> None:
    assert home_paths.names_home_outside("$HOME/bin/x")
    assert home_paths.names_home_outside("~/x")
    assert not home_paths.names_home_outside('"$HOME/.claude/hooks/x"')
    assert not home_paths.names_home_outside("${CLAUDE_CONFIG_DIR:-$HOME/.claude}/x")
