"""Flux calibrations: the average of a calibration tree, and the vectors of one exposure."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qlstream.datamodel.fluxcalib import FluxCalib, FrameFluxCalib
from qlstream.io.errors import BadFile
from qlstream.io.fitsfile import HDU, FitsFile, required, write_fits

_CALIB_UNIT = "10**+17 cm2 count s / erg"


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


def read_fluxcalib(path: Path | str) -> FrameFluxCalib:
    """The calibration vectors of one camera in one exposure.

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : an HDU is missing or its shape does not fit
    """
    with FitsFile(path) as fits:
        value = fits.image(fits.find("FLUXCALIB") or 0).astype(np.float64)
        if value.ndim != 2:
            raise BadFile(fits.path, f"shape {value.shape}", "FLUXCALIB", expected="(nspec, nwave)")
        wave = fits.image("WAVELENGTH", value.shape[1:]).astype(np.float64)
        deconvolved = "DECONVOLVED_CALIB"
        return FrameFluxCalib(
            wave=wave,
            value=value,
            ivar=fits.image("IVAR", value.shape).astype(np.float64),
            mask=fits.image("MASK", value.shape).astype(np.uint32),
            fibercorr=fits.table("FIBERCORR") if "FIBERCORR" in fits else None,
            stdstar_fibermap=fits.table("STDSTAR_FIBERMAP") if "STDSTAR_FIBERMAP" in fits else None,
            deconvolved=fits.image(deconvolved, wave.shape).astype(np.float64) if deconvolved in fits else None,
            meta={k: v for k, v in fits.header(0).items() if k != "BUNIT"},
        )


def write_fluxcalib(path: Path | str, calib: FrameFluxCalib) -> None:
    """FLUXCALIB (float64), IVAR, MASK, WAVELENGTH, and the tables and mean vector that are known."""
    hdus = [
        HDU("FLUXCALIB", calib.value, {**calib.meta, "BUNIT": _CALIB_UNIT}),
        HDU("IVAR", calib.ivar.astype(np.float32)),
        HDU("MASK", calib.mask.astype(np.uint32)),
        HDU("WAVELENGTH", calib.wave.astype(np.float32), {"BUNIT": "Angstrom"}),
    ]
    if calib.fibercorr is not None:
        hdus.append(HDU("FIBERCORR", calib.fibercorr))
    if calib.stdstar_fibermap is not None:
        hdus.append(HDU("STDSTAR_FIBERMAP", calib.stdstar_fibermap))
    if calib.deconvolved is not None:
        hdus.append(HDU("DECONVOLVED_CALIB", calib.deconvolved, {"BUNIT": _CALIB_UNIT}))
    write_fits(path, hdus)
