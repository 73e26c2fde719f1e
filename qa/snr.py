"""Signal to noise against brightness: is the exposure deep enough?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qlstream.datamodel.cameraspectra import CameraSpectra
from qlstream.datamodel.fibermap import CLASSES
from qlstream.datamodel.qframe import QFrame
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

Array = NDArray[np.float64]


class Calculate_SNR(MonitoringAlg[CameraSpectra]):
    """Median S/N per row of every fiber, and its fit against the imaging flux of the arm's band.

    With flux x [nanomaggy] a fiber collects a x electrons on a background b, so S/N = x / sqrt(alpha x + beta),
    where alpha = 1/(t a) and beta = b/(t a^2) (spec quicklook-qa §1.11; there as a grid scan over a and b).
    FIDSNR_TGT: the fit of each target class at magnitude `fidmag`; FIDSNR: the fit of all targets together;
    FIDSNR_ERROR: its standard error; FIDSNR_1000S: scaled to an exposure of 1000 s, so that one range serves all;
    NUM_NEGATIVE_SNR: targets with S/N <= 0, which stay in the fit; LOST_FRACTION: fraction of the targets that should
    be bright enough to see, and show less than `lost` of the S/N of their magnitude; absent if
    there are too few such targets for a fraction to mean anything.
    """

    title = "signal to noise"

    class Params(StageParams):
        fidmag: float = Field(22.0, alias="FIDMAG", description="fiducial magnitude [AB]")
        min_targets: int = Field(4, ge=3, description="a class with fewer fibers is shown, but not fitted")
        min_visible: int = Field(20, ge=1, description="with fewer visible targets no lost fraction is told")
        lost: float = Field(0.45, gt=0, lt=1, description="a target with less than this part of its S/N is lost")
        intrinsic: float = Field(0.15, ge=0, description="relative scatter between targets of equal magnitude")

    def run(self, spectra: CameraSpectra, context: Context) -> QAResult:
        qframe = spectra.per_bin()
        if qframe.fibermap is None:
            raise ValueError("no fibermap, so the targets are unknown")
        snr = median_snr(qframe)
        flux = qframe.fibermap.column(f"FLUX_{context.arm.band}", 0.0).astype(float)
        usable = qframe.fibermap.is_usable("flux", context.camera[:1]) & np.isfinite(snr) & (flux > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            magnitude = np.where(flux > 0, 22.5 - 2.5 * np.log10(flux), np.nan)
        fiducial = 10 ** (0.4 * (22.5 - self.params.fidmag))
        error = 1.2533 / np.sqrt(np.maximum((qframe.ivar > 0).sum(axis=1), 1))  # of a median of unit normals
        per_class: dict[str, float | None] = {}
        class_of = np.full(qframe.nspec, np.nan)
        model = np.full(qframe.nspec, np.nan)
        any_class = np.zeros(qframe.nspec, dtype=bool)
        for number, name in enumerate(CLASSES):
            members = qframe.fibermap.is_class(name)
            class_of[members] = number
            any_class |= members
            members &= usable
            if members.sum() < self.params.min_targets:
                per_class[name] = None
                continue
            fit = fit_snr(flux[members], snr[members], error[members], self.params.intrinsic)
            per_class[name] = float(snr_model(fit, fiducial))
            model[members] = snr_model(fit, flux[members])
        targets = usable & any_class
        total, total_error, lost = float("nan"), float("nan"), np.zeros(0, dtype=bool)
        if targets.sum() >= self.params.min_targets:
            fit = fit_snr(flux[targets], snr[targets], error[targets], self.params.intrinsic)
            total = float(snr_model(fit, fiducial))
            expected = snr_model(fit, flux)
            expected = np.where(np.isfinite(model), model, expected)  # a galaxy is compared with galaxies
            visible = targets & (expected > 4 * error)
            lost = snr[visible] < self.params.lost * expected[visible]
            scatter = snr[targets] / snr_model(fit, flux[targets]) - 1
            total_error = total * 1.4826 * float(np.median(np.abs(scatter))) / np.sqrt(targets.sum())
        metrics = {
            "FIDSNR": total,
            "FIDSNR_ERROR": total_error,
            "FIDSNR_1000S": total * np.sqrt(1000.0 / context.exptime) if context.exptime > 0 else float("nan"),
            "NUM_NEGATIVE_SNR": float((snr[targets] <= 0).sum()),
        }
        if lost.size >= self.params.min_visible:
            metrics["LOST_FRACTION"] = float(lost.mean())
        return QAResult(
            self.name,
            metrics,
            per_class={"FIDSNR_TGT": per_class},
            per_fiber={"MEDIAN_SNR": snr, "MAGNITUDE": magnitude, "CLASS": class_of, "SNR_MODEL": model},
            units={
                "FIDSNR": "per row",
                "FIDSNR_1000S": "per row",
                "FIDSNR_TGT": "per row",
                "MEDIAN_SNR": "per row",
                "MAGNITUDE": f"{context.arm.band.lower()} AB mag",
            },
            summary=f"S/N {total:.2f} per row at {context.arm.band.lower()} = {self.params.fidmag:g}",
        ).graded(context.ranges, context.where)


def median_snr(qframe: QFrame) -> Array:
    """(nspec,) median over the good rows of flux * sqrt(ivar); NaN for a fiber without any."""
    snr = np.where(qframe.ivar > 0, qframe.flux * np.sqrt(qframe.ivar), np.nan)
    out = np.full(qframe.nspec, np.nan)
    some = np.isfinite(snr).any(axis=1)
    out[some] = np.nanmedian(snr[some], axis=1)
    return out


def snr_model(fit: tuple[float, float], flux: Array | float) -> Array:
    """S/N = x / sqrt(alpha x + beta) at flux x."""
    alpha, beta = fit
    return np.asarray(flux / np.sqrt(alpha * np.asarray(flux) + beta))


def fit_snr(flux: Array, snr: Array, error: Array, intrinsic: float, iterations: int = 30) -> tuple[float, float]:
    """(alpha, beta) of S/N = x / sqrt(alpha x + beta), both positive, by damped Gauss-Newton with Huber weights.

    Parameters
    ----------
    flux : (n,) imaging flux x > 0 [nanomaggy]
    snr, error : (n,) measured S/N and its error
    intrinsic : relative scatter that adds to the error
    """
    positive = snr > 3 * error
    start = np.median(flux[positive] / snr[positive]) if positive.any() else 1e3
    p = np.log([max(0.1 * start, 1e-12), max(start**2, 1e-12)])  # logarithms keep both positive

    def residuals(q: Array) -> tuple[Array, Array]:
        model = snr_model((float(np.exp(q[0])), float(np.exp(q[1]))), flux)
        return model, (snr - model) / np.sqrt(error**2 + (intrinsic * model) ** 2)

    def cost(pull: Array) -> float:
        a = np.abs(pull)
        return float(np.where(a < 2, 0.5 * a**2, 2 * a - 2).sum())

    model, pull = residuals(p)
    best, damping = cost(pull), 1e-2
    for _ in range(iterations):
        alpha, beta = np.exp(p)
        slope = -0.5 * model / (alpha * flux + beta)
        sigma = np.sqrt(error**2 + (intrinsic * model) ** 2)
        huber = np.sqrt(np.minimum(1.0, 2.0 / np.maximum(np.abs(pull), 1e-12)))
        jac = (np.stack([slope * alpha * flux, slope * beta], axis=1) / sigma[:, None]) * huber[:, None]
        normal = jac.T @ jac
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), jac.T @ (pull * huber))
        trial = p + np.clip(step, -2, 2)
        trial_model, trial_pull = residuals(trial)
        value = cost(trial_pull)
        if value < best:
            done = best - value < 1e-9 * best
            p, model, pull, best, damping = trial, trial_model, trial_pull, value, max(damping / 5, 1e-9)
            if done:
                break
        else:
            damping *= 8
            if damping > 1e8:
                break
    return float(np.exp(p[0])), float(np.exp(p[1]))
