"""What is taken for a secret, and what is not; on any text in bounded time."""

import time

import pytest

from membridge.claudeconfig import secret_scan
from membridge.claudeconfig.secret_scan import Hit

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


@pytest.mark.parametrize(
    "line",
    [
        "API_KEY=abc123def", "export MY_API_KEY='abcdefgh'", "apiKey: abc123def4", "SSH_KEY=abcdef12",
        "KEY_ID=abcdef12",
        "PASSWORD=correcthorse", "db_password = 'hunter2hunter2'", '"clientSecret": "abc123def456"',
        "token: `abcd1234efgh`",
        "https://user:hunter2@host/x", "postgres://me:secretpw@db/x", f"sk-ant-api03-{LETTERS}", f"sk-proj-{LETTERS}",
        f"x=ghp_{LETTERS}", f"github_pat_{LETTERS}", f"glpat-{LETTERS}", "AKIAABCDEFGHIJKLMNOP", f"AIza{LETTERS}",
        f"xoxb-{LETTERS}", f"sk_live_{LETTERS}", f"npm_{LETTERS}", f"hf_{LETTERS}", f"Authorization: Bearer {LETTERS}",
        "-----BEGIN OPENSSH PRIVATE KEY-----", f"eyJ{LETTERS}.{LETTERS}.{LETTERS}", "S" + "U" + "ABCDEFG2" * 7,
        "the key dBjftJeZ4CVPmB92K27uhbUJU1p1rqwAbCdEfGh9x",
    ],
)  # fmt: skip
def test_a_secret_is_found(line: str) -> None:
    assert secret_scan.kind_of(line) is not None


@pytest.mark.parametrize(
    "line",
    [
        "export OPENAI_API_KEY=$(pass show x)", "API_KEY=<your-key>", "API_KEY=your_key_here", "API_KEY=${SECRET}",
        '"key": "ctrl+shift+k"', "max_tokens: 4096", "MAX_THINKING_TOKENS=31999", "Password: required field",
        "git commit 3f786850e387550fdab836ed7e6dc881de23001b", "0123456789abcdef" * 4, "secret: <your-secret>",
        "SSH_KEY=~/.ssh/id", "SSH_KEY=/etc/key", "monkey=banana99", "a_very_long_function_name_that_means_nothing_2",
        "https://github.com/Owner/Repository/blob/main/Some/Path/With/Numbers42.md", "token = token", "TOKEN=changeme",
        "skill-creator-with-a-long-name", "use process.env.API_KEY", "const key = getKey(secret1)", "",
    ],
)  # fmt: skip
def test_what_is_none_is_left_alone(line: str) -> None:
    assert secret_scan.kind_of(line) is None


def test_the_line_is_named_and_the_secret_is_not() -> None:
    hit = secret_scan.scan("fine\n\nGITHUB_TOKEN=abcdef123456\nAPI_KEY=abcdef123456\n")

    assert hit == Hit(3, "a value for GITHUB_TOKEN")
    assert secret_scan.scan("nothing\nhere") is None


def test_a_secret_far_into_a_long_line_is_found() -> None:
    for before in (0, secret_scan.MOST_LINE - 10, secret_scan.MOST_LINE * 3):
        assert secret_scan.kind_of("x " * (before // 2) + f"sk-ant-api03-{LETTERS}") is not None


@pytest.mark.parametrize(
    "piece", ["y", "a-", "token", "eyJ", "\n", "sk-", "a:", "http://", "PASSWORD", "A_KEY", "a=", "'", "KEY_A:"]
)
def test_no_text_takes_long(piece: str) -> None:
    began = time.process_time()
    secret_scan.scan(piece * ((1 << 18) // len(piece)))

    # A search that grows with the square of the length takes minutes.
    assert time.process_time() - began < 10
