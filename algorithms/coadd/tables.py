"""The tables of a coadd: one row per target, and one per exposure that went into it (spec datamodel §8.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algorithms.coadd.norms import Norms
from algorithms.coadd.rows import Rows
from qlstream.datamodel.masks import FiberMask, fatal_fiber_bits

Array = NDArray[np.float64]

_PER_EXPOSURE = (
    *("TARGETID", "PRIORITY", "SUBPRIORITY", "NIGHT", "EXPID", "MJD", "TILEID", "EXPTIME", "PETAL_LOC", "DEVICE_LOC"),
    *("LOCATION", "FIBER", "FIBERSTATUS", "FIBERASSIGN_X", "FIBERASSIGN_Y", "LAMBDA_REF", "PLATE_RA", "PLATE_DEC"),
    *("NUM_ITER", "FIBER_X", "FIBER_Y", "DELTA_X", "DELTA_Y", "FIBER_RA", "FIBER_DEC", "PSF_TO_FIBER_SPECFLUX"),
    *("FLAT_TO_PSF_FLUX", "HELIOCOR_OFFSET"),
)
# of these, what does not change within a tile stays with the target if all exposures are of one tile
_OF_ONE_TILE = frozenset(
    ("TILEID", "PETAL_LOC", "DEVICE_LOC", "LOCATION", "FIBER", "PRIORITY", "SUBPRIORITY", "PLATE_RA", "PLATE_DEC")
)


def coadd_fibermap(
    fibermap: NDArray[Any], rows: Rows, used: Mapping[str, NDArray[np.bool_]], norms: Norms
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Fibermap of the targets, and of their exposures.

    Parameters
    ----------
    fibermap : (nspec,) rows
    rows : which belong to which target, in the order of the result
    used : band -> (nspec,) rows that went into the coadd; a target without any is told of by all its exposures
    norms : the factors with which they went into it; variable targets get the bit VARIABLE
    """
    names = fibermap.dtype.names or ()
    ntarget, group, first = len(rows), rows.group, rows.first
    whole = np.logical_or.reduce([np.asarray(u) for u in used.values()]) if used else np.ones(len(group), dtype=bool)
    one_tile = "TILEID" in names and np.unique(fibermap["TILEID"]).size == 1
    per_exposure = frozenset(_PER_EXPOSURE) - {"TARGETID"} - (_OF_ONE_TILE if one_tile else frozenset())
    columns: dict[str, NDArray[Any]] = {}
    for name in names:
        if name.endswith("_TARGET") and fibermap[name].dtype.kind in "iu":
            columns[name] = np.zeros(ntarget, fibermap[name].dtype)  # a target may be chosen anew between tiles
            np.bitwise_or.at(columns[name], group, fibermap[name])
        elif name not in per_exposure:
            columns[name] = fibermap[name][first]
    told = rows.or_all(whole)  # a target without a good exposure still was somewhere, at some time
    columns |= _counts(fibermap, group, ntarget, whole)
    columns |= _times(fibermap, group, ntarget, told)
    if "FIBERSTATUS" in names:
        status = _status(fibermap["FIBERSTATUS"], group, ntarget, told, used)
        columns["COADD_FIBERSTATUS"] = status | np.where(norms.variable, int(FiberMask.VARIABLE), 0).astype("i4")
    columns |= _means(fibermap, rows, told, one_tile)
    exposures: dict[str, NDArray[Any]] = {name: fibermap[name] for name in _PER_EXPOSURE if name in names}
    exposures |= {f"IN_COADD_{band.upper()}": np.asarray(u) for band, u in used.items()}
    exposures |= {"COADD_NORM": norms.factor.astype("f4"), "SIGMA_COADD_NORM": norms.sigma.astype("f4")}
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
    return out


def _times(
    fibermap: NDArray[Any], group: NDArray[np.int64], ntarget: int, used: NDArray[np.bool_]
) -> dict[str, NDArray[Any]]:
    names = fibermap.dtype.names or ()
    out: dict[str, NDArray[Any]] = {}
    if "NIGHT" in names:
        night = fibermap["NIGHT"].astype("i4")[used]
        out["FIRSTNIGHT"], out["LASTNIGHT"] = _extremes(night, group[used], ntarget)
    if "MJD" in names:
        mjd = fibermap["MJD"].astype("f8")[used]
        low, high = _extremes(mjd, group[used], ntarget)
        total = np.bincount(group[used], mjd, ntarget) / np.maximum(np.bincount(group[used], minlength=ntarget), 1)
        out |= {"MIN_MJD": low, "MEAN_MJD": total, "MAX_MJD": high}
    return out


