"""The port of the server that `membridge up` starts: what both the command and its process ask for."""

from urllib.parse import urlsplit

from membridge.errors import InvalidRequestError
from membridge.settings import LOOPBACK, Settings
from membridge.settings.kinds import show


def port_of(settings: Settings) -> int:
    """Return the port of the server that `up` starts. Raises InvalidRequestError if the settings name another one."""
    address = urlsplit(settings.nats.urls[0])
    if len(settings.nats.urls) != 1 or address.hostname not in LOOPBACK:
        unset = settings.unset("nats.urls")
        raise InvalidRequestError(
            f"`membridge up` starts a server here, but the setting nats.urls names {show(settings.nats.urls)}",
            remedy=f"{unset}, or run `membridge node` to use that server",
            field="nats.urls",
        )
    return address.port or 4222
