"""Coordinates files of the platemaker: where the fibers really stood, in their present and in their older formats."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.io.errors import BadFile
from qlstream.io.fitsfile import Cards, FitsFile

Array = NDArray[np.float64]

_MOVE = re.compile(r"^(?:DX|FPA_X|FVC_X|CNT_X|EXP_X|FLAGS_CNT|FLAGS_EXP|FLAGS_FVC)_(\d+)$")


class NoPositions(LookupError):
    """The file says nothing about where the fibers stood; the message tells what it lacks."""


@dataclass(frozen=True)
class Coordinates:
    """Measured places of fibers on the focal plane.

    Attributes
    ----------
    location : (n,) int64, 1000 PETAL_LOC + DEVICE_LOC
    x, y : (n,) float64 measured place [mm]
    dx, dy : (n,) float64 wanted less measured place [mm]
    ra, dec : (n,) float64 where it looks at [degree]; NaN if the file does not tell
    moves : how often the positioners were moved
    meta : cards of the primary header
    path : the file
    """

    location: NDArray[np.int64]
    x: Array
    y: Array
    dx: Array
    dy: Array
    ra: Array
    dec: Array
    moves: int
    meta: Cards
    path: Path


def read_coordinates(path: Path | str) -> Coordinates:
    """The places after the last move.

    Files since 2020 have them as FIBER_X, FIBER_Y, FIBER_DX, FIBER_DY and FIBER_RA, FIBER_DEC. Older ones, and some
    in between, have one set of columns per move (FPA_X_n, FPA_Y_n, DX_n, DY_n, from n = 0): of these the last
    counts. Rows of no fiber, such as fiducials, do no harm: nobody asks for their location.

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : no table DATA with PETAL_LOC and DEVICE_LOC, or unreadable
    NoPositions : no columns that say where the fibers stood, as in the later parts of a split exposure
    """
    with FitsFile(path) as fits:
        rows, meta, where = fits.table("DATA"), fits.header(0), fits.path
    names = set(rows.dtype.names or ())
    if "LOCATION" in names:
        location = rows["LOCATION"].astype(np.int64)
    elif {"PETAL_LOC", "DEVICE_LOC"} <= names:
        location = 1000 * rows["PETAL_LOC"].astype(np.int64) + rows["DEVICE_LOC"].astype(np.int64)
    else:
        raise BadFile(where, "no column PETAL_LOC or DEVICE_LOC", "DATA", expected="a table of positioners")
    moves = sorted({int(match[1]) for name in names if (match := _MOVE.match(name))})
    columns = _final_columns(names, moves)
    if columns is None:
        what = "neither FIBER_X, FIBER_Y, FIBER_DX, FIBER_DY nor FPA_X, FPA_Y, DX, DY of the last move"
        raise NoPositions(f"{where} has {what}{f' ({moves[-1]})' if moves else ''}")
    x, y, dx, dy = (_numbers(rows, name) for name in columns)
    return Coordinates(
        location, x, y, dx, dy, _numbers(rows, "FIBER_RA"), _numbers(rows, "FIBER_DEC"),
        moves[-1] + 1 if moves else 0, meta, where,
    )  # fmt: skip


def _final_columns(names: set[str], moves: list[int]) -> tuple[str, str, str, str] | None:
    """Names of x, y, dx, dy after the last move; those after an earlier one would blame fibers that were corrected."""
    n = moves[-1] if moves else -1
    places = [p for p in (("FIBER_X", "FIBER_Y"), (f"FPA_X_{n}", f"FPA_Y_{n}")) if names.issuperset(p)]
    offsets = [o for o in (("FIBER_DX", "FIBER_DY"), (f"DX_{n}", f"DY_{n}")) if names.issuperset(o)]
    return (*places[0], *offsets[0]) if places and offsets else None


def _numbers(rows: NDArray[Any], name: str) -> Array:
    if name not in (rows.dtype.names or ()):
        return np.full(len(rows), np.nan)
    return rows[name].astype(np.float64)
