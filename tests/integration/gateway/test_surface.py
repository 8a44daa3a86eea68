"""The paths, methods and field names that old clients and front ends use: they stay, whatever else changes."""

import pytest

from schemas.audit import AuditReply, AuditRequest
from schemas.gateway import AgentOutput, AgentsReply, MembridgeHealth, RuntimeConfig, RuntimeHealth, SelectLeader
from schemas.gateway_nats import Agent
from schemas.leases import Lease, LeasesReply, LeasesRequest
from schemas.node import JobsReply
from schemas.results import ArtifactsReply, ArtifactsRequest
from schemas.runs import RunsReply
from schemas.tasks import Task, TaskSpec, TasksReply, TasksRequest
from schemas.wire import Wire
from schemas.workers import Worker, WorkersReply
from tests.integration.gateway.test_matrix import ROUTES

RUNTIME, TASK, MEMBRIDGE = "/api/runtime", "/api/runtime/llm-tasks/{id}", "/api/membridge"

#: As the issue lists them.
LISTED = {
    f"{RUNTIME}/health": "GET",
    f"{RUNTIME}/config": "GET POST",
    f"{RUNTIME}/test-connection": "POST",
    f"{RUNTIME}/workers": "GET POST",
    f"{RUNTIME}/workers/{{id}}": "GET DELETE",
    f"{RUNTIME}/llm-tasks": "GET POST",
    TASK: "GET",
    f"{TASK}/lease": "POST",
    f"{TASK}/heartbeat": "POST",
    f"{TASK}/complete": "POST",
    f"{TASK}/requeue": "POST",
    f"{TASK}/cancel": "POST",
    f"{RUNTIME}/leases": "GET",
    f"{RUNTIME}/runs": "GET",
    f"{RUNTIME}/artifacts": "GET",
    f"{RUNTIME}/artifacts/{{id}}": "GET",
    f"{RUNTIME}/audit": "GET",
    f"{RUNTIME}/stats": "GET",
    f"{MEMBRIDGE}/health": "GET",
    f"{MEMBRIDGE}/projects": "GET",
    f"{MEMBRIDGE}/projects/{{cid}}/leadership": "GET",
    f"{MEMBRIDGE}/projects/{{cid}}/nodes": "GET",
    f"{MEMBRIDGE}/projects/{{cid}}/leadership/select": "POST",
    "/health": "GET",
    "/projects": "GET POST",
    "/projects/{name}": "DELETE",
    "/agents": "GET POST",
    "/agents/{name}": "DELETE",
    "/sync/pull": "POST",
    "/sync/push": "POST",
    "/jobs": "GET",
    "/jobs/{id}": "GET",
    "/agent/heartbeat": "POST",
    "/projects/{cid}/nodes": "GET",
    "/projects/{cid}/leadership": "GET",
    "/projects/{cid}/leadership/select": "POST",
    "/status": "GET",
    "/pull": "POST",
    "/push": "POST",
    "/doctor": "GET POST",
    "/register_project": "POST",
    "/api/events": "GET",
    "/metrics": "GET",
    "/openapi.json": "GET",
    "/docs": "GET",
}

#: Fields by the structs of requests and answers that have them.
FIELDS: dict[type[Wire], str] = {
    RuntimeHealth: "service storage_type uptime_seconds connections",
    RuntimeConfig: "server_url admin_key",
    TasksRequest: "status limit",
    TasksReply: "tasks",
    TaskSpec: "context_id agent_slug prompt context_hints policy desired_format",
    Task: "id context_id agent_slug prompt status created_at updated_at lease_id worker_id attempts",
    WorkersReply: "workers",
    Worker: "id status capabilities active_leases leases",
    LeasesRequest: "status",
    LeasesReply: "leases",
    Lease: "id task_id worker_id started_at expires_at ttl_seconds status last_heartbeat context_id",
    RunsReply: "runs",
    ArtifactsRequest: "task_id",
    ArtifactsReply: "artifacts",
    AuditRequest: "limit",
    AuditReply: "records",
    MembridgeHealth: "status",
    SelectLeader: "primary_node_id",
    AgentsReply: "agents",
    Agent: "name url",
    JobsReply: "jobs",
    AgentOutput: "stdout stderr",
}


@pytest.mark.parametrize("path", LISTED)
def test_a_listed_path_answers_the_listed_methods(path: str) -> None:
    assert set(LISTED[path].split()) <= {route.method.value for route in ROUTES if route.path == path}


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: kind.__name__)
def test_a_listed_field_is_there(kind: type[Wire]) -> None:
    assert set(FIELDS[kind].split()) <= set(kind.__struct_fields__)
