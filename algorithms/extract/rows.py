"""Spectra on the native rows of the CCD: which fibers, and what every extraction row by row hands on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qlstream.datamodel.image import Image
from qlstream.datamodel.qframe import ELECTRON, QFrame
from qlstream.datamodel.traces import XYTraceSet
from qlstream.pipeline.algorithm import StageParams
from qlstream.pipeline.context import Context

Array = NDArray[np.float64]
Sums = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint32]]  # flux, ivar, mask, each (nspec, ny)


class SpectraParams(StageParams):
    """Which spectra of the camera."""

    specmin: int = Field(0, ge=0, alias="Specmin", description="first spectrum that is extracted")
    nspec: int | None = Field(None, ge=1, alias="Nspec", description="how many spectra are extracted; default all")

    def chosen(self, fibers: NDArray[np.int32], camera: str) -> slice:
        """Indices among the camera's `fibers`.

        Raises
        ------
        ValueError : it has no such spectra
        """
        chosen = slice(self.specmin, None if self.nspec is None else self.specmin + self.nspec)
        if not len(fibers[chosen]):
            raise ValueError(f"specmin {self.specmin}: {camera} has spectra 0 to {len(fibers) - 1}")
        return chosen


def spectra_by_row(
    image: Image, context: Context, params: SpectraParams, extract: Callable[[XYTraceSet, slice, Array], Sums]
) -> QFrame:
    """The spectra that `params` choose, on the wavelengths that the traces of this exposure give to the rows.

    Parameters
    ----------
    extract : gets the traces of the chosen spectra, which they are, and their centers (nspec, ny) [pixel]

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
    fibermap, chosen = context.fibermap, params.chosen(fibers, context.camera)
    if len(fibers[chosen]) < len(fibers):
        traces, fibers = traces.select(chosen), fibers[chosen]
        fibermap = None if fibermap is None else fibermap.select(fibers)
    rows = np.arange(image.ny, dtype=float)
    wave = traces.wave_vs_y(rows)
    x = traces.x_vs_y(rows, out=context.buffers.get("extract.x", wave.shape, np.float64))
    ysigma = None if traces.ysigcoef is None else traces.ysig_vs_y(rows, out=np.empty(wave.shape, np.float32))
    flux, ivar, mask = extract(traces, chosen, x)
    return QFrame(
        wave,
        flux,
        ivar,
        mask,
        fibers=fibers,
        ysigma=ysigma,
        fibermap=fibermap,
        bunit=ELECTRON,
        meta={"FLAVOR": context.flavor} | image.meta | _cards(traces, context.camera),
    )


def _cards(traces: XYTraceSet, camera: str) -> dict[str, Any]:
    return {
        "CAMERA": camera,
        "NSPEC": traces.nspec,
        "WAVEMIN": traces.wavemin,
        "WAVEMAX": traces.wavemax,
        "BUNIT": ELECTRON,
    }


def rows_inside(traces: XYTraceSet, ny: int) -> NDArray[np.int64]:
    """(nspec, 2) first row and last row + 1 whose centers lie in the domain of each trace."""
    ends = traces.y_vs_wave(np.array([traces.wavemin, traces.wavemax]))
    return np.clip(np.stack([np.ceil(ends[:, 0]), np.floor(ends[:, 1]) + 1], axis=1), 0, ny).astype(np.int64)


def sampled_rows(traces: XYTraceSet, ny: int, n: int) -> Array:
    """(nspec, n) rows evenly from the first to the last of the CCD, those beyond the domain of a trace at its end."""
    ends = traces.y_vs_wave(np.array([traces.wavemin, traces.wavemax]))
    return np.clip(np.linspace(0.0, ny - 1.0, n)[None, :], ends[:, :1], ends[:, 1:])
