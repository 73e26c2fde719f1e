"""Boxcar extraction of every fiber: on its native rows, or from there on a common wavelength grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from algorithms.extract.aperture import sum_apertures
from algorithms.extract.grid import FrameParams
from algorithms.extract.rows import SpectraParams, Sums, rows_inside, sampled_rows, spectra_by_row
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.image import Image
from qlstream.datamodel.qframe import QFrame
from qlstream.datamodel.traces import XYTraceSet
from qlstream.pipeline.algorithm import PipelineAlg
from qlstream.pipeline.context import Context

_WIDTH_SAMPLES = 65  # rows at which the slowly varying profile width is tabulated


class BoxcarParams(SpectraParams):
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

    class Params(BoxcarParams, FrameParams):
        half_width: float | None = Field(
            None, gt=0, le=15, alias="BoxWidth",
            description="half width of the window [pixel]; default: extraction_half_width of the instrument",
        )  # fmt: skip

    def run(self, image: Image, context: Context) -> Frame:
        """Raises MissingCalibration if no stage before set the traces and no PSF serves."""
        qframe = extract_rows(image, context, self.params, self.params.half_width)
        return self.params.frame_of(qframe, context.arm)


def extract_rows(image: Image, context: Context, params: BoxcarParams, half_width: float | None) -> QFrame:
    """Boxcar sums of the spectra that `params` choose, row by row; raises as `spectra_by_row`."""
    half = context.instrument.extraction_half_width if half_width is None else half_width

    def sums(traces: XYTraceSet, _: slice, x: NDArray[np.float64]) -> Sums:
        widths = traces.xsig_vs_y(sampled_rows(traces, image.ny, _WIDTH_SAMPLES))
        return sum_apertures(
            image.pix, image.ivar, image.mask, x, widths, rows_inside(traces, image.ny),
            half, params.reach, params.min_fraction, params.profile_error,
        )  # fmt: skip

    qframe = spectra_by_row(image, context, params, sums)
    return replace(qframe, meta=qframe.meta | {"HALFWID": half})
