"""Fiberassign files: which target each fiber of a tile was given, in their present and in their older formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.recfunctions import append_fields, rename_fields
from numpy.typing import NDArray

from qlstream.datamodel.fibermap import Fibermap
from qlstream.io.errors import BadFile
from qlstream.io.fitsfile import Cards, FitsFile

Rows = NDArray[Any]

# What observing depends on: a corrected copy of a file that differs here is about other targets or places.
OPERATIONS = (
    "TARGETID", "TARGET_RA", "TARGET_DEC", "PMRA", "PMDEC", "REF_EPOCH", "LAMBDA_REF", "LOCATION", "PETAL_LOC",
    "DEVICE_LOC",
)  # fmt: skip

# Columns of early files -> their names since
_RENAMED = {
    "DESIGN_X": "FIBERASSIGN_X",
    "DESIGN_Y": "FIBERASSIGN_Y",
    "LAMBDAREF": "LAMBDA_REF",
    "RA": "TARGET_RA",
    "DEC": "TARGET_DEC",
    "RA_TARGET": "TARGET_RA",
    "DEC_TARGET": "TARGET_DEC",
    "POSITIONER": "DEVICE_LOC",
}
_SCIENCE, _STANDARD, _SKY, _SUPP_SKY = 1, 2, 4, 16  # bits of FA_TYPE (spec masks-and-targets §6)


@dataclass(frozen=True)
class FiberAssign:
    """The assignments of a tile.

    Attributes
    ----------
    rows : one per fiber of the spectrographs, with today's column names; further columns of the file are kept
    meta : cards of the primary header and of the FIBERASSIGN table, the former winning
    path : the file
    """

    rows: Rows
    meta: Cards
    path: Path


def read_fiberassign(path: Path | str) -> FiberAssign:
    """The assignments of a fiberassign file, plain or gzipped, old or new.

    Early files call some columns otherwise, have the photometry of the targets only in their TARGETS HDU, and lack
    LOCATION, OBJTYPE or FIBERSTATUS; all that is put right by name and TARGETID. Rows without a fiber are left out,
    and so are the sky monitors, which no spectrograph sees.

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : no FIBERASSIGN table, or one without FIBER, TARGETID and LOCATION (or PETAL_LOC and DEVICE_LOC), or
        with two rows for one fiber
    """
    with FitsFile(path) as fits:
        rows = _named(fits.table("FIBERASSIGN"))
        meta = fits.header("FIBERASSIGN") | fits.header(0)
        targets = _named(fits.table("TARGETS")) if "TARGETS" in fits else None
        where = fits.path
    _require(where, rows)
    if "LOCATION" not in _names(rows):
        rows = _with(rows, "LOCATION", 1000 * rows["PETAL_LOC"].astype(np.int64) + rows["DEVICE_LOC"])
    rows = rows[rows["FIBER"] >= 0]
    numbers, counts = np.unique(rows["FIBER"], return_counts=True)
    if (counts > 1).any():
        twice = numbers[counts > 1][:5].tolist()
        raise BadFile(where, f"more than one row for FIBER {twice}", "FIBERASSIGN", expected="one row for each fiber")
    if targets is not None and {"TARGETID"} <= _names(targets):
        rows = _completed(rows, targets)
    if "OBJTYPE" not in _names(rows) and "FA_TYPE" in _names(rows):
        rows = _with(rows, "OBJTYPE", _objtype(rows["FA_TYPE"]))
    return FiberAssign(rows, meta, where)


def compare_fiberassign(fa1: Any, fa2: Any, compare_all: bool = False) -> list[str]:
    """Columns in which two tables of assignments differ; an empty list if they agree.

    Rows are compared by LOCATION, so their order is of no account; two NaN are equal. Locations that only one table
    has make LOCATION differ. Negative TARGETIDs, which stand for no real target, may differ.

    Parameters
    ----------
    fa1, fa2 : structured arrays, astropy Tables, Fibermaps or FiberAssigns, with LOCATION
    compare_all : compare all columns, in the order of `fa1`; one that only one table has differs. Otherwise those
        that observing depends on, which both must have

    Raises
    ------
    KeyError : a table has no LOCATION, or lacks a column that observing depends on
    """
    first, second = _rows_of(fa1), _rows_of(fa2)
    names1, names2 = list(first.dtype.names or ()), list(second.dtype.names or ())
    wanted = ["LOCATION"] if compare_all else list(OPERATIONS)
    missing = sorted({name for name in wanted for names in (names1, names2) if name not in names})
    if missing:
        raise KeyError(f"cannot compare: {', '.join(missing)} missing in one of the tables")
    columns = [*names1, *(n for n in names2 if n not in names1)] if compare_all else wanted
    _, at1, at2 = np.intersect1d(first["LOCATION"], second["LOCATION"], return_indices=True)
    different = []
    for name in columns:
        if name not in names1 or name not in names2:
            different.append(name)
        elif name == "LOCATION":
            if len(first) != len(at1) or len(second) != len(at2):
                different.append(name)
        elif not _equal(name, first[name][at1], second[name][at2]):
            different.append(name)
    return different


def _equal(name: str, one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.dtype.kind in "SU" or other.dtype.kind in "SU":
        return bool(np.array_equal(_text(one), _text(other)))
    same = one == other
    if one.dtype.kind == "f" and other.dtype.kind == "f":
        same |= np.isnan(one) & np.isnan(other)
    if name == "TARGETID":
        same |= (one < 0) & (other < 0)
    return bool(np.all(same))


def _text(values: NDArray[Any]) -> NDArray[np.str_]:
    values = np.char.decode(values, "ascii") if values.dtype.kind == "S" else values
    return np.char.rstrip(values.astype(str))


def _rows_of(table: Any) -> Rows:
    """A structured array of whatever holds a table; masked values of astropy (its NaN) keep what is below the mask."""
    if isinstance(table, (Fibermap, FiberAssign)):
        return table.rows
    return np.ma.getdata(table.as_array() if hasattr(table, "as_array") else np.asarray(table))


def _names(rows: Rows) -> set[str]:
    return set(rows.dtype.names or ())


def _named(rows: Rows) -> Rows:
    """With today's column names, in capitals."""
    rows = rename_fields(rows, {name: name.upper() for name in rows.dtype.names or ()})
    return rename_fields(rows, {old: new for old, new in _RENAMED.items() if new not in _names(rows)})


