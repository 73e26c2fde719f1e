"""The targets: signal to noise, and magnitudes against the flux that entered the fibers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from benchmarks.truth.exposed import Bools, Exposed
from benchmarks.truth.line import Array, Line, compared, nmad
from qa.photometry import synthetic_magnitudes
from qa.snr import Calculate_SNR, fit_snr, snr_model
from qlstream.datamodel.fibermap import CLASSES
from qlstream.datamodel.qframe import QFrame

_FEW = 4  # targets of a class that a comparison needs
_DRAWS = 40  # of the bootstrap that gives the statistical error of a fit


def lines(exposed: Exposed) -> Iterator[Line]:
    """What a science exposure tells of its targets."""
    if exposed.context.flavor != "science" or "SkySub_QP" not in exposed.reduced.outcome.outputs:
        return
    yield from _signal_to_noise(exposed)
    if "ApplyFluxCalibration" in exposed.reduced.outcome.outputs:
        yield from _magnitudes(exposed)


@dataclass(frozen=True)
class _Expected:
    """True signal and variance of every row: all, and the part that does not come from the target itself."""

    signal: Array
    variance: Array
    of_target: Array

    def median_snr(self, scale: Array | float = 1.0) -> tuple[Array, Array]:
        """(nspec,) median S/N per row, the target dimmed to `scale` of its light, and the error of measuring it.

        Each row scatters by one, so the median of the measured S/N solves mean(Phi(m - s)) = 1/2 over the rows' true
        S/N s: sky lines pull it below the median of s.
        """
        scale = np.broadcast_to(np.asarray(scale, dtype=float), len(self.signal))[:, None]
        with np.errstate(invalid="ignore"):
            snr = scale * self.signal / np.sqrt(self.variance + (scale - 1.0) * self.of_target)
        out, error = np.full(len(snr), np.nan), np.full(len(snr), np.nan)
        for i in np.flatnonzero(np.isfinite(snr).any(axis=1)):
            rows = snr[i][np.isfinite(snr[i])]
            out[i] = brentq(lambda m, s=rows: ndtr(m - s).mean() - 0.5, rows.min() - 1.0, rows.max() + 1.0)
            density = np.exp(-0.5 * (out[i] - rows) ** 2).mean() / math.sqrt(2 * math.pi)
            error[i] = 0.5 / (density * math.sqrt(rows.size))
        return out, error


def _expected(exposed: Exposed) -> _Expected:
    """What truth and noise imply: photons of sky and target, read noise, and the noise of the sky model.

    The sky model is a mean over the sky fibers. Rows that the pipeline gave up are left out here too.
    """
    subtracted: QFrame = exposed.reduced.outcome.outputs["SkySub_QP"]
    expected, variance = exposed.aperture
    truth, fibermap = exposed.truth, exposed.context.fibermap
    assert fibermap is not None
    with np.errstate(divide="ignore", invalid="ignore"):
        signal = np.where(truth.flux > 0, expected * truth.target / truth.flux, 0.0)
        sky = fibermap.is_sky & fibermap.is_usable("sky", exposed.camera[:1])
        model = np.median((variance / truth.fiberflat**2)[sky], axis=0) / sky.sum() * truth.fiberflat**2
    good = subtracted.ivar > 0
    return _Expected(np.where(good, signal, np.nan), np.where(good, variance + model, np.nan), signal)


def _signal_to_noise(exposed: Exposed) -> Iterator[Line]:
    result, fibermap = exposed.result("Calculate_SNR"), exposed.context.fibermap
    assert result is not None
    assert fibermap is not None
    expected = _expected(exposed)
    snr, error = expected.median_snr()
    flux = fibermap.column(f"FLUX_{exposed.context.arm.band}", 0.0).astype(float)
    usable = fibermap.is_usable("flux", exposed.camera[:1]) & np.isfinite(snr) & (flux > 0)
    measured = result.per_fiber["MEDIAN_SNR"]
    for name in CLASSES:
        members = usable & fibermap.is_class(name)
        if members.sum() < _FEW:
            continue
        truth, found = float(np.median(snr[members])), float(np.median(measured[members]))
        sigma = 1.25 * float(np.median(error[members])) / math.sqrt(members.sum())
        yield compared("Calculate_SNR", f"MEDIAN_SNR, median of class {name}", truth, found, sigma, relative=0.03)
    yield from _fiducial(exposed, expected, snr, error, usable, flux)


def _fiducial(
    exposed: Exposed, expected: _Expected, snr: Array, error: Array, usable: Bools, flux: Array
) -> Iterator[Line]:
    """FIDSNR_TGT: the metric's own fit, given the S/N that truth and noise imply."""
    result, fibermap = exposed.result("Calculate_SNR"), exposed.context.fibermap
    assert result is not None
    assert fibermap is not None
    params = Calculate_SNR.Params()
    fiducial = 10 ** (0.4 * (22.5 - params.fidmag))
    scale = np.where(usable, fiducial / np.where(flux > 0, flux, 1.0), np.nan)
    scaled, _ = expected.median_snr(scale)
    rng = np.random.default_rng(1)
    for name in CLASSES:
        members, found = usable & fibermap.is_class(name), result.per_class["FIDSNR_TGT"].get(name)
        if found is None or members.sum() < _FEW:
            continue
        twice = members & (scale < 1) & np.isfinite(scaled)
        x = np.concatenate([flux[members], np.full(twice.sum(), fiducial)])
        y = np.concatenate([snr[members], scaled[twice]])
        e = np.concatenate([error[members], (error * scale)[twice]])

        def fitted(values: Array, x: Array = x, e: Array = e) -> float:
            return float(snr_model(fit_snr(x, values, e, params.intrinsic), fiducial))

        sigma = float(np.std([fitted(y + e * rng.normal(size=e.size)) for _ in range(_DRAWS)]))
        yield compared("Calculate_SNR", f"FIDSNR_TGT {name}", fitted(y), found, sigma, relative=0.03)


