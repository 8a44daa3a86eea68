"""Every setting: its name, kind, default, unit and meaning, declared here and nowhere else.

A group is a section of the configuration file; a field is a key in it. A group holds values and decides only what
follows from its own values.
"""

# ruff: noqa: RUF009 - `setting` is `dataclasses.field` with the columns of the table

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from membridge.settings.hooks import HookSettings
from membridge.settings.kinds import (
    ENDPOINT,
    FLAG,
    LISTEN,
    NODE,
    PATH,
    PROJECT,
    SECRET,
    SERVERS,
    TEXT,
    TOKEN,
    Secret,
    mask_userinfo,
    number,
    one_number_of,
    one_of,
    optional,
    whole,
)
from membridge.settings.table import setting
from membridge.settings.worker import WorkerSettings
from schemas.identity import NodeId
from schemas.leadership import Policy


class LogFormat(StrEnum):
    """How log lines look; `auto` is text on a terminal, JSON elsewhere."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    """The lowest level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class StoreKind(StrEnum):
    """Which object store; `auto` is S3 when an endpoint is given, JetStream otherwise."""

    AUTO = "auto"
    S3 = "s3"
    JETSTREAM = "jetstream"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """This machine."""

    id: NodeId = setting(NODE, env="MEMBRIDGE_NODE_ID", derived="the host name", meaning="Name of this node.")
    dev: bool = setting(
        FLAG, default=False, env="MEMBRIDGE_DEV", off="false", meaning="Readable logs, debug level, tracebacks."
    )
    claude_mem_dir: Path = setting(
        PATH,
        env="CLAUDE_MEM_DATA_DIR",
        derived="the folder of `CLAUDE_MEM_DB`, else `~/.claude-mem`",
        meaning="claude-mem's data folder: its worker's pid file and settings.",
    )
    state_dir: Path = setting(
        PATH,
        env="MEMBRIDGE_STATE_DIR",
        derived="`$STATE_DIRECTORY`, else `$XDG_STATE_HOME/membridge`, else `~/.local/state/membridge`; "
        "on Windows `%LOCALAPPDATA%\\Membridge\\state`",
        meaning="Mirrors, backups, journals, pid files and the bundled server's data.",
    )
    config_dir: Path = setting(
        PATH,
        env="MEMBRIDGE_CONFIG_DIR",
        derived="`$CONFIGURATION_DIRECTORY`, else `$XDG_CONFIG_HOME/membridge`, else `~/.config/membridge`; "
        "on Windows `%APPDATA%\\Membridge`",
        meaning="Where `config.toml` is.",
        in_file=False,
    )
    log_format: LogFormat = setting(
        one_of(LogFormat),
        env="MEMBRIDGE_LOG_FORMAT",
        derived="`text` with `node.dev`, else `auto`",
        meaning="Format of log lines; `auto` is text on a terminal and JSON elsewhere.",
    )
    log_level: LogLevel = setting(
        one_of(LogLevel),
        env="MEMBRIDGE_LOG_LEVEL",
        derived="`debug` with `node.dev`, else `info`",
        meaning="Lowest level that is logged.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstProject:
    """The project that this node always serves; `[[projects]]` adds others."""

    name: str = setting(
        PROJECT,
        default="claude-mem",
        env="CLAUDE_PROJECT_ID",
        meaning="Name of the memory; the same name on every machine that shares it.",
    )
    database: Path = setting(
        PATH,
        env="CLAUDE_MEM_DB",
        derived="`claude-mem.db` in claude-mem's data folder",
        meaning="claude-mem's database on this machine.",
    )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NatsSettings:
    """The connection to NATS."""

    urls: tuple[str, ...] = setting(
        SERVERS,
        default=("nats://127.0.0.1:4222",),
        env="MEMBRIDGE_NATS_URL",
        meaning="Servers of one cluster. A user name and password may stand in the address; they are never shown.",
    )
    credentials_file: Path | None = setting(
        optional(PATH), env="MEMBRIDGE_NATS_CREDENTIALS_FILE", meaning="Credentials file (JWT and seed)."
    )
    nkey_seed_file: Path | None = setting(
        optional(PATH),
        env="MEMBRIDGE_NATS_NKEY_SEED_FILE",
        derived="for a server on loopback the key that `membridge up` made, else not set",
        meaning="File with this node's nkey seed.",
    )
    ca_file: Path | None = setting(
        optional(PATH), env="MEMBRIDGE_NATS_CA_FILE", meaning="Private certificate authority of the servers, PEM."
    )
    keys_dir: Path | None = setting(
        optional(PATH),
        env="MEMBRIDGE_NATS_KEYS_DIR",
        meaning="Folder with this node's nkey seed for each project; `membridge join` makes it.",
    )
    domain: str | None = setting(
        optional(TOKEN),
        env="MEMBRIDGE_NATS_DOMAIN",
        meaning="JetStream domain that holds the memory, for a node whose server is a leaf: the hub's.",
    )
    listen: str | None = setting(
        optional(LISTEN),
        env="MEMBRIDGE_NATS_LISTEN",
        meaning="Where `membridge up` listens for other machines, with TLS and users; unset: on loopback only.",
    )
    certificate_file: Path | None = setting(
        optional(PATH),
        env="MEMBRIDGE_TLS_CERT_FILE",
        meaning="Certificate that `membridge up` presents to other machines, PEM; unset: it makes one.",
    )
    certificate_key_file: Path | None = setting(
        optional(PATH), env="MEMBRIDGE_TLS_KEY_FILE", meaning="Its private key, PEM."
    )
    certificate_authority_file: Path | None = setting(
        optional(PATH), env="MEMBRIDGE_TLS_CA_FILE", meaning="The authority that signed it, PEM; invitations name it."
    )
    replicas: int = setting(
        one_number_of(1, 3, 5),
        default=1,
        env="MEMBRIDGE_NATS_REPLICAS",
        meaning="Copies of each bucket and stream; 3 needs a cluster of three servers.",
    )

    def __repr__(self) -> str:
        return f"NatsSettings(urls={tuple(map(mask_userinfo, self.urls))!r}, replicas={self.replicas})"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Where snapshots are kept."""

    kind: StoreKind = setting(
        one_of(StoreKind),
        default=StoreKind.AUTO,
        env="MEMBRIDGE_STORE",
        meaning="Object store; `auto` is S3 when `MINIO_ENDPOINT` is set, the JetStream Object Store otherwise.",
    )
    endpoint: str | None = setting(optional(ENDPOINT), env="MINIO_ENDPOINT", meaning="Address of MinIO or another S3.")
    access_key: Secret | None = setting(optional(SECRET), env="MINIO_ACCESS_KEY", meaning="Access key of the S3.")
    secret_key: Secret | None = setting(optional(SECRET), env="MINIO_SECRET_KEY", meaning="Secret key of the S3.")
    bucket: str = setting(TEXT, default="claude-memory", env="MINIO_BUCKET", meaning="Bucket of the S3.")
    region: str = setting(TEXT, default="us-east-1", env="MINIO_REGION", meaning="Region of the S3.")
    ca_file: Path | None = setting(
        optional(PATH), env="MEMBRIDGE_S3_CA_FILE", meaning="Private certificate authority of the S3, PEM."
    )
    publish_legacy: bool = setting(
        FLAG,
        default=False,
        env="MEMBRIDGE_PUBLISH_LEGACY",
        off="false",
        meaning="After each commit, also write the whole database in the layout that claude-mem-minio reads.",
    )

    encryption_key_file: Path | None = setting(
        optional(PATH),
        env="MEMBRIDGE_ENCRYPTION_KEY_FILE",
        meaning="Key file, mode 0600, made by `membridge key new`; objects are encrypted before they leave this node.",
    )
    encryption_passphrase: Secret | None = setting(
        optional(SECRET),
        env="MEMBRIDGE_ENCRYPTION_PASSPHRASE",
        meaning="Used instead of a key file, at least 12 characters; with one it only decrypts older objects.",
    )

    @property
    def encrypted(self) -> bool:
        """Whether this node encrypts objects."""
        return self.encryption_key_file is not None or self.encryption_passphrase is not None

    @property
    def backend(self) -> StoreKind:
        """The store to use: `s3` or `jetstream`, never `auto`."""
        if self.kind is not StoreKind.AUTO:
            return self.kind
        return StoreKind.JETSTREAM if self.endpoint is None else StoreKind.S3


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSettings:
    """Push, pull and what starts them."""

    auto_sync: bool = setting(
        FLAG,
        default=True,
        env="MEMBRIDGE_AUTO_SYNC",
        off="false",
        meaning="The daemon pushes when the database changed and pulls when another node committed.",
    )
    quiet_seconds: float = setting(
        number(above=0, most=60),
        default=5.0,
        env="MEMBRIDGE_QUIET_SECONDS",
        unit="seconds",
        meaning="How long the database must be unchanged before the daemon pushes.",
    )
    quiet_max_seconds: float = setting(
        number(above=0, most=3600),
        default=60.0,
        env="MEMBRIDGE_QUIET_MAX_SECONDS",
        unit="seconds",
        meaning="A database that keeps changing is pushed after this long; not below `lane.quiet_seconds`.",
    )
    look_again_seconds: float = setting(
        number(least=1, most=3600),
        default=180.0,
        env="MEMBRIDGE_LOOK_AGAIN_SECONDS",
        unit="seconds",
        meaning="The daemon checks for unsynced rows and snapshots at least this often.",
    )
    lock_ttl_seconds: float = setting(
        number(least=1, most=604_800),
        default=7200.0,
        env="LOCK_TTL_SECONDS",
        unit="seconds",
        meaning="A push lock expires after this long, whatever its holder does.",
    )
    stale_lock_grace_seconds: float = setting(
        number(least=1, most=86_400),
        default=60.0,
        env="STALE_LOCK_GRACE_SECONDS",
        unit="seconds",
        meaning="A push lock that its holder has not renewed for this long is stale and may be taken over.",
    )
    force_push: bool = setting(
        FLAG, default=False, env="FORCE_PUSH", off="false", meaning="Push even while another push holds the lock."
    )
    shrink_percent: float = setting(
        number(most=100),
        default=20.0,
        env="MEMBRIDGE_SHRINK_PERCENT",
        unit="percent",
        off="100",
        meaning="A commit that loses more than this share of the rows needs `--allow-shrink`.",
    )
    chain_max_deltas: int = setting(
        whole(0, 100_000),
        default=10_000,
        env="MEMBRIDGE_CHAIN_MAX_DELTAS",
        unit="snapshots",
        meaning="Deltas after a full snapshot before the next full one, if their size allows; 0 makes each one full.",
    )
    chain_max_percent: float = setting(
        number(least=1, most=10_000),
        default=100.0,
        env="MEMBRIDGE_CHAIN_MAX_PERCENT",
        unit="percent",
        meaning="Total size of the deltas, relative to their full snapshot, before the next full one.",
    )
    operation_timeout_seconds: float = setting(
        number(least=1, most=86_400),
        default=600.0,
        env="MEMBRIDGE_OPERATION_TIMEOUT_SECONDS",
        unit="seconds",
        meaning="Deadline of one push or pull.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupSettings:
    """Backups of the live database, made before it is written to.

    The bounds hold for full copies and undo records together. The newest backup and the newest full copy always stay.
    """

    max_days: int = setting(
        whole(1, 3650),
        default=14,
        env="PULL_BACKUP_MAX_DAYS",
        unit="days",
        meaning="Backups older than this are removed. A full copy is made twice within this time, or more often.",
    )
    max_count: int = setting(
        whole(1, 10_000),
        default=1_000,
        env="PULL_BACKUP_MAX_COUNT",
        unit="backups",
        meaning="Most backups kept for one project. The newest of each day and reason goes last.",
    )
    max_mib: int = setting(
        whole(1, 100_000_000),
        default=4096,
        env="MEMBRIDGE_BACKUP_MAX_MIB",
        unit="MiB",
        meaning="Most space that the backups of one project take. Older full copies are removed first.",
    )
    max_disk_percent: float = setting(
        number(most=100),
        default=25.0,
        env="MEMBRIDGE_BACKUP_MAX_DISK_PERCENT",
        unit="percent",
        meaning="Most of the free disk space, with their own added, that the backups of one project take.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepSettings:
    """Which snapshots are kept. The head, tagged snapshots and those that a kept one is restored from always are."""

    last: int = setting(
        whole(1, 100_000),
        default=30,
        env="MEMBRIDGE_KEEP_LAST",
        unit="snapshots",
        meaning="The last N snapshots are kept.",
    )
    hourly: int = setting(
        whole(0, 100_000),
        default=24,
        env="MEMBRIDGE_KEEP_HOURLY",
        unit="snapshots",
        off="0",
        meaning="The newest snapshot of each of the last N hours that have one is kept.",
    )
    daily: int = setting(
        whole(0, 100_000),
        default=14,
        env="MEMBRIDGE_KEEP_DAILY",
        unit="snapshots",
        off="0",
        meaning="The newest snapshot of each of the last N days that have one is kept.",
    )
    weekly: int = setting(
        whole(0, 100_000),
        default=8,
        env="MEMBRIDGE_KEEP_WEEKLY",
        unit="snapshots",
        off="0",
        meaning="The newest snapshot of each of the last N weeks that have one is kept.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadershipSettings:
    """Who commits."""

    enabled: bool = setting(
        FLAG,
        default=True,
        env="LEADERSHIP_ENABLED",
        off="false",
        meaning="Roles are on: one primary commits. Without roles every node commits.",
    )
    lease_seconds: float = setting(
        number(least=3, most=3600),
        default=30.0,
        env="LEADERSHIP_LEASE_SECONDS",
        unit="seconds",
        meaning="The lease of a primary that stops answering expires after this long.",
    )
    primary_node_id: NodeId | None = setting(
        optional(NODE), env="PRIMARY_NODE_ID", meaning="The preferred primary of a project that has none yet."
    )
    policy: Policy = setting(
        one_of(Policy),
        default=Policy.MANUAL,
        env="MEMBRIDGE_LEADERSHIP_POLICY",
        meaning="After a lease expired: `manual` waits for the preferred primary or an operator, `auto` takes over.",
    )
    grace_seconds: float = setting(
        number(most=3600),
        default=10.0,
        env="MEMBRIDGE_LEADERSHIP_GRACE_SECONDS",
        unit="seconds",
        meaning="Under `auto`: the freshest secondary takes over this long after an expiry.",
    )
    allow_secondary_push: bool = setting(
        FLAG,
        default=False,
        env="ALLOW_SECONDARY_PUSH",
        off="false",
        meaning="`push --snapshot` may commit on a secondary.",
    )
    allow_primary_pull_override: bool = setting(
        FLAG,
        default=False,
        env="ALLOW_PRIMARY_PULL_OVERRIDE",
        off="false",
        meaning="`pull --replace` may replace a primary's database.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaudeMemSettings:
    """claude-mem's own worker process."""

    no_restart: bool = setting(
        FLAG,
        default=False,
        env="MEMBRIDGE_NO_RESTART_WORKER",
        off="false",
        meaning="Never stop claude-mem's worker, even where process control is allowed.",
    )
    allow_process_control: bool = setting(
        FLAG,
        default=False,
        env="MEMBRIDGE_ALLOW_PROCESS_CONTROL",
        off="false",
        meaning="Stop claude-mem's worker after `pull --replace`: it drops the old memory, and claude-mem restarts it.",
    )
    dryrun: bool = setting(
        FLAG,
        default=False,
        env="MEMBRIDGE_AGENT_DRYRUN",
        off="false",
        meaning="Only describe what an operation would write.",
    )


#: The groups of membridge itself; a service brings its own.
GROUPS: dict[str, type] = {
    "node": NodeSettings,
    "project": FirstProject,
    "nats": NatsSettings,
    "store": StoreSettings,
    "lane": LaneSettings,
    "backup": BackupSettings,
    "keep": KeepSettings,
    "leadership": LeadershipSettings,
    "claude_mem": ClaudeMemSettings,
    "worker": WorkerSettings,
    "hooks": HookSettings,
}
