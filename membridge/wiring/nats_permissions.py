"""What a user of nats-server may publish and subscribe to."""

from dataclasses import dataclass

#: Each user has the inboxes under its own name. Whoever answers may write to all of them: an inbox's last part cannot
#: be guessed, and the server's own way (`allow_responses`) forgets whom it owes an answer at each change of users.
INBOX = "_INBOX"
ANSWERS = f"{INBOX}.>"
#: Asking services who they are, and being asked.
DISCOVERY = tuple(f"$SRV.{verb}{rest}" for verb in ("PING", "INFO", "STATS") for rest in ("", ".>"))


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that a user may publish to and subscribe to."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()


EVERYTHING, NOTHING = Permissions((">",), (">",)), Permissions()
