"""Tasks found by words and names, and many of them changed at once, over HTTP on each database."""

from typing import Any

from membridge.embedded.nats_server import NatsServer
from schemas.tasks import TaskOrder
from services.coordinator import many_tasks
from tests.fixtures.gateway import Gateway, gateway_of
from tests.fixtures.tasks import OpenPlace, Place

AT = "/api/runtime/llm-tasks"
CHANGES = "/api/runtime/task-changes"


async def submitted(place: Place, count: int, prompt: str, **more: object) -> list[str]:
    """Submit tasks, each in a context of its own; return their ids, oldest first."""
    return [(await place.submit(f"{prompt} {number}", f"{prompt}-{number}", **more)).id for number in range(count)]


async def found(gateway: Gateway, query: str) -> list[str]:
    """Return the ids of the tasks of a query, newest first."""
    return [one["id"] for one in (await gateway.get(f"{AT}?{query}"))["tasks"]]


async def statuses(gateway: Gateway) -> dict[str, int]:
    """Return how many tasks the database has of each status."""
    return dict((await gateway.get("/api/runtime/stats"))["tasks"])


async def test_tasks_are_found_by_id_text_error_and_names(opened: OpenPlace, nats_server: NatsServer) -> None:
    async with opened() as place, gateway_of(place.bus, nats_server.url, place.settings.node.state_dir) as gateway:
        await place.coordinator()
        apples, pears = await submitted(place, 2, "Count apples"), await submitted(place, 1, "Count 100% pears_")
        await gateway.post(f"{AT}/{apples[0]}/cancel", {"reason": "claude: credit balance is too low"})
        assert await found(gateway, "q=APPLES") == apples[::-1]
        assert await found(gateway, "q=count+pears") == pears
        assert await found(gateway, f"q={apples[1]}") == [apples[1]]
        assert await found(gateway, "q=credit+balance") == [apples[0]]
        assert await found(gateway, "q=helper&status=queued") == [*pears, apples[1]]
        assert await found(gateway, "agent_slug=helper&context_id=Count+apples-1") == [apples[1]]
        # Signs that mean something to LIKE are text, and so is SQL.
        assert await found(gateway, "q=100%25") == pears
        assert await found(gateway, "q=s_") == pears
        for nothing in ("%25%25%25x", "c_unt", "'+OR+1=1--", "apples+pears"):
            assert await found(gateway, f"q={nothing}") == [], nothing
        page = await gateway.get(f"{AT}?q=count&limit=1&count=true")
        assert (len(page["tasks"]), page["more"], page["total"]) == (1, True, 3)
        assert (await gateway.get(f"{AT}?limit=1"))["total"] is None
        assert (await gateway.ask("GET", f"{AT}?q=%00")).error.field == "q"


async def test_tasks_are_listed_in_each_order_and_page_by_page_in_the_same_one(
    opened: OpenPlace, nats_server: NatsServer
) -> None:
    async with opened() as place, gateway_of(place.bus, nats_server.url, place.settings.node.state_dir) as gateway:
        await place.coordinator()
        for agent, priority in (("b", 1), ("a", 5), ("c", 5), ("a", 9), ("b", 1)):
            await gateway.post(AT, {"agent_slug": agent, "prompt": "p", "priority": priority}, status=201)
        listed = (await gateway.get(AT))["tasks"]
        await gateway.post(f"{AT}/{listed[2]['id']}/cancel")
        listed = (await gateway.get(AT))["tasks"]
        submitted = {one["id"]: len(listed) - number for number, one in enumerate(listed)}
        fields = {
            "created": "created_at", "updated": "updated_at", "status": "status", "agent": "agent_slug",
            "worker": "worker_id", "attempts": "attempts", "priority": "priority",
        }  # fmt: skip
        assert set(fields) == set(TaskOrder)
        for order, field in fields.items():
            by = sorted(listed, key=lambda one: ("" if one[field] is None else one[field], submitted[one["id"]]))
            for ascending, wanted in (("true", by), ("false", by[::-1])):
                query = f"order={order}&ascending={ascending}"
                names = [one["id"] for one in wanted]
                assert await found(gateway, query) == names, query
                pages = await found(gateway, f"{query}&limit=2")
                while len(pages) < len(names):
                    pages += await found(gateway, f"{query}&limit=2&before={pages[-1]}")
                assert pages == names, query
        assert (await gateway.ask("GET", f"{AT}?order=prompt")).error.field == "order"


