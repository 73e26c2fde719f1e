"""Boxcar extraction of every fiber on its native rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from algorithms.extract.aperture import sum_apertures
from qlstream.datamodel.image import Image
from qlstream.datamodel.qframe import ELECTRON, QFrame
from qlstream.datamodel.traces import XYTraceSet
from qlstream.pipeline.algorithm import PipelineAlg, StageParams
from qlstream.pipeline.context import Context

_WIDTH_SAMPLES = 65  # rows at which the slowly varying profile width is tabulated


class Extract_QP(PipelineAlg[Image, QFrame]):
    """Boxcar extraction of every fiber: fast, and good enough to judge an exposure.

    Flux is in electron per CCD row, on the wavelengths that the traces of this exposure give to the rows.
    """

    class Params(StageParams):
        half_width: float | None = Field(
            None, gt=0, le=15, alias="HalfWidth",
            description="half width of the window [pixel]; default: extraction_half_width of the instrument",
        )  # fmt: skip
        full_width: float | None = Field(
            None, gt=0, le=30, alias="FullWidth", description="full width of the window [pixel], in place of half_width"
        )
        reach: int = Field(6, ge=0, le=200, description="rows on each side that give the local profile [pixel]")
        min_fraction: float = Field(
            0.01, gt=0, lt=1, description="share of the profile in good pixels below which a row is given up"
        )
        profile_error: float = Field(0.03, gt=0, lt=1, description="relative error of the Gaussian profile")

    def run(self, image: Image, context: Context) -> QFrame:
        """Raises MissingCalibration if no stage before set the traces and no PSF serves."""
        traces = image.traces if image.traces is not None else context.calibration.traces
        if len(context.instrument.fibers(context.camera)) != traces.nspec:
            raise ValueError(
                f"{context.camera}: {traces.nspec} traces for {context.instrument.nspec} fibers of "
                f"{context.instrument.name}; give the PSF of this instrument"
            )
        half_width = self._half_width(context)
        rows = np.arange(image.ny, dtype=float)
        wave = traces.wave_vs_y(rows)
        x = traces.x_vs_y(rows, out=context.buffers.get("extract.x", wave.shape, np.float64))
        ysigma = None if traces.ysigcoef is None else traces.ysig_vs_y(rows, out=np.empty(wave.shape, np.float32))
        flux, ivar, mask = sum_apertures(
            image.pix, image.ivar, image.mask,
            x, _widths(traces, image.ny), _inside(traces, image.ny),
            half_width, self.params.reach, self.params.min_fraction, self.params.profile_error,
        )  # fmt: skip
        return QFrame(
            wave,
            flux,
            ivar,
            mask,
            fibers=context.instrument.fibers(context.camera),
            ysigma=ysigma,
            fibermap=context.fibermap,
            bunit=ELECTRON,
            meta=image.meta | self._cards(traces, half_width, context.camera),
        )

    def _half_width(self, context: Context) -> float:
        if self.params.half_width is not None:
            return self.params.half_width
        if self.params.full_width is not None:
            return 0.5 * self.params.full_width
        return context.instrument.extraction_half_width

    @staticmethod
    def _cards(traces: XYTraceSet, half_width: float, camera: str) -> dict[str, Any]:
        return {
            "CAMERA": camera,
            "NSPEC": traces.nspec,
            "WAVEMIN": traces.wavemin,
            "WAVEMAX": traces.wavemax,
            "HALFWID": half_width,
            "BUNIT": ELECTRON,
        }


def _inside(traces: XYTraceSet, ny: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(nspec, 2) first row and last row + 1 whose centers lie in the domain of each trace."""
    ends = traces.y_vs_wave(np.array([traces.wavemin, traces.wavemax]))
    return np.clip(np.stack([np.ceil(ends[:, 0]), np.floor(ends[:, 1]) + 1], axis=1), 0, ny).astype(np.int64)


def _widths(traces: XYTraceSet, ny: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(nspec, m) profile sigma [pixel] at rows evenly from the first to the last."""
    rows = np.clip(
        np.linspace(0.0, ny - 1.0, _WIDTH_SAMPLES)[None, :],
        *(traces.y_vs_wave(np.array([w])) for w in (traces.wavemin, traces.wavemax)),
    )
    return traces.xsig_vs_y(rows)
