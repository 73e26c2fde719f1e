"""Spectra and coadds (spec datamodel §8)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qlstream.datamodel.spectra import Band, Spectra
from qlstream.io.errors import BadFile
from qlstream.io.fibermap import UNITS
from qlstream.io.fitsfile import HDU, FitsFile, write_fits

_FLUX_UNIT = "10**-17 erg/(s cm2 Angstrom)"
_IVAR_UNIT = "10**+34 (s2 cm4 Angstrom2) / erg2"


def read_spectra(path: Path | str) -> Spectra:
    """Spectra or a coadd; bands are named in lower case. HDUs are found by name, whatever their order.

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : no FIBERMAP, no band, or shapes that do not fit
    """
    with FitsFile(path) as fits:
        names = [n for n in fits.names if n.endswith("_WAVELENGTH")]
        if not names:
            raise BadFile(fits.path, "no band", expected="HDUs like B_WAVELENGTH, B_FLUX, B_IVAR")
        bands = {}
        for name in names:
            letter = name.removesuffix("_WAVELENGTH")
            wave = fits.image(name).astype(np.float64)
            flux = fits.image(f"{letter}_FLUX").astype(np.float64)
            mask = f"{letter}_MASK"
            resolution = f"{letter}_RESOLUTION"
            bands[letter.lower()] = Band(
                wave,
                flux,
                fits.image(f"{letter}_IVAR", flux.shape).astype(np.float64),
                fits.image(mask, flux.shape).astype(np.uint32) if mask in fits else np.zeros(flux.shape, np.uint32),
                fits.image(resolution) if resolution in fits else None,
            )
        try:
            return Spectra(
                bands,
                fits.table("FIBERMAP"),
                fits.table("EXP_FIBERMAP") if "EXP_FIBERMAP" in fits else None,
                fits.table("SCORES") if "SCORES" in fits else None,
                fits.header(0),
            )
        except ValueError as error:
            raise BadFile(fits.path, str(error)) from None


def write_spectra(path: Path | str, spectra: Spectra) -> None:
    """FIBERMAP, EXP_FIBERMAP of a coadd, the HDUs of each band, SCORES."""
    hdus = [HDU("", None, spectra.meta), HDU("FIBERMAP", spectra.fibermap, units=UNITS)]
    if spectra.exp_fibermap is not None:
        hdus.append(HDU("EXP_FIBERMAP", spectra.exp_fibermap, units=UNITS))
    for name, band in spectra.bands.items():
        letter = name.upper()
        hdus += [
            HDU(f"{letter}_WAVELENGTH", band.wave, {"BUNIT": "Angstrom"}),
            HDU(f"{letter}_FLUX", band.flux.astype(np.float32), {"BUNIT": _FLUX_UNIT}),
            HDU(f"{letter}_IVAR", band.ivar.astype(np.float32), {"BUNIT": _IVAR_UNIT}),
            HDU(f"{letter}_MASK", band.mask.astype(np.int32)),
        ]
        if band.resolution is not None:
            hdus.append(HDU(f"{letter}_RESOLUTION", band.resolution.astype(np.float32)))
    if spectra.scores is not None:
        hdus.append(HDU("SCORES", spectra.scores))
    write_fits(path, hdus)
