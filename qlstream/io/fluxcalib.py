"""Flux calibrations: the average of a calibration tree, and the vectors of one exposure."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qlstream.datamodel.fluxcalib import FluxCalib
from qlstream.io.errors import BadFile
from qlstream.io.fitsfile import HDU, FitsFile, required, write_fits


def read_average_fluxcalib(path: Path | str) -> FluxCalib:
    """The average calibration vector of an arm, with its airmass and seeing terms (spec raw-and-calib §8).

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : FLUXCALIB or WAVELENGTH is missing, or shapes do not fit
    """
    with FitsFile(path) as fits:
        wave = fits.image("WAVELENGTH").astype(np.float64)
        if wave.ndim != 1 or not (np.diff(wave) > 0).all():
            raise BadFile(fits.path, f"shape {wave.shape}", "WAVELENGTH", expected="increasing wavelengths (nwave,)")
        terms, reference = {}, {}
        for name, keyword, default in (("ATERM", "PAIRMASS", 1.0), ("STERM", "PSEEING", 1.1)):
            have = name in fits
            terms[name] = fits.image(name, wave.shape).astype(np.float64) if have else np.zeros_like(wave)
            cards = {**fits.header(fits.require("FLUXCALIB")), **(fits.header(name) if have else {})}
            reference[name] = default if keyword not in cards else required(fits.path, cards, keyword, float, name)
        return FluxCalib(
            wave=wave,
            value=fits.image("FLUXCALIB", wave.shape).astype(np.float64),
            airmass_term=terms["ATERM"],
            seeing_term=terms["STERM"],
            airmass=reference["ATERM"],
            seeing=reference["STERM"],
            meta=fits.header(fits.require("FLUXCALIB")),
        )


def write_average_fluxcalib(path: Path | str, calib: FluxCalib) -> None:
    """FLUXCALIB, ATERM, STERM and WAVELENGTH, all float32."""
    write_fits(
        path,
        [
            HDU("FLUXCALIB", calib.value.astype(np.float32), calib.meta),
            HDU("ATERM", calib.airmass_term.astype(np.float32), {"PAIRMASS": calib.airmass}),
            HDU("STERM", calib.seeing_term.astype(np.float32), {"PSEEING": calib.seeing}),
            HDU("WAVELENGTH", calib.wave.astype(np.float32), {"BUNIT": "Angstrom"}),
        ],
    )
