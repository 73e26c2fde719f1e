"""Quicklook spectra on the row grid of each fiber (spec datamodel §5.3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qlstream.datamodel.qframe import ELECTRON, QFrame
from qlstream.io.fibernumbers import fiber_hdus, read_fibers
from qlstream.io.fitsfile import HDU, FitsFile, write_fits

_OWN_CARDS = ("BUNIT", "FIBERMIN", "NSPEC")


def read_qframe(path: Path | str) -> QFrame:
    """A qframe; its widths are looked for as YSIGMA and as SIGMA, and are None if they are all zero.

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : an HDU is missing or its shape is not that of the flux
    """
    with FitsFile(path) as fits:
        header = fits.header(0)
        flux = fits.image(fits.find("FLUX") or 0).astype(np.float32, copy=False)
        fibers, fibermap = read_fibers(fits, len(flux), header)
        at = fits.find("YSIGMA", "SIGMA")
        ysigma = None if at is None else fits.image(at, flux.shape).astype(np.float32, copy=False)
        return QFrame(
            wave=fits.image("WAVELENGTH", flux.shape).astype(np.float64, copy=False),
            flux=flux,
            ivar=fits.image("IVAR", flux.shape).astype(np.float32, copy=False),
            mask=fits.image("MASK", flux.shape).astype(np.uint32, copy=False),
            fibers=fibers,
            ysigma=ysigma if ysigma is not None and ysigma.any() else None,
            fibermap=fibermap,
            bunit=str(header.get("BUNIT", ELECTRON)).strip() or ELECTRON,
            meta={k: v for k, v in header.items() if k not in _OWN_CARDS},
        )


def write_qframe(path: Path | str, qframe: QFrame) -> None:
    """FLUX, IVAR, MASK, YSIGMA (zeros if unknown), WAVELENGTH and the fibermap."""
    meta = {k: v for k, v in qframe.meta.items() if k not in _OWN_CARDS}
    own = {"BUNIT": qframe.bunit, "FIBERMIN": int(qframe.fibers.min()), "NSPEC": qframe.nspec}
    ysigma = np.zeros_like(qframe.flux) if qframe.ysigma is None else qframe.ysigma
    write_fits(
        path,
        [
            HDU("FLUX", qframe.flux.astype(np.float32, copy=False), {**meta, **own}),
            HDU("IVAR", qframe.ivar.astype(np.float32, copy=False)),
            HDU("MASK", qframe.mask.astype(np.uint32, copy=False)),
            HDU("YSIGMA", ysigma.astype(np.float32, copy=False), {"BUNIT": "pixel"}),
            HDU("WAVELENGTH", qframe.wave.astype(np.float64, copy=False), {"BUNIT": "Angstrom"}),
            *fiber_hdus(qframe.fibers, qframe.fibermap),
        ],
    )
