"""Ids that sort by time: their version, their order, and that the same lease always puts out under the same one."""

import uuid

from services.coordinator.engine.ids import made_at, ordered_id, output_id


def test_an_id_is_of_version_7_and_keeps_its_milliseconds_and_its_entropy() -> None:
    for entropy in (bytes(10), b"\xff" * 10, bytes(range(10))):
        made = uuid.UUID(ordered_id(1_800_000_000.125, entropy))
        assert (made.version, made.variant) == (7, uuid.RFC_4122)
        assert made.int >> 80 == 1_800_000_000_125
    assert len({ordered_id(1.0, number.to_bytes(10, "big")) for number in range(1_000)}) == 1_000


def test_ids_sort_by_time() -> None:
    made = [ordered_id(1_800_000_000 + number / 1_000, b"\xff" * 10) for number in range(100)]
    assert made == sorted(made)


def test_an_output_has_one_id_which_is_near_that_of_its_lease_and_not_the_same() -> None:
    for lease in (ordered_id(1_800_000_000.0, b"l" * 10), str(uuid.uuid4())):
        made = output_id(lease)
        assert made == output_id(lease)
        assert made != lease
        assert made[:18] == lease[:18]
    assert output_id(str(uuid.uuid4())) != output_id(str(uuid.uuid4()))


def test_an_id_says_when_it_was_made_and_any_other_text_says_nothing() -> None:
    made = ordered_id(1_800_000_000.125, b"\xff" * 10)
    assert made_at(made) == 1_800_000_000.125
    for other in ("", "no id", str(uuid.uuid4()), made.upper(), f"{{{made}}}", made.replace("-", "")):
        assert made_at(other) is None