def _status(
    fiberstatus: NDArray[Any],
    group: NDArray[np.int64],
    ntarget: int,
    whole: NDArray[np.bool_],
    used: Mapping[str, NDArray[np.bool_]],
) -> NDArray[np.int32]:
    """The bits that all exposures in the coadd have; of a target without a good one in any band, those of any."""
    status = fiberstatus.astype("i4")
    good = np.zeros(len(status), dtype=bool)
    for band in used:
        good |= (status.astype(np.int64) & int(fatal_fiber_bits("all", band[0]))) == 0
    common, any_of = np.full(ntarget, -1, "i4"), np.zeros(ntarget, "i4")
    np.bitwise_and.at(common, group[whole], status[whole])
    np.bitwise_or.at(any_of, group, status)
    hopeless = np.bincount(group[good], minlength=ntarget) == 0
    return np.where(hopeless, any_of, common).astype("i4")


def _extremes(values: NDArray[Any], group: NDArray[np.int64], ntarget: int) -> tuple[NDArray[Any], NDArray[Any]]:
    low, high = np.full(ntarget, values.max(), values.dtype), np.full(ntarget, values.min(), values.dtype)
    np.minimum.at(low, group, values)
    np.maximum.at(high, group, values)
    return low, high


def _means(fibermap: NDArray[Any], rows: Rows, used: NDArray[np.bool_], one_tile: bool) -> dict[str, NDArray[Any]]:
    """Mean and scatter of where the fiber was. In the focal plane that means something within one tile only."""
    names = fibermap.dtype.names or ()
    group, ntarget = rows.group, len(rows)
    out: dict[str, NDArray[Any]] = {}
    for column in ("DELTA_X", "DELTA_Y"):
        if column in names:
            mean, spread = _moments(fibermap[column], group, ntarget, used)
            out[f"MEAN_{column}"] = mean.astype("f4")
            out[f"RMS_{column}"] = np.hypot(mean, spread).astype("f4")
    for column in ("FIBER_X", "FIBER_Y") if one_tile else ():
        if column in names:
            out[f"MEAN_{column}"] = _moments(fibermap[column], group, ntarget, used)[0].astype("f4")
    if "FIBER_RA" in names and "FIBER_DEC" in names:
        dec, spread_dec = _moments(fibermap["FIBER_DEC"], group, ntarget, used)
        start = fibermap["FIBER_RA"].astype("f8")[rows.first]
        start = np.where(np.isfinite(start), start, 0.0)
        near = (fibermap["FIBER_RA"] - start[group] + 180.0) % 360.0 - 180.0  # 359.9 and 0.1 deg are neighbours
        ra, spread_ra = _moments(near, group, ntarget, used)
        out["MEAN_FIBER_RA"] = (start + ra) % 360.0
        out["STD_FIBER_RA"] = (3600.0 * spread_ra * np.cos(np.deg2rad(dec))).astype("f4")  # arcsec on the sky
        out["MEAN_FIBER_DEC"], out["STD_FIBER_DEC"] = dec, (3600.0 * spread_dec).astype("f4")
    if "PSF_TO_FIBER_SPECFLUX" in names:
        mean, _ = _moments(fibermap["PSF_TO_FIBER_SPECFLUX"], group, ntarget, used)
        out["MEAN_PSF_TO_FIBER_SPECFLUX"] = mean.astype("f4")
    return out


def _moments(
    column: NDArray[Any], group: NDArray[np.int64], ntarget: int, used: NDArray[np.bool_]
) -> tuple[Array, Array]:
    """Mean and standard deviation over the exposures of each target that tell; 0 where none does."""
    values = column.astype(float)
    good = used & np.isfinite(values)
    number = np.maximum(np.bincount(group[good], minlength=ntarget), 1)
    mean = np.bincount(group[good], values[good], ntarget) / number
    square = np.bincount(group[good], (values[good] - mean[group[good]]) ** 2, ntarget) / number
    return mean, np.sqrt(square)
