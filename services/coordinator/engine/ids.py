"""Ids of tasks, leases, results and artifacts: UUIDs that sort by time, so that the indexes of them grow at one end.

With random ones each row dirties a page of its own in every index.
"""

import hashlib
import uuid

_MOST_BITS = (1 << 62) - 1


def ordered_id(wall: float, entropy: bytes) -> str:
    """Return a UUID of version 7 (RFC 9562): milliseconds since 1970, then 74 bits of ten random bytes."""
    chance = int.from_bytes(entropy, "big")
    high = (int(wall * 1_000) & ((1 << 48) - 1)) << 16 | 7 << 12 | (chance >> 62) & 0xFFF
    return str(uuid.UUID(int=high << 64 | 2 << 62 | chance & _MOST_BITS))


def made_at(ordered: str) -> float | None:
    """Return when an id of `ordered_id` was made, in seconds since 1970; None for any other text."""
    try:
        one = uuid.UUID(ordered)
    except ValueError:
        return None
    return (one.int >> 80) / 1_000 if one.version == 7 and str(one) == ordered else None


def output_id(lease_id: str) -> str:
    """Return the id of what a lease's attempt put out: always the same, and near the lease's own."""
    lease = uuid.UUID(lease_id)
    low = int.from_bytes(hashlib.blake2b(lease.bytes, digest_size=8).digest(), "big") & _MOST_BITS
    return str(uuid.UUID(int=lease.int >> 64 << 64 | 2 << 62 | low))
