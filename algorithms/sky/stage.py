"""The stages that model the sky and subtract it."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from algorithms.sky.deconvolved import fit_deconvolved_sky
from algorithms.sky.deviations import LSF, THROUGHPUT, WAVELENGTH
from algorithms.sky.framemodel import model_of_frame, subtract_model
from algorithms.sky.robust import TooFewSkyFibers
from algorithms.sky.subtract import fit_sky_fibers, subtract_sky
from algorithms.sky.variation import Components, PolynomialTimesSky, Uniform, Variation
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.framebands import bands_of
from qlstream.datamodel.masks import FiberMask, SpecMask
from qlstream.datamodel.qframe import QFrame
from qlstream.datamodel.sky import SkyModel
from qlstream.pipeline.algorithm import PipelineAlg, StageParams
from qlstream.pipeline.context import Context

_NOT_FOR_SKY = int(FiberMask.VARIABLETHRU | FiberMask.LOWTRANSMISSION)  # beside the bits that no use allows


class SkySub_QP(PipelineAlg[QFrame, QFrame]):
    """Model the sky from the camera's sky fibers, each through its own line spread, and subtract it from all."""

    needs = ("ApplyFiberFlat_QP",)

    class Params(StageParams):
        knot_step: float = Field(0.65, gt=0.3, le=2, description="distance of the knots of the sky spectrum [pixel]")
        niter: int = Field(2, ge=2, le=20, description="rounds of fit and rejection")
        nsig: float = Field(5.0, gt=0, description="reject samples and fibers that deviate by more [sigma]")
        tolerance: float = Field(0.01, ge=0, lt=1, description="never reject samples within this fraction of the sky")
        fiber_tolerance: float = Field(0.05, ge=0, description="never reject fibers within this fraction of the sky")
        line_level: float = Field(
            3.0, gt=1, description="each fiber corrects its lines above this many continua of sky"
        )
        min_fibers: int = Field(3, ge=1, description="fewer sky fibers make no sky")

    def run(self, qframe: QFrame, context: Context) -> QFrame:
        """Raises MissingCalibration if there are too few sky fibers: none are invented from targets."""
        fibermap = known_fibermap(qframe.fibermap)
        p = self.params
        candidates = sky_fibers(fibermap, context)
        try:
            fitted = fit_sky_fibers(
                qframe, candidates, p.knot_step, p.niter, p.nsig, p.tolerance, p.fiber_tolerance, p.min_fibers
            )
        except TooFewSkyFibers as error:
            raise MissingCalibration(f"no sky model for {context.camera}: {error}") from None
        if fitted.rejected.size:
            context.log.warning("sky fibers with other light: FIBER %s", qframe.fibers[fitted.rejected].tolist())
        out = subtract_sky(qframe, fitted, p.line_level, p.nsig)
        bad = ~fibermap.is_usable("sky", context.camera[:1])
        out.ivar[bad] = 0.0
        out.mask[bad] |= np.uint32(SpecMask.BADFIBER)
        counts = {"NSKY": int(fitted.fibers.size), "NSKYREJ": int(fitted.rejected.size)}
        return replace(out, meta={**qframe.meta, **counts})


