"""The settings of the gateway."""

# ruff: noqa: RUF009 - `setting` is `dataclasses.field` with the columns of the table

from dataclasses import dataclass

from membridge.settings.kinds import ENDPOINT, FLAG, LISTEN, ORIGINS, SECRET, TEXT, Secret, optional, whole
from membridge.settings.table import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """The gateway, which answers front ends over HTTP."""

    enabled: bool = setting(
        FLAG, default=True, env="MEMBRIDGE_GATEWAY", off="false", meaning="`membridge up` runs a gateway too."
    )
    listen: str = setting(LISTEN, default="127.0.0.1:8733", env="MEMBRIDGE_GATEWAY_LISTEN", meaning="Its HTTP address.")
    hosts: str = setting(
        TEXT,
        default="",
        env="MEMBRIDGE_GATEWAY_HOSTS",
        meaning="Further host names that it answers to, with commas between them; any other is answered with 421.",
    )
    origins: tuple[str, ...] = setting(
        ORIGINS,
        default=(),
        env="MEMBRIDGE_GATEWAY_ORIGINS",
        meaning="Origins of pages elsewhere that may use it from a browser (CORS), as a program does: with a key where "
        "one is needed, never with a session. Without this none may.",
    )
    behind_tls: bool = setting(
        FLAG,
        default=False,
        env="MEMBRIDGE_GATEWAY_BEHIND_TLS",
        off="false",
        meaning="A proxy in front of it speaks TLS for it.",
    )
    reads_per_second: int = setting(
        whole(0, 100_000),
        default=50,
        env="MEMBRIDGE_GATEWAY_READS_PER_SECOND",
        off="0",
        unit="requests",
        meaning="Requests of one key in a second that change nothing, eight times as many at once; more get 429.",
    )
    writes_per_second: int = setting(
        whole(0, 100_000),
        default=20,
        env="MEMBRIDGE_GATEWAY_WRITES_PER_SECOND",
        off="0",
        unit="requests",
        meaning="Requests of one key in a second that change something, five times as many at once; more get 429.",
    )
    runtime_key: Secret | None = setting(
        optional(SECRET),
        env="RUNTIME_API_KEY",
        meaning="The key of tasks and memory, in the header `X-Runtime-API-Key`; without it they need no key where the "
        "gateway listens on loopback alone.",
    )
    admin_key: Secret | None = setting(
        optional(SECRET),
        env="MEMBRIDGE_ADMIN_KEY",
        meaning="The key of administrators, in the header `X-MEMBRIDGE-ADMIN`.",
    )
    agent_key: Secret | None = setting(
        optional(SECRET),
        env="MEMBRIDGE_AGENT_KEY",
        meaning="The key of agents, in the header `X-MEMBRIDGE-AGENT`.",
    )

    server_url: str | None = setting(
        optional(ENDPOINT),
        env="MEMBRIDGE_SERVER_URL",
        meaning="Another gateway that `/api/membridge` is passed on to, with `MEMBRIDGE_ADMIN_KEY` as its key.",
    )

    def host_names(self) -> tuple[str, ...]:
        """Return the further host names."""
        return tuple(name for one in self.hosts.split(",") if (name := one.strip()))
