"""The traces of an exposure by one of several methods; all begin with the quicklook's stage `Flexure`.

| method    | across the dispersion | along it |
|---|---|---|
| lines     | profiles              | emission lines of the arc lamps or of the sky, nothing in flats |
| internal  | profiles              | every fiber against the median of all: their mean stays where it was |
| reference | profiles              | every fiber against a spectrum that was measured elsewhere |
| forward   | spots of lines        | spots of lines, by the forward model of the PSF |
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from algorithms.bootcalib.arcspectra import extract_rows
from algorithms.flexure.field import Field, Grid, TooUncertain, fit_field
from algorithms.flexure.lineerrors import fit_lines_field
from algorithms.flexure.stage import SAMPLES, Flexure, ccd_grid
from algorithms.psffit.arclines import ArcLines
from algorithms.traceshift.correlation import correlate
from algorithms.traceshift.reference import median_spectrum, seen_by
from algorithms.traceshift.spots import measure_spots
from qlstream.datamodel.image import Image, TraceShifts
from qlstream.datamodel.masks import EXTRACT_MASK
from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.datamodel.traces import XYTraceSet
from qlstream.pipeline.context import Context

Array = NDArray[np.float64]
Points = NDArray[np.void]
Method = Literal["auto", "lines", "internal", "reference", "forward"]

ROUNDS = 2  # the second time about the traces of the first
NEAR = 2.0  # shifts that are left then [row]


@dataclass(frozen=True)
class Correlation:
    """How spectra are compared.

    Attributes
    ----------
    bins : of wavelength
    reach : shifts that are tried at first, both ways [Angstrom]
    spectrum : (wave, flux) of the reference and its name, or None: the median of the fibers
    """

    bins: int
    reach: float
    spectrum: tuple[Array, Array, str] | None = None


def by_correlation(image: Image, context: Context, flexure: Flexure, how: Correlation) -> Image:
    """The image with its traces: x by profiles, y by comparison of spectra.

    Raises
    ------
    MissingCalibration : there are no traces to start from
    ValueError : the reference does not suit the traces
    """
    start, params = context.calibration.traces, flexure.params
    first = flexure.run(image, replace(context, flavor="flat"))  # profiles alone
    traces, before = _measured(first)
    low, high = _common_range(start, image.ny)
    edges = np.linspace(low, high, how.bins + 1)
    reference, method = None, "median of the fibers"
    if how.spectrum is not None:
        method = how.spectrum[2]
        reference = seen_by(traces, how.spectrum[0], how.spectrum[1], edges, method)
    reach = how.reach * float(np.median(start.dy_dwave(np.array([0.5 * (low + high)]))))
    grid, wave = ccd_grid(start, image.nx), _samples(start)
    for n in range(ROUNDS):
        spectra = _spectra(image, traces)
        known = median_spectrum(*spectra) if reference is None else reference
        points = correlate(*spectra, known, traces, edges, NEAR if n else reach)
        along = _fit(points, grid, (params.degyx, params.degyy), params)
        shift = along.field.at(grid, wave)
        if reference is None:
            shift = shift - np.median(shift)  # among each other the fibers have no zero
        traces = traces.shifted(np.zeros_like(shift), shift, wave)
    across = _Axis(before.points_x, before.npoints_x, before.rms_x, before.method_x)
    return _told(first, start, traces, across, along.of(method), before.warnings + along.warnings("dy"), context)


def by_spots(
    image: Image,
    context: Context,
    flexure: Flexure,
    psf: GaussHermitePSF,
    lines: ArcLines,
    bundles: NDArray[np.int64],
    min_snr: float,
) -> Image:
    """The image with its traces, by the spots of lines along both axes.

    Parameters
    ----------
    psf : to start from
    lines : of this exposure, see `algorithms.psffit.arclines`
    bundles : first fiber of each bundle and, last, the number of fibers
    min_snr : of a spot

    Raises
    ------
    MissingCalibration : there are no traces to start from
    """
    start, params = context.calibration.traces, flexure.params
    first = flexure.run(image, context)
    traces, _ = _measured(first)
    ivar = np.where(image.mask & np.uint16(EXTRACT_MASK) == 0, image.ivar, np.float32(0.0))
    grid, wave = ccd_grid(start, image.nx), _samples(start)
    blur = lines.blur * np.median(start.dy_dwave(lines.wave), axis=0)
    for _ in range(ROUNDS):
        across, along, line = measure_spots(image.pix, ivar, replace(psf, traces=traces), lines, bundles, min_snr)
        x = _fit(across, grid, (params.degxx, params.degxy), params, line, np.zeros_like(blur))
        y = _fit(along, grid, (params.degyx, params.degyy), params, line, blur)
        traces = traces.shifted(x.field.at(grid, wave), y.field.at(grid, wave), wave)
    warnings = x.warnings("dx") + y.warnings("dy")
    return _told(first, start, traces, x.of("spots"), y.of("spots"), warnings, context)


@dataclass(frozen=True)
class _Axis:
    """For the record of one axis; as in TraceShifts."""

    points: Points | None
    npoints: int
    rms: float
    method: str


@dataclass(frozen=True)
class _Fitted:
    """A field through the points of one axis; zero if it failed, and why."""

    field: Field
    points: Points
    failure: str = ""

    def of(self, method: str) -> _Axis:
        points = self.points.copy()
        points["used"] = False if self.failure else self.field.used
        return _Axis(points, int(points["used"].sum()), self.field.rms, method)

    def warnings(self, axis: str) -> tuple[str, ...]:
        return (f"{axis} is not measured ({self.failure}); it stays as before",) if self.failure else ()


def _fit(
    points: Points,
    grid: Grid,
    degrees: tuple[int, int],
    params: Flexure.Params,
    line: NDArray[np.int64] | None = None,
    blur: Array | None = None,
) -> _Fitted:
    try:
        if line is None or blur is None:
            return _Fitted(fit_field(points, grid, degrees, params.max_error, params.slope), points)
        return _Fitted(fit_lines_field(points, line, blur, grid, degrees, params.max_error, params.slope), points)
    except TooUncertain as why:
        return _Fitted(Field(np.zeros((1, 1))), points, str(why))


def _measured(image: Image) -> tuple[XYTraceSet, TraceShifts]:
    if image.traces is None or image.shifts is None:
        raise ValueError("the stage before has set no traces")
    return image.traces, image.shifts


def _samples(traces: XYTraceSet) -> Array:
    return np.linspace(traces.wavemin, traces.wavemax, SAMPLES)


def _common_range(traces: XYTraceSet, ny: int) -> tuple[float, float]:
    """Wavelengths that all fibers have on the CCD."""
    ends = traces.wave_vs_y(np.array([0.0, ny - 1.0]))
    return float(ends[:, 0].max()), float(ends[:, 1].min())


def _spectra(image: Image, traces: XYTraceSet) -> tuple[Array, Array, Array]:
    """(wave, flux, ivar) of every fiber by row, each (nspec, ny)."""
    rows = np.arange(float(image.ny))
    wave = traces.wave_vs_y(rows)
    sigma = traces.xsig_vs_wave(np.clip(wave, traces.wavemin, traces.wavemax))
    ivar = np.where(image.mask & np.uint16(EXTRACT_MASK) == 0, image.ivar, np.float32(0.0))
    return wave, *extract_rows(image.pix, ivar, traces.x_vs_y(rows), sigma)


def _told(
    image: Image,
    start: XYTraceSet,
    traces: XYTraceSet,
    across: _Axis,
    along: _Axis,
    warnings: tuple[str, ...],
    context: Context,
) -> Image:
    wave = _samples(start)
    shifts = TraceShifts(
        wave,
        traces.x_vs_wave(wave) - start.x_vs_wave(wave),
        traces.y_vs_wave(wave) - start.y_vs_wave(wave),
        across.npoints,
        along.npoints,
        across.rms,
        along.rms,
        across.method,
        along.method,
        warnings,
        across.points,
        along.points,
    )
    for warning in warnings:
        context.log.warning("trace shifts: %s", warning)
    return replace(image, traces=traces, shifts=shifts)
