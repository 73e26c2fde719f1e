"""Redshift tables of redrock (spec datamodel §8.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from qlstream.io.errors import BadFile
from qlstream.io.fitsfile import FitsFile

_NEEDED = ("TARGETID", "Z", "ZERR", "ZWARN", "SPECTYPE", "DELTACHI2")


def read_redshifts(path: Path | str) -> NDArray[Any]:
    """The REDSHIFTS table, one row per target: TARGETID, Z, ZERR, ZWARN, SPECTYPE, DELTACHI2 and what else it has.

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : no REDSHIFTS table, or columns are missing
    """
    with FitsFile(path) as fits:
        table = fits.table("REDSHIFTS")
        missing = [name for name in _NEEDED if name not in (table.dtype.names or ())]
        if missing:
            raise BadFile(fits.path, f"no column {', '.join(missing)}", "REDSHIFTS", expected="a table of redrock")
        return table
