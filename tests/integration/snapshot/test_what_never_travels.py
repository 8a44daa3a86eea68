"""What was deleted, edited away or belongs to the machine is in no object, no mirror and no other machine's files."""

from pathlib import Path

from tests.fixtures.databases import add_observation, execute, make_database
from tests.fixtures.lanes import Box, MakeBox, soon
from tests.fixtures.objects import content_of

DELETED, EDITED, PENDING, SYNC = (f"marker-{word}-zyzzyva" for word in ("deleted", "edited", "pending", "sync"))


async def objects(box: Box) -> bytes:
    """Return the content of every object of the project, decompressed where it is a snapshot's."""
    found = b""
    async for info in box.lane.store.list("projects/", deadline=soon()):
        raw = await box.lane.store.get(info.key, deadline=soon())
        found += content_of(raw)
    return found


def files_of(folder: Path, *, but: Path | None = None) -> bytes:
    """Return the bytes of every file below a folder; not of the database `but` and what SQLite keeps beside it."""
    return b"".join(
        path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (but is None or not path.name.startswith(but.name))
    )


def write_what_stays(database: Path, *, again: bool = False) -> None:
    """Write what belongs to the machine, and two memories: one that is deleted, one whose text is edited away."""
    if again:
        execute(database, "DELETE FROM sync_state WHERE k = 'k'")
        execute(database, f"UPDATE observations SET title = '{EDITED}' WHERE title = 'another'")
    else:
        add_observation(database, EDITED)
        add_observation(database, DELETED)
    execute(
        database,
        "INSERT INTO pending_messages (session_db_id, content_session_id, message_type, tool_input, created_at_epoch) "
        f"VALUES (1, 'c', 'observation', '{PENDING}', 1)",
    )
    execute(database, f"INSERT INTO sync_state VALUES ('k', '{SYNC}')")


def forget(database: Path) -> None:
    """Delete the one memory, and edit the other."""
    execute(database, f"DELETE FROM observations WHERE title = '{DELETED}'")
    execute(database, f"UPDATE observations SET title = 'another', narrative = 'x' WHERE title = '{EDITED}'")
    execute(database, "DELETE FROM pending_messages")


async def test_what_was_gone_before_it_was_pushed_never_leaves(make_box: MakeBox) -> None:
    a, b = make_box("a"), make_box("b")
    make_database(a.database)
    write_what_stays(a.database)
    forget(a.database)
    await a.push()
    write_what_stays(a.database, again=True)
    forget(a.database)
    add_observation(a.database, "something to push")
    await a.push()
    await b.pull()

    everything = await objects(a) + files_of(a.lane.mirror.directory) + files_of(b.lane.folder)

    assert b"something to push" in everything
    for marker in (DELETED, EDITED, PENDING, SYNC):
        assert marker.encode() not in everything, marker


async def test_what_is_deleted_later_is_gone_from_the_mirrors(make_box: MakeBox) -> None:
    a, b = make_box("a"), make_box("b")
    make_database(a.database)
    write_what_stays(a.database)
    await a.push()
    await b.pull()
    assert DELETED.encode() in files_of(b.lane.mirror.directory)
    forget(a.database)
    await a.push()
    await b.pull()

    for box in (a, b):
        held = files_of(box.lane.mirror.directory)
        assert b"another" in held
        for marker in (DELETED, EDITED, PENDING, SYNC):
            assert marker.encode() not in held, (box.lane.node, marker)