class ComputeSky_QL(PipelineAlg[Frame, SkyModel]):
    """Model the sky of a flat-fielded frame from its sky fibers, through the resolution of each fiber.

    The model stands beside the spectra: SkySub_QL, which comes later in the plan, finds it there.
    """

    aside = True
    needs = (("ApplyFiberFlat_QL", "ApplyFiberFlat"),)

    class Params(StageParams):
        apply_resolution: bool = Field(
            True, alias="Apply_resolution", description="False takes the weighted mean of the sky fibers for all"
        )
        max_iterations: int = Field(5, ge=2, le=100, description="rounds of fit and rejection, at most")
        nsig: float = Field(
            4.0, gt=0, alias="nsig_clipping", description="reject samples and fibers that deviate by more [sigma]"
        )
        tolerance: float = Field(0.01, ge=0, lt=1, description="never reject samples within this fraction of the sky")
        fiber_tolerance: float = Field(0.05, ge=0, description="never reject fibers within this fraction of the sky")
        line_level: float = Field(
            3.0, gt=1, description="each fiber corrects its lines above this many continua of sky"
        )
        adjust_throughput: bool = Field(True, description="each fiber scales its lines by what they say of its flat")
        adjust_wavelength: bool = Field(True, description="each fiber shifts its lines to where it sees them")
        adjust_lsf: bool = Field(True, description="each fiber gives its lines the width and shape that it sees")
        add_variance: bool = Field(True, description="errors include what bright lines leave behind beyond noise")
        min_fibers: int = Field(3, ge=1, description="fewer sky fibers make no sky")
        angular_degree: int = Field(
            0, ge=0, le=3, alias="angular_variation_deg",
            description="of a polynomial over the focal plane that multiplies the sky; 0: the sky is the same in it",
        )  # fmt: skip
        chromatic_degree: int = Field(
            0, ge=-1, le=3, alias="chromatic_variation_deg",
            description="by which that polynomial changes along the wavelengths; -1: each of its terms has a spectrum",
        )  # fmt: skip

    def run(self, frame: Frame, context: Context) -> SkyModel:
        """Raises MissingCalibration if there are too few sky fibers, or no resolution where it is asked for."""
        p = self.params
        candidates = sky_fibers(known_fibermap(frame.fibermap), context)
        if p.apply_resolution and frame.resolution is None and frame.ysigma is None:
            raise MissingCalibration(
                f"the spectra of {context.camera} came without line spread; with Apply_resolution: false the mean of "
                "the sky fibers serves all"
            )
        ivar = np.where(frame.mask == 0, frame.ivar, 0.0)
        try:
            fitted = fit_deconvolved_sky(
                frame.flux, ivar, frame.dwave,
                self._variation(frame),
                candidates, p.max_iterations, p.nsig, p.tolerance, p.fiber_tolerance, p.min_fibers,
            )  # fmt: skip
        except TooFewSkyFibers as error:
            raise MissingCalibration(f"no sky model for {context.camera}: {error}") from None
        if fitted.rejected.size:
            context.log.warning("sky fibers with other light: FIBER %s", frame.fibers[fitted.rejected].tolist())
        chosen = {THROUGHPUT: p.adjust_throughput, WAVELENGTH: p.adjust_wavelength, LSF: p.adjust_lsf}
        allowed = [mode for modes, wanted in chosen.items() if wanted for mode in modes]
        return model_of_frame(replace(frame, ivar=ivar), fitted, p.line_level, p.nsig, p.add_variance, allowed)

    def _variation(self, frame: Frame) -> Variation:
        p, unit = self.params, np.ones((1, frame.wave.size))
        bands = bands_of(frame) if p.apply_resolution else lambda _: unit
        if p.angular_degree == 0:
            return Uniform(bands)
        place = known_fibermap(frame.fibermap).places(frame.fibers)
        if p.chromatic_degree < 0:
            return Components(bands, place, p.angular_degree)
        return PolynomialTimesSky(bands, place, frame.wave, p.angular_degree, p.chromatic_degree)


class ComputeSky(ComputeSky_QL):
    """Model the sky of a flat-fielded frame from its sky fibers, iterated until no more samples are rejected."""

    class Params(ComputeSky_QL.Params):
        max_iterations: int = Field(100, ge=2, le=1000, description="rounds of fit and rejection, at most")


class SkySub_QL(PipelineAlg[Frame, Frame]):
    """Subtract the sky of a flat-fielded frame: the model of an earlier ComputeSky_QL, else one made here."""

    needs = (("ApplyFiberFlat_QL", "ApplyFiberFlat"),)
    model_by: ClassVar[type[ComputeSky_QL]] = ComputeSky_QL

    class Params(ComputeSky_QL.Params):
        """Of the model, if it is made here; `line_level` also tells which bins are lines."""

    def run(self, frame: Frame, context: Context) -> Frame:
        """Raises MissingCalibration if there are too few sky fibers: none are invented from targets."""
        fibermap = known_fibermap(frame.fibermap)
        model = context.earlier.get(self.model_by.__name__)
        if model is None:
            model = self.model_by(self.params.model_dump()).run(frame, context)
        out = subtract_model(frame, model, self.params.line_level)
        bad = ~fibermap.is_usable("sky", context.camera[:1])
        out.ivar[bad] = 0.0
        out.mask[bad] |= np.uint32(SpecMask.BADFIBER)
        return out


class SkySub(SkySub_QL):
    """Subtract the sky of a flat-fielded frame: the model of an earlier ComputeSky, else one made here."""

    model_by = ComputeSky

    class Params(ComputeSky.Params):
        """Of the model, if it is made here; `line_level` also tells which bins are lines."""


def known_fibermap(fibermap: Fibermap | None) -> Fibermap:
    """Raises MissingCalibration if there is none."""
    if fibermap is None:
        raise MissingCalibration("no fibermap, so it is not known which fibers see sky")
    return fibermap


def sky_fibers(fibermap: Fibermap, context: Context) -> NDArray[np.int64]:
    """Indices of the fibers that see sky alone and count alike."""
    status = fibermap.column("FIBERSTATUS", 0).astype(np.int64)
    usable = fibermap.is_usable("sky", context.camera[:1]) & ((status & _NOT_FOR_SKY) == 0)
    return np.flatnonzero(fibermap.is_sky & usable)
