"""Files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from qlstream.io.atomic import atomic_path, temporary_name


@pytest.mark.parametrize(
    ("name", "temporary"),
    [
        ("frame-b0-00000001.fits.gz", "frame-b0-00000001_tmp123.fits.gz"),
        ("desi-00000001.fits.fz", "desi-00000001_tmp123.fits.fz"),
        ("x.fits", "x_tmp123.fits"),
        ("zall-v1.2.csv", "zall-v1.2_tmp123.csv"),
        ("noext", "noext_tmp123"),
    ],
)
def test_temporary_names_keep_the_extension(name, temporary):
    assert temporary_name(Path("/a") / name, 123) == Path("/a") / temporary


def test_the_file_appears_when_the_block_ends_and_folders_are_made(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("all")
        assert not path.exists()
    assert path.read_text() == "all"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"), atomic_path(path) as temporary:
        fail(temporary)

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file.txt"):
        pass
