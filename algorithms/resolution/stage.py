"""The resolution of this night, from the lines of an arc."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from algorithms.flexure.field import Grid, TooUncertain
from algorithms.resolution.lines import Lines, chosen_lines, lonely_lines, measure_widths, wing_shape
from algorithms.resolution.series import WidthSeries, fit_series
from qlstream.datamodel.image import Image
from qlstream.datamodel.linewidths import LineWidths, WidthSource
from qlstream.datamodel.qframe import ELECTRON, QFrame
from qlstream.datamodel.traces import XYTraceSet
from qlstream.lines import arc_lines
from qlstream.numeric import legendre
from qlstream.pipeline.algorithm import PipelineAlg, StageParams
from qlstream.pipeline.context import Context

Array = NDArray[np.float64]

NODES = 33  # at which the new widths are sampled to be written as a series
SANE = (0.4, 3.0)  # of new over expected width; a series that leaves it was not held by its lines


class ResolutionFit(PipelineAlg[QFrame, LineWidths]):
    """Line widths of an arc as Legendre series over wavelength, put into the traces that later exposures start from.

    Every line that stands alone at the camera's resolution is fitted in every fiber, and what these widths are in
    units of the calibration PSF's becomes a smooth function of fiber and wavelength (`measure_widths`, `fit_series`).
    A fiber with too few lines takes the widths of its neighbours, and a flag; without light the widths that the traces
    came with stay. Rows are pixels, so there is no detour
    over Angstrom (spec quicklook-pipeline §9.12, preproc-and-extraction §10.1, whose widths of such fibers were 0).
    """

    class Params(StageParams):
        linelist: tuple[float, ...] | None = Field(
            None, alias="Linelist",
            description="wavelengths of the lines to fit [Angstrom, vacuum]; default all that stand alone",
        )  # fmt: skip
        npoly: int = Field(2, ge=0, le=5, alias="NPOLY", description="degree of the series over wavelength")
        nbins: int = Field(5, ge=3, le=20, alias="NBINS", description="rows on each side of a line that are fitted")
        max_lines: int = Field(20, ge=1, description="number of lines that are fitted, the strongest of all the range")
        min_snr: float = Field(20.0, gt=0, description="significance of the flux of a line that counts in a fiber")
        contamination: float = Field(
            0.01, ge=0, lt=1, description="light of a neighbouring line that is tolerated, as a fraction of the line's"
        )
        fiber_scatter: float = Field(
            0.05, gt=0, description="how much single fibers deviate from the camera's common change of widths"
        )

    def run(self, qframe: QFrame, context: Context) -> LineWidths:
        """Raises ValueError if the spectra are not counts per row of all fibers, or no stage before gave traces."""
        params = self.params
        image, traces = _image_with_traces(context)
        if qframe.bunit != ELECTRON or qframe.nspec != traces.nspec:
            raise ValueError(
                f"ResolutionFit: {qframe.nspec} spectra in {qframe.bunit!r} for {traces.nspec} traces; "
                f"it measures counts per row ({ELECTRON}) of all fibers"
            )
        psf = context.calibration.psf if "PSF" in context.calibration else None
        reference = _with_widths(traces if psf is None else psf.traces, context.arm.ysigma)
        lines = self._lines(traces, reference)
        expected = reference.ysig_vs_wave(lines.wave)
        shape = None if psf is None else wing_shape(psf, lines.wave)
        measured = measure_widths(qframe, traces, lines, expected, shape, params.nbins, params.min_snr)
        series, warnings = None, []
        try:
            series = fit_series(
                measured.sigma / expected,
                measured.error / expected,
                lines.wave,
                _grid(traces, context.arm.nx),
                params.npoly,
                params.fiber_scatter,
            )
        except TooUncertain as why:
            warnings.append(f"line widths are not measured: {why}; those that the traces came with stay")
        if series is not None and series.field.degrees[1] < params.npoly:
            warnings.append(
                f"the lines support degree {series.field.degrees[0]} across fibers and {series.field.degrees[1]} "
                f"along wavelength only, not {params.npoly}"
            )
        for warning in warnings:
            context.log.log(logging.WARNING if series is None else logging.INFO, "%s", warning)
        cards = (traces.meta or {}) | image.meta
        if series is None:
            fitted = _with_widths(replace(traces, meta=cards), context.arm.ysigma)
        else:
            ysigcoef = _series_of_widths(traces, reference, series, params.npoly)
            fitted = replace(traces, ysigcoef=ysigcoef, meta=cards | {"YSIGEXP": context.expid})
        rows = np.arange(float(qframe.flux.shape[1]))
        return LineWidths(
            traces=fitted,
            spectra=replace(qframe, ysigma=fitted.ysig_vs_y(rows, out=np.empty(qframe.flux.shape, np.float32))),
            reference=reference,
            lines=lines.table,
            sigma=measured.sigma,
            error=measured.error,
            used=np.zeros(measured.sigma.shape, bool) if series is None else series.used,
            source=_source(series, traces.nspec, params.npoly),
            chi2=np.zeros(traces.nspec) if series is None else series.chi2,
            dof=np.zeros(traces.nspec) if series is None else series.dof,
            warnings=tuple(warnings),
        )

    def _lines(self, traces: XYTraceSet, reference: XYTraceSet) -> Lines:
        params = self.params
        middle = np.array([0.5 * (traces.wavemin + traces.wavemax)])
        typical = float(np.median(reference.ysig_vs_wave(middle)))
        if params.linelist is None:
            return lonely_lines(arc_lines(), traces, typical, params.nbins, params.contamination, params.max_lines)
        return chosen_lines(arc_lines(), params.linelist, traces, typical, params.nbins, params.contamination)


def _image_with_traces(context: Context) -> tuple[Image, XYTraceSet]:
    """The latest image with traces of this exposure; the plan says which stage makes it."""
    for output in reversed(context.earlier.values()):
        if isinstance(output, Image) and output.traces is not None:
            return output, output.traces
    raise ValueError("no stage before gave traces to put the widths into; let ResolutionFit run after Flexure")


def _with_widths(traces: XYTraceSet, nominal: float) -> XYTraceSet:
    """The traces with `nominal` widths [pixel] where they have none, or none that is positive everywhere."""
    coef = np.zeros((traces.nspec, 1)) if traces.ysigcoef is None else traces.ysigcoef.copy()
    without = (legendre.evaluate(coef, np.linspace(-1.0, 1.0, NODES)) <= 0).any(axis=1)
    coef[without] = 0.0
    coef[without, 0] = nominal
    return replace(traces, ysigcoef=coef)


def _grid(traces: XYTraceSet, nx: int) -> Grid:
    middle = traces.x_vs_wave(np.array([0.5 * (traces.wavemin + traces.wavemax)]))[:, 0]
    return Grid(2.0 * middle / (nx - 1.0) - 1.0, traces.wavemin, traces.wavemax)


def _series_of_widths(traces: XYTraceSet, reference: XYTraceSet, series: WidthSeries, degree: int) -> Array:
    """(nspec, n) Legendre coefficients of the new widths over the domain of the traces [pixel]."""
    u = np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
    wave = traces.wavemin + 0.5 * (u + 1.0) * (traces.wavemax - traces.wavemin)
    widths = reference.ysig_vs_wave(wave) * np.clip(series.at(wave), *SANE)
    assert reference.ysigcoef is not None
    return legendre.fit(u, widths, max(reference.ysigcoef.shape[1] - 1, degree))


def _source(series: WidthSeries | None, nspec: int, degree: int) -> NDArray[np.int8]:
    if series is None:
        return np.full(nspec, WidthSource.UNCHANGED, np.int8)
    nlines = series.used.sum(axis=1)
    few = np.where(nlines > 0, WidthSource.FEW_LINES, WidthSource.NEIGHBOURS)
    return np.where(nlines > degree, WidthSource.LINES, few).astype(np.int8)
