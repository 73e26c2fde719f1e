"""Files appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def temporary_name(path: Path | str, pid: int | None = None) -> Path:
    """The name under which `path` is written first: `BASE_tmpPID.EXT[.gz|.fz]` in the same folder.

    Readers ignore names with `_tmp` (spec paths-and-names §4).
    """
    path = Path(path)
    suffix = "".join(path.suffixes[-2:]) if path.suffix in (".gz", ".fz") else path.suffix
    base = path.name[: len(path.name) - len(suffix)]
    return path.with_name(f"{base}_tmp{os.getpid() if pid is None else pid}{suffix}")


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary name to write to; on success the file is synced and renamed to `path`, on error removed.

    A missing folder is created. The rename replaces an older file; of two writers the last one wins.

    Raises
    ------
    FileNotFoundError : the block ended without writing the temporary file
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    temporary.unlink(missing_ok=True)  # what a killed process of the same number left
    try:
        yield temporary
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
