"""The caller: a key, directly or through a session, or an anonymous one."""

from dataclasses import dataclass, replace

from schemas.web import Role

_RANK = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. `key_id` is empty for one without a key; `session` is set for a browser's."""

    key_id: str
    name: str
    role: Role
    scopes: frozenset[str]
    session: str = ""
    #: When that session ends whatever happens, in seconds since 1970.
    until: int = 0
    #: Whether its key is one of the issued ones; a service may admit callers by others, or without one.
    issued: bool = True

    def may(self, scope: str, role: Role) -> bool:
        """Whether this caller's role suffices in a scope; any scope of its own does for the empty one."""
        return bool(self.key_id) and _RANK[self.role] >= _RANK[role] and bool({scope, "*"} & self.scopes or not scope)

    def at_most(self, role: Role) -> "Identity":
        """Return this caller with `role` if that is the lower one."""
        return self if _RANK[self.role] <= _RANK[role] else replace(self, role=role)

    @property
    def actor(self) -> str:
        """What logs and the audit call this caller."""
        return (f"key:{self.key_id}" if self.issued else self.key_id) if self.key_id else "anybody"


#: A caller without a key.
ANYBODY = Identity("", "", Role.READER, frozenset())
