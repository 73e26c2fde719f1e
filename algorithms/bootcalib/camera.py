"""A camera's first PSF from one flat and one arc: traces, widths, wavelengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from algorithms.bootcalib.arclines import find_lines, resolved_lines
from algorithms.bootcalib.arcspectra import extract_rows
from algorithms.bootcalib.crosstraces import CrossTraces, trace_fibers
from algorithms.bootcalib.layout import match_fibers
from algorithms.bootcalib.neighbours import follow_lines
from algorithms.bootcalib.peaks import find_peaks, middle_cut
from algorithms.bootcalib.solution import (
    LineRows,
    burning_lamps,
    first_rows,
    line_widths,
    refine_rows,
    scaled_by_lamps,
)
from algorithms.bootcalib.triplets import DispersionPrior, Identified, identify
from qlstream.datamodel.image import Image
from qlstream.datamodel.masks import EXTRACT_MASK
from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.datamodel.traces import XYTraceSet
from qlstream.instrument import Instrument
from qlstream.numeric import legendre
from qlstream.numeric.legendre import reduced

Array = NDArray[np.float64]

_NODES = 129
_BEYOND = 0.05  # lines so far outside the nominal range may be on the CCD, of its span
_ROUNDS = 2  # of widths and lamps, which need the rows, and rows, which need them
_WIDTH_DEGREE = 3
_AWAY = 0.25  # a line list of which more than this share lies elsewhere is worth a word


@dataclass(frozen=True)
class BootLimits:
    """What is assumed, and how stiff the solution is.

    Attributes
    ----------
    max_dark : fibers of a bundle that may be dark
    trace_degree : of x over rows and wavelength
    wave_degree : of y over wavelength
    dispersion_tolerance : relative, of the instrument's nominal dispersion
    threshold : least height of an arc line [sigma]
    max_lines : features that are used
    """

    max_dark: int = 3
    trace_degree: int = 6
    wave_degree: int = 5
    dispersion_tolerance: float = 0.2
    threshold: float = 7.0
    max_lines: int = 80


@dataclass(frozen=True)
class BootPSF:
    """The first PSF, and what it rests on.

    Attributes
    ----------
    psf : Gaussian spots on the traces, for the exposure of the arc
    cut : (nx,) of the flat's middle rows [electron]
    cross : columns and widths by row
    reference : the fiber whose lines were identified by themselves
    identified : its lines
    spectrum : (ny,) of that fiber [electron/row]
    lines : that the wavelengths rest on
    width_wave, widths : (n,) [Angstrom], (nspec, n) [pixel] measured along the dispersion
    lamps : brightness of each lamp against the line list, 0 for those that are off
    dark : fibers without light, interpolated
    warnings : what is not as it should be, in plain words
    """

    psf: GaussHermitePSF
    cut: Array
    cross: CrossTraces
    reference: int
    identified: Identified
    spectrum: Array
    lines: LineRows
    width_wave: Array
    widths: Array
    lamps: dict[str, float]
    dark: NDArray[np.int64]
    warnings: tuple[str, ...]


def bootstrap(
    flat: Image,
    arc: Image,
    instrument: Instrument,
    table: NDArray[np.void],
    limits: BootLimits,
    report: Callable[[float, str], None] = lambda share, what: None,
) -> BootPSF:
    """Start a camera from nothing but its instrument's description (spec offline-reduction §1).

    Unlike there, geometry comes from the instrument; lines are identified in one fiber and followed from neighbour to
    neighbour; all fibers share one smooth field for x and one for y, so that a bad fiber cannot go astray; and blends
    are fitted as such.

    Parameters
    ----------
    flat, arc : preprocessed, of one camera and not far apart in time
    table : lines of the lamps (`qlstream.lines.LINE`)
    report : told of progress

    Raises
    ------
    ValueError : the images differ in camera or shape, or a solution goes astray
    FiberMismatch : the flat does not show the fibers of the instrument
    NotIdentified : the lines of the arc cannot be identified
    """
    arm = instrument.arm(arc.camera)
    if flat.camera != arc.camera or flat.pix.shape != arc.pix.shape:
        raise ValueError(
            f"flat of {flat.camera} {flat.pix.shape}, arc of {arc.camera} {arc.pix.shape}; give one camera"
        )
    ny = flat.ny
    bundle_of = instrument.bundle_of(np.arange(instrument.nspec))
    report(0.05, "fibers")
    flat_ivar, arc_ivar = _usable(flat), _usable(arc)
    cut, error = middle_cut(flat.pix, flat_ivar)
    peaks = match_fibers(find_peaks(cut, error, instrument.nspec), instrument, limits.max_dark)
    report(0.1, "traces")
    cross = trace_fibers(flat.pix, flat_ivar, peaks, bundle_of, arm.xsigma, limits.trace_degree)
    report(0.3, "arc spectra")
    rows = np.arange(float(ny))
    flux, ivar = extract_rows(arc.pix, arc_ivar, cross.column(rows), cross.width(rows))
    detected = find_lines(flux, ivar, arm.ysigma, limits.threshold)
    report(0.4, "lines")
    low, high = arm.wave_on_ccd
    dispersion = (high - low) / ny
    margin = _BEYOND * (high - low)
    table = table[(table["wave"] > low - margin) & (table["wave"] < high + margin)]
    prior = DispersionPrior(dispersion, limits.dispersion_tolerance)
    light = np.bincount(detected["fiber"], np.sqrt(detected["flux"]), minlength=instrument.nspec)
    reference = int(light.argmax())
    mine = detected[detected["fiber"] == reference]
    identified = identify(mine["y"], mine["flux"], resolved_lines(table, arm.ysigma * dispersion)[0], ny, prior)
    found, row_error = follow_lines(detected, reference, identified.row, identified.wave, peaks.lit)
    report(0.6, "wavelengths")
    traces = _first_traces(identified, found, row_error, cross, arm.ysigma, bundle_of, limits)
    lamps: dict[str, float] = {}
    for n in range(_ROUNDS):
        lamps = burning_lamps(table, traces, flux[reference], ivar[reference], reference)
        shining = scaled_by_lamps(table, lamps)
        traces, lines = refine_rows(arc, traces, shining, peaks.lit, bundle_of, limits.wave_degree, limits.max_lines)
        coef, width_wave, widths = line_widths(flux, ivar, traces, shining, arm.ysigma, bundle_of, _WIDTH_DEGREE)
        traces = replace(_with_columns(traces, cross, limits.trace_degree), ysigcoef=coef)
        report(0.7 + 0.1 * n, "wavelengths")
    assert traces.xsigcoef is not None
    one = np.zeros((instrument.nspec, 1))
    psf_coef = {"GHSIGX": traces.xsigcoef, "GHSIGY": coef, "GH-0-0": one + 1.0}
    psf = GaussHermitePSF(traces, psf_coef, traces.wavemin, traces.wavemax)
    dark = np.flatnonzero(~peaks.lit)
    return BootPSF(
        psf, cut, cross, reference, identified, flux[reference], lines, width_wave, widths, lamps, dark,
        _warnings(instrument, dark, lamps, lines),
    )  # fmt: skip


def _usable(image: Image) -> NDArray[np.float32]:
    return np.where(image.mask & np.uint16(EXTRACT_MASK) == 0, image.ivar, np.float32(0.0))


def _first_traces(
    identified: Identified,
    found: Array,
    error: Array,
    cross: CrossTraces,
    ysigma: float,
    bundle_of: NDArray[np.int64],
    limits: BootLimits,
) -> XYTraceSet:
    """Traces on a domain that holds every wavelength on the CCD."""
    ny = cross.ny
    t = np.array([-1.05, 1.05])
    ends = np.polyval(identified.coef[::-1], t)
    step = float(np.diff(ends)[0]) / (1.05 * ny)
    seen = np.isfinite(error)
    away = [np.median((found[f] - identified.row)[seen[f]]) for f in np.flatnonzero(seen.any(axis=1))]
    reach = 1.1 * float(np.abs(away).max()) * step
    wide = float(ends[0]) - reach, float(ends[1]) + reach
    ycoef = first_rows(identified.wave, found, error, bundle_of, wide, limits.wave_degree)
    flat = np.full((len(ycoef), 1), 1.0)
    traces = XYTraceSet(flat * 0.0, ycoef, *wide, ny, flat, flat * ysigma)
    edge = traces.wave_vs_y(np.array([0.0, ny - 1.0]))
    domain = float(np.floor(edge[:, 0].min() - 1.0)), float(np.ceil(edge[:, 1].max() + 1.0))
    ycoef = legendre.on_domain(ycoef, wide, domain)
    return _with_columns(XYTraceSet(flat * 0.0, ycoef, *domain, ny, flat, flat * ysigma), cross, limits.trace_degree)


def _with_columns(traces: XYTraceSet, cross: CrossTraces, degree: int) -> XYTraceSet:
    """The same rows, with columns and widths from the flat as series in wavelength."""
    wave = np.linspace(traces.wavemin, traces.wavemax, _NODES)
    u = reduced(wave, traces.wavemin, traces.wavemax)
    y = traces.y_vs_wave(wave)
    # rows beyond the CCD follow the last ones: series run away there
    inside = np.clip(y, -0.03 * cross.ny, 1.03 * cross.ny)
    return replace(
        traces,
        xcoef=legendre.fit(u, cross.column(inside), degree),
        xsigcoef=legendre.fit(u, cross.width(y), _WIDTH_DEGREE),
    )


def _warnings(
    instrument: Instrument, dark: NDArray[np.int64], lamps: dict[str, float], lines: LineRows
) -> tuple[str, ...]:
    said = []
    for fiber in dark:
        bundle = int(instrument.bundle_of(np.array([fiber]))[0])
        said.append(f"fiber {fiber} of bundle {bundle} is dark: its trace lies between those of its neighbours")
    said += [f"no line of the {name} lamp is seen: taken to be off" for name, bright in lamps.items() if bright == 0]
    away = lines.wave[~lines.used]
    if len(away) > _AWAY * len(lines.wave):
        named = ", ".join(f"{wave:.2f}" for wave in away)
        said.append(
            f"{len(away)} of {len(lines.wave)} lines lie elsewhere in all fibers and were left out: {named} Angstrom"
        )
    return tuple(said)
