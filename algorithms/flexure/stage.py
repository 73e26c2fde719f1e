"""Trace shifts: where the spectra of this exposure really are."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Setting

from algorithms.flexure.crossdispersion import measure_offsets, search_offset
from algorithms.flexure.dispersion import measure_lines, search_rows, visible_features
from algorithms.flexure.field import Field, Grid, TooUncertain, fit_field
from algorithms.flexure.lineerrors import fit_lines_field
from algorithms.flexure.windows import tabulate_windows
from qlstream.datamodel.image import Image, TraceShifts
from qlstream.datamodel.traces import XYTraceSet
from qlstream.lines import arc_lines, sky_lines
from qlstream.pipeline.algorithm import PipelineAlg, StageParams
from qlstream.pipeline.context import Context

Array = NDArray[np.float64]

SAMPLES = 9  # wavelengths at which the field is tabulated; it is a polynomial of lower degree
COARSE = 8  # the first pass, which only has to come near, takes every so-many-th row and fiber
CONVERGED = 0.05  # a correction below this needs no further pass: the response is linear there [pixel]
PASSES = 5

_LINES = {"arc": ("arc lines", arc_lines), "science": ("sky lines", sky_lines)}


class Flexure(PipelineAlg[Image, Image]):
    """Shifts dx, dy of the spectra against the calibration traces, as smooth fields over the CCD.

    dx comes from the cross-dispersion profiles, dy from the lines of the arc lamps or of the night sky. Flats have no
    lines: they keep the wavelengths of the traces they start from, which are the latest of the night.
    """

    class Params(StageParams):
        degxx: int = Setting(2, ge=0, le=6, description="degree of dx across fibers")
        degxy: int = Setting(2, ge=0, le=6, description="degree of dx along wavelength")
        degyx: int = Setting(2, ge=0, le=6, description="degree of dy across fibers")
        degyy: int = Setting(2, ge=0, le=6, description="degree of dy along wavelength")
        max_error: float = Setting(
            0.05, gt=0, description="error of a field that is tolerated anywhere; else its degrees are lowered [pixel]"
        )
        slope: float = Setting(
            0.06,
            gt=0,
            description="how much a shift typically varies over half a CCD; matters for faint exposures [pixel]",
        )
        search: int = Setting(5, ge=0, le=20, description="common offsets that are searched, both ways [pixel]")
        blocks: int = Setting(16, ge=4, le=256, description="blocks of rows in which dx is measured")
        max_lines: int = Setting(40, ge=1, description="number of lines, the strongest ones, that are measured")
        goal: float = Setting(0.004, gt=0, description="error of dx at which more rows would be a waste [pixel]")

    def run(self, image: Image, context: Context) -> Image:
        """Raises MissingCalibration if there are no traces to start from."""
        start = context.calibration.traces
        params = self.params
        grid = ccd_grid(start, image.nx)
        x = _Axis("dx", "profile", (params.degxx, params.degxy))
        windows = tabulate_windows(start, image.ny)
        x.start_at(search_offset(image, windows, params.search))
        y = _Axis("dy", "carried over", (params.degyx, params.degyy))
        if context.flavor in _LINES:
            y.method, table = _LINES[context.flavor]
            features = visible_features(table(), start, params.max_lines)
            blur = features.blur * np.median(start.dy_dwave(features.center), axis=0)
            windows = windows.moved(float(x.field.coef[0, 0]))
            y.start_at(search_rows(image, start, windows, features, params.search))
        row_step = COARSE
        for step in range(PASSES):
            traces = _moved(start, grid, x, y)
            windows = tabulate_windows(traces, image.ny)
            points = measure_offsets(image, windows, params.blocks, row_step)
            x.improve(points, grid, partial(fit_field, max_error=params.max_error, slope=params.slope))
            if context.flavor in _LINES:
                fibers = np.arange(0, start.nspec, COARSE if step == 0 and start.nspec > 20 * COARSE else 1)
                points, line = measure_lines(image, traces, windows, features, fibers)
                fit = partial(fit_lines_field, line=line, blur=blur, max_error=params.max_error, slope=params.slope)
                y.improve(points, grid, fit)
            if step > 0 and max(x.moved, y.moved) < CONVERGED:
                break
            row_step = int(np.clip(COARSE * (params.goal / x.field.error) ** 2, 1, COARSE))
        shifts = _summary(start, grid, x, y)
        for axis in (x, y):  # that faint lines support less than was wanted is usual
            for told in axis.warnings():
                context.log.log(logging.WARNING if axis.failure else logging.INFO, "%s", told)
        return replace(image, traces=start.shifted(shifts.dx, shifts.dy, shifts.wave), shifts=shifts)


class _Axis:
    """The shift along one axis while it is being refined.

    Attributes
    ----------
    name, method : for the record
    degrees : wanted for the field
    field : the shift so far
    points : latest measurements, as total shifts
    moved : largest change by the latest measurements [pixel]
    failure : why there is no field, or ""
    """

    def __init__(self, name: str, method: str, degrees: tuple[int, int]) -> None:
        self.name, self.method, self.degrees = name, method, degrees
        self.points: NDArray[np.void] | None = None
        self.moved = 0.0
        self.failure = ""
        self.start_at(0.0)

    def start_at(self, offset: float) -> None:
        self.field = Field(np.full((1, 1), offset))

    def improve(self, points: NDArray[np.void], grid: Grid, fit: Callable[..., Field]) -> None:
        """Replace the field by what `fit` makes of `points`, which were measured about the field so far."""
        points = points.copy()
        points["shift"] += self.field.at_points(grid, points)
        self.points = points
        wave = np.linspace(grid.wavemin, grid.wavemax, SAMPLES)
        try:
            found = fit(points, grid=grid, degrees=self.degrees)
        except TooUncertain as why:
            self.failure, self.moved = str(why), 0.0
            self.field = Field(self.field.coef)
            return
        points["used"] = found.used
        self.moved = float(np.abs(found.at(grid, wave) - self.field.at(grid, wave)).max())
        self.field, self.failure = found, ""

    @property
    def npoints(self) -> int:
        return 0 if self.failure else int(self.field.used.sum())

    def warnings(self) -> tuple[str, ...]:
        if self.failure:
            return (f"{self.name} is not measured ({self.method}: {self.failure}); the calibration's traces stay",)
        if self.points is not None and self.field.degrees != self.degrees:
            (m, n), (i, k) = self.degrees, self.field.degrees
            return (
                f"{self.name}: the measurements ({self.method}) support degree {i} across fibers and {k} along "
                f"wavelength only, not {m} and {n}",
            )
        return ()


def ccd_grid(traces: XYTraceSet, nx: int) -> Grid:
    """Coordinates of shifts on a CCD of `nx` columns."""
    middle = traces.x_vs_wave(np.array([0.5 * (traces.wavemin + traces.wavemax)]))[:, 0]
    return Grid(2.0 * middle / (nx - 1.0) - 1.0, traces.wavemin, traces.wavemax)


def _moved(traces: XYTraceSet, grid: Grid, x: _Axis, y: _Axis) -> XYTraceSet:
    wave = np.linspace(grid.wavemin, grid.wavemax, SAMPLES)
    return traces.shifted(x.field.at(grid, wave), y.field.at(grid, wave), wave)


def _summary(traces: XYTraceSet, grid: Grid, x: _Axis, y: _Axis) -> TraceShifts:
    wave = np.linspace(grid.wavemin, grid.wavemax, SAMPLES)
    shift = {
        axis.name: np.zeros((traces.nspec, SAMPLES)) if axis.failure else axis.field.at(grid, wave) for axis in (x, y)
    }
    return TraceShifts(
        wave,
        shift["dx"],
        shift["dy"],
        npoints_x=x.npoints,
        npoints_y=y.npoints,
        rms_x=x.field.rms,
        rms_y=y.field.rms,
        method_x=x.method,
        method_y=y.method,
        warnings=x.warnings() + y.warnings(),
        points_x=x.points,
        points_y=y.points,
    )
