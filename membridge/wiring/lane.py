"""The lane of a project from the settings: its state folder, journal, policies and announcer."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from membridge.aio import threads
from membridge.bus.connection import Bus
from membridge.bus.publisher import announce
from membridge.commits import temp_dir
from membridge.commits.chain import ChainPolicy
from membridge.commits.retention import SnapshotPolicy
from membridge.merge.conflicts import Journal
from membridge.merge.row_index import INDEX_FILE, RowIndex
from membridge.objectstore.protocol import ObjectStore
from membridge.settings import ProjectConfig, Settings
from membridge.snapshot.backup_retention import BackupPolicy
from membridge.snapshot.lane import Lane, LanePolicy
from membridge.wiring.bus import Buckets


def lane_folder(settings: Settings, config: ProjectConfig) -> Path:
    """Return the state folder of one project."""
    return settings.node.state_dir / "projects" / config.id


@asynccontextmanager
async def open_lane(
    bus: Bus, store: ObjectStore, opened: Buckets, settings: Settings, config: ProjectConfig, *, lasting: bool = False
) -> AsyncGenerator[Lane]:
    """Open a project's lane, with its folder, journal, row index and announcer of events.

    A `lasting` one is a daemon's: it keeps watching the live database.
    """
    folder = lane_folder(settings, config)
    await threads.run(temp_dir.sweep, folder)
    journal = await threads.run(Journal, folder / "journal.db")
    index = RowIndex(folder / INDEX_FILE, config.database, lasting=lasting)
    lane_settings, keep, keep_backups = settings.lane, settings.keep, settings.backup
    try:
        yield Lane(
            project=config.id,
            name=config.name,
            node=settings.node.id,
            database=config.database,
            folder=folder,
            store=store,
            heads=opened.heads,
            journal=journal,
            index=index,
            announce=lambda event: announce(bus, event),
            chain=ChainPolicy(lane_settings.chain_max_deltas, lane_settings.chain_max_percent),
            retention=SnapshotPolicy(keep.last, keep.hourly, keep.daily, keep.weekly),
            policy=LanePolicy(
                shrink_percent=lane_settings.shrink_percent,
                publish_legacy=settings.store.publish_legacy,
                backups=BackupPolicy(
                    max_days=keep_backups.max_days,
                    max_count=keep_backups.max_count,
                    max_bytes=keep_backups.max_mib << 20,
                    max_disk_percent=keep_backups.max_disk_percent,
                ),
            ),
        )
    finally:
        await threads.run(index.end)
        await threads.run(journal.close)
