"""Which kind of file system a path lies on: file events and SQLite's locks only work on local ones."""

from __future__ import annotations

from pathlib import Path

import psutil

_NETWORK = frozenset(
    (
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "davfs",
        "davfs2",
        "fuse.ceph",
        "fuse.cephfs",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs3",
        "nfs4",
        "orangefs",
        "panfs",
        "pvfs2",
        "smb",
        "smb2",
        "smb3",
        "smbfs",
    )
)


def filesystem_type(path: Path) -> str:
    """Name of the file system that holds `path`, e.g. "ext4" or "nfs4"; "" if the system does not tell.

    A path that does not exist yet lies where its nearest existing parent lies.
    """
    path = path.resolve()
    mounts = {Path(p.mountpoint): p.fstype for p in psutil.disk_partitions(all=True)}  # of one point, the last counts
    for folder in (path, *path.parents):
        if folder in mounts:
            return mounts[folder].lower()
    return ""


def is_network_filesystem(path: Path) -> bool:
    """Whether other hosts may write there, so that file events are incomplete and file locks unsafe."""
    return filesystem_type(path) in _NETWORK
