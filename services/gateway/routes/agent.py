"""The face of the old agent, for its clients: this machine's node, asked as if it were a script with an exit code."""

from typing import Any

import msgspec

from membridge.errors import MembridgeError, NotFoundError
from schemas import subjects
from schemas.errors import ErrorCode
from schemas.gateway import AddProject, AgentAction, AgentOutput, AgentStatus
from schemas.identity import ProjectId
from schemas.node import DoctorReply, Empty, Finding, ProjectsReply
from schemas.snapshot import PullRequest, PushRequest
from schemas.subjects import Operation
from schemas.wire import Wire
from services.gateway.callers import READ_AGENT, WRITE_AGENT
from services.gateway.routes.control import Control
from services.web.routes import Call, Endpoint, Method, Route

GET, POST = Method.GET, Method.POST
#: Lines of an output that an answer has at most: the last ones.
LINES = 200
_ERRORS = (ErrorCode.NOT_FOUND, ErrorCode.CONFLICT, ErrorCode.DATABASE_INVALID)

STATUS = Route(
    "agent_status", GET, "/status", Empty, AgentStatus, "This machine and its projects.", READ_AGENT, errors=_ERRORS
)
PULL = Route(
    "agent_pull", POST, "/pull", AgentAction, AgentOutput, "Pull on this machine.", WRITE_AGENT, deadline=600.0,
    errors=_ERRORS,
)  # fmt: skip
PUSH = Route(
    "agent_push", POST, "/push", AgentAction, AgentOutput, "Push on this machine.", WRITE_AGENT, deadline=600.0,
    errors=_ERRORS,
)  # fmt: skip
RUN_DOCTOR = Route(
    "agent_doctor", POST, "/doctor", AgentAction, AgentOutput, "Examine this machine.", WRITE_AGENT, deadline=60.0,
    errors=_ERRORS,
)  # fmt: skip
DOCTOR = Route(
    "agent_doctor_checks", GET, "/doctor", AgentAction, DoctorReply, "What this machine's doctor finds.", READ_AGENT,
    deadline=60.0, errors=_ERRORS,
)  # fmt: skip
REGISTER = Route(
    "register_project", POST, "/register_project", AddProject, ProjectsReply, "Register a project on this machine.",
    WRITE_AGENT, deadline=40.0, status=201, errors=(*_ERRORS, ErrorCode.FORBIDDEN),
)  # fmt: skip


class AgentFace:
    """Answers as the agent of this machine."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def status(self, _: Empty, __: Call) -> AgentStatus:
        """Return this machine's projects."""
        node = next((one for one in self._control.projects.nodes() if one.node == self._control.here), None)
        return AgentStatus(
            status="ok" if node is not None else "offline",
            agent=self._control.here,
            version=node.version if node is not None else "",
            dryrun=self._control.dry,
            projects=node.projects if node is not None else [],
        )

    async def pull(self, request: AgentAction, call: Call) -> AgentOutput:
        """Pull here."""
        return await self._run(subjects.PULL, PullRequest(), request, call)

    async def push(self, request: AgentAction, call: Call) -> AgentOutput:
        """Push here."""
        return await self._run(subjects.PUSH, PushRequest(), request, call)

    async def run_doctor(self, request: AgentAction, call: Call) -> AgentOutput:
        """Examine this machine."""
        return await self._run(subjects.DOCTOR, Empty(), request, call)

    async def doctor(self, request: AgentAction, call: Call) -> DoctorReply:
        """Return what the doctor finds."""
        project = self._project(request)
        asked = self._control.projects.ask(project, subjects.DOCTOR, Empty(), node=self._control.here, call=call)
        return await asked

    async def register(self, request: AddProject, call: Call) -> ProjectsReply:
        """Register a project here, whatever node the request names."""
        here = msgspec.structs.replace(request, node=self._control.here)
        if self._control.dry:
            return ProjectsReply()
        return await self._control.add_project(here, call)

    async def _run(self, operation: Operation[Any, Any], body: Wire, request: AgentAction, call: Call) -> AgentOutput:
        if self._control.dry:
            return AgentOutput(ok=True, stdout=f"dry run: {operation.name}", dryrun=True)
        project, here = self._project(request), self._control.here
        try:
            reply = await self._control.projects.ask(project, operation, body, node=here, call=call)
        except MembridgeError as error:
            told = f"error: {error.message}" + (f"\n  remedy: {error.remedy}" if error.remedy else "")
            return AgentOutput(ok=False, returncode=error.mapping.exit, stderr=limited(told))
        if isinstance(reply, DoctorReply):
            ok = all(check.finding is not Finding.FAIL for check in reply.checks)
            lines = [f"{check.finding.value}  {check.name}: {check.detail}" for check in reply.checks]
            return AgentOutput(ok=ok, returncode=0 if ok else 1, stdout=limited("\n".join(lines)))
        told = "\n".join(f"{name}: {value}" for name, value in msgspec.to_builtins(reply).items())
        return AgentOutput(ok=True, stdout=limited(told))

    def _project(self, request: AgentAction) -> ProjectId:
        projects, here = self._control.projects, self._control.here
        if request.project is not None:
            return projects.checked(request.project)
        served = [one for node in projects.nodes() if node.node == here for one in node.projects]
        if not served:
            raise NotFoundError(
                f"node {here} of this machine is not present", remedy="start it: `membridge up` or `membridge node`"
            )
        return served[0].project


def limited(text: str) -> str:
    """Return the last lines of a text, as many as an answer may have."""
    lines = text.splitlines()
    return text if len(lines) <= LINES else "\n".join([f"… {len(lines) - LINES + 1} lines before", *lines[1 - LINES :]])


def endpoints(control: Control) -> list[Endpoint]:
    """Return the endpoints of the agent."""
    face = AgentFace(control)
    return [
        STATUS.bind(face.status),
        PULL.bind(face.pull),
        PUSH.bind(face.push),
        RUN_DOCTOR.bind(face.run_doctor),
        DOCTOR.bind(face.doctor),
        REGISTER.bind(face.register),
    ]
