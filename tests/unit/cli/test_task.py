"""What `task result` says of a task that has none yet."""

import pytest

from membridge.cli import requests, task
from membridge.errors import RefusedError
from schemas.results import ResultReply
from schemas.tasks import Task, TaskStatus

ID = "0f7f2f5e-6a43-4c5c-9d49-0a8a0b3d7a11"


@pytest.mark.parametrize("status", [TaskStatus.QUEUED, TaskStatus.LEASED, TaskStatus.RUNNING])
def test_a_task_that_has_not_ended_has_no_result_yet_and_can_be_followed(
    status: TaskStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Task(id=ID, context_id="c", agent_slug="a", prompt="p", status=status, created_at="", updated_at="")

    def ask(*asked: object) -> ResultReply:
        del asked
        return ResultReply(task=shown)

    monkeypatch.setattr(requests, "ask_runtime", ask)
    with pytest.raises(RefusedError) as caught:
        task.result.main([ID], standalone_mode=False)
    assert caught.value.message == f"task {ID} has no result yet: it is {status.value}"
    assert caught.value.remedy == f"to follow it run `membridge task logs -f {ID}`"
