"""The tables of a coadd: one row per target, and one per exposure that went into it (spec datamodel §8.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PER_EXPOSURE = (
    *("TARGETID", "PRIORITY", "SUBPRIORITY", "NIGHT", "EXPID", "MJD", "TILEID", "EXPTIME", "PETAL_LOC", "DEVICE_LOC"),
    *("LOCATION", "FIBER", "FIBERSTATUS", "FIBERASSIGN_X", "FIBERASSIGN_Y", "LAMBDA_REF", "PLATE_RA", "PLATE_DEC"),
    *("NUM_ITER", "FIBER_X", "FIBER_Y", "DELTA_X", "DELTA_Y", "FIBER_RA", "FIBER_DEC", "PSF_TO_FIBER_SPECFLUX"),
    *("FLAT_TO_PSF_FLUX", "HELIOCOR_OFFSET"),
)
_ONLY_PER_EXPOSURE = frozenset(_PER_EXPOSURE) - {"TARGETID", "PETAL_LOC", "TILEID"}


def coadd_fibermap(
    fibermap: NDArray[Any], group: NDArray[np.int64], used: Mapping[str, NDArray[np.bool_]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Fibermap of the targets, and of their exposures.

    Parameters
    ----------
    fibermap : (nspec,) rows
    group : (nspec,) number of the target of each row, counting from 0 in the order of the result
    used : band -> (nspec,) rows that went into the coadd
    """
    names = fibermap.dtype.names or ()
    ntarget = int(group.max()) + 1 if len(group) else 0
    first = np.array([int(np.argmax(group == n)) for n in range(ntarget)], dtype=np.int64)
    whole = np.logical_or.reduce([np.asarray(u) for u in used.values()]) if used else np.ones(len(group), dtype=bool)
    kept = [name for name in names if name not in _ONLY_PER_EXPOSURE]
    columns: dict[str, NDArray[Any]] = {name: fibermap[name][first] for name in kept}
    columns |= _counts(fibermap, group, ntarget, whole)
    columns |= _means(fibermap, group, ntarget, whole)
    exposures: dict[str, NDArray[Any]] = {name: fibermap[name] for name in _PER_EXPOSURE if name in names}
    exposures |= {f"IN_COADD_{band.upper()}": np.asarray(u) for band, u in used.items()}
    return as_table(columns), as_table(exposures)


def as_table(columns: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """A structured array of these columns, which have one length."""
    dtype = [(name, values.dtype, values.shape[1:]) for name, values in columns.items()]
    out = np.zeros(len(next(iter(columns.values()))), dtype=dtype)
    for name, values in columns.items():
        out[name] = values
    return out


def _counts(
    fibermap: NDArray[Any], group: NDArray[np.int64], ntarget: int, used: NDArray[np.bool_]
) -> dict[str, NDArray[Any]]:
    names = fibermap.dtype.names or ()
    out: dict[str, NDArray[Any]] = {"COADD_NUMEXP": np.bincount(group[used], minlength=ntarget).astype("i2")}
    if "EXPTIME" in names:
        out["COADD_EXPTIME"] = np.bincount(group[used], fibermap["EXPTIME"][used], ntarget).astype("f4")
    for column, name in (("NIGHT", "COADD_NUMNIGHT"), ("TILEID", "COADD_NUMTILE")):
        if column in names:
            pairs = np.unique(np.stack([group[used], fibermap[column][used].astype(np.int64)]), axis=1)
            out[name] = np.bincount(pairs[0], minlength=ntarget).astype("i2")
    if "NIGHT" in names:
        night = fibermap["NIGHT"].astype("i4")
        out["FIRSTNIGHT"], out["LASTNIGHT"] = _extremes(night, group, ntarget)
    if "MJD" in names:
        low, high = _extremes(fibermap["MJD"].astype("f8"), group, ntarget)
        total = np.bincount(group, fibermap["MJD"], ntarget) / np.maximum(np.bincount(group, minlength=ntarget), 1)
        out |= {"MIN_MJD": low, "MAX_MJD": high, "MEAN_MJD": total}
    if "FIBERSTATUS" in names:
        status = fibermap["FIBERSTATUS"].astype("i4")
        common = np.full(ntarget, -1, "i4")
        np.bitwise_and.at(common, group[used], status[used])
        common[np.bincount(group[used], minlength=ntarget) == 0] = 0
        out["COADD_FIBERSTATUS"] = common
    return out


def _extremes(values: NDArray[Any], group: NDArray[np.int64], ntarget: int) -> tuple[NDArray[Any], NDArray[Any]]:
    low, high = np.full(ntarget, values.max(), values.dtype), np.full(ntarget, values.min(), values.dtype)
    np.minimum.at(low, group, values)
    np.maximum.at(high, group, values)
    return low, high


def _means(
    fibermap: NDArray[Any], group: NDArray[np.int64], ntarget: int, used: NDArray[np.bool_]
) -> dict[str, NDArray[Any]]:
    """Mean and scatter of where the fiber was. STD_ of angles are in arcsec."""
    out: dict[str, NDArray[Any]] = {}
    for column in ("DELTA_X", "DELTA_Y", "FIBER_X", "FIBER_Y", "FIBER_RA", "FIBER_DEC", "PSF_TO_FIBER_SPECFLUX"):
        if column not in (fibermap.dtype.names or ()):
            continue
        values = fibermap[column].astype(float)
        good = used & np.isfinite(values)
        number = np.maximum(np.bincount(group[good], minlength=ntarget), 1)
        mean = np.bincount(group[good], values[good], ntarget) / number
        square = np.bincount(group[good], (values[good] - mean[group[good]]) ** 2, ntarget) / number
        angle = column in ("FIBER_RA", "FIBER_DEC")
        out[f"MEAN_{column}"] = mean.astype("f8" if angle else "f4")
        if column in ("DELTA_X", "DELTA_Y"):
            out[f"RMS_{column}"] = np.sqrt(square + mean**2).astype("f4")
        elif angle:
            out[f"STD_{column}"] = (3600.0 * np.sqrt(square)).astype("f4")
    return out
