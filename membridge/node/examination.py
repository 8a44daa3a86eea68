"""An examination by the doctor, which is loaded when it is made: a node keeps what it loads for months."""

from dataclasses import dataclass

from membridge.aio.deadline import Deadline
from membridge.node.reached import Reached
from membridge.settings import ProjectConfig, Settings
from schemas.node import DoctorReply


@dataclass(frozen=True, slots=True)
class Examination:
    """An examination of one project on this node."""

    settings: Settings
    config: ProjectConfig
    reached: Reached

    async def make(self, *, deadline: Deadline) -> DoctorReply:
        """Return all lines of the doctor."""
        from membridge.node.doctor import Doctor  # noqa: PLC0415 - rarely asked for: a node keeps what it loads

        doctor = Doctor(self.settings, self.config, self.reached)
        return DoctorReply(checks=await doctor.examine(deadline=deadline))
