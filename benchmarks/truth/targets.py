"""The targets: signal to noise, and magnitudes against the flux that entered the fibers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from algorithms.tsnr2.tracers import template_of
from benchmarks.truth.exposed import Bools, Exposed
from benchmarks.truth.line import Array, Line, compared, nmad
from qa.photometry import POINT_SOURCES, synthetic_fluxes
from qa.snr import Calculate_SNR, fit_targets, snr_model
from qlstream.datamodel.fibermap import CLASSES
from qlstream.datamodel.qframe import QFrame
from qlstream.simulate.schedule import CLEAR
from qlstream.simulate.throughput import atmosphere, fiber_fraction

_FEW = 4  # targets of a class that a comparison needs
_EXTINCTION = {"G": 3.214, "R": 2.165, "Z": 1.211}  # mag per E(B-V) (Schlafly & Finkbeiner 2011)
_DRAWS = 40  # of the bootstrap that gives the statistical error of a fit


def lines(exposed: Exposed) -> Iterator[Line]:
    """What a science exposure tells of its targets."""
    if exposed.context.flavor != "science" or "SkySub_QP" not in exposed.reduced.outcome.outputs:
        return
    yield from _signal_to_noise(exposed)
    yield from _positions(exposed)
    if "ApplyFluxCalibration" in exposed.reduced.outcome.outputs:
        yield from _magnitudes(exposed)


@dataclass(frozen=True)
class _Expected:
    """True signal and variance of every row: all, and the part that does not come from the target itself."""

    signal: Array
    variance: Array
    of_target: Array
    nsky: int

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
    return _Expected(np.where(good, signal, np.nan), np.where(good, variance + model, np.nan), signal, int(sky.sum()))


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
        # the noise of the sky model is common to all fibers
        sigma = float(np.median(error[members])) * math.hypot(1.25 / math.sqrt(members.sum()), expected.nsky**-0.5)
        yield compared("Calculate_SNR", f"MEDIAN_SNR, median of class {name}", truth, found, sigma, relative=0.03)
    yield from _fiducial(exposed, expected, snr, error, usable, flux)
    yield from _effective_time(exposed, expected)


def _fiducial(
    exposed: Exposed, expected: _Expected, snr: Array, error: Array, usable: Bools, flux: Array
) -> Iterator[Line]:
    """FIDSNR_TGT: the metric's own fit, given the S/N that truth and noise imply."""
    result, fibermap = exposed.result("Calculate_SNR"), exposed.context.fibermap
    assert result is not None
    assert fibermap is not None
    params = Calculate_SNR.Params.model_validate({})
    fiducial = 10 ** (0.4 * (22.5 - params.fidmag))
    dimmed, _ = expected.median_snr(np.where(usable, fiducial / np.where(flux > 0, flux, 1.0), np.nan))
    rng = np.random.default_rng(1)
    for name in CLASSES:
        members, found = usable & fibermap.is_class(name), result.per_class["FIDSNR_TGT"].get(name)
        if found is None or members.sum() < _FEW:
            continue
        x, y, z, e = (values[members] for values in (flux, snr, dimmed, error))

        def fitted(noise: Array, x: Array = x, y: Array = y, z: Array = z, e: Array = e) -> float:
            fit = fit_targets(x, y + e * noise, z, e, fiducial, params.intrinsic)
            return float(snr_model(fit, fiducial))

        draws = [rng.normal(size=x.size) + rng.normal() / math.sqrt(expected.nsky) for _ in range(_DRAWS)]
        sigma = float(np.std([fitted(draw) for draw in draws]))
        truth = fitted(np.zeros(x.size))
        yield compared("Calculate_SNR", f"FIDSNR_TGT {name}", truth, found, sigma, relative=0.03)


