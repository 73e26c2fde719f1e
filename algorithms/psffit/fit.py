"""The Gauss-Hermite PSF of a camera from the lines of an arc, bundle by bundle (spec offline-reduction §2).

Each round measures place, widths and shape of all spots by linear fits (`moments`), makes smooth fields of them
(`field`), and moves the PSF there; fluxes of overlapping spots are solved together. A few rounds suffice, since every
step is the linear one of the full problem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algorithms.extract.spectroperfect.spots import Spots, make_spots
from algorithms.extract.spectroperfect.system import normal_equations, project
from algorithms.psffit.field import fit_field
from algorithms.psffit.moments import Moments, measure_moments
from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.numeric import legendre

Array = NDArray[np.float64]

_NODES = 81
_WIDTH_TERMS = ((2, 0), (0, 2))
_PLACE_TERMS = ((1, 0), (0, 1))
_FLOOR = 2e-4  # relative error of any coefficient: keeps the brightest lines from ruling alone


@dataclass(frozen=True)
class FitLimits:
    """How stiff the PSF is, and when its fit ends.

    Attributes
    ----------
    gh_degree : of the Hermite terms, i + j <= gh_degree
    degree_fiber, degree_wave : of widths over the fibers of a bundle and over wavelength
    shape_degree_wave : the same of the Hermite terms
    trace_degree_wave : of the common move of the traces
    own_degree : of the move of each trace by itself
    min_snr : significance of a spot that counts
    max_lines : the brightest lines that are used
    rounds : at most
    tolerance : end when no trace moves by more [pixel]
    """

    gh_degree: int = 6
    degree_fiber: int = 1
    degree_wave: int = 3
    shape_degree_wave: int = 1
    trace_degree_wave: int = 5
    own_degree: int = 3
    min_snr: float = 15.0
    max_lines: int = 60
    rounds: int = 8
    tolerance: float = 5e-4


@dataclass(frozen=True)
class FittedPSF:
    """The PSF, and how well it describes each bundle.

    Attributes
    ----------
    psf : of all fibers
    rchi2 : (nbundle,) chi2 per pixel under the spots
    nspots : (nbundle,) spots that counted
    status : (nbundle,) 0: fitted; 1: too few spots, the PSF it started from stays
    """

    psf: GaussHermitePSF
    rchi2: Array
    nspots: NDArray[np.int64]
    status: NDArray[np.int64]


def fit_psf(
    pix: NDArray[np.float32],
    ivar: NDArray[np.float32],
    start: GaussHermitePSF,
    wave: Array,
    bundles: NDArray[np.int64],
    limits: FitLimits,
    alone: NDArray[np.bool_] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> FittedPSF:
    """Fit the PSF of every bundle.

    Parameters
    ----------
    pix, ivar : (ny, nx) preprocessed arc [electron]; ivar 0 takes a pixel out
    start : a PSF whose traces are right to about a pixel
    wave : (nline,) lines whose light is in the model, increasing [Angstrom]
    bundles : first fiber of each bundle and, last, the number of fibers
    alone : (nline,) lines that are measured; default all. What others leave behind must not reach them
    """
    measured = np.ones(wave.size, dtype=bool) if alone is None else alone
    parts, chi2, counts, status = [], [], [], []
    for number in range(len(bundles) - 1):
        part = start.select(slice(int(bundles[number]), int(bundles[number + 1])))
        fitted, rchi2, nspots, failed = _fit_bundle(pix, ivar, part, wave, measured, limits)
        parts.append(fitted)
        chi2.append(rchi2)
        counts.append(nspots)
        status.append(int(failed))
        progress(number + 1)
    return FittedPSF(_joined(parts), np.array(chi2), np.array(counts), np.array(status))


def _fit_bundle(
    pix: NDArray[np.float32],
    ivar: NDArray[np.float32],
    psf: GaussHermitePSF,
    wave: Array,
    measured: NDArray[np.bool_],
    limits: FitLimits,
) -> tuple[GaussHermitePSF, float, int, bool]:
    first = psf
    rchi2, nspots = np.nan, 0
    degrees = [2] + [limits.gh_degree] * limits.rounds  # the first round finds places and widths alone
    for n, degree in enumerate(degrees[: limits.rounds]):
        spots = make_spots(psf, 0, psf.nspec, wave)
        low = max(int(spots.column.min()), 0)
        columns = slice(low, min(int(spots.column.max()) + spots.image.shape[3], pix.shape[1]))
        here = Spots(spots.image, spots.row, spots.column - columns.start)
        weight, data = ivar[:, columns], pix[:, columns]
        flux = normal_equations(here, data, weight).solve()
        model = np.zeros(data.shape, np.float32)
        project(here.image, here.row, here.column, np.maximum(flux, 0.0), model)
        residual = data - model
        x, y = psf.traces.x_vs_wave(wave), psf.traces.y_vs_wave(wave)
        widths = psf.parameter("GHSIGX", wave), psf.parameter("GHSIGY", wave)
        moments = measure_moments(
            here, x - columns.start, y, *widths, np.maximum(flux, 0.0), residual, weight, degree, background=True
        )
        good = (moments.snr > limits.min_snr) & (spots.row >= 0) & (spots.row + spots.image.shape[2] <= pix.shape[0])
        good &= measured[:, None]
        nspots = int(good.sum())
        if nspots < 4 * psf.nspec or np.count_nonzero(good.any(axis=1)) < 4:
            return first, float("nan"), nspots, True
        rchi2 = _rchi2(here, good, moments.background, residual, weight)
        if n == limits.rounds - 1:
            break
        psf, moved = _moved(psf, wave, moments, good, limits)
        if moved < limits.tolerance and degree == limits.gh_degree:
            break
    return psf, rchi2, nspots, False


def _moved(
    psf: GaussHermitePSF, wave: Array, moments: Moments, good: NDArray[np.bool_], limits: FitLimits
) -> tuple[GaussHermitePSF, float]:
    """The PSF that these moments ask for, and by how much its traces moved at most [pixel]."""
    traces = psf.traces
    u = legendre.reduced(wave, wave[0], wave[-1])
    # what lies beyond the lines keeps the value of the nearest one: series are wild outside
    everywhere = np.linspace(traces.wavemin, traces.wavemax, _NODES)
    at = np.clip(legendre.reduced(everywhere, wave[0], wave[-1]), -1.0, 1.0)
    shift = []
    for name, term in zip(("GHSIGX", "GHSIGY"), _PLACE_TERMS, strict=True):
        value, error = _kept(moments.of(*term), good)
        width = psf.parameter(name, wave).T
        field = fit_field(u, value * width, error * width, 2, limits.trace_degree_wave, limits.own_degree, 0.1)
        shift.append(field.at(at))
    moved_traces = traces.shifted(shift[0], shift[1], everywhere)
    coef = dict(psf.coef)
    for name, term in zip(("GHSIGX", "GHSIGY"), _WIDTH_TERMS, strict=True):
        field = fit_field(u, *_kept(moments.of(*term), good), limits.degree_fiber, limits.degree_wave, 0, 0.02)
        ratio = np.clip(1.0 + field.at(at), 0.8, 1.25)
        sigma = np.clip(psf.parameter(name, everywhere) * ratio, 0.3, None)
        domain = legendre.reduced(everywhere, psf.wavemin, psf.wavemax)
        coef[name] = legendre.fit(domain, sigma, max(psf.coef[name].shape[1] - 1, limits.degree_wave))
    if moments.terms.max() > 2:
        for i, j in moments.terms.tolist():
            if (i, j) in ((0, 0), *_PLACE_TERMS, *_WIDTH_TERMS):
                continue
            value, error = _kept(moments.of(i, j), good)
            field = fit_field(u, value, error, limits.degree_fiber, limits.shape_degree_wave, -1, 1.0)
            domain = legendre.reduced(everywhere, psf.wavemin, psf.wavemax)
            coef[f"GH-{i}-{j}"] = legendre.fit(domain, field.at(at), limits.degree_wave)
    degree = max(limits.gh_degree, psf.ghdegx, psf.ghdegy) if moments.terms.max() > 2 else max(psf.ghdegx, psf.ghdegy)
    new = replace(
        psf,
        traces=replace(
            moved_traces,
            xsigcoef=legendre.on_domain(coef["GHSIGX"], (psf.wavemin, psf.wavemax), (traces.wavemin, traces.wavemax)),
            ysigcoef=legendre.on_domain(coef["GHSIGY"], (psf.wavemin, psf.wavemax), (traces.wavemin, traces.wavemax)),
        ),
        coef=coef,
        ghdegx=degree,
        ghdegy=degree,
    )
    return new, float(max(np.abs(s).max() for s in shift))


def _kept(measured: tuple[Array, Array], good: NDArray[np.bool_]) -> tuple[Array, Array]:
    value, error = measured
    return value, np.where(good, np.hypot(error, _FLOOR), np.inf)


def _rchi2(
    spots: Spots,
    good: NDArray[np.bool_],
    background: Array,
    residual: NDArray[np.floating[Any]],
    ivar: NDArray[np.floating[Any]],
) -> float:
    """Mean chi2 of the pixels under the good spots, each with its own background."""
    total, number = 0.0, 0
    height, width = spots.image.shape[2:]
    for k, f in zip(*np.nonzero(good), strict=True):
        rows = slice(spots.row[k, f], spots.row[k, f] + height)
        columns = slice(max(spots.column[k, f], 0), spots.column[k, f] + width)
        square = (residual[rows, columns] - background[k, f]) ** 2 * ivar[rows, columns]
        total += float(square.sum(dtype=float))
        number += int((ivar[rows, columns] > 0).sum())
    return total / max(number, 1)


def _joined(parts: list[GaussHermitePSF]) -> GaussHermitePSF:
    """One PSF of all bundles; terms that a bundle lacks are 0 there."""
    names = list(dict.fromkeys(name for part in parts for name in part.coef))
    ncoef = {n: max(p.coef[n].shape[1] for p in parts if n in p.coef) for n in names}
    coef = {}
    for name in names:
        rows = [np.zeros((p.nspec, ncoef[name])) for p in parts]
        for row, part in zip(rows, parts, strict=True):
            if name in part.coef:
                row[:, : part.coef[name].shape[1]] = part.coef[name]
            elif name == "GH-0-0":
                row[:, 0] = 1.0
        coef[name] = np.concatenate(rows)
    traces = parts[0].traces
    stacked: dict[str, Any] = {}
    for attribute in ("xcoef", "ycoef", "xsigcoef", "ysigcoef"):
        tables = [getattr(p.traces, attribute) for p in parts]
        width = max(t.shape[1] for t in tables)
        stacked[attribute] = np.concatenate([np.pad(t, ((0, 0), (0, width - t.shape[1]))) for t in tables])
    degree = max(p.ghdegx for p in parts), max(p.ghdegy for p in parts)
    return replace(parts[0], traces=replace(traces, **stacked), coef=coef, ghdegx=degree[0], ghdegy=degree[1])
