"""A file is on disk as NAME or as NAME.gz; the gzip form is made and read several times faster than cfitsio does it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isal import igzip
from isal.igzip_lib import IsalError

_LEVEL = 1  # noise hardly shrinks: level 3 takes twice the time for 0.1 % less
_CHUNK = 1 << 20  # [byte]


def other_form(path: Path | str) -> Path:
    """NAME.gz of NAME, and NAME of NAME.gz."""
    path = Path(path)
    return path.with_suffix("") if path.suffix == ".gz" else path.with_name(path.name + ".gz")


def existing_file(path: Path | str) -> Path:
    """The path itself if it exists, else its other form (spec paths-and-names §4).

    Raises
    ------
    FileNotFoundError : neither exists
    """
    path = Path(path)
    for candidate in (path, other_form(path)):
        if candidate.exists():
            return candidate
    raise FileNotFoundError(f"{path}: no such file, nor {other_form(path).name}")


@contextmanager
def packing(path: Path) -> Iterator[Path]:
    """A plain file to write to; at the end it becomes the gzip file `path`. A `path` without .gz is itself that file.

    The result depends on the content only: neither name nor time are put into it.
    """
    if path.suffix != ".gz":
        yield path
        return
    plain = other_form(path)
    try:
        yield plain
        with (
            plain.open("rb") as source,
            path.open("wb") as file,
            igzip.IGzipFile("", "wb", _LEVEL, fileobj=file, mtime=0) as packed,
        ):
            shutil.copyfileobj(source, packed, _CHUNK)
    finally:
        plain.unlink(missing_ok=True)


@contextmanager
def unpacked(path: Path) -> Iterator[str]:
    """A name under which the content of `path` can be opened: of a gzip file its unpacked copy in memory, where the
    system has files in memory (Linux); else the path itself.

    Raises
    ------
    OSError, EOFError : a gzip file that is corrupt or ends too early
    """
    if path.suffix != ".gz" or not hasattr(os, "memfd_create"):
        yield str(path)
        return
    with open(os.memfd_create(path.name), "w+b") as copy:
        try:
            with igzip.open(path, "rb") as packed:
                shutil.copyfileobj(packed, copy, _CHUNK)
        except IsalError as error:  # type: ignore[misc] # the stub makes an instance of the class
            raise OSError(f"corrupt gzip data: {error}") from error
        copy.flush()
        yield f"/proc/self/fd/{copy.fileno()}"
