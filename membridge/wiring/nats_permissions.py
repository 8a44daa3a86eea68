"""What a user of nats-server may publish and subscribe to."""

from dataclasses import dataclass

#: Each user has the inboxes under its own name. A user that answers may write to all of them: the last part of an inbox
#: cannot be guessed, and the server's own rule (`allow_responses`) forgets open requests at each change of users.
INBOX = "_INBOX"
ANSWERS = f"{INBOX}.>"
#: Discovery of services: to ask, and to be asked.
DISCOVERY = tuple(f"$SRV.{verb}{rest}" for verb in ("PING", "INFO", "STATS") for rest in ("", ".>"))


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that a user may publish to and subscribe to."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()


EVERYTHING, NOTHING = Permissions((">",), (">",)), Permissions()
