"""Where raw exposures lie, and which names are not meant for us."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NIGHT = re.compile(r"^20\d{6}$")
_EXPID = re.compile(r"^\d{8}$")
_RAW = re.compile(r"^desi-(\d{8})\.fits(\.fz)?$")


@dataclass(frozen=True, order=True)
class Place:
    """An exposure by its folder RAW/NIGHT/EXPID."""

    night: int
    expid: int

    def folder(self, raw: Path) -> Path:
        return raw / str(self.night) / f"{self.expid:08d}"

    def find(self, raw: Path) -> Path | None:
        """Its raw file, the compressed form first; None if there is none (yet).

        Only the final name counts: `desi-00000082.fits.fz`. Names under which a file is being written (`_tmp` before
        the ending, `.tmp` behind it, rsync's `.desi-00000082.fits.fz.Xa3b9c`) do not match it.
        """
        for ending in (".fits.fz", ".fits"):
            path = self.folder(raw) / f"desi-{self.expid:08d}{ending}"
            if path.is_file():
                return path
        return None


def place_of(raw: Path, path: Path) -> Place | None:
    """The exposure that a path inside the raw folder belongs to; None if it belongs to none."""
    try:
        parts = path.relative_to(raw).parts
    except ValueError:
        return None
    if len(parts) < 2 or not _NIGHT.match(parts[0]) or not _EXPID.match(parts[1]):
        return None
    return Place(int(parts[0]), int(parts[1]))


def is_raw_file(path: Path) -> bool:
    """Whether the name is the final one of a raw exposure."""
    return _RAW.match(path.name) is not None


def nights_in(raw: Path) -> list[int]:
    """The nights that have a folder (or a link to one), newest first; none if the raw folder is not there."""
    try:
        with os.scandir(raw) as entries:
            return sorted((int(e.name) for e in entries if _NIGHT.match(e.name) and e.is_dir()), reverse=True)
    except (FileNotFoundError, NotADirectoryError):
        return []


def places_in(raw: Path, night: int) -> Iterator[Place]:
    """The exposures of a night that have a folder."""
    try:
        with os.scandir(raw / str(night)) as entries:
            names = [e.name for e in entries if _EXPID.match(e.name) and e.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in sorted(names):
        yield Place(night, int(name))
