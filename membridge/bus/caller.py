"""Who asks: what a request says of its sender, and what the server vouches for.

A header names the person and machine, `user@node`, and anybody may write anything there. Where members have keys of
their own, each receives its replies below `_INBOX.<its name>`, and the server lets no other member listen there: that
name is added when the header claims another one.
"""

import getpass

from membridge.bus.message import Message

#: The header in which a request names its sender.
CALLER = "Membridge-Asked-By"
#: Characters of a name that are kept.
LONGEST = 128
#: What a request without any name is by: the stock `nats` CLI, for example.
UNNAMED = "an unnamed client"


def own_name(node: str) -> str:
    """Return what this process calls itself: the user that it runs as, at its node."""
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
    """Return the name in the header, without what no name has."""
    text = message.headers.get(CALLER, "")[:LONGEST]
    return "".join(letter for letter in text if letter.isprintable()).strip()


def _member(reply: str) -> str:
    """Return the member whose inbox it is, nothing for an inbox of nobody in particular: that one has no name in it."""
    parts = reply.split(".")
    return parts[1] if len(parts) == 4 else ""