def _magnitudes(exposed: Exposed) -> Iterator[Line]:
    """SPEC_MAGS of each class against the same filter on the noiseless, perfectly calibrated targets."""
    result, fibermap = exposed.result("Integrate_Spec"), exposed.context.fibermap
    assert result is not None
    assert fibermap is not None
    calibrated: QFrame = exposed.reduced.outcome.outputs["ApplyFluxCalibration"]
    exposure, truth = exposed.exposure, exposed.truth
    average = exposed.context.calibration.fluxcalib
    expected, variance = exposed.aperture
    with np.errstate(divide="ignore", invalid="ignore"):
        vector = average.at(truth.wave, exposure.airmass, exposure.seeing) * exposure.exptime
        vector = vector * np.gradient(truth.wave, axis=1) * truth.fiberflat
        share = np.where(truth.flux > 0, truth.target / truth.flux, 0.0)
        usable = (vector > 0) & (calibrated.ivar > 0)
        flux = np.where(usable, expected * share / vector, 0.0).astype(np.float32)
        ivar = np.where(usable, vector**2 / variance, 0.0).astype(np.float32)
    noiseless = replace(calibrated, wave=truth.wave, flux=flux, ivar=ivar)
    curve = exposed.context.arm.filter_curve
    true_mags, found = synthetic_magnitudes(noiseless, curve), result.per_fiber["SPEC_MAGS"]
    good = fibermap.is_usable("flux", exposed.camera[:1])
    for name in CLASSES:
        members = good & fibermap.is_class(name) & np.isfinite(true_mags)
        if members.sum() < _FEW:
            continue
        # a target lost in the noise has no magnitude; at the faint end it counts, so that the median stays unbiased
        difference = np.where(np.isfinite(found), found - true_mags, np.inf)[members]
        measured = float(np.median(difference))
        seen = difference[np.isfinite(difference)]
        sigma = 1.25 * nmad(seen) / math.sqrt(members.sum())
        yield compared("Integrate_Spec", f"SPEC_MAGS less truth, {name} [mag]", 0.0, measured, sigma, absolute=0.05)
