"""Retention of backups: bounds hold, the newest stays, and nothing goes that a kept one is restored from."""

from hypothesis import given
from hypothesis import strategies as st

from membridge.snapshot.backup_retention import DAY, BackupPolicy, Kept, Plan, is_within, plan

COPY = 250 << 20


def backups_of(found: list[tuple[int, int, int, str, bool]]) -> list[Kept]:
    """Return backups, oldest first, of ages that fall."""
    age, made = 0.0, list[Kept]()
    for place, (pause, full, undo, reason, leads_on) in enumerate(found):
        age += pause
        made.append(Kept(f"{place:03d}", age, full, undo, f"{int(age // DAY)} {reason}", leads_on and undo > 0))
    return made[::-1]


BACKUPS = st.lists(
    st.tuples(
        st.integers(1, int(2 * DAY)),
        st.sampled_from([0, 0, 0, 200, 300]),
        st.integers(0, 20),
        st.sampled_from(["merge", "replace", "restore"]),
        st.sampled_from([True, True, True, False]),
    ),
    max_size=60,
).map(backups_of)
POLICIES = st.builds(
    BackupPolicy,
    max_days=st.integers(1, 30),
    max_count=st.integers(1, 60),
    max_bytes=st.integers(1, 3_000),
    max_disk_percent=st.floats(0, 100),
)


def left(backups: list[Kept], gone: Plan) -> list[Kept]:
    """Return what stays, the records of what goes joined into those before."""
    stays: list[Kept] = []
    leads: list[bool] = []
    for one in backups:
        full = 0 if one.name in gone.full_copies else one.full
        undo = 0 if one.name in gone.records else one.undo
        if one.name not in gone.backups:
            stays.append(Kept(one.name, one.age, full, undo, one.group))
            leads.append(one.leads_on and one.name not in gone.records)
        elif stays and leads[-1]:
            leads[-1] = one.leads_on
    return [Kept(one.name, one.age, one.full, one.undo, one.group, leads[n]) for n, one in enumerate(stays)]


def restorable(backups: list[Kept]) -> set[str]:
    """Return the backups that lead to the live database or to a full copy."""
    found: set[str] = set()
    reached = True
    for one in reversed(backups):
        is_newest = one is backups[-1]
        reached = bool(one.full) or (reached and (one.leads_on or (is_newest and one.undo > 0)))
        if reached:
            found.add(one.name)
    return found


@given(backups=BACKUPS, policy=POLICIES, free=st.integers(0, 20_000))
def test_what_stays_is_young_and_not_too_much_and_can_still_be_restored(
    backups: list[Kept], policy: BackupPolicy, free: int
) -> None:
    gone = plan(backups, policy, free_bytes=free)
    stays = left(backups, gone)
    names = {one.name for one in stays}
    copies = [one for one in backups if one.full]
    room = sum(one.full + one.undo for one in backups) + free
    bound = min(policy.max_bytes, room * policy.max_disk_percent / 100)
    needed = {backups[-1].name} | {one.name for one in copies[-1:]} if backups else set()
    assert names >= needed
    assert sum(one.age > policy.max_days * DAY for one in stays) <= 2
    assert len(stays) <= max(policy.max_count, 2)
    # A record that was joined into an older one is not gone: those weigh little.
    assert names <= needed or sum(one.full + one.undo for one in stays) <= bound
    assert restorable(stays) >= restorable(backups) & names
    if is_within(backups, policy, free_bytes=free):
        assert gone == Plan()


def days(count: int, per_day: int, **changes: int) -> list[Kept]:
    """Return backups of a day's work each, oldest first, with a full copy every seventh day."""
    return [
        Kept(
            f"{day} {number:02d}",
            day * DAY + number,
            COPY if day % 7 == 0 and number == 0 else 0,
            changes.get("undo", 10_000),
            f"{day} merge",
            leads_on=True,
        )
        for day in reversed(range(count))
        for number in reversed(range(per_day))
    ]


def test_two_weeks_of_fifty_a_day_are_within_the_bounds() -> None:
    backups = days(14, 50)
    assert is_within(backups, BackupPolicy(max_bytes=1 << 30), free_bytes=COPY * 100)
    assert plan(backups, BackupPolicy(), free_bytes=COPY * 100) == Plan()


def test_a_day_of_many_backups_drives_out_none_of_the_days_before() -> None:
    busy = [Kept(f"today {n:02d}", float(n), 0, 1, "today merge", leads_on=True) for n in reversed(range(60))]
    before = [Kept(f"{n} days ago", n * DAY, 0, 1, f"{n} merge", leads_on=True) for n in reversed(range(1, 10))]
    replaced = Kept("replaced", 9.5 * DAY, 1, 1, "9 replace", leads_on=True)
    gone = plan([replaced, *before, *busy], BackupPolicy(14, 50), free_bytes=10**9)
    # Two more than have to go, so that not every write deletes one.
    assert gone == Plan(backups={f"today {n:02d}" for n in range(38, 60)})


def test_older_full_copies_go_first_where_records_lead_over_them() -> None:
    backups, two = days(15, 1), BackupPolicy(max_bytes=2 * COPY + (1 << 20))
    assert plan(backups, two, free_bytes=10**12) == Plan(full_copies={"14 00"})
    one = BackupPolicy(max_bytes=COPY + (1 << 20))
    assert plan(backups, one, free_bytes=10**12) == Plan(full_copies={"14 00", "7 00"})
    # Nothing leads from the newest copy back over the third day: what is older is restored from the copy before it.
    broken = [Kept(k.name, k.age, k.full, k.undo, k.group, leads_on=k.name != "3 00") for k in backups]
    assert plan(broken, two, free_bytes=10**12) == Plan(full_copies={"14 00"})
    gone = plan(broken, one, free_bytes=10**12)
    assert (gone.full_copies, gone.records) == ({"14 00"}, set())
    assert gone.backups == {f"{day} 00" for day in range(7, 15)}


def test_a_bound_that_nothing_fits_leaves_the_newest_backup_and_the_newest_full_copy() -> None:
    backups = days(6, 2)
    gone = plan(backups, BackupPolicy(max_bytes=1), free_bytes=0)
    assert [one.name for one in left(backups, gone)] == ["0 00"]
    newest_has_none = [*backups, Kept("newest", 0.0, 0, 10, "0 merge")]
    gone = plan(newest_has_none, BackupPolicy(max_bytes=1), free_bytes=0)
    assert [(one.name, one.full) for one in left(newest_has_none, gone)] == [("0 00", COPY), ("newest", 0)]
    assert gone.records == {"0 00"}


def test_the_oldest_goes_first() -> None:
    backups = [Kept("older", 30 * DAY, 1), Kept("old", 20 * DAY, 1), Kept("new", 1.0, 1)]
    assert plan(backups, BackupPolicy(14, 50), free_bytes=10).backups == {"older", "old"}
