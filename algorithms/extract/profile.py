"""Profile ("optimal") extraction of every fiber, row by row, onto a common wavelength grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from algorithms.extract.crossprofile import cross_profiles
from algorithms.extract.grid import FrameParams
from algorithms.extract.optimal import fit_profiles
from algorithms.extract.rows import SpectraParams, Sums, rows_inside, spectra_by_row
from algorithms.extract.twodimensional import psf_with_traces
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.image import Image
from qlstream.datamodel.traces import XYTraceSet
from qlstream.pipeline.algorithm import PipelineAlg
from qlstream.pipeline.context import Context


class ProfileExtract(PipelineAlg[Image, Frame]):
    """Profile extraction (Horne 1986): the noise of a faint fiber is that of the few pixels that hold its light.

    Between the boxcar, which takes the noise of all pixels of its window and the neighbours' light with it, and the
    two-dimensional extraction, which knows the resolution, too. Flux in electron per Angstrom; the line widths of the
    traces come along, as those of `BoxcarExtract`.
    """

    class Params(SpectraParams, FrameParams):
        nsig: float = Field(5.0, gt=0, description="a pixel that exceeds the profile by more is a cosmic ray [sigma]")
        profile_error: float = Field(
            0.05, ge=0, lt=1, description="relative error of the profile: no deviation within it is a cosmic ray"
        )
        min_fraction: float = Field(
            0.1, gt=0, lt=1, description="share of the light on good pixels below which a row is given up"
        )

    def run(self, image: Image, context: Context) -> Frame:
        """Raises MissingCalibration if no PSF serves, ValueError if it is that of another instrument."""
        params = self.params
        psf = context.calibration.psf

        def sums(traces: XYTraceSet, chosen: slice, x: NDArray[np.float64]) -> Sums:
            profiles = cross_profiles(psf_with_traces(psf.select(chosen), traces), image.ny)
            return fit_profiles(
                image.pix, image.ivar, image.mask, x, profiles, rows_inside(traces, image.ny),
                params.nsig, params.profile_error, params.min_fraction,
            )  # fmt: skip

        return params.frame_of(spectra_by_row(image, context, params, sums), context.arm)
