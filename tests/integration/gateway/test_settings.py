"""Invitations and settings over HTTP: on a server for other machines, and on one that has none."""

import asyncio
import json
from pathlib import Path

from membridge.embedded.nats_server import NatsServer
from tests.fixtures.gateway import SOON, Gateway, gateway_of
from tests.fixtures.pace import pause
from tests.fixtures.tasks import OpenPlace
from tests.fixtures.toy_web import ask
from tests.integration.access.sites import SHARED, site
from tests.integration.gateway.test_process import logged, settings, web_of

AT = "/api/invitations"


async def test_machines_are_invited_and_invitations_revoked(tmp_path: Path) -> None:
    async with site(tmp_path, **settings()) as place:
        web = web_of(place.host)
        await logged(place.host, '"event":"listening"')
        assert (await ask(web, "GET", AT)).status == 401
        code, told = await place.host.command("api-key", "new", "first", "--json")
        assert code == 0, told
        key = json.loads(told)["secret"]
        async with asyncio.timeout(SOON):
            while (await ask(web, "GET", AT, key=key)).status != 200:
                await pause()
        body = json.dumps({"note": "my laptop", "projects": [SHARED], "expires_seconds": 3600}).encode()
        made = await ask(web, "POST", AT, body=body, key=key)
        assert made.status == 201, made.body
        first = json.loads(made.body)
        assert first["line"].startswith("membridge-1-")
        second = json.loads((await ask(web, "POST", AT, body=b'{"note":"lost"}', key=key)).body)
        machine = place.machine("b")
        code, output = await machine.command("join", first["line"], "--node", "b", "--once")
        assert code == 0, output
        ended = await ask(web, "DELETE", f"{AT}/{second['id']}", key=key)
        assert (ended.status, json.loads(ended.body)["state"]) == (200, "revoked")
        # Once more it changes nothing; the line of a revoked one lets nobody in.
        assert (await ask(web, "DELETE", f"{AT}/{second['id']}", key=key)).body == ended.body
        code, output = await place.machine("c").command("join", second["line"], "--node", "c", "--once")
        assert (code, "the invitation was revoked" in output) == (1, True)
        answer = await ask(web, "GET", AT, key=key)
        listed = json.loads(answer.body)["invitations"]
        assert [(one["id"], one["state"], one["note"], one["used_by"]) for one in listed] == [
            (second["id"], "revoked", "lost", None), (first["id"], "used", "my laptop", "b"),
        ]  # fmt: skip
        assert listed[1]["projects"] == [SHARED]
        assert listed[1]["created_by"].endswith("@gateway")
        assert (bool(listed[1]["used_at"]), bool(listed[0]["revoked_at"])) == (True, True)
        assert first["line"][-40:].encode() not in answer.body
        used = await ask(web, "DELETE", f"{AT}/{first['id']}", key=key)
        assert (used.status, used.error.remedy) == (409, "cut that node off: `membridge nodes revoke b`")
        assert (await ask(web, "DELETE", f"{AT}/{'0' * 16}", key=key)).status == 404
        # The command line has the same list, and its own way to revoke.
        third = json.loads((await place.host.command("invite", "--note", "by hand", "--json"))[1])
        code, output = await place.host.command("nodes", "invitations", "--revoke", third["id"], "--json")
        assert (code, json.loads(output)["state"]) == (0, "revoked")
        code, output = await place.host.command("nodes", "invitations", "--json")
        assert [one["note"] for one in json.loads(output)["invitations"]] == ["by hand", "lost", "my laptop"]
        code, output = await place.host.command("nodes", "invitations", "--revoke", "x")
        assert (code, "16 signs" in output) == (1, True)
        code, output = await place.host.command("nodes", "log", "--json")
        actions = [(one["action"], one["invitation"]) for one in json.loads(output)["records"]]
        assert ("revoked", second["id"]) in actions


async def test_a_server_of_its_own_invites_nobody_and_says_how_to(refusing: Gateway) -> None:
    key = await refusing.key("admin", "*")  # type: ignore[arg-type]
    for method, body in (("GET", None), ("POST", {})):
        answer = await refusing.ask(method, AT, body, key=key)
        assert (answer.status, answer.error.error) == (503, "unavailable")
        assert answer.error.remedy == "start it for them: `membridge up --listen 0.0.0.0:4222`"


async def test_settings_are_shown_with_their_origin_and_without_secrets(
    opened: OpenPlace, nats_server: NatsServer
) -> None:
    secret = "s3cret-of-the-agents-of-this-test"
    async with opened() as place:
        home = place.settings.node.state_dir
        async with gateway_of(place.bus, nats_server.url, home, MEMBRIDGE_AGENT_KEY=secret) as gateway:
            answer = await gateway.get("/api/settings")
            found = {one["key"]: one for one in answer["settings"]}
            assert (answer["node"], found["node.id"]["origin"]) == ("a", "env MEMBRIDGE_NODE_ID")
            listen = found["gateway.listen"]
            assert (listen["env"], listen["meaning"]) == ("MEMBRIDGE_GATEWAY_LISTEN", "Its HTTP address.")
            assert found["gateway.agent_key"]["value"]
            assert secret not in json.dumps(answer)
            assert found["gateway.behind_tls"]["origin"] == "default"
