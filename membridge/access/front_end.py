"""The folder of a front end: its keys, and the authority by which it verifies the server.

Made on the server's machine and copied to the front end; the enrolment service gets only the public keys.
"""

from collections.abc import Iterable
from pathlib import Path

from membridge.access.nkeys import provide_key
from membridge.access.server_files import ServerFiles
from membridge.settings import RUNTIME
from membridge.system import files
from schemas.access import AdmitRequest, MemberRole
from schemas.identity import NodeId, ProjectId


def make_keys(
    server_files: ServerFiles, name: NodeId, role: MemberRole, projects: Iterable[ProjectId], folder: Path
) -> AdmitRequest:
    """Write what `name` needs into `folder`, for its owner only; return the request to the enrolment service.

    One key for each project, in a file named by its canonical id, and one for tasks; existing keys stay.
    Blocking; raises DiskFullError, FileAccessError and CredentialsError.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.save(folder / "authority.pem", server_files.certificate.authority.read_bytes())
    return AdmitRequest(
        node=name,
        role=role,
        keys={project: provide_key(folder / f"{project}.seed") for project in projects},
        runtime_key=provide_key(folder / f"{RUNTIME}.seed"),
    )
