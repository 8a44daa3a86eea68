"""The settings of the coordinator."""

# ruff: noqa: RUF009 - `setting` is `dataclasses.field` with the columns of the table

from dataclasses import dataclass

from membridge.settings.kinds import FLAG, SECRET, TEXT, Secret, optional, whole
from membridge.settings.table import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorSettings:
    """The task runtime's coordinator, where one runs."""

    enabled: bool = setting(
        FLAG,
        default=False,
        env="MEMBRIDGE_COORDINATOR",
        off="false",
        meaning="`membridge up` runs a coordinator of LLM tasks too.",
    )
    database_url: Secret | None = setting(
        optional(SECRET),
        env="DATABASE_URL",
        meaning="`postgresql://user:password@host/name` or `sqlite:///path`; unset: a SQLite file in `node.state_dir`.",
    )
    artifact_bucket: str = setting(
        TEXT,
        default="bloom-artifacts",
        env="MINIO_ARTIFACT_BUCKET",
        meaning="S3 bucket of outputs over 64 KiB; in the JetStream store it is `membridge-artifacts`.",
    )
    artifact_days: int = setting(
        whole(0, 36_500),
        default=365,
        env="MEMBRIDGE_ARTIFACT_DAYS",
        unit="days",
        off="0",
        meaning="Outputs over 64 KiB are deleted after this long; task, result and artifact stay listed.",
    )
    max_prompt_bytes: int = setting(
        whole(1, 8_388_608),
        default=1_048_576,
        env="MEMBRIDGE_MAX_PROMPT_BYTES",
        unit="bytes",
        meaning="A longer prompt is rejected.",
    )
    lease_seconds: int = setting(
        whole(3, 86_400),
        default=300,
        env="MEMBRIDGE_TASK_LEASE_SECONDS",
        unit="seconds",
        meaning="A worker that is silent for this long loses its task; at least the task's timeout plus 30 s.",
    )
    serial_contexts: bool = setting(
        FLAG,
        default=True,
        env="MEMBRIDGE_SERIAL_CONTEXTS",
        off="false",
        meaning="Tasks of one `context_id` run one at a time, in order.",
    )
