"""Signal to noise against brightness: is the exposure deep enough?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from algorithms.expected import expected_rows
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.cameraspectra import CameraSpectra
from qlstream.datamodel.fibermap import CLASSES
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

Array = NDArray[np.float64]

_MOSTLY_NOISE = 0.3  # relative error beyond which the S/N of one or two targets tells nothing


class Calculate_SNR(MonitoringAlg[CameraSpectra]):
    """Median S/N per row of every fiber, and its fit against the imaging flux of the arm's band.

    MEDIAN_SNR: median over rows of flux * sqrt(ivar). What a truth implies for it is the median of signal / sigma plus
    unit noise, `ExpectedRows.scaled_snr`: where S/N differs from row to row the two differ for faint targets.
    With flux x [nanomaggy] a fiber collects a t x electrons on a background b t, so S/N = x / sqrt(alpha x + beta),
    where alpha = 1/(t a) and beta = b/(t a^2) (spec quicklook-qa §1.11; there as a grid scan over a and b). A target
    brighter than the fiducial magnitude enters the fit twice: as it is, and dimmed to that magnitude with the noise of
    sky and readout kept, so that bright programs need no extrapolation.
    FIDSNR_TGT: the fit of each target class at magnitude `fidmag`; FIDSNR_ERROR_TGT: its standard error, from the
    scatter of the targets; FITCOEFF_TGT: a [electron/s/nanomaggy] and b [electron/s]; SNR_RESID: (S/N - fit) / fit of
    each target, in the order of the fibers. A class with too few targets for a fit has the median of their S/N, each
    scaled to the fiducial magnitude, or NaN if that is all noise.
    FIDSNR, FIDSNR_ERROR: the same of all targets together; FIDSNR_1000S: scaled to an exposure of 1000 s, so that one
    range serves all; NUM_NEGATIVE_SNR: targets with S/N <= 0, which stay in the fit.
    Vectors: SNR_MAG_TGT_<class> (2, n) S/N and magnitude, and <class>_FIBERID, in the order of the fibers.
    """

    title = "signal to noise"

    class Params(StageParams):
        fidmag: float = Field(22.0, alias="FIDMAG", description="fiducial magnitude [AB]")
        residual_cut: float = Field(0.2, gt=0, alias="RESIDUAL_CUT", description="colour limit of a plot of SNR_RESID")
        sigma_cut: float = Field(2.0, gt=0, alias="SIGMA_CUT", description="clip of a plot of SNR_RESID [sigma]")
        min_targets: int = Field(3, ge=3, description="a class with fewer fibers is not fitted")
        intrinsic: float = Field(0.15, ge=0, description="relative scatter between targets of equal magnitude")

    def run(self, spectra: CameraSpectra, context: Context) -> QAResult:
        qframe = spectra.per_bin()
        fibermap, band = qframe.fibermap, context.arm.band
        if fibermap is None:
            raise MissingCalibration("no fibermap, so the targets are unknown")
        expected = expected_rows(qframe)
        snr = expected.median_snr()
        flux = fibermap.column(f"FLUX_{band}", 0.0).astype(float)
        with np.errstate(divide="ignore", invalid="ignore"):
            magnitude = np.where(flux > 0, 22.5 - 2.5 * np.log10(flux), np.nan)
        fiducial = float(10 ** (0.4 * (22.5 - self.params.fidmag)))
        usable = fibermap.is_usable("flux", context.camera[:1]) & np.isfinite(snr) & (flux > 0)
        scale = np.where(usable, fiducial / np.where(flux > 0, flux, 1.0), np.nan)
        scaled = expected.scaled_snr(scale)
        error = 1.2533 / np.sqrt(np.maximum(expected.rows, 1))  # of a median of unit normals

        def fit(members: NDArray[np.bool_]) -> tuple[float, float] | None:
            if members.sum() < self.params.min_targets:
                return None
            x, y, dimmed, e = flux[members], snr[members], scaled[members], error[members]
            return fit_targets(x, y, dimmed, e, fiducial, self.params.intrinsic)

        class_of, model = np.full(qframe.nspec, np.nan), np.full(qframe.nspec, np.nan)
        any_class = np.zeros(qframe.nspec, dtype=bool)
        tables: dict[str, dict[str, float | None]] = {"FIDSNR_TGT": {}, "FIDSNR_ERROR_TGT": {}}
        coefficients = np.full((len(CLASSES), 2), np.nan)
        vectors: dict[str, NDArray[np.generic]] = {"FITCOEFF_TGT": coefficients}
        for number, name in enumerate(CLASSES):
            members = fibermap.is_class(name)
            class_of[members] = number
            any_class |= members
            members &= usable
            if members.any():
                vectors[f"SNR_MAG_TGT_{name}"] = np.stack([snr[members], magnitude[members]])
                vectors[f"{name}_FIBERID"] = qframe.fibers[members]
            found = fit(members)
            if found is None:
                value, its_error = _few(scaled[members], (scale * error)[members], bool(fibermap.is_class(name).any()))
            else:
                value, its_error = _at(found, fiducial, flux[members], snr[members])
            tables["FIDSNR_TGT"][name], tables["FIDSNR_ERROR_TGT"][name] = value, its_error
            if found is not None:
                coefficients[number] = _seed_coefficients(found, context.exptime)
                model[members] = snr_model(found, flux[members])
        targets = usable & any_class
        found = fit(targets)
        total, total_error = (np.nan, np.nan) if found is None else _at(found, fiducial, flux[targets], snr[targets])
        metrics = {
            "FIDSNR": total,
            "FIDSNR_ERROR": total_error,
            "FIDSNR_1000S": float("nan"),
            "NUM_NEGATIVE_SNR": float((snr[targets] <= 0).sum()),
            "NTARGETS": float(targets.sum()),
        }
        if context.exptime > 0:
            metrics["FIDSNR_1000S"] = metrics["FIDSNR"] * float(np.sqrt(1000.0 / context.exptime))
        per_fiber = {
            "MEDIAN_SNR": snr,
            "MAGNITUDE": magnitude,
            "CLASS": class_of,
            "SNR_MODEL": model,
            "SNR_RESID": snr / model - 1.0,
            "RA": fibermap.column("TARGET_RA", np.nan).astype(float),
            "DEC": fibermap.column("TARGET_DEC", np.nan).astype(float),
        }
        vectors["OBJLIST"] = np.array(CLASSES)
        vectors["FIT_FILTER"], vectors["FILTERS"] = np.array([band]), np.array([context.arm.filter_curve])
        return QAResult(
            self.name,
            metrics,
            per_class=tables,
            per_fiber=per_fiber,
            vectors=vectors,
            units=_units(band),
            summary=_summary(metrics, tables["FIDSNR_TGT"], band, self.params.fidmag),
        ).graded(context.ranges, context.where)


def _at(fit: tuple[float, float], fiducial: float, flux: Array, snr: Array) -> tuple[float, float]:
    """S/N of a fit at the fiducial flux, and its standard error from the scatter of the targets."""
    value = float(snr_model(fit, fiducial))
    scatter = 1.4826 * float(np.median(np.abs(snr / snr_model(fit, flux) - 1.0)))
    return value, value * 1.2533 * scatter / float(np.sqrt(flux.size))


def _few(scaled: Array, error: Array, has_fibers: bool) -> tuple[float | None, float | None]:
    """Median of S/N that were scaled to the fiducial magnitude, and its error; (None, None) without any fiber."""
    if not has_fibers:
        return None, None
    if not scaled.size:
        return np.nan, np.nan
    value, its_error = float(np.median(scaled)), float(np.median(error)) / float(np.sqrt(scaled.size))
    return (value, its_error) if its_error < _MOSTLY_NOISE * abs(value) else (np.nan, np.nan)


def _seed_coefficients(fit: tuple[float, float], exptime: float) -> tuple[float, float]:
    """a and b of S/N = t a x / sqrt(t (a x + b)); NaN without an exposure time."""
    alpha, beta = fit
    return (1.0 / (alpha * exptime), beta / (alpha**2 * exptime)) if exptime > 0 else (np.nan, np.nan)


def _units(band: str) -> dict[str, str]:
    per_row = ("FIDSNR", "FIDSNR_ERROR", "FIDSNR_1000S", "FIDSNR_TGT", "FIDSNR_ERROR_TGT", "MEDIAN_SNR", "SNR_MODEL")
    return dict.fromkeys(per_row, "per row") | {"MAGNITUDE": f"{band.lower()} AB mag", "RA": "deg", "DEC": "deg"}


def _summary(metrics: Mapping[str, float], of_class: Mapping[str, float | None], band: str, fidmag: float) -> str:
    classes = ", ".join(
        f"{name} {value:.2f}" for name, value in of_class.items() if value is not None and np.isfinite(value)
    )
    return f"S/N {metrics['FIDSNR']:.2f} +- {metrics['FIDSNR_ERROR']:.2f} per row at {band.lower()} = {fidmag:g}" + (
        f" ({classes})" if classes else ""
    )


def snr_model(fit: tuple[float, float], flux: Array | float) -> Array:
    """S/N = x / sqrt(alpha x + beta) at flux x."""
    alpha, beta = fit
    return np.asarray(flux / np.sqrt(alpha * np.asarray(flux) + beta))


def fit_targets(
    flux: Array, snr: Array, dimmed: Array, error: Array, fiducial: float, intrinsic: float
) -> tuple[float, float]:
    """`fit_snr` of targets, where those brighter than the fiducial flux count as they are and as dimmed to it.

    Parameters
    ----------
    flux, snr, error : (n,) as for `fit_snr`
    dimmed : (n,) S/N of each target if it were as bright as `fiducial`; NaN where that is not known
    fiducial : [nanomaggy]
    """
    twice = (flux > fiducial) & np.isfinite(dimmed)
    x = np.concatenate([flux, np.full(twice.sum(), fiducial)])
    y = np.concatenate([snr, dimmed[twice]])
    return fit_snr(x, y, np.concatenate([error, (error * fiducial / flux)[twice]]), intrinsic)


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