def _effective_time(exposed: Exposed, expected: _Expected) -> Iterator[Line]:
    """TSNR2 of the class that the program is for, from true throughput, transparency, fiber losses and noise."""
    result, fibermap = exposed.result("Effective_Time"), exposed.context.fibermap
    assert fibermap is not None
    if result is None or not result.metrics:
        return
    clear = exposed.exposure.transparency / CLEAR
    found = result.metrics["TRANSPARENCY"]
    stars = fibermap.is_usable("flux", exposed.camera[:1]) & fibermap.is_class("STAR")
    # the positioners' offsets cost some light, and each star's imaging flux is known to 1 %
    sigma = 0.02 / math.sqrt(max(int(stars.sum()), 1))
    yield compared("Effective_Time", "TRANSPARENCY", clear, found, sigma, relative=0.03)

    exposure, arm = exposed.exposure, exposed.context.arm
    name = "BGS" if exposure.kind == "science-bright" else "ELG"
    template = template_of(name, arm)
    wave, width = exposed.truth.wave, np.gradient(exposed.truth.wave, axis=1)
    enters = fiber_fraction(exposed.context.instrument, exposure.seeing, 0.0, template.half_light)
    dust = 10 ** (-0.4 * _EXTINCTION[arm.band] * fibermap.column("EBV", 0.0).astype(float))
    per_flux = exposed.truth.throughput * exposure.exptime * atmosphere(wave, exposure.airmass) * width
    per_flux *= float(enters) * clear * dust[:, None]
    background = expected.variance - expected.of_target
    with np.errstate(divide="ignore", invalid="ignore"):
        signal2 = per_flux**2 * np.interp(wave, template.wave, template.contrast2)
        terms = signal2 / (background + per_flux * np.interp(wave, template.wave, template.flux))
    inside = exposed.in_range & np.isfinite(terms)
    rows = inside.sum(axis=1)
    total = np.where(inside, terms, 0.0).sum(axis=1)
    in_use = np.isin(fibermap.objtype, ("TGT", "SKY")) & fibermap.is_usable("flux", arm.name) & (rows > 0)
    truth = float(np.median(total[in_use]))
    sigma = 1.25 * nmad(total[in_use]) / math.sqrt(in_use.sum())
    measured = result.per_class["TSNR2"][name]
    assert measured is not None
    yield compared("Effective_Time", f"TSNR2 {name}", truth, measured, sigma, relative=0.05)


def _magnitudes(exposed: Exposed) -> Iterator[Line]:
    """SPECFLUX of each class against the same filter on the noiseless, perfectly calibrated targets."""
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
    arm = exposed.context.arm
    true_flux, found = synthetic_fluxes(noiseless, arm.filter_curve, arm.wave_science), result.per_fiber["SPECFLUX"]
    good = fibermap.is_usable("flux", exposed.camera[:1])
    nsky = int((fibermap.is_sky & fibermap.is_usable("sky", exposed.camera[:1])).sum())
    for name in CLASSES:
        members = good & fibermap.is_class(name) & (true_flux > 0) & np.isfinite(found)
        if members.sum() < _FEW:
            continue
        ratio = found[members] / true_flux[members]
        # the noise of the sky model is common to all fibers: that of the rows, averaged over them and the sky fibers
        rows = usable[members] & exposed.in_range[members]
        noise = np.sqrt(np.median(variance[members][rows]) / (nsky * rows.sum() / members.sum()))
        common = float(noise / np.median((expected * share)[members][rows]))
        sigma = math.hypot(1.25 * nmad(ratio) / math.sqrt(members.sum()), common)
        measured = float(np.median(ratio))
        yield compared("Integrate_Spec", f"SPECFLUX over truth, {name}", 1.0, measured, sigma, relative=0.02)
    deltas = result.per_class["DELTAMAG_TGT"]
    imaging = fibermap.column(f"FLUX_{arm.band}", 0.0).astype(float)
    for name in POINT_SOURCES:
        members = good & fibermap.is_class(name) & (true_flux > 0) & (imaging > 0)
        value = deltas.get(name)
        if members.sum() < _FEW or value is None:
            continue
        difference = -2.5 * np.log10(true_flux[members] / imaging[members])
        sigma = 1.25 * nmad(difference) / math.sqrt(members.sum())
        expected_delta = float(np.median(difference))
        yield compared("Integrate_Spec", f"DELTAMAG_TGT {name} [mag]", expected_delta, value, sigma, absolute=0.02)


def _positions(exposed: Exposed) -> Iterator[Line]:
    """Fibers beside their places by more than 30 micron, and targets without their light: here, none."""
    result, fibermap = exposed.result("Fiber_Positions"), exposed.context.fibermap
    if result is None or fibermap is None:
        return
    offset = 1000.0 * np.hypot(fibermap.column("DELTA_X").astype(float), fibermap.column("DELTA_Y").astype(float))
    known = np.isfinite(result.per_fiber["OFFSET_FIB"])
    truth = float(np.sqrt(np.mean(offset[known] ** 2)))
    sigma = truth / math.sqrt(4 * known.sum())
    yield compared("Fiber_Positions", "OFFSET_RMS [µm]", truth, result.metrics["OFFSET_RMS"], sigma, relative=0.001)
    named = int(result.metrics["NOFFTARGET"])
    poor = int((offset[known] > 30.0).sum())
    told = f"{named}"
    yield Line(
        "Fiber_Positions", "NOFFTARGET", str(poor), told, math.nan, "± 1 %", abs(named - poor) <= 0.01 * len(offset)
    )
