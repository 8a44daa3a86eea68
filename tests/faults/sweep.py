"""Kills, starves or leaves an operation without an answer at its steps, one after the other, and looks at what is left.

`python -m tests.faults.sweep` sweeps all of them and prints a table; the tests sweep a sample. Steps are those that
`iofault.c`, or a relay, counted in an undisturbed run, and a few more, since threads and processes do not always take
turns alike.
"""

import argparse
import asyncio
import itertools
import random
import re
import shutil
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from membridge.embedded.nats_server import start_nats
from membridge.objectstore.s3.client import S3Options
from membridge.system import logging
from schemas.identity import ProjectId
from tests.bench.s3 import start_s3
from tests.faults import shim
from tests.faults.aftermath import Memory, Seen, between, look, same, settled
from tests.faults.answers import Lossy, lossy
from tests.faults.scenarios import BY_NAME, SCENARIOS, Scenario, Stage
from tests.faults.shim import Mode, State, Step
from tests.faults.template import Template, fresh_project, leftovers, loose_chunks, removed, taken
from tests.faults.world import Place, World, opened
from tests.faults.zygote import Trial, TrialResult

ROOT = Path(__file__).parents[2]
#: Steps tried beyond those of the undisturbed run.
BEYOND = 3

Choose = Callable[[Sequence[Step]], list[int]]


