"""Stages of the fiber flat: made from a lamp exposure, applied to a science exposure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from algorithms.fiberflat.apply import divide_by_fiberflat, moved_with_the_earth
from algorithms.fiberflat.deconvolved import fit_deconvolved_flat
from algorithms.fiberflat.smooth import FittedFlat, fit_smooth_flat
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.framebands import bands_of
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.qframe import QFrame
from qlstream.pipeline.algorithm import PipelineAlg, StageParams
from qlstream.pipeline.context import Context

_SAME_WAVE = 0.01  # grids that differ by no more are the same [Angstrom]


class _FlatParams(StageParams):
    nsig: float = Field(5.0, gt=0, alias="nsig_clipping", description="reject bins that deviate by more [sigma]")
    tolerance: float = Field(0.01, ge=0, lt=1, description="never reject deviations of this fraction of the flux")
    min_throughput: float = Field(0.1, ge=0, lt=1, description="a fiber below this times the median is dark")
    min_good: float = Field(0.25, ge=0, le=1, description="a fiber with a smaller share of good bins is bad")
    min_snr: float = Field(5.0, gt=0, description="below this median S/N per bin there was no lamp light")
    max_error: float = Field(0.02, gt=0, description="mask the flat where its own error is larger")


class ComputeFiberflat_QP(PipelineAlg[QFrame, FiberFlat]):
    """Relative throughput of the fibers from one lamp exposure, smooth in wavelength, with its error."""

    class Params(_FlatParams):
        knot_step: float = Field(22.0, gt=0, description="distance of the knots of a fiber's throughput [Angstrom]")
        lamp_knot_step: float = Field(2.0, gt=0, description="distance of the knots of the lamp spectrum [Angstrom]")
        niter: int = Field(2, ge=1, le=20, description="rounds of lamp spectrum and throughputs")

    def run(self, qframe: QFrame, context: Context) -> FiberFlat:
        """Raises MissingCalibration if the exposure holds no lamp light: then it makes no flat."""
        p = self.params
        live = _live_fibers(qframe, context, p)
        fit = fit_smooth_flat(
            qframe.wave, qframe.dwave, qframe.flux, qframe.ivar, live, p.knot_step, p.lamp_knot_step, p.niter, p.nsig,
            p.tolerance,
        )  # fmt: skip
        return _as_product(fit, qframe, live, p.max_error, context)


class _ComputeFrameFlat(PipelineAlg[Frame, FiberFlat]):
    """The flat of a frame, by its lamp before the resolution of the fibers."""

    def run(self, frame: Frame, context: Context) -> FiberFlat:
        """Raises MissingCalibration if the exposure holds no lamp light: then it makes no flat."""
        p = self.params
        usable = (frame.ivar > 0) & (frame.mask == 0)
        live = _live_fibers(replace(frame, ivar=np.where(usable, frame.ivar, 0.0)).per_bin(), context, p)
        typical = np.nanmedian(np.where(usable[live], frame.flux[live], np.nan), axis=0, keepdims=True)
        usable &= (frame.flux > p.minval * typical) & (frame.flux < p.maxval * typical)
        live &= usable.mean(axis=1) >= p.min_good
        fit = fit_deconvolved_flat(
            frame.wave, frame.flux, np.where(usable, frame.ivar, 0.0), live, bands_of(frame),
            p.smoothing_res, p.max_iterations, p.accuracy, p.nsig, p.tolerance, p.smooth,
        )  # fmt: skip
        return _as_product(fit, frame, live, p.max_error, context)


class _FrameFlatParams(_FlatParams):
    smoothing_res: float = Field(22.0, gt=0, description="distance of the knots of a fiber's throughput [Angstrom]")
    max_iterations: int = Field(15, ge=1, le=100, description="rounds of lamp spectrum and throughputs, at most")
    accuracy: float = Field(5e-4, gt=0, description="end when no throughput changes by more [fraction]")
    minval: float = Field(0.1, ge=0, lt=1, description="leave out bins below this times the median fiber")
    maxval: float = Field(10.0, gt=1, description="leave out bins above this times the median fiber")
    smooth: bool = Field(True, description="False gives every bin its own ratio to the lamp, with its noise")


class ComputeFiberflat_QL(_ComputeFrameFlat):
    """Relative throughput of the fibers of a frame: two rounds of lamp and throughputs."""

    class Params(_FrameFlatParams):
        max_iterations: int = Field(2, ge=1, le=100, description="rounds of lamp spectrum and throughputs, at most")


class ComputeFiberflat(_ComputeFrameFlat):
    """Relative throughput of the fibers of a frame, iterated until it stays.

    The throughputs are smooth as far as the camera's own fibers are: their knots stand as close as in the reference,
    and what is not there is penalized. The reference gives each bin's own ratio to the lamp, which adds the noise of
    the flat to every science spectrum; `smooth: false` does so here.
    """

    class Params(_FrameFlatParams):
        nsig: float = Field(10.0, gt=0, alias="nsig_clipping", description="reject bins that deviate by more [sigma]")
        smoothing_res: float = Field(5.0, gt=0, description="distance of the knots of a fiber's throughput [Angstrom]")


class ApplyFiberFlat_QP(PipelineAlg[QFrame, QFrame]):
    """Divide by the fiber flat, so that all fibers count alike; where the flat is bad, the mask says so."""

    needs = ("Extract_QP",)

    def run(self, qframe: QFrame, context: Context) -> QFrame:
        flux, ivar, mask = divide_by_fiberflat(qframe, context.calibration.fiberflat)
        return replace(qframe, flux=flux, ivar=ivar, mask=mask)


class ApplyFiberFlat_QL(PipelineAlg[Frame, Frame]):
    """Divide a frame by the fiber flat of the same fibers, interpolated if its wavelengths are others."""

    def run(self, frame: Frame, context: Context) -> Frame:
        """Raises ValueError if the flat lacks fibers of the frame."""
        return _flattened(frame, _for_the_same_fibers(frame, context.calibration.fiberflat))


class ApplyFiberFlat(PipelineAlg[Frame, Frame]):
    """Divide a frame by the fiber flat of the same fibers and wavelengths; where the flat is bad, the mask says so."""

    def run(self, frame: Frame, context: Context) -> Frame:
        """Raises ValueError if the flat has other fibers or another wavelength grid than the frame."""
        flat = _for_the_same_fibers(frame, context.calibration.fiberflat)
        if flat.wave.shape != frame.wave.shape or np.abs(flat.wave - frame.wave).max() > _SAME_WAVE:
            raise ValueError(
                f"the frame has {_told(frame.wave)}, the fiber flat {_told(flat.wave)}; extract both on one grid, or "
                "use ApplyFiberFlat_QL, which interpolates"
            )
        return _flattened(frame, replace(flat, wave=frame.wave))


def _live_fibers(qframe: QFrame, context: Context, p: _FlatParams) -> NDArray[np.bool_]:
    """Which fibers brought lamp light.

    Raises
    ------
    MissingCalibration : none did
    """
    good = qframe.ivar > 0
    live = good.mean(axis=1) >= p.min_good
    if qframe.fibermap is not None:
        live &= qframe.fibermap.is_usable("flat", context.camera[:1])
    level, snr = np.zeros(qframe.nspec), np.zeros(qframe.nspec)
    for f in np.flatnonzero(live):
        rows = np.flatnonzero(good[f])[::8]  # plenty for a median
        level[f] = np.median(qframe.flux[f, rows])
        snr[f] = np.median(qframe.flux[f, rows] * np.sqrt(qframe.ivar[f, rows]))
    typical = float(np.median(snr[live])) if live.any() else 0.0
    if typical < p.min_snr:
        raise MissingCalibration(
            f"no lamp light in this flat: median S/N per bin {typical:.1f}, needed {p.min_snr:g}; no flat is made"
        )
    return np.asarray(live & (level > p.min_throughput * np.median(level[live])))


def _as_product(
    fit: FittedFlat, spectra: QFrame | Frame, live: NDArray[np.bool_], max_error: float, context: Context
) -> FiberFlat:
    good = fit.variance < max_error**2
    error = 100 * np.sqrt(np.median(fit.variance[good])) if good.any() else np.nan
    context.log.info(
        "fiber flat: %d of %d fibers live, chi2/dof %.3f, median error %.2f %%",
        live.sum(), live.size, fit.chi2pdf, error,
    )  # fmt: skip
    ivar = np.zeros_like(fit.variance)
    np.divide(1.0, fit.variance, out=ivar, where=good)
    return FiberFlat(
        wave=fit.wave,
        fiberflat=np.where(good, fit.fiberflat, 1.0),
        ivar=ivar,
        mask=np.where(good, 0, SpecMask.BADFIBERFLAT).astype(np.uint32),
        meanspec=fit.lamp,
        fibers=spectra.fibers,
        chi2pdf=fit.chi2pdf,
        fibermap=spectra.fibermap,
        meta=dict(spectra.meta),
    )


def _for_the_same_fibers(frame: Frame, flat: FiberFlat) -> FiberFlat:
    missing = np.setdiff1d(frame.fibers, flat.fibers)
    if missing.size:
        raise ValueError(
            f"the fiber flat has FIBER {flat.fibers.min()}-{flat.fibers.max()}, {flat.nspec} in all, and lacks "
            f"{missing.size} of the frame's {frame.nspec}, e.g. {missing[:5].tolist()}; give one of the same camera"
        )
    return flat


def _flattened(frame: Frame, flat: FiberFlat) -> Frame:
    factor = float(frame.meta.get("HELIOCOR") or 1.0)
    if factor != 1.0:
        flat = moved_with_the_earth(flat, factor)
    flux, ivar, mask = divide_by_fiberflat(frame, flat)
    return replace(frame, flux=flux, ivar=ivar, mask=mask)


def _told(wave: NDArray[np.float64]) -> str:
    return f"{wave.size} bins of {wave[0]:.2f}-{wave[-1]:.2f} Angstrom"
