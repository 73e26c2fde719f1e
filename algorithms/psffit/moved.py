"""The PSF that the measured spots of a bundle ask for, near the one that the fit started from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from algorithms.psffit.field import fit_field
from algorithms.psffit.moments import Moments
from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.datamodel.traces import XYTraceSet
from qlstream.numeric import legendre

Array = NDArray[np.float64]

_NODES = 81
_WIDTHS = (("GHSIGX", (1, 0), (2, 0)), ("GHSIGY", (0, 1), (0, 2)))  # with the terms of place and width along that axis
_FLOOR = 2e-4  # relative error of any coefficient: keeps the brightest lines from ruling alone


@dataclass(frozen=True)
class Stiffness:
    """Degrees of what may change.

    Attributes
    ----------
    trace_degree : of the common move of the traces over wavelength
    own_degree : of the move of each trace by itself
    degree_fiber, degree_wave : of the widths over the fibers of a bundle and over wavelength
    shape_degree_wave : the same of the Hermite terms
    """

    trace_degree: int = 5
    own_degree: int = 3
    degree_fiber: int = 1
    degree_wave: int = 3
    shape_degree_wave: int = 3


@dataclass(frozen=True)
class Measured:
    """Spots of one bundle at the PSF so far.

    Attributes
    ----------
    wave : (nline,) [Angstrom]
    blur : (nline,) error of the place of a line that all fibers share [Angstrom]
    good : (nline, nfiber) spots that count
    place : terms of degree 2, the shape being that of the PSF
    shape : all terms, or None before places are known
    """

    wave: Array
    blur: Array
    good: NDArray[np.bool_]
    place: Moments
    shape: Moments | None


def move_psf(
    psf: GaussHermitePSF, start: GaussHermitePSF, measured: Measured, stiffness: Stiffness
) -> tuple[GaussHermitePSF, float]:
    """The PSF whose spots stand where they were measured, and how far its traces moved at most [pixel].

    What is fitted is the difference from the start, so that where the lines say nothing all stays as it was there.

    Parameters
    ----------
    psf : about which the spots were measured
    start : of the fit
    """
    wave, traces = measured.wave, start.traces
    everywhere = np.linspace(traces.wavemin, traces.wavemax, _NODES)
    u = legendre.reduced(wave, traces.wavemin, traces.wavemax)
    nodes = legendre.reduced(everywhere, traces.wavemin, traces.wavemax)
    blur = measured.blur * np.median(psf.traces.dy_dwave(wave), axis=0)
    so_far = (
        psf.traces.x_vs_wave(wave) - traces.x_vs_wave(wave),
        psf.traces.y_vs_wave(wave) - traces.y_vs_wave(wave),
    )
    shifts, coef = [], dict(psf.coef)
    for (name, place, width), moved in zip(_WIDTHS, so_far, strict=True):
        sigma = psf.parameter(name, wave).T
        value, error = _kept(measured.place, place, measured.good)
        common = blur if name == "GHSIGY" else np.zeros(wave.size)
        field = fit_field(
            u, value * sigma + moved.T, error * sigma, 2, stiffness.trace_degree, stiffness.own_degree, common,
        )  # fmt: skip
        shifts.append(field.at(nodes))
        value, error = _kept(measured.place, width, measured.good)
        before = start.parameter(name, wave).T
        field = fit_field(
            u, sigma * (1.0 + value) / before - 1.0, error * sigma / before, stiffness.degree_fiber,
            stiffness.degree_wave, 0, np.zeros(wave.size),
        )  # fmt: skip
        ratio = np.clip(1.0 + field.at(nodes), 0.5, 2.0)
        new = np.clip(start.parameter(name, everywhere) * ratio, 0.3, None)
        coef[name] = _series(psf, everywhere, new, max(start.coef[name].shape[1] - 1, stiffness.degree_wave))
    if measured.shape is not None:
        _reshape(coef, psf, start, measured, measured.shape, stiffness, everywhere)
    new_traces = traces.shifted(shifts[0], shifts[1], everywhere)
    far = max(float(np.abs(a).max()) for a in _apart(new_traces, psf.traces, everywhere))
    domain, own = (psf.wavemin, psf.wavemax), (traces.wavemin, traces.wavemax)
    new_traces = replace(
        new_traces,
        xsigcoef=legendre.on_domain(coef["GHSIGX"], domain, own),
        ysigcoef=legendre.on_domain(coef["GHSIGY"], domain, own),
    )
    degree = max([psf.ghdegx, psf.ghdegy, *measured.shape.terms.max(axis=0)] if measured.shape else [psf.ghdegx])
    return replace(psf, traces=new_traces, coef=coef, ghdegx=int(degree), ghdegy=int(degree)), far


def _reshape(
    coef: dict[str, Array],
    psf: GaussHermitePSF,
    start: GaussHermitePSF,
    measured: Measured,
    shape: Moments,
    stiffness: Stiffness,
    everywhere: Array,
) -> None:
    """Set the Hermite terms beyond place and width."""
    u = legendre.reduced(measured.wave, psf.wavemin, psf.wavemax)
    nodes = legendre.reduced(everywhere, psf.wavemin, psf.wavemax)
    fixed = {(0, 0)} | {term for _, place, width in _WIDTHS for term in (place, width)}
    for i, j in shape.terms.tolist():
        if (i, j) in fixed:
            continue
        name = f"GH-{i}-{j}"
        value, error = _kept(shape, (i, j), measured.good)
        now, before = (p.parameter(name, measured.wave).T if name in p.coef else 0.0 for p in (psf, start))
        field = fit_field(
            u, value + now - before, error, stiffness.degree_fiber, stiffness.shape_degree_wave, -1,
            np.zeros(measured.wave.size),
        )  # fmt: skip
        base = start.parameter(name, everywhere) if name in start.coef else 0.0
        degree = max(stiffness.shape_degree_wave, start.coef[name].shape[1] - 1 if name in start.coef else 0)
        coef[name] = _series(psf, everywhere, base + field.at(nodes), degree)


def _series(psf: GaussHermitePSF, wave: Array, value: Array, degree: int) -> Array:
    return legendre.fit(legendre.reduced(wave, psf.wavemin, psf.wavemax), value, degree)


def _apart(a: XYTraceSet, b: XYTraceSet, wave: Array) -> tuple[Array, Array]:
    return a.x_vs_wave(wave) - b.x_vs_wave(wave), a.y_vs_wave(wave) - b.y_vs_wave(wave)


def _kept(moments: Moments, term: tuple[int, int], good: NDArray[np.bool_]) -> tuple[Array, Array]:
    value, error = moments.of(*term)
    return value, np.where(good, np.hypot(error, _FLOOR), np.inf)