class Zygote:
    """A running fork server."""

    def __init__(self, process: asyncio.subprocess.Process, state: State) -> None:
        self._process, self.state = process, state

    def steps(self) -> list[Step]:
        """Return the steps of the last try."""
        return self.state.steps()

    async def run(self, trial: Trial) -> TrialResult:
        """Run one try to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(trial) + b"\n")
        line = await self._process.stdout.readline()
        return msgspec.json.decode(line, type=TrialResult)


@asynccontextmanager
async def zygote(folder: Path, library: Path) -> AsyncGenerator[Zygote]:
    """Start a fork server with its own state."""
    state = State(folder / f"state-{fresh_project()}")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.zygote",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT, env=state.environment(library),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        yield Zygote(process, state)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        state.close()


@dataclass(slots=True)
class Report:
    """What a sweep of one scenario on one store found."""

    scenario: str
    store: str
    mode: Mode
    #: Steps of an undisturbed run, tries, and tries that were hit by the fault.
    steps: int
    tries: int = 0
    hit: int = 0
    #: Snapshots that no commit names, and objects of which JetStream has chunks and nothing else, of all tries.
    orphans: int = 0
    chunks: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list[str])

    def add(self, other: "Report") -> None:
        """Take another part of the same sweep in."""
        self.tries += other.tries
        self.hit += other.hit
        self.orphans += other.orphans
        self.failures += other.failures


@dataclass(frozen=True, slots=True)
class Reference:
    """An undisturbed run: its steps, what was known before and after, and what both nodes know in the end."""

    steps: list[Step]
    before: Seen
    after: Seen
    known: Memory
    conflicts: int


class Sweep:
    """One scenario on one store."""

    def __init__(self, scenario: Scenario, world: World, fork: Zygote | Lossy, folder: Path) -> None:
        self._scenario, self._world, self._fork, self._folder = scenario, world, fork, folder
        self._template: Template | None = None
        self._reference: Reference | None = None

    @property
    def template(self) -> Template:
        """The state that every try begins with."""
        assert self._template is not None
        return self._template

    @property
    def reference(self) -> Reference:
        """The undisturbed run."""
        assert self._reference is not None
        return self._reference

    async def prepare(self) -> None:
        """Make the template and run the operation once without disturbing it."""
        project = fresh_project()
        # Who leads is of no concern yet: both commit what the template is to hold.
        terms = replace(self._scenario.terms, secondary=None)
        stage = Stage(self._world, self._folder / "template", project, terms)
        await self._scenario.prepare(stage)
        self._world.close_journals()
        self._template = await taken(self._world, stage.folder, project)
        stage = await self._fresh()
        before = await look(stage)
        result = await self._fork.run(self._trial(stage, Mode.COUNT, 0))
        assert result.ended == "done", f"undisturbed: {result}"
        steps = self._fork.steps()
        after = await look(stage)
        if self._scenario.again is not None:
            await self._scenario.again(stage)
        known, _ = await settled(stage)
        conflicts = (await look(stage)).conflicts
        await self._forget(stage)
        self._reference = Reference(steps, before, after, known, conflicts)

    def report(self, mode: Mode) -> Report:
        """Return a report of nothing so far."""
        store = "s3" if self._world.place.s3 else "jetstream"
        return Report(self._scenario.name, store, mode, len(self.reference.steps))

    async def kill(self, target: int) -> Report:
        """Kill node a before step `target`."""
        report = self.report(Mode.KILL)
        stage = await self._fresh()
        result = await self._fork.run(self._trial(stage, Mode.KILL, target))
        report.hit += result.ended == "killed"
        await self._examine(report, stage, result, target, wanted={"killed", "done"})
        return report

    async def attempt(self, mode: Mode, target: int) -> Report:
        """Try one step."""
        return await (self.kill(target) if mode is Mode.KILL else self._starve(mode, target))

    async def _starve(self, mode: Mode, target: int) -> Report:
        report = self.report(mode)
        stage = await self._fresh()
        result = await self._fork.run(self._trial(stage, mode, target))
        report.hit += result.failed > 0
        # What only tidies up, or notes what was done, may fail without failing the operation.
        wanted = {"done", "failed"} if result.failed or mode in {Mode.BROKEN, Mode.ANSWER} else {"done"}
        await self._examine(report, stage, result, target, wanted=wanted)
        return report

    async def loose_chunks(self) -> int:
        """Count the objects of which the store in NATS has chunks that belong to nothing; 0 for another store."""
        return len(await loose_chunks(self._world))

    async def _examine(
        self, report: Report, stage: Stage, result: TrialResult, target: int, *, wanted: set[str]
    ) -> None:
        report.tries += 1
        at = next((str(step) for step in self._fork.steps() if step.number == target), f"{target}: not reached")
        reference = self.reference
        try:
            assert result.ended in wanted, f"{result.ended} {result.error} {result.text[-500:]}"
            if result.ended == "failed":
                assert result.error != "crash", result.text[-500:]
                assert "\n" not in result.text, result
            if result.ended == "failed" and report.mode is Mode.FULL:
                assert result.error == "DiskFullError", f"{result.error}: {result.text[-500:]}"
                # SQLite's own undo log of our journal needs room to be undone; the next opening does that.
                left = [name for name in leftovers(stage.folder / "a") if name != "state/journal.db-journal"]
                assert left == [], f"left on a full disk: {left}"
            seen = await look(stage)
            between("the database", reference.before.live, reference.after.live, seen.live)
            between("the head", reference.before.head, reference.after.head, seen.head)
            again = self._scenario.again or self._scenario.act
            await again(stage)
            known, found = await settled(stage)
            same("in the end", reference.known, known)
            assert (await look(stage)).conflicts == reference.conflicts, "conflicts are not those of an undisturbed run"
            report.orphans += found
        except Exception as error:  # noqa: BLE001 - every failure of a try is a finding
            report.failures.append(f"{at}: {type(error).__name__}: {str(error)[:600]}")
        finally:
            await self._forget(stage)

    async def _fresh(self) -> Stage:
        project = fresh_project()
        stage = self._stage(self._folder / project, project)
        await self.template.copy_to(self._world, stage.folder, project)
        if self._scenario.each is not None:
            await self._scenario.each(stage)
            self._world.close_journals()
        return stage

    async def _forget(self, stage: Stage) -> None:
        self._world.close_journals()
        shutil.rmtree(stage.folder)
        await removed(self._world, stage.project)

    def _stage(self, folder: Path, project: ProjectId) -> Stage:
        return Stage(self._world, folder, project, self._scenario.terms)

    def _trial(self, stage: Stage, mode: Mode, target: int) -> Trial:
        s3 = self._world.place.s3
        given = None
        if s3 is not None:
            given = {name: getattr(s3, name) for name in ("endpoint", "access_key", "secret_key", "bucket", "region")}
        return Trial(
            self._scenario.name, stage.project, str(stage.folder), self._world.place.nats_url, given, mode, target
        )


async def sweep(
    place: Place,
    folder: Path,
    library: Path | None,
    scenario: Scenario,
    plan: Mapping[Mode, Choose],
    *,
    jobs: int = 1,
    say: Callable[[Report, Report], None] | None = None,
) -> list[Report]:
    """Sweep the steps that `plan` chooses from those of an undisturbed run, `jobs` at once; one report per fault.

    `library` is the shim; lost answers need none.
    """
    reports: list[Report] = []
    forks, relays = list[Sweep](), list[Sweep]()
    async with AsyncExitStack() as stack:
        if any(mode is not Mode.ANSWER for mode in plan):
            forks = [await stack.enter_async_context(_prepared(place, folder, library, scenario)) for _ in range(jobs)]
        if Mode.ANSWER in plan:
            # One at a time: its impatience is the whole process'.
            relays = [await stack.enter_async_context(_prepared(place, folder, None, scenario))]
        for mode, choose in plan.items():
            sweeps = relays if mode is Mode.ANSWER else forks
            began, loose = time.monotonic(), await sweeps[0].loose_chunks()
            targets = list(choose(sweeps[0].reference.steps))[::-1]
            report = sweeps[0].report(mode)
            async with asyncio.TaskGroup() as group:
                for one in sweeps:
                    group.create_task(_work(one, mode, targets, report, say))
            report.chunks = await sweeps[0].loose_chunks() - loose
            report.seconds = time.monotonic() - began
            reports.append(report)
    return reports


@asynccontextmanager
async def _prepared(place: Place, folder: Path, library: Path | None, scenario: Scenario) -> AsyncGenerator[Sweep]:
    own = folder / f"{re.sub('[^a-z]+', '-', scenario.name)}-{fresh_project()}"
    own.mkdir()
    runner = lossy(place) if library is None else zygote(folder, library)
    async with opened(place) as world, runner as fork:
        prepared = Sweep(scenario, world, fork, own)
        await prepared.prepare()
        yield prepared


async def _work(
    one: Sweep, mode: Mode, targets: list[int], report: Report, say: Callable[[Report, Report], None] | None
) -> None:
    while targets:
        target = targets.pop()
        found = await one.attempt(mode, target)
        report.add(found)
        if say is not None:
            say(report, found)


def all_of(steps: Sequence[Step], mode: Mode, every: int = 1) -> list[int]:
    """Return the steps to sweep: all, and a few beyond; or those that the fault can hit."""
    if mode is Mode.ANSWER:
        return [step.number for step in steps][::every]
    if mode is not Mode.KILL:
        return [step.number for step in steps if _can_fail(step, mode)][::every]
    return [*(step.number for step in steps), *range(steps[-1].number + 1, steps[-1].number + 1 + BEYOND)][::every]


def _can_fail(step: Step, mode: Mode) -> bool:
    return step.needs_room if mode is Mode.FULL else step.path != "socket"


def sample_of(steps: Sequence[Step], mode: Mode, count: int, seed: int) -> list[int]:
    """Return `count` steps or so: spread evenly, and one by chance. Of a run of page writes only the ends are taken."""
    eligible = _ends_of_runs([step for step in steps if mode in {Mode.KILL, Mode.ANSWER} or _can_fail(step, mode)])
    stride = max(1, len(eligible) // max(1, count - 1))
    chosen = {step.number for step in eligible[stride // 2 :: stride]}
    chosen.add(random.Random(seed).choice(eligible).number)
    return sorted(chosen)


def _ends_of_runs(steps: Sequence[Step]) -> list[Step]:
    """Return the first and last of each run of one call on one file."""
    runs = [list(run) for _, run in itertools.groupby(steps, key=lambda step: (step.call, step.path))]
    return [step for run in runs for step in ([run[0], run[-1]] if len(run) > 1 else run)]


_NAMES = {Mode.KILL: "kill", Mode.FULL: "full disk", Mode.BROKEN: "I/O error", Mode.ANSWER: "answer"}


def row(report: Report) -> str:
    """Return a report as a row of the table."""
    return (
        f"| {report.scenario} | {report.store} | {_NAMES[report.mode]} | {report.steps} | {report.tries} "
        f"| {report.hit} | {report.orphans} | {report.chunks} | {len(report.failures)} | {report.seconds:.0f} |"
    )


HEADER = (
    "| operation | store | fault | steps | tries | hit | orphans | loose chunks | failures | seconds |\n"
    "|---|---|---|---:|---:|---:|---:|---:|---:|---:|"
)


def faults_of(scenario: Scenario) -> list[Mode]:
    """Return the faults that a scenario is swept with."""
    if scenario.only_answers:
        return [Mode.ANSWER]
    return [Mode.KILL, Mode.FULL, Mode.BROKEN, Mode.ANSWER] if scenario.full else [Mode.KILL, Mode.ANSWER]


def _chosen(given: argparse.Namespace, mode: Mode, steps: Sequence[Step]) -> list[int]:
    return given.step or all_of(_ends_of_runs(steps) if given.ends else steps, mode, given.every)


async def _main(given: argparse.Namespace) -> int:
    logging.setup(level="error")
    failures = 0
    chosen = [BY_NAME[name] for name in given.scenario] if given.scenario else list(SCENARIOS)
    stores: list[str] = given.store

    def say(report: Report, found: Report) -> None:
        for failure in found.failures:
            print(f"  {report.scenario}, {report.store}: {failure}", file=sys.stderr, flush=True)  # noqa: T201 - for whoever runs it

    with TemporaryDirectory(prefix="membridge-sweep-") as name, start_nats(Path(name) / "nats") as server:
        folder = Path(name)
        library = shim.build(folder)
        places = {"jetstream": Place(server.url)}
        async with AsyncExitStack() as stack:
            if "s3" in given.store:
                s3 = stack.enter_context(start_s3(folder / "s3"))
                bucket = s3.make_bucket("swept")
                places["s3"] = Place(server.url, S3Options(s3.endpoint, s3.access_key, s3.secret_key, bucket))
            print(HEADER, flush=True)  # noqa: T201 - the table
            for scenario, store in itertools.product(chosen, stores):
                plan = {
                    mode: partial(_chosen, given, mode)
                    for mode in faults_of(scenario)
                    if given.fault in {"", mode.name.lower()}
                }
                if not plan:
                    continue
                reports = await sweep(places[store], folder, library, scenario, plan, jobs=given.jobs, say=say)
                failures += sum(len(report.failures) for report in reports)
                print("\n".join(map(row, reports)), flush=True)  # noqa: T201 - the table
    return 1 if failures else 0


def main() -> int:
    """Sweep what the command line names, everything by default."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.sweep", description=__doc__)
    parser.add_argument("--scenario", action="append", choices=sorted(BY_NAME), default=[])
    parser.add_argument("--store", action="append", choices=["jetstream", "s3"], default=None)
    parser.add_argument("--fault", choices=["kill", "full", "broken", "answer"], default="")
    parser.add_argument("--every", type=int, default=1, help="take every n-th step only")
    parser.add_argument("--ends", action="store_true", help="of each run of one call on one file, its ends only")
    parser.add_argument("--step", type=int, action="append", default=[], help="these steps only")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    given.store = given.store or ["jetstream", "s3"]
    return asyncio.run(_main(given))


if __name__ == "__main__":
    sys.exit(main())
