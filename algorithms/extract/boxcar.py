"""Boxcar extraction of every fiber: on its native rows, or from there on a common wavelength grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from algorithms.extract.aperture import sum_apertures
from algorithms.extract.grid import GridParams, Odd, Spread, to_common_grid
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.image import Image
from qlstream.datamodel.qframe import ELECTRON, QFrame
from qlstream.datamodel.resolution import DEFAULT_NDIAG
from qlstream.datamodel.traces import XYTraceSet
from qlstream.pipeline.algorithm import PipelineAlg, StageParams
from qlstream.pipeline.context import Context

_WIDTH_SAMPLES = 65  # rows at which the slowly varying profile width is tabulated


class BoxcarParams(StageParams):
    """The window, and which spectra."""

    half_width: float | None = Field(
        None, gt=0, le=15, alias="HalfWidth",
        description="half width of the window [pixel]; default: extraction_half_width of the instrument",
    )  # fmt: skip
    reach: int = Field(6, ge=0, le=200, description="rows on each side that give the local profile [pixel]")
    min_fraction: float = Field(
        0.01, gt=0, lt=1, description="share of the profile in good pixels below which a row is given up"
    )
    profile_error: float = Field(0.03, gt=0, lt=1, description="relative error of the Gaussian profile")
    specmin: int = Field(0, ge=0, alias="Specmin", description="first spectrum that is extracted")
    nspec: int | None = Field(None, ge=1, alias="Nspec", description="how many spectra are extracted; default all")


class Extract_QP(PipelineAlg[Image, QFrame]):
    """Boxcar extraction of every fiber: fast, and good enough to judge an exposure.

    Flux is in electron per CCD row, on the wavelengths that the traces of this exposure give to the rows.
    """

    class Params(BoxcarParams):
        full_width: float | None = Field(
            None, gt=0, le=30, alias="FullWidth", description="full width of the window [pixel], in place of half_width"
        )

    def run(self, image: Image, context: Context) -> QFrame:
        """Raises MissingCalibration if no stage before set the traces and no PSF serves."""
        half_width = self.params.half_width
        if half_width is None and self.params.full_width is not None:
            half_width = 0.5 * self.params.full_width
        return extract_rows(image, context, self.params, half_width)


class BoxcarExtract(PipelineAlg[Image, Frame]):
    """Boxcar extraction onto a common wavelength grid, flux in electron per Angstrom.

    The spectra are those of `Extract_QP`, resampled with their S/N kept; the line widths of the traces come along, in
    output bins (`to_common_grid`).
    """

    class Params(BoxcarParams, GridParams):
        half_width: float | None = Field(
            None, gt=0, le=15, alias="BoxWidth",
            description="half width of the window [pixel]; default: extraction_half_width of the instrument",
        )  # fmt: skip
        quick_resolution: bool = Field(
            True, alias="QuickResolution", description="carry the line widths of the traces along [bin]"
        )
        usesigma: bool = Field(
            False, description="carry whole resolution matrices of these widths instead; 20 times as much memory"
        )
        ndiag: Odd = Field(DEFAULT_NDIAG, ge=3, le=101, description="number of diagonals of the resolution, odd")

    def run(self, image: Image, context: Context) -> Frame:
        """Raises MissingCalibration if no stage before set the traces and no PSF serves."""
        params = self.params
        qframe = extract_rows(image, context, params, params.half_width)
        resolution: Spread = "bands" if params.usesigma else "widths" if params.quick_resolution else "none"
        return to_common_grid(qframe, params.grid(context.arm), resolution, params.ndiag)


def extract_rows(image: Image, context: Context, params: BoxcarParams, half_width: float | None) -> QFrame:
    """Boxcar sums of the spectra that `params` choose, row by row, on the wavelengths of this exposure's traces.

    Raises
    ------
    MissingCalibration : no stage before set the traces, and no PSF serves
    ValueError : the traces are not those of the instrument, or it has no such spectra
    """
    traces = image.traces if image.traces is not None else context.calibration.traces
    fibers = context.instrument.fibers(context.camera)
    if len(fibers) != traces.nspec:
        raise ValueError(
            f"{context.camera}: {traces.nspec} traces for {context.instrument.nspec} fibers of "
            f"{context.instrument.name}; give the PSF of this instrument"
        )
    fibermap = context.fibermap
    chosen = slice(params.specmin, None if params.nspec is None else params.specmin + params.nspec)
    if len(fibers[chosen]) < len(fibers):
        if not len(fibers[chosen]):
            raise ValueError(f"specmin {params.specmin}: {context.camera} has spectra 0 to {len(fibers) - 1}")
        traces, fibers = traces.select(chosen), fibers[chosen]
        fibermap = None if fibermap is None else fibermap.select(fibers)
    if half_width is None:
        half_width = context.instrument.extraction_half_width
    rows = np.arange(image.ny, dtype=float)
    wave = traces.wave_vs_y(rows)
    x = traces.x_vs_y(rows, out=context.buffers.get("extract.x", wave.shape, np.float64))
    ysigma = None if traces.ysigcoef is None else traces.ysig_vs_y(rows, out=np.empty(wave.shape, np.float32))
    flux, ivar, mask = sum_apertures(
        image.pix, image.ivar, image.mask,
        x, _widths(traces, image.ny), _inside(traces, image.ny),
        half_width, params.reach, params.min_fraction, params.profile_error,
    )  # fmt: skip
    return QFrame(
        wave,
        flux,
        ivar,
        mask,
        fibers=fibers,
        ysigma=ysigma,
        fibermap=fibermap,
        bunit=ELECTRON,
        meta={"FLAVOR": context.flavor} | image.meta | _cards(traces, half_width, context.camera),
    )


def _cards(traces: XYTraceSet, half_width: float, camera: str) -> dict[str, Any]:
    return {
        "CAMERA": camera,
        "NSPEC": traces.nspec,
        "WAVEMIN": traces.wavemin,
        "WAVEMAX": traces.wavemax,
        "HALFWID": half_width,
        "BUNIT": ELECTRON,
    }


def _inside(traces: XYTraceSet, ny: int) -> NDArray[np.int64]:
    """(nspec, 2) first row and last row + 1 whose centers lie in the domain of each trace."""
    ends = traces.y_vs_wave(np.array([traces.wavemin, traces.wavemax]))
    return np.clip(np.stack([np.ceil(ends[:, 0]), np.floor(ends[:, 1]) + 1], axis=1), 0, ny).astype(np.int64)


def _widths(traces: XYTraceSet, ny: int) -> NDArray[np.float64]:
    """(nspec, m) profile sigma [pixel] at rows evenly from the first to the last."""
    rows = np.clip(
        np.linspace(0.0, ny - 1.0, _WIDTH_SAMPLES)[None, :],
        *(traces.y_vs_wave(np.array([w])) for w in (traces.wavemin, traces.wavemax)),
    )
    return traces.xsig_vs_y(rows)
