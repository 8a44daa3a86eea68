"""The settings of a node that runs LLM tasks."""

# ruff: noqa: RUF009 - `setting` is `dataclasses.field` with the columns of the table

from dataclasses import dataclass
from pathlib import Path

from membridge.settings.kinds import FLAG, PATH, TEXT, optional, whole
from membridge.settings.table import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """This node as a worker that runs LLM tasks with the `claude` program."""

    enabled: bool = setting(
        FLAG, default=False, env="MEMBRIDGE_WORKER", off="false", meaning="The daemon runs LLM tasks."
    )
    claude: str = setting(
        TEXT, default="claude", env="MEMBRIDGE_CLAUDE", meaning="The program: a name on PATH, or a path."
    )
    claude_arguments: str | None = setting(
        optional(TEXT),
        env="MEMBRIDGE_CLAUDE_ARGS",
        meaning="More arguments for it, split as a shell would.",
    )
    max_concurrency: int = setting(
        whole(1, 32), default=1, env="MEMBRIDGE_WORKER_CONCURRENCY", unit="tasks", meaning="Tasks at once."
    )
    labels: str | None = setting(
        optional(TEXT),
        env="MEMBRIDGE_WORKER_LABELS",
        meaning="Labels of this worker, separated by commas; a task goes only to a worker with all of its labels.",
    )
    root: Path | None = setting(
        optional(PATH),
        env="MEMBRIDGE_WORKER_ROOT",
        meaning="Folder that tasks run in; context hints may name its files. Unset: an empty folder.",
    )
    max_output_bytes: int = setting(
        whole(1_024, 268_435_456),
        default=8_388_608,
        env="MEMBRIDGE_MAX_OUTPUT_BYTES",
        unit="bytes",
        meaning="A task whose output is longer fails.",
    )
