"""The PSF that was fitted to the arc, and where it was moved for a science exposure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from algorithms.extract.spectroperfect.spots import make_spots
from algorithms.extract.twodimensional import psf_with_traces
from benchmarks.offline.night import Night
from benchmarks.truth.line import Line
from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.datamodel.traces import XYTraceSet
from qlstream.io.psf import read_psf

Array = NDArray[np.float64]

_NWAVE = 50


def lines(night: Night, camera: str) -> Iterator[Line]:
    """Traces, widths and shape of the spots, in the science range."""
    wave = np.linspace(*night.instrument.arm(camera).wave_science, _NWAVE)
    arc, science = night.of_flavor("arc")[0], night.of_flavor("science")[0]
    fitted = read_psf(night.product("psfnight", camera=camera))
    true = psf_with_traces(night.calibration_psf(camera), night.truth(arc, camera).traces)
    yield from _traces("psf", fitted.traces, true.traces, wave, 0.005)
    for name in ("GHSIGX", "GHSIGY"):
        error = fitted.parameter(name, wave) / true.parameter(name, wave) - 1.0
        yield _scatter("psf", f"{name}, relative error, rms / worst", error, 100.0, "%", 1.0)
    yield _shape(fitted, true, wave)
    moved = read_psf(night.product("psf", science, camera))
    yield from _traces("traceshift", moved.traces, night.truth(science, camera).traces, wave, 0.01)


def _traces(step: str, found: XYTraceSet, true: XYTraceSet, wave: Array, aim: float) -> Iterator[Line]:
    """Errors of the positions; light is in all fibers of a lamp, so all count."""
    x = found.x_vs_wave(wave) - true.x_vs_wave(wave)
    y = (found.y_vs_wave(wave) - true.y_vs_wave(wave)) / true.dy_dwave(wave)
    yield _scatter(step, "x of the traces, error, rms / worst", x, 1.0, "pixel", aim)
    yield _scatter(step, "wavelengths of the traces, error, rms / worst", y, 1.0, "Angstrom", aim)


def _scatter(step: str, quantity: str, error: Array, unit: float, name: str, aim: float) -> Line:
    """The worst fiber is that of the largest median over wavelength, lest broken fibers decide."""
    rms = unit * float(np.sqrt(np.median(np.mean(error**2, axis=1))))
    worst = unit * float(np.abs(error).max())
    told = f"{rms:.4f} / {worst:.3f} {name}"
    return Line(step, quantity, "0", told, math.nan, f"rms ≤ {aim:g} {name}", rms <= aim)


def _shape(fitted: GaussHermitePSF, true: GaussHermitePSF, wave: Array) -> Line:
    """Half the sum of absolute differences: the light that stands in wrong pixels, both spots at the true place."""
    few = wave[5 :: _NWAVE // 5]
    fitted = psf_with_traces(fitted, replace(true.traces, xsigcoef=None, ysigcoef=None))  # keeps its own widths
    misplaced = []
    for first in range(0, true.nspec, max(1, true.nspec // 20)):
        expected = make_spots(true, first, first + 1, few)
        found = make_spots(fitted, first, first + 1, few)
        height = min(expected.image.shape[2], found.image.shape[2])
        width = min(expected.image.shape[3], found.image.shape[3])
        a, b = (_middle(spots.image, height, width) for spots in (expected, found))
        misplaced.append(0.5 * np.abs(a - b).sum(axis=(2, 3)))
    share = 100.0 * float(np.median(misplaced))
    told = f"{share:.3f} % (worst {100 * np.max(misplaced):.2f} %)"
    return Line("psf", "light of a spot in wrong pixels, median", "0", told, math.nan, "≤ 1 %", share <= 1.0)


def _middle(image: Array, height: int, width: int) -> Array:
    y, x = (image.shape[2] - height) // 2, (image.shape[3] - width) // 2
    return image[:, :, y : y + height, x : x + width]
