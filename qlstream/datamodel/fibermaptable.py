"""The layout of a FIBERMAP table: its columns, their order and types (spec datamodel §4)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Columns of the surveys main and special, in order
COLUMNS = np.dtype(
    [
        ("TARGETID", "i8"), ("PETAL_LOC", "i2"), ("DEVICE_LOC", "i4"), ("LOCATION", "i8"), ("FIBER", "i4"),
        ("FIBERSTATUS", "i4"), ("TARGET_RA", "f8"), ("TARGET_DEC", "f8"), ("DESINAME", "S22"), ("PMRA", "f4"),
        ("PMDEC", "f4"), ("REF_EPOCH", "f4"), ("LAMBDA_REF", "f4"), ("FA_TARGET", "i8"), ("FA_TYPE", "u1"),
        ("OBJTYPE", "S3"), ("FIBERASSIGN_X", "f4"), ("FIBERASSIGN_Y", "f4"), ("PRIORITY", "i4"),
        ("SUBPRIORITY", "f8"), ("OBSCONDITIONS", "i4"), ("RELEASE", "i2"), ("BRICKNAME", "S8"), ("BRICKID", "i4"),
        ("BRICK_OBJID", "i4"), ("MORPHTYPE", "S4"), ("EBV", "f4"), ("FLUX_G", "f4"), ("FLUX_R", "f4"),
        ("FLUX_Z", "f4"), ("FLUX_W1", "f4"), ("FLUX_W2", "f4"), ("FLUX_IVAR_G", "f4"), ("FLUX_IVAR_R", "f4"),
        ("FLUX_IVAR_Z", "f4"), ("FLUX_IVAR_W1", "f4"), ("FLUX_IVAR_W2", "f4"), ("FIBERFLUX_G", "f4"),
        ("FIBERFLUX_R", "f4"), ("FIBERFLUX_Z", "f4"), ("FIBERTOTFLUX_G", "f4"), ("FIBERTOTFLUX_R", "f4"),
        ("FIBERTOTFLUX_Z", "f4"), ("MASKBITS", "i2"), ("SERSIC", "f4"), ("SHAPE_R", "f4"), ("SHAPE_E1", "f4"),
        ("SHAPE_E2", "f4"), ("REF_ID", "i8"), ("REF_CAT", "S2"), ("GAIA_PHOT_G_MEAN_MAG", "f4"),
        ("GAIA_PHOT_BP_MEAN_MAG", "f4"), ("GAIA_PHOT_RP_MEAN_MAG", "f4"), ("PARALLAX", "f4"), ("PHOTSYS", "S1"),
        ("PRIORITY_INIT", "i8"), ("NUMOBS_INIT", "i8"), ("DESI_TARGET", "i8"), ("BGS_TARGET", "i8"),
        ("MWS_TARGET", "i8"), ("SCND_TARGET", "i8"), ("PLATE_RA", "f8"), ("PLATE_DEC", "f8"), ("NUM_ITER", "i8"),
        ("FIBER_X", "f8"), ("FIBER_Y", "f8"), ("DELTA_X", "f8"), ("DELTA_Y", "f8"), ("FIBER_RA", "f8"),
        ("FIBER_DEC", "f8"), ("EXPTIME", "f8"),
    ]
)  # fmt: skip
_SURVEY_TARGETS = {
    "cmx": ("CMX_TARGET",),
    **{
        f"sv{i}": tuple(f"SV{i}_{kind}_TARGET" for kind in ("DESI", "BGS", "MWS", "SCND"))
        for i in (1, 2, 3)
    },
}  # fmt: skip


def survey_of(columns: Iterable[str]) -> str:
    """The survey whose target columns these are: cmx, sv1, sv2, sv3, else main (spec masks-and-targets §7.1)."""
    for name in columns:
        prefix = name.partition("_")[0].lower()
        if name.endswith("_TARGET") and prefix in _SURVEY_TARGETS:
            return prefix
    return "main"


def columns_of(survey: str) -> np.dtype[np.void]:
    """The columns of a survey: early ones have target columns of their own before DESI_TARGET, and no SCND_TARGET."""
    own = _SURVEY_TARGETS.get(survey.strip().lower())
    if own is None:
        return COLUMNS
    fields = [(name, COLUMNS[name]) for name in COLUMNS.names or () if name != "SCND_TARGET"]
    at = [name for name, _ in fields].index("DESI_TARGET")
    return np.dtype([*fields[:at], *((name, np.dtype("i8")) for name in own), *fields[at:]])


def desiname(ra: ArrayLike, dec: ArrayLike) -> NDArray[np.str_]:
    """Names from positions [degree]: `DESI J170.2390-07.0930`; digits beyond 1e-4 degree are cut, not rounded.

    Positions that are not finite have no name.
    """
    ra, dec = np.atleast_1d(np.asarray(ra, dtype=float)), np.atleast_1d(np.asarray(dec, dtype=float))
    names = [
        f"DESI J{_cut(r):08.4f}{'-' if d < 0 else '+'}{_cut(abs(d)):07.4f}" if np.isfinite(r) and np.isfinite(d) else ""
        for r, d in zip(ra, dec, strict=True)
    ]
    return np.array(names, dtype="U22")


def _cut(degrees: float) -> float:
    return int(round(degrees * 1e4, 6)) / 1e4  # rounded far below the cut, so that 10.1 does not become 10.0999
