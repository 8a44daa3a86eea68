"""One declaration per route, over real sockets: parsing, ids, errors, permissions, health, counters, document."""

import msgspec
import pytest

from membridge.errors import UnavailableError
from schemas.errors import ErrorCode
from tests.fixtures.route_table import Case, cases
from tests.fixtures.toy_web import ROUTES, Note, Notes, Toy, ask, toy_served


async def test_a_request_is_answered_from_its_path_and_its_body() -> None:
    async with toy_served() as toy:
        answer = await ask(toy, "PUT", "/notes/a%20b", body=b'{"text":"t","id":"other"}', key="operator")
        assert (answer.status, answer.body) == (200, b'{"id":"a b","text":"t"}')
        answer = await ask(toy, "GET", "/notes/a%20b", key="reader")
        assert msgspec.json.decode(answer.body, type=Note) == toy.notes["a b"]
        assert (await ask(toy, "POST", "/notes", body=b'{"id":"c"}', key="admin")).status == 201


async def test_a_query_is_read_by_the_types_of_its_fields() -> None:
    async with toy_served() as toy:
        answer = await ask(toy, "GET", "/notes?limit=3&newest=true&tags=a&tags=b&unknown=1", key="reader")
        asked = msgspec.json.decode(answer.body, type=Notes).asked
        assert (asked.limit, asked.newest, asked.tags) == (3, True, ["a", "b"])


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("limit=x", "limit", "must be a whole number"),
        ("limit=0", "limit", "must be at least 1"),
        ("limit=1&limit=2", "limit", "2 times"),
        ("limit=9223372036854775808", "limit", "must be a whole number"),
        ("limit=101", "limit", "at most 100"),
        ("tags=%00", "tags", "NUL"),
        ("newest=perhaps", "newest", "must be true or false"),
    ],
)
async def test_a_query_that_is_wrong_is_refused_with_its_field(query: str, field: str, says: str) -> None:
    async with toy_served() as toy:
        answer = await ask(toy, "GET", f"/notes?{query}", key="reader")
        assert (answer.status, answer.error.field) == (400, field)
        assert says in answer.error.detail


async def test_a_query_without_end_is_refused() -> None:
    async with toy_served() as toy:
        answer = await ask(toy, "GET", "/notes?" + "&".join(f"f{one}=1" for one in range(101)), key="reader")
        assert (answer.status, answer.error.detail) == (400, "the query has more than 100 fields")
        assert answer.headers["server"] == "membridge"


async def test_a_request_id_that_can_stand_in_a_log_is_kept_and_any_other_replaced() -> None:
    async with toy_served() as toy:
        kept = await ask(toy, "GET", "/notes/x", key="reader", headers=["X-Request-Id: job-7.a"])
        assert kept.headers["x-request-id"] == kept.error.request_id == "job-7.a" == toy.calls[0].request_id
        for strange in ("a b", "x" * 65, '"}', "é"):
            made = await ask(toy, "GET", "/notes/x", key="reader", headers=[f"X-Request-Id: {strange}"])
            assert made.headers["x-request-id"] == made.error.request_id != strange
            assert len(made.error.request_id) == 16


async def test_an_error_of_ours_is_told_and_any_other_is_not() -> None:
    async with toy_served() as toy:
        missing = await ask(toy, "GET", "/notes/x", key="reader")
        assert (missing.status, missing.error.error, missing.error.remedy) == (404, ErrorCode.NOT_FOUND, "add it")
        broken = await ask(toy, "GET", "/broken")
        assert (broken.status, broken.error.error) == (500, ErrorCode.INTERNAL)
        assert b"secret" not in broken.body


async def test_what_takes_too_long_is_ended() -> None:
    async with toy_served() as toy:
        late = await ask(toy, "POST", "/late", body=b'{"id":"a"}')
        assert (late.status, late.error.error) == (504, ErrorCode.DEADLINE_EXCEEDED)
        assert len(toy.flights) == 0


@pytest.mark.parametrize("case", cases(ROUTES), ids=str)
async def test_every_route_refuses_what_its_declaration_says(case: Case) -> None:
    async with toy_served() as toy:
        answer = await ask(toy, case.method, case.path, body=case.body, headers=case.headers, key=case.key)
        assert (answer.status, answer.error.error) == (case.status, case.code)
        assert case.field is None or answer.error.field == case.field
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_method_that_an_address_does_not_have_is_told_those_that_it_has() -> None:
    async with toy_served() as toy:
        answer = await ask(toy, "DELETE", "/notes")
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST")
        head = await ask(toy, "HEAD", "/health")
        assert (head.status, head.body) == (200, b"")


async def test_a_process_says_whether_it_answers_and_whether_it_should_be_asked() -> None:
    async with toy_served() as toy:
        assert (await ask(toy, "GET", "/health")).status == 200
        assert b'"ready"' in (await ask(toy, "GET", "/ready")).body
        toy.trouble = UnavailableError("the toy is broken", remedy="mend it")
        answer = await ask(toy, "GET", "/ready")
        assert (answer.status, answer.error.detail) == (503, "not ready: toy: the toy is broken")
        assert answer.headers["retry-after"] == "1"


async def test_the_counters_are_shown_to_whoever_may_see_them() -> None:
    async with toy_served() as toy:
        await ask(toy, "GET", "/nowhere")
        await ask(toy, "PROPFIND", "/notes")
        text = (await ask(toy, "GET", "/metrics", key="reader")).body.decode()
        assert 'membridge_http_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text
        assert 'membridge_http_requests_total{method="other",route="unmatched",status="405"} 1.0' in text
        assert "membridge_http_requests_in_flight 1.0" in text


async def test_the_document_has_every_route_with_its_parameters_and_bodies() -> None:
    async with toy_served(Toy()) as toy:
        shown = msgspec.json.decode((await ask(toy, "GET", "/openapi.json")).body)
        assert {(path, method) for path, methods in shown["paths"].items() for method in methods} == {
            *((route.path, route.method.lower()) for route in ROUTES), ("/openapi.json", "get"),
        }  # fmt: skip
        put = shown["paths"]["/notes/{id}"]["put"]
        assert [(one["name"], one["in"], one["required"]) for one in put["parameters"]] == [("id", "path", True)]
        assert list(put["requestBody"]["content"]["application/json"]["schema"]["properties"]) == ["text"]
        assert (put["x-scope"], put["x-role"]) == ("notes", "operator")
        assert set(put["responses"]) == {"200", "400", "401", "403", "413", "415", "421", "429", "503", "504"}
        listed = shown["paths"]["/notes"]["get"]["parameters"]
        assert [(one["name"], one["in"]) for one in listed] == [
            ("limit", "query"),
            ("tags", "query"),
            ("newest", "query"),
        ]
