"""Network file systems are told from local ones by the longest mount point above a path."""

from collections import namedtuple

import pytest

from qlstream.io import filesystem
from qlstream.io.filesystem import filesystem_type, is_network_filesystem

Partition = namedtuple("Partition", "mountpoint fstype")


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    nested = [("", "ext4"), ("/data", "lustre"), ("/data/local", "xfs"), ("/home", "NFS4")]
    table = [Partition("/", "overlay"), *(Partition(f"{tmp_path}{below}", kind) for below, kind in nested)]
    monkeypatch.setattr(filesystem.psutil, "disk_partitions", lambda all: table)
    return tmp_path


@pytest.mark.parametrize(
    ("below", "kind", "is_network"),
    [
        ("x", "ext4", False),
        ("data", "lustre", True),
        ("data/not/there/yet", "lustre", True),
        ("data/local/x", "xfs", False),
        ("home/observer", "nfs4", True),
    ],
)
def test_the_nearest_mount_point_decides(mounts, below, kind, is_network):
    assert filesystem_type(mounts / below) == kind
    assert is_network_filesystem(mounts / below) == is_network


def test_an_unknown_system_counts_as_local(tmp_path, monkeypatch):
    monkeypatch.setattr(filesystem.psutil, "disk_partitions", lambda all: [])

    assert filesystem_type(tmp_path) == ""
    assert not is_network_filesystem(tmp_path)
