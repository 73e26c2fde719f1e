"""The truth about one camera of one exposure, and its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.datamodel.traces import XYTraceSet
from qlstream.io.fitsfile import HDU, write_fits

COSMIC = np.dtype([("Y", "i2"), ("X", "i2"), ("ELECTRON", "f4")])


@dataclass(frozen=True)
class Truth:
    """What a perfect reduction of the exposure would find.

    Attributes
    ----------
    wave : (nspec, ny) float64, wavelength at the centre of each CCD row [Angstrom, vacuum]
    sky, target : (nspec, ny) float64, expected electrons per row that land on the CCD from sky (or lamps) and from
        the target, before the pixel flat
    image : (ny, nx) float32, expected electrons of sky, lamps and targets: no pixel flat, dark, cosmic rays or noise
    cosmics : (ny, nx) float32, electrons from cosmic rays
    psf : traces and spots of this exposure
    shift_wave, dx, dy : (n,), (nspec, n), (nspec, n): how its traces differ from the calibration's [Angstrom], [pixel]
    fiberflat : (nspec, ny) float64, each fiber's throughput against the median fiber's at the same wavelength
    throughput : (nspec, ny) float64, electrons per second and Angstrom for a flux of 1e-17 erg/s/cm2/Angstrom
        that enters the fiber
    targets : (nspec,) structured array: FIBER, KIND, REDSHIFT, ENTERS (fraction of the target's light in the fiber)
    faults : what was broken on purpose, as given
    """

    wave: NDArray[np.float64]
    sky: NDArray[np.float64]
    target: NDArray[np.float64]
    image: NDArray[np.float32]
    cosmics: NDArray[np.float32]
    psf: GaussHermitePSF
    shift_wave: NDArray[np.float64]
    dx: NDArray[np.float64]
    dy: NDArray[np.float64]
    fiberflat: NDArray[np.float64]
    throughput: NDArray[np.float64]
    targets: NDArray[Any]
    faults: tuple[str, ...] = ()

    @property
    def traces(self) -> XYTraceSet:
        """Traces of this exposure."""
        return self.psf.traces

    @property
    def flux(self) -> NDArray[np.float64]:
        """(nspec, ny) all expected electrons per row."""
        return self.sky + self.target


def write_truth(path: Path, truth: Truth, cards: Mapping[str, Any], with_image: bool = False) -> None:
    """Write truth-CAMERA-EXPID.fits.

    HDUs WAVELENGTH, SKY, TARGET, FIBERFLAT, THROUGHPUT (nspec, ny); XTRACE, YTRACE, XSIG, YSIG (Legendre series with
    WAVEMIN and WAVEMAX); SHIFT_WAVE, DX, DY; COSMICS (table of the pixels with more than 0.1 electron); TARGETS;
    and IMAGE if asked for.
    """
    traces = truth.traces
    domain = {"WAVEMIN": traces.wavemin, "WAVEMAX": traces.wavemax, "NPIX_Y": traces.npix_y}
    faults = {f"FAULT{i:02d}": text for i, text in enumerate(truth.faults)}
    hdus = [
        HDU("", None, {**cards, **faults}),
        HDU("WAVELENGTH", truth.wave, {"BUNIT": "Angstrom"}),
        HDU("SKY", truth.sky.astype("f4"), {"BUNIT": "electron"}),
        HDU("TARGET", truth.target.astype("f4"), {"BUNIT": "electron"}),
        HDU("FIBERFLAT", truth.fiberflat.astype("f4")),
        HDU("THROUGHPUT", truth.throughput.astype("f4")),
        HDU("XTRACE", traces.xcoef, domain),
        HDU("YTRACE", traces.ycoef, domain),
        HDU("XSIG", traces.xsigcoef, domain),
        HDU("YSIG", traces.ysigcoef, domain),
        HDU("SHIFT_WAVE", truth.shift_wave, {"BUNIT": "Angstrom"}),
        HDU("DX", truth.dx, {"BUNIT": "pixel"}),
        HDU("DY", truth.dy, {"BUNIT": "pixel"}),
        HDU("COSMICS", _sparse(truth.cosmics)),
        HDU("TARGETS", truth.targets),
    ]
    if with_image:
        hdus.append(HDU("IMAGE", truth.image, {"BUNIT": "electron"}))
    write_fits(path, hdus)


def _sparse(cosmics: NDArray[np.float32]) -> NDArray[Any]:
    y, x = np.nonzero(cosmics > 0.1)
    table = np.zeros(len(y), dtype=COSMIC)
    table["Y"], table["X"], table["ELECTRON"] = y, x, cosmics[y, x]
    return table
