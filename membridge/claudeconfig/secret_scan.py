"""Finds what looks like a secret in a text. Pure: text in, line and kind out, never the secret itself.

It errs on the side of refusing: `push --allow FILE` sends a file that it took wrongly.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass

#: The forms of well-known tokens.
SHAPES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("a private key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
        ("an Anthropic key", r"(?<![\w-])sk-ant-[A-Za-z0-9_-]{16,}"),
        ("an API key", r"(?<![\w-])sk-(?:proj-|live-|test-|or-)?[A-Za-z0-9_-]{20,}"),
        ("a GitHub token", r"(?<![\w-])(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})"),
        ("a GitLab token", r"(?<![\w-])glpat-[A-Za-z0-9_-]{16,}"),
        ("an AWS key", r"(?<![\w-])(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
        ("a Google key", r"(?<![\w-])AIza[A-Za-z0-9_-]{30,}"),
        ("a Slack token", r"(?<![\w-])xox[abeoprs]-[A-Za-z0-9-]{10,}"),
        ("a Stripe key", r"(?<![\w-])[rs]k_(?:live|test)_[A-Za-z0-9]{16,}"),
        ("a package registry's token", r"(?<![\w-])(?:npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{30,})"),
        ("a Hugging Face token", r"(?<![\w-])hf_[A-Za-z0-9]{20,}"),
        ("a JSON web token", r"(?<![\w-])eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*"),
        ("a NATS seed", r"(?<![\w-])S[ACNOUX][A-Z2-7]{56}\b"),
        ("a password in an address", r"(?<![\w-])[a-z][a-z0-9+.-]{1,15}://[^\s/:@$<{]{1,256}:[^\s/@$<{]{3,256}@"),
        ("a bearer token", r"(?i)(?<![\w-])bearer\s+[A-Za-z0-9_.~+/-]{20,}=*"),
    )
)
#: No pattern may take long on any text: each begins at the start of a word, or is bounded.
#: A name that a secret is kept under, then what it is set to.
_NAMED = re.compile(
    r"""(?ix)
    (?<![A-Z0-9_.-])(?P<name>[A-Z0-9_.-]{0,64}?
      (?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?
        |(?:API|ACCESS|PRIVATE|AUTH|SECRET|SIGNING|ENCRYPTION|CLIENT|ACCOUNT|MASTER)[_-]?KEY
        |(?-i:_KEY|KEY_[A-Z0-9_]{1,64}))
      [A-Z0-9_-]{0,64})
    ["']?\s*(?P<sign>=|:)\s*
    (?P<quote>["'`]?)(?P<value>[^\s"'`,;#]{1,512})
    """
)
_PLACEHOLDER = re.compile(
    r"(?i)^[/~.]|^(?:\W*|x+|null|none|true|false|string|required|optional|secret|token|password|changeme|redacted)$"
    r"|^[<\[({$%]|example|your[_-]|placeholder|\bxxx|\.\.\.|^process\.env|^os\.environ|\("
)
_DENSE = re.compile(r"(?<![A-Za-z0-9_/.@-])[A-Za-z0-9+=_-]{32,}(?![A-Za-z0-9_/.-])")
#: Bits for each character: what random base64 of this length has, and names and words do not.
_RANDOM = 4.2
#: A line longer than this is cut for the search of names: no pattern may take long.
MOST_LINE = 10_000
#: A shorter line holds no secret: a name, a sign and six letters take more.
SHORTEST = 11


@dataclass(frozen=True, slots=True)
class Hit:
    """A line, counted from 1, that looks like a secret, and of what kind."""

    line: int
    kind: str


def scan(text: str) -> Hit | None:
    """Return the first hit in `text`, None if there is none."""
    for number, line in enumerate(text.splitlines(), start=1):
        kind = kind_of(line) if len(line) >= SHORTEST else None
        if kind is not None:
            return Hit(number, kind)
    return None


def kind_of(line: str) -> str | None:
    """Return what a line seems to hold, None if it holds no secret."""
    for start in range(0, max(1, len(line)), MOST_LINE):
        # Pieces overlap by the length of a token.
        piece = line[start : start + MOST_LINE + 200]
        found = _shape(piece) or _named(piece) or _dense(piece)
        if found is not None:
            return found
    return None


def _shape(line: str) -> str | None:
    return next((kind for kind, shape in SHAPES if shape.search(line)), None)


def _named(line: str) -> str | None:
    for found in _NAMED.finditer(line):
        value = found["value"].rstrip(")].}>")
        if _PLACEHOLDER.search(value) or value.lower() in found["name"].lower():
            continue
        has_letter, has_digit = bool(re.search(r"[A-Za-z]", value)), bool(re.search(r"\d", value))
        is_password = bool(re.search(r"(?i)pass", found["name"]))
        if found["sign"] == "=" and not line[found.end("sign") : found.end("sign") + 1].isspace():
            hit = len(value) >= 6 and (has_letter or is_password)
        else:
            hit = len(value) >= 8 and has_letter and has_digit
        if hit:
            return f"a value for {found['name'].strip('-._')}"
    return None


def _dense(line: str) -> str | None:
    for found in _DENSE.finditer(line):
        word = found[0]
        kinds = (any(map(str.isupper, word)), any(map(str.islower, word)), any(map(str.isdigit, word)))
        if all(kinds) and entropy(word) >= _RANDOM:
            return "a random text, as of a key"
    return None


def entropy(word: str) -> float:
    """Return the entropy of a word in bits for each character."""
    total = len(word)
    return -sum(count / total * math.log2(count / total) for count in Counter(word).values())
