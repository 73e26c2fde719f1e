"""Fiber flats (spec datamodel §5.4)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.io.fibernumbers import fiber_hdus, read_fibers
from qlstream.io.fitsfile import HDU, FitsFile, write_fits

_OWN_CARDS = ("CHI2PDF", "BUNIT", "FIBERMIN")


def read_fiberflat(path: Path | str) -> FiberFlat:
    """A fiber flat; float64 in memory.

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : an HDU is missing or its shape does not fit
    """
    with FitsFile(path) as fits:
        header = fits.header(0)
        flat = fits.image(fits.find("FIBERFLAT") or 0).astype(np.float64)
        wave = fits.image("WAVELENGTH", flat.shape[1:]).astype(np.float64)
        fibers, fibermap = read_fibers(fits, len(flat), header)
        chi2pdf = header.get("CHI2PDF")
        return FiberFlat(
            wave=wave,
            fiberflat=flat,
            ivar=fits.image("IVAR", flat.shape).astype(np.float64),
            mask=fits.image("MASK", flat.shape).astype(np.uint32),
            meanspec=fits.image("MEANSPEC", wave.shape).astype(np.float64),
            fibers=fibers,
            chi2pdf=None if chi2pdf is None else float(chi2pdf),
            fibermap=fibermap,
            meta={k: v for k, v in header.items() if k not in _OWN_CARDS},
        )


def write_fiberflat(path: Path | str, flat: FiberFlat) -> None:
    """FIBERFLAT, IVAR, MASK, MEANSPEC, WAVELENGTH and the fibermap."""
    meta = {k: v for k, v in flat.meta.items() if k not in _OWN_CARDS}
    own = {"CHI2PDF": flat.chi2pdf, "BUNIT": "", "FIBERMIN": int(flat.fibers.min())}
    write_fits(
        path,
        [
            HDU("FIBERFLAT", flat.fiberflat.astype(np.float32), {**meta, **own}),
            HDU("IVAR", flat.ivar.astype(np.float32), {"BUNIT": ""}),
            HDU("MASK", flat.mask.astype(np.uint32)),
            HDU("MEANSPEC", flat.meanspec.astype(np.float32), {"BUNIT": "electron/Angstrom"}),
            HDU("WAVELENGTH", flat.wave.astype(np.float32), {"BUNIT": "Angstrom"}),
            *fiber_hdus(flat.fibers, flat.fibermap),
        ],
    )
