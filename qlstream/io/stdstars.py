"""Grids of star templates, and the fitted standard stars of a petal (spec datamodel §5.6)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qlstream.datamodel.stars import StarTemplates, StdStars
from qlstream.io.errors import BadFile
from qlstream.io.fibermap import UNITS
from qlstream.io.fitsfile import HDU, FitsFile, required, write_fits

_PARAMETERS = ("TEFF", "LOGG", "FEH")


def read_star_templates(path: Path | str) -> StarTemplates:
    """A grid of templates: FLUX in HDU 0, a METADATA table with TEFF, LOGG and FEH.

    Wavelengths come from an HDU WAVELENGTH, else from CRVAL1, CDELT1 (and LOGLAM) of HDU 0.

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : parts are missing or do not fit
    """
    with FitsFile(path) as fits:
        header, flux = fits.header(0), fits.image(fits.find("FLUX") or 0).astype(np.float32)
        if flux.ndim != 2:
            raise BadFile(fits.path, f"shape {flux.shape}", 0, expected="(ntemplate, nwave)")
        if "WAVELENGTH" in fits:
            wave = fits.image("WAVELENGTH", flux.shape[1:]).astype(np.float64)
        else:
            start = required(fits.path, fits.full_header(0), "CRVAL1", float, 0)
            step = required(fits.path, fits.full_header(0), "CDELT1", float, 0)
            wave = start + step * np.arange(flux.shape[1])
            wave = 10**wave if header.get("LOGLAM") else wave
        table = fits.table(fits.require("METADATA", "STDSTAR_METADATA"))
        missing = [name for name in _PARAMETERS if name not in (table.dtype.names or ())]
        if missing or len(table) != len(flux):
            raise BadFile(
                fits.path, f"{len(table)} rows with {table.dtype.names}", "METADATA",
                expected=f"{len(flux)} rows with {', '.join(_PARAMETERS)}",
            )  # fmt: skip
        teff, logg, feh = (table[name].astype(np.float64) for name in _PARAMETERS)
        return StarTemplates(wave, flux, teff, logg, feh)


def write_star_templates(path: Path | str, templates: StarTemplates) -> None:
    """FLUX, METADATA and WAVELENGTH, in the order in which desispec looks for them."""
    table = np.zeros(len(templates), dtype=[("TEMPLATEID", "i4"), *((name, "f8") for name in _PARAMETERS)])
    table["TEMPLATEID"] = np.arange(len(templates))
    for name, values in zip(_PARAMETERS, (templates.teff, templates.logg, templates.feh), strict=True):
        table[name] = values
    wave = HDU("WAVELENGTH", templates.wave, {"BUNIT": "Angstrom"})
    write_fits(path, [HDU("FLUX", templates.flux), HDU("METADATA", table), wave])


def read_stdstars(path: Path | str) -> StdStars:
    """Fitted standard stars.

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : an HDU is missing or does not fit
    """
    with FitsFile(path) as fits:
        flux = fits.image(fits.find("FLUX") or 0).astype(np.float64)
        try:
            return StdStars(
                wave=fits.image("WAVELENGTH", flux.shape[1:]).astype(np.float64),
                flux=flux,
                fibers=fits.image("FIBERS", flux.shape[:1]).astype(np.int32),
                metadata=fits.table("METADATA"),
                coef=fits.image("COEFF").astype(np.float64),
                fibermap=fits.table("FIBERMAP") if "FIBERMAP" in fits else None,
                inputs=fits.table("INPUT_FRAMES") if "INPUT_FRAMES" in fits else None,
                meta={k: v for k, v in fits.header(0).items() if k != "BUNIT"},
            )
        except ValueError as error:
            raise BadFile(fits.path, str(error)) from None


def write_stdstars(path: Path | str, stars: StdStars) -> None:
    """FLUX, WAVELENGTH, FIBERS, METADATA, COEFF, FIBERMAP and INPUT_FRAMES."""
    hdus = [
        HDU("FLUX", stars.flux.astype(np.float32), {**stars.meta, "BUNIT": "10**-17 erg/(s cm2 Angstrom)"}),
        HDU("WAVELENGTH", stars.wave.astype(np.float32), {"BUNIT": "Angstrom"}),
        HDU("FIBERS", stars.fibers.astype(np.int32)),
        HDU("METADATA", stars.metadata),
        HDU("COEFF", stars.coef),
    ]
    if stars.fibermap is not None:
        hdus.append(HDU("FIBERMAP", stars.fibermap, units=UNITS))
    if stars.inputs is not None:
        hdus.append(HDU("INPUT_FRAMES", stars.inputs))
    write_fits(path, hdus)