async def test_all_tasks_of_a_filter_are_cancelled_and_requeued_after_a_preview(
    opened: OpenPlace, nats_server: NatsServer
) -> None:
    async with opened() as place, gateway_of(place.bus, nats_server.url, place.settings.node.state_dir) as gateway:
        await place.coordinator()
        many, other = await submitted(place, 130, "many"), await submitted(place, 2, "other")
        wanted: dict[str, Any] = {"change": "cancel", "filter": {"q": "many"}, "reason": "a test"}
        preview = await gateway.post(CHANGES, wanted)
        assert (preview["applied"], preview["counts"], preview["outcomes"]) == (False, {"queued": 130}, {})
        assert [one["id"] for one in preview["tasks"]] == many[::-1][:100]
        assert preview["through"] == many[-1]
        assert await statuses(gateway) == {"queued": 132}
        # One that came after the preview is not among them.
        late = await submitted(place, 1, "many")
        done = await gateway.post(CHANGES, {**wanted, "through": preview["through"], "apply": True})
        assert (done["applied"], done["outcomes"], done["left"]) == (True, {"changed": 130}, 0)
        assert await statuses(gateway) == {"dead": 130, "queued": 3}
        assert (await place.task(many[7])).reason == "a test"
        # Sent again, because the answer was lost.
        again = await gateway.post(CHANGES, {**wanted, "through": preview["through"], "apply": True})
        assert (again["outcomes"], again["counts"]) == ({}, {})
        # By their ids: each has an outcome of its own.
        ids = [*many[:3], *late, other[0], "nothing"]
        done = await gateway.post(CHANGES, {"change": "requeue", "ids": ids, "apply": True})
        assert done["outcomes"] == {"changed": 3, "conflict": 2, "not_found": 1}
        assert await statuses(gateway) == {"dead": 127, "queued": 6}
        records = (await gateway.get(f"/api/runtime/audit?entity_id={many[0]}"))["records"]
        assert [one["action"] for one in records][:2] == ["requeued", "cancelled"]
        for body in ({}, {"filter": {}}, {"filter": {"q": ""}, "apply": True}):
            refused = await gateway.ask("POST", CHANGES, {"change": "cancel", **body})
            assert (refused.status, refused.error.field) == (400, "filter")
        assert await statuses(gateway) == {"dead": 127, "queued": 6}


async def test_a_change_that_has_no_more_time_says_how_many_are_left(
    opened: OpenPlace, nats_server: NatsServer, monkeypatch: Any
) -> None:
    async with opened() as place, gateway_of(place.bus, nats_server.url, place.settings.node.state_dir) as gateway:
        await place.coordinator()
        await submitted(place, 12, "many")
        monkeypatch.setattr(many_tasks, "MOST_CHANGED", 10)
        body = {"change": "cancel", "filter": {"q": "many"}, "apply": True}
        done = await gateway.post(CHANGES, body)
        assert (done["outcomes"], done["left"]) == ({"changed": 10}, 2)
        monkeypatch.setattr(many_tasks, "ANSWER", 60.0)
        late = await gateway.post(CHANGES, body)
        assert (late["outcomes"], late["left"], await statuses(gateway)) == ({}, 2, {"dead": 10, "queued": 2})
        monkeypatch.undo()
        assert (await gateway.post(CHANGES, body))["outcomes"] == {"changed": 2}
