"""Who sent a request: the name that it claims, and the name that the server vouches for.

A header names the person and machine, `user@node`, and any client can write anything there. Members with keys of their
own receive replies below `_INBOX.<name>`, where the server lets no other member subscribe. If the header claims another
name, that one is added.
"""

import getpass

from membridge.bus.message import Message

#: The header in which a request names its sender.
CALLER = "Membridge-Asked-By"
#: Characters of a name that are kept.
LONGEST = 128
#: The sender of a request without a name: the stock `nats` CLI, for example.
UNNAMED = "an unnamed client"


def own_name(node: str) -> str:
    """Return the name that this process sends: its operating system user, at its node."""
    try:
        return f"{getpass.getuser()}@{node}"
    except (OSError, KeyError, ImportError):
        # A container may run under a user id that has no name.
        return f"someone@{node}"


def caller_of(message: Message) -> str:
    """Return who sent a request, for logs and the audit."""
    claimed, member = claimed_by(message), _member(message.reply)
    if not member:
        return claimed or UNNAMED
    return claimed if claimed.endswith(f"@{member}") else f"{claimed} ({member})" if claimed else member


def claimed_by(message: Message) -> str:
    """Return the name in the header, without characters that no name has."""
    text = message.headers.get(CALLER, "")[:LONGEST]
    return "".join(letter for letter in text if letter.isprintable()).strip()


def _member(reply: str) -> str:
    """Return the member whose inbox it is; empty for the default inbox, which has no name in it."""
    parts = reply.split(".")
    return parts[1] if len(parts) == 4 else ""
