"""The invitation as one line: the server's address and fingerprint, and the secret that lets one machine in once.

The line is as good as a key until it is used or expires; only `membridge invite` prints it.
"""

import base64
import binascii
from typing import Annotated

import msgspec
from msgspec import Meta

from membridge.errors import InvalidRequestError
from schemas.access import InvitationId, Secret
from schemas.identity import WireNodeId

PREFIX = "membridge-1-"
#: No invitation is longer.
MAX_LINE = 8192

Address = Annotated[str, Meta(pattern=r"^tls://[^\s/@]{1,255}\Z")]
#: sha256 of the authority's certificate, 64 hex digits.
Fingerprint = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Seed = Annotated[str, Meta(pattern=r"^SU[A-Z2-7]{56}\Z")]


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of an invitation. `door` is the seed of the enrolment user, which may only ask to be enrolled."""

    urls: Annotated[list[Address], Meta(min_length=1, max_length=8)]
    fingerprint: Fingerprint
    id: InvitationId
    secret: Secret
    door: Seed
    projects: Annotated[list[Annotated[str, Meta(min_length=1, max_length=256)]], Meta(min_length=1, max_length=64)]
    node: WireNodeId | None = None


def write(line: Line) -> str:
    """Return the line as text: the prefix, and everything else in URL-safe base64 with its checksum."""
    body = msgspec.json.encode(line)
    return PREFIX + base64.urlsafe_b64encode(body + _sum(body)).decode().rstrip("=")


def parse(text: str) -> Line:
    """Return the content of a line; raise InvalidRequestError if it is cut, mistyped or not an invitation."""
    text = "".join(text.split())
    if not text.startswith(PREFIX) or len(text) > MAX_LINE:
        raise InvalidRequestError(
            "this is not an invitation", remedy="paste the whole line that `membridge invite` printed", field="line"
        )
    packed = text.removeprefix(PREFIX)
    damaged = InvalidRequestError(
        "this invitation is damaged or incomplete",
        remedy="copy the whole line of `membridge invite` again",
        field="line",
    )
    try:
        whole = base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_", validate=True)
        line = msgspec.json.decode(whole[:-4], type=Line)
    except (binascii.Error, ValueError) as error:
        raise damaged from error
    if whole[-4:] != _sum(whole[:-4]):
        raise damaged
    return line


def _sum(body: bytes) -> bytes:
    return binascii.crc32(body).to_bytes(4, "big")