def _require(path: Path, rows: Rows) -> None:
    names = _names(rows)
    missing = [name for name in ("FIBER", "TARGETID") if name not in names]
    if "LOCATION" not in names and not {"PETAL_LOC", "DEVICE_LOC"} <= names:
        missing.append("LOCATION")
    if missing:
        raise BadFile(path, f"no column {', '.join(missing)}", "FIBERASSIGN", expected="the table of assignments")


def _completed(rows: Rows, targets: Rows) -> Rows:
    """With the columns that only the TARGETS table has, matched by TARGETID; 0 or "" for fibers without a target."""
    extra = [name for name in targets.dtype.names or () if name not in _names(rows)]
    if not extra or not len(targets):
        return rows
    order = np.argsort(targets["TARGETID"], kind="stable")
    at = np.searchsorted(targets["TARGETID"], rows["TARGETID"], sorter=order)
    at = order[np.minimum(at, len(order) - 1)]
    known = targets["TARGETID"][at] == rows["TARGETID"]
    merged = np.zeros(len(rows), dtype=rows.dtype.descr + [(name, targets.dtype[name]) for name in extra])
    for name in rows.dtype.names or ():
        merged[name] = rows[name]
    for name in extra:
        merged[name][known] = targets[name][at[known]]
    return merged


def _with(rows: Rows, name: str, values: NDArray[Any]) -> Rows:
    return np.asarray(append_fields(rows, name, values, usemask=False))


def _objtype(fa_type: NDArray[Any]) -> NDArray[np.str_]:
    kinds = np.full(len(fa_type), "BAD", dtype="U3")
    kinds[(fa_type & (_SKY | _SUPP_SKY)) != 0] = "SKY"
    kinds[(fa_type & (_SCIENCE | _STANDARD)) != 0] = "TGT"
    return kinds


def card(meta: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """A card that is there and says something."""
    value = meta.get(name)
    return default if value is None or str(value).strip() in ("", "None") else value
