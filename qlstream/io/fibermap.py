"""Fibermap files, and the FIBERMAP HDU of other products."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qlstream.datamodel.fibermap import Fibermap
from qlstream.io.errors import BadFile
from qlstream.io.fitsfile import HDU, FitsFile, write_fits

_UNITS = {
    unit: names.split()
    for unit, names in {
        "deg": "TARGET_RA TARGET_DEC PLATE_RA PLATE_DEC FIBER_RA FIBER_DEC",
        "mas yr-1": "PMRA PMDEC",
        "mas": "PARALLAX",
        "yr": "REF_EPOCH",
        "Angstrom": "LAMBDA_REF",
        "mm": "FIBERASSIGN_X FIBERASSIGN_Y FIBER_X FIBER_Y DELTA_X DELTA_Y",
        "mag": "EBV GAIA_PHOT_G_MEAN_MAG GAIA_PHOT_BP_MEAN_MAG GAIA_PHOT_RP_MEAN_MAG",
        "nanomaggy": "FLUX_G FLUX_R FLUX_Z FLUX_W1 FLUX_W2 FIBERFLUX_G FIBERFLUX_R FIBERFLUX_Z "
        "FIBERTOTFLUX_G FIBERTOTFLUX_R FIBERTOTFLUX_Z",
        "nanomaggy^-2": "FLUX_IVAR_G FLUX_IVAR_R FLUX_IVAR_Z FLUX_IVAR_W1 FLUX_IVAR_W2",
        "arcsec": "SHAPE_R",
        "s": "EXPTIME",
        "d": "MJD",
    }.items()
}
UNITS = {name: unit for unit, names in _UNITS.items() for name in names}  # spec datamodel §4


def read_fibermap(path: Path | str) -> Fibermap:
    """The FIBERMAP table of a fibermap file or of any product that carries one; all its rows.

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : no FIBERMAP HDU, unreadable, or without a FIBER column
    """
    with FitsFile(path) as fits:
        return fibermap_of(fits)


def fibermap_of(fits: FitsFile) -> Fibermap:
    """As `read_fibermap`, of an open file."""
    rows, meta = fits.table("FIBERMAP"), fits.header("FIBERMAP")
    try:
        return Fibermap(rows, meta)
    except ValueError as error:
        raise BadFile(fits.path, str(error), "FIBERMAP") from None


def write_fibermap(path: Path | str, fibermap: Fibermap) -> None:
    """An empty HDU 0 and the table as FIBERMAP, sorted by FIBER."""
    order = np.argsort(fibermap.fiber, kind="stable")
    write_fits(path, [HDU("", None), fibermap_hdu(Fibermap(fibermap.rows[order], fibermap.meta))])


def fibermap_hdu(fibermap: Fibermap) -> HDU:
    """The table as an HDU, with the units of the data model."""
    return HDU("FIBERMAP", fibermap.rows, fibermap.meta, units=UNITS)
