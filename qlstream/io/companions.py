"""The files that come beside a raw exposure and tell what its fibers looked at."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlstream.io.compression import existing_file

_FIBERASSIGN = re.compile(r"^fiberassign-\d{6,8}\.fits(\.gz)?$")  # by TILEID, early in 2020 by EXPID


@dataclass(frozen=True)
class Companions:
    """What lies beside a raw exposure; None for what is not there.

    Attributes
    ----------
    fiberassign, coordinates, guide : paths
    """

    fiberassign: Path | None = None
    coordinates: Path | None = None
    guide: Path | None = None

    def digest(self) -> str:
        """A name for the content of the assignments and the coordinates; another one as soon as one of them changes.

        Raises
        ------
        OSError : one of them cannot be read
        """
        content = hashlib.blake2b(digest_size=8)
        for path in (self.fiberassign, self.coordinates):
            content.update(path.read_bytes() if path else b"")
            content.update(b"|")
        return content.hexdigest()


def find_companions(folder: Path, expid: int, header: Mapping[str, Any] | None = None) -> Companions:
    """Look into the folder of a raw exposure.

    The assignments are those of the header's TILEID, else of the file that its FIBASSGN names, else the only ones
    that are there.

    Parameters
    ----------
    header : exposure cards; without them, only ones that are the only ones are found
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return Companions()
    return Companions(
        _fiberassign(folder, [name for name in names if _FIBERASSIGN.match(name)], header or {}),
        _existing(folder / f"coordinates-{expid:08d}.fits"),
        next((folder / name for name in names if re.match(rf"^guide-{expid:08d}\.fits(\.fz)?$", name)), None),
    )


def companion_files(folder: Path, expid: int) -> list[Path]:
    """Every fiberassign and coordinates file in the folder of an exposure, by name."""
    coordinates = f"coordinates-{expid:08d}.fits"
    try:
        names = sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder / n for n in names if _FIBERASSIGN.match(n) or n in (coordinates, f"{coordinates}.gz")]


def _fiberassign(folder: Path, there: list[str], header: Mapping[str, Any]) -> Path | None:
    wanted = []
    if str(header.get("TILEID", "")).strip().isdigit():
        wanted.append(f"fiberassign-{int(header['TILEID']):06d}.fits")
    elif header.get("FIBASSGN"):
        wanted.append(Path(str(header["FIBASSGN"]).strip()).name.removesuffix(".gz"))
    elif header.get("EXPID"):
        wanted.append(f"fiberassign-{int(header['EXPID']):08d}.fits")
    for name in wanted:
        if (path := _existing(folder / name)) is not None:
            return path
    return folder / there[0] if len(there) == 1 and not wanted else None


def _existing(path: Path) -> Path | None:
    try:
        return existing_file(path)
    except FileNotFoundError:
        return None
