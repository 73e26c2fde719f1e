"""Smooth fields over the fibers of a bundle and wavelength, fitted to measurements with outliers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial import legendre as series
from numpy.typing import NDArray

from algorithms.flexure.field import common_error

Array = NDArray[np.float64]

_ROUNDS = 5
_CLIP = 5.0  # [sigma]
_FINEST = 2e-4  # lines whose mean lies closer to the field are never a reason for more error
_FREEDOM = 3.0  # of Student's distribution of what fibers add: a broken fiber is not typical of the others
_LEAST = 1e-6  # typical size of what fibers add, below which it is nothing
_STEPS = 60  # of the estimate of that size


@dataclass(frozen=True)
class Field:
    """value(fiber, wave) = sum_ab common[a, b] P_a(fiber) P_b(wave) + sum_b own[fiber, b] P_b(wave).

    Attributes
    ----------
    common : (degree_fiber + 1, degree_wave + 1)
    own : (nfiber, m) what each fiber adds
    scatter : robust scatter of the measurements about the field, in their errors
    """

    common: Array
    own: Array
    scatter: float

    def at(self, u: Array) -> Array:
        """(nfiber, n) at reduced wavelengths u (n,)."""
        nfiber = len(self.own)
        value = series.legvander(_reduced(nfiber), len(self.common) - 1) @ self.common
        both = np.zeros((nfiber, max(value.shape[1], self.own.shape[1])))
        both[:, : value.shape[1]] += value
        both[:, : self.own.shape[1]] += self.own
        return np.asarray(both @ series.legvander(u, both.shape[1] - 1).T)


def fit_field(
    u: Array,
    value: Array,
    error: Array,
    degree_fiber: int,
    degree_wave: int,
    own_degree: int = -1,
    blur: Array | None = None,
) -> Field:
    """Weighted least squares with rejection; with `blur`, nothing is bent or moved apart that the data do not demand.

    All fibers see a line at one and the same wrong wavelength, so their mean does not become exact: the error of a
    line is `blur` plus what the scatter of the line means shows beyond the noise. Terms of the common part, but for
    the constant, have a prior that halves with each order, and what single fibers add has one for each order. The
    sizes of these priors are those that the data make likely (empirical Bayes, Efron & Morris 1973): fibers that only
    scatter by their noise get nothing.

    Parameters
    ----------
    u : (nline,) reduced wavelengths
    value, error : (nline, nfiber); error inf leaves one out
    degree_fiber, degree_wave : of the common part; lowered where there are too few lines
    own_degree : of what single fibers add; -1 for nothing
    blur : (nline,) error that all fibers share in a line; default: none is sought, and there are no priors
    """
    seen = np.isfinite(error).any(axis=1).sum()
    degree_wave = int(min(degree_wave, max(seen - 2, 0)))
    degree_fiber = int(min(degree_fiber, max(np.isfinite(error).any(axis=0).sum() - 1, 0)))
    if blur is None:
        field = _fit_common(u, value, error, degree_fiber, degree_wave, False)
        return replace(field, own=_fit_own(u, value - field.at(u).T, error, own_degree))
    field = _fit_common(u, value, _with_line_error(error, blur), degree_fiber, degree_wave, True)
    field = replace(field, own=_fit_own(u, value - field.at(u).T, error, own_degree))
    offset, noise = _line_means(value - field.at(u).T, error)
    known = np.isfinite(offset)
    noise = np.sqrt(noise**2 + blur**2 + _FINEST**2)
    common = common_error(offset[known], noise[known], tolerance=1.0 / np.sqrt(max(known.sum(), 1)))
    away = known & (np.abs(offset) > _CLIP * np.hypot(noise, common))
    error = np.where(away[:, None], np.inf, error)
    field = _fit_common(u, value, _with_line_error(error, np.hypot(blur, common)), degree_fiber, degree_wave, True)
    left = value - field.at(u).T - np.where(known, offset, 0.0)[:, None]  # where a line lies is the same for all
    return replace(field, own=_fit_own(u, left, error, own_degree))


def _fit_common(u: Array, value: Array, error: Array, degree_fiber: int, degree_wave: int, prior: bool) -> Field:
    nline, nfiber = value.shape
    in_fiber = series.legvander(_reduced(nfiber), degree_fiber)
    in_wave = series.legvander(u, degree_wave)
    design = np.einsum("fa,kb->kfab", in_fiber, in_wave).reshape(nline * nfiber, -1)
    order = np.add.outer(np.arange(degree_fiber + 1), np.arange(degree_wave + 1)).ravel()
    flat_value, flat_error = value.ravel(), error.ravel()
    good = np.isfinite(flat_error) & np.isfinite(flat_value)
    enough = 0 if prior else design.shape[1]
    coef, scatter = np.zeros(design.shape[1]), 1.0
    for _ in range(_ROUNDS):
        if good.sum() <= enough:
            break
        root = 1.0 / flat_error[good]
        a, b = design[good] * root[:, None], flat_value[good] * root
        coef = _stiff(a.T @ a, a.T @ b, order) if prior else np.linalg.lstsq(a, b, rcond=None)[0]
        pull = (flat_value - design @ coef) / flat_error
        scatter = max(1.4826 * float(np.median(np.abs(pull[good]))), 1e-3)
        keep = np.isfinite(pull) & np.isfinite(flat_error) & (np.abs(pull) < _CLIP * max(scatter, 1.0))
        if (keep == good).all():
            break
        good = keep
    return Field(coef.reshape(degree_fiber + 1, degree_wave + 1), np.zeros((nfiber, 0)), scatter)


def _stiff(normal: Array, right: Array, order: NDArray[np.int64]) -> Array:
    """Coefficients whose linear terms are of one likely size, and half of it for each order more."""
    bent = order > 0
    relative = np.where(bent, 2.0 ** np.maximum(order - 1.0, 0.0), 0.0) ** 2
    size = 1.0  # squared: wide to start with, in pixels or relative widths
    for _ in range(_STEPS):
        covariance = np.linalg.inv(normal + np.diag(relative / size))
        coef = covariance @ right
        if not bent.any():
            break
        size = max(float((relative * (coef**2 + np.diag(covariance)))[bent].mean()), _LEAST**2)
    return np.asarray(coef)


def _with_line_error(error: Array, line: Array) -> Array:
    """Errors such that each line as a whole weighs no more than 1 / line^2."""
    weight = 1.0 / error**2
    total, square = weight.sum(axis=1), (weight**2).sum(axis=1)
    number = np.divide(total**2, square, out=np.zeros_like(total), where=square > 0)
    return np.asarray(np.sqrt(error**2 + (number * line**2)[:, None]))


def _line_means(value: Array, error: Array) -> tuple[Array, Array]:
    """(nline,) median over the fibers and its error; nan, inf for a line that was not measured."""
    use = np.isfinite(error) & np.isfinite(value)
    mean = np.array([np.median(v[k]) if k.any() else np.nan for v, k in zip(value, use, strict=True)])
    weight = np.where(use, 1.0 / error**2, 0.0).sum(axis=1)
    with np.errstate(divide="ignore"):
        return mean, np.sqrt(0.5 * np.pi / weight)


def _fit_own(u: Array, left: Array, error: Array, degree: int) -> Array:
    """(nfiber, degree + 1) series of each fiber through what the common field leaves."""
    if degree < 0:
        return np.zeros((left.shape[1], 0))
    basis = series.legvander(u, degree)
    use = np.isfinite(error) & np.isfinite(left)
    left = np.where(use, left, 0.0)
    own = np.zeros((left.shape[1], degree + 1))
    if not use.any():
        return own
    for _ in range(2):
        pull = (left - basis @ own.T) / error
        # a fiber that lies beside the others is what this part is for: points are judged about their own fiber
        middle = np.median(np.abs(pull[use]))
        scatter = max(1.4826 * float(middle), 1.0)
        keep = use & (np.abs(pull - np.median(pull, axis=0)) < _CLIP * scatter)
        weight = np.where(keep, 1.0 / (np.where(use, error, 1.0) * scatter) ** 2, 0.0)
        normal = np.einsum("kf,ka,kb->fab", weight, basis, basis, optimize=True)
        own = shrunk_series(normal, ((weight * left).T @ basis))
    return own


def shrunk_series(normal: Array, right: Array) -> Array:
    """Posterior mean of (nfiber, m) coefficients under a prior of the size that makes the data most likely.

    By expectation and maximisation (Dempster et al. 1977) for a Student prior of _FREEDOM.

    Parameters
    ----------
    normal, right : (nfiber, m, m), (nfiber, m) normal equations of each fiber by itself
    """
    nfiber, m = right.shape
    size = np.full(m, 1.0)  # of each order, squared: wide to start with, in pixels or relative widths
    soft = np.ones((nfiber, m))
    informed = np.trace(normal, axis1=1, axis2=2) > 0
    if not informed.any():
        return np.zeros((nfiber, m))
    for _ in range(_STEPS):
        covariance = np.linalg.inv(normal + np.einsum("fa,ab->fab", soft / size, np.eye(m)))
        mean = np.einsum("fab,fb->fa", covariance, right)
        square = mean**2 + np.diagonal(covariance, axis1=1, axis2=2)
        soft = (_FREEDOM + 1.0) / (_FREEDOM + square / size)
        size = np.maximum((soft * square)[informed].mean(axis=0), _LEAST**2)
    return np.asarray(np.where(informed[:, None], mean, 0.0))


def _reduced(nfiber: int) -> Array:
    return np.linspace(-1.0, 1.0, nfiber) if nfiber > 1 else np.zeros(1)
