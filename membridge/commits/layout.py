"""Object keys of a project. The only module that spells one."""

from schemas.identity import NodeId, ProjectId, Seq, token
from schemas.snapshot import SnapshotKind

#: Digits of a seq in a key, so that keys sort as numbers do.
SEQ_DIGITS = 12


def project(project: ProjectId) -> str:
    """Return the prefix of everything of a project."""
    return f"projects/{project}/"


def commits(project: ProjectId) -> str:
    """Return the prefix of a project's commit records."""
    return f"projects/{project}/commits/"


def commit(project: ProjectId, seq: Seq) -> str:
    """Return the key of the commit record of `seq`."""
    return f"{commits(project)}{seq:0{SEQ_DIGITS}d}.json"


def seq_of_commit(key: str) -> Seq | None:
    """Return the seq in a commit record's key, None for any other key."""
    name = key.rpartition("/")[2].removesuffix(".json")
    return int(name) if len(name) == SEQ_DIGITS and name.isdecimal() else None


def snapshots(project: ProjectId) -> str:
    """Return the prefix of a project's snapshots."""
    return f"projects/{project}/snapshots/"


def snapshot(project: ProjectId, seq: Seq, kind: SnapshotKind, nonce: str) -> str:
    """Return the key of a snapshot's bytes; the nonce keeps two attempts at one seq apart."""
    return f"{snapshots(project)}{seq:0{SEQ_DIGITS}d}-{nonce}.{kind.value}.zst"


def rollup(project: ProjectId, seq: Seq, after: Seq, nonce: str) -> str:
    """Return the key of a rollup's bytes, which lead from the commit `after` to `seq`."""
    return f"{snapshots(project)}{seq:0{SEQ_DIGITS}d}-{nonce}.after-{after}.zst"


def seq_of_snapshot(key: str) -> Seq | None:
    """Return the seq in the key of a snapshot or rollup, None for any other key."""
    digits, dash, _ = key.rpartition("/")[2].partition("-")
    return int(digits) if dash and len(digits) == SEQ_DIGITS and digits.isdecimal() else None


def pruned(project: ProjectId, block: int) -> str:
    """Return the key of a block of pruned commits."""
    return f"projects/{project}/ancestry/{block:0{SEQ_DIGITS}d}.json"


def tags(project: ProjectId) -> str:
    """Return the prefix of a project's tags."""
    return f"projects/{project}/tags/"


def tag(project: ProjectId, name: str) -> str:
    """Return the key of a tag; its name is one token."""
    return f"{tags(project)}{token(name, 'tag')}.json"


def proposals(project: ProjectId) -> str:
    """Return the prefix of a project's proposals."""
    return f"projects/{project}/proposals/"


def proposal(project: ProjectId, node: NodeId, proposal_id: str) -> str:
    """Return the key of a proposal's rows."""
    return f"{proposals(project)}{node}/{proposal_id}.zst"


def legacy_database(project: ProjectId) -> str:
    """Return the key of the whole database in the layout of the tool that came before."""
    return f"projects/{project}/sqlite/claude-mem.db"


def legacy_sum(project: ProjectId) -> str:
    """Return the key of the old layout's sha256 file."""
    return f"{legacy_database(project)}.sha256"


def legacy_manifest(project: ProjectId) -> str:
    """Return the key of the old layout's manifest."""
    return f"projects/{project}/sqlite/manifest.json"
