"""Frames, sframes and cframes (spec datamodel §5.1, §5.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.frame import PER_ANGSTROM, Frame
from qlstream.io.errors import BadFile
from qlstream.io.fibernumbers import fiber_hdus, read_fibers
from qlstream.io.fitsfile import HDU, FitsFile, write_fits

FLAVORS = ("none", "flat", "arc", "zero", "bias", "science")
_OWN_CARDS = ("BUNIT", "FIBERMIN", "NSPEC", "WAVEMIN", "WAVEMAX", "WAVESTEP")


def read_frame(path: Path | str) -> Frame:
    """A frame; the width alternative is looked for as YSIGMA and as QUICKRESOLUTION.

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : an HDU is missing, its shape does not fit, or the wavelengths do not increase
    """
    with FitsFile(path) as fits:
        header = fits.header(0)
        flux = fits.image(fits.find("FLUX") or 0).astype(np.float64)
        if flux.ndim != 2:
            raise BadFile(fits.path, f"shape {flux.shape}", "FLUX", expected="(nspec, nwave)")
        wave = fits.image("WAVELENGTH", flux.shape[1:]).astype(np.float64)
        if not (np.diff(wave) > 0).all():
            raise BadFile(fits.path, "wavelengths do not increase", "WAVELENGTH", expected="an increasing grid")
        fibers, fibermap = read_fibers(fits, len(flux), header)
        width = fits.find("YSIGMA", "QUICKRESOLUTION")
        resolution = _optional(fits, "RESOLUTION")
        if resolution is not None and (resolution.ndim != 3 or resolution[:, 0].shape != flux.shape):
            raise BadFile(fits.path, f"shape {resolution.shape}", "RESOLUTION", expected="(nspec, ndiag, nwave)")
        return Frame(
            wave=wave,
            flux=flux,
            ivar=fits.image("IVAR", flux.shape).astype(np.float64),
            mask=fits.image("MASK", flux.shape).astype(np.uint32),
            fibers=fibers,
            resolution=resolution,
            ysigma=None if width is None else fits.image(width, flux.shape).astype(np.float64),
            ndiag=21 if width is None else int(fits.header(width).get("NDIAG", 21)),
            fibermap=fibermap,
            chi2pix=_optional(fits, "CHI2PIX", flux.shape),
            scores=fits.table("SCORES") if "SCORES" in fits else None,
            bunit=str(header.get("BUNIT", PER_ANGSTROM)).strip() or PER_ANGSTROM,
            meta={k: v for k, v in header.items() if k not in _OWN_CARDS},
        )


def write_frame(path: Path | str, frame: Frame) -> None:
    """FLUX, IVAR, MASK, WAVELENGTH, then RESOLUTION or YSIGMA, FIBERMAP, CHI2PIX and SCORES where known.

    Raises
    ------
    OSError : FLAVOR is missing, or not one of the flavors of the data model
    """
    flavor = str(frame.meta.get("FLAVOR", "")).strip().lower()
    if flavor not in FLAVORS:
        raise OSError(f"{path}: FLAVOR = {frame.meta.get('FLAVOR')!r}; a frame must say one of {', '.join(FLAVORS)}")
    meta = {k: v for k, v in frame.meta.items() if k not in _OWN_CARDS}
    own: dict[str, Any] = {
        "BUNIT": frame.bunit,
        "FIBERMIN": int(frame.fibers.min()),
        "NSPEC": frame.nspec,
        "WAVEMIN": float(frame.wave[0]),
        "WAVEMAX": float(frame.wave[-1]),
    }
    if len(frame.wave) > 1:
        own["WAVESTEP"] = float(np.median(np.diff(frame.wave)))
    hdus = [
        HDU("FLUX", frame.flux.astype(np.float32), {**meta, **own}),
        HDU("IVAR", frame.ivar.astype(np.float32)),
        HDU("MASK", frame.mask.astype(np.uint32)),
        HDU("WAVELENGTH", frame.wave, {"BUNIT": "Angstrom"}),
    ]
    if frame.resolution is not None:
        hdus.append(HDU("RESOLUTION", frame.resolution.astype(np.float32)))
    elif frame.ysigma is not None:
        hdus.append(HDU("YSIGMA", frame.ysigma.astype(np.float32), {"NDIAG": frame.ndiag}))
    hdus += fiber_hdus(frame.fibers, frame.fibermap)
    if frame.chi2pix is not None:
        hdus.append(HDU("CHI2PIX", frame.chi2pix.astype(np.float32)))
    if frame.scores is not None:
        hdus.append(HDU("SCORES", frame.scores))
    write_fits(path, hdus)


def _optional(fits: FitsFile, name: str, shape: tuple[int, ...] | None = None) -> NDArray[np.float64] | None:
    return fits.image(name, shape).astype(np.float64) if name in fits else None
