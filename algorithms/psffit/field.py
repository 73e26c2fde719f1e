"""Smooth fields over the fibers of a bundle and wavelength, fitted to measurements with outliers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre as series
from numpy.typing import NDArray

Array = NDArray[np.float64]

_ROUNDS = 5
_CLIP = 5.0  # [sigma]


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
    u: Array, value: Array, error: Array, degree_fiber: int, degree_wave: int, own_degree: int, own_prior: float
) -> Field:
    """Weighted least squares with rejection.

    Parameters
    ----------
    u : (nline,) reduced wavelengths
    value, error : (nline, nfiber); error inf leaves one out
    degree_fiber, degree_wave : of the common part; lowered where there are too few lines
    own_degree : of what single fibers add; -1 for nothing
    own_prior : how much that is likely to be, in the unit of value
    """
    nline, nfiber = value.shape
    seen = np.isfinite(error).any(axis=1).sum()
    degree_wave = int(min(degree_wave, max(seen - 2, 0)))
    degree_fiber = int(min(degree_fiber, max(np.isfinite(error).any(axis=0).sum() - 1, 0)))
    in_fiber = series.legvander(_reduced(nfiber), degree_fiber)
    in_wave = series.legvander(u, degree_wave)
    design = np.einsum("fa,kb->kfab", in_fiber, in_wave).reshape(nline * nfiber, -1)
    flat_value, flat_error = value.ravel(), error.ravel()
    good = np.isfinite(flat_error) & np.isfinite(flat_value)
    coef, scatter = np.zeros(design.shape[1]), 1.0
    for _ in range(_ROUNDS):
        if good.sum() <= design.shape[1]:
            break
        weight = 1.0 / flat_error[good] ** 2
        a = design[good]
        coef = np.linalg.lstsq(a * np.sqrt(weight)[:, None], flat_value[good] * np.sqrt(weight), rcond=None)[0]
        pull = (flat_value - design @ coef) / flat_error
        scatter = max(1.4826 * float(np.median(np.abs(pull[good]))), 1e-3)
        keep = np.isfinite(pull) & (np.abs(pull) < _CLIP * max(scatter, 1.0))
        if (keep == good).all():
            break
        good = keep
    own = np.zeros((nfiber, own_degree + 1))
    if own_degree >= 0:
        left = (flat_value - design @ coef).reshape(nline, nfiber)
        # a fiber that lies beside the common field is what this part is for: only lost measurements are left out
        use = (np.isfinite(flat_error) & np.isfinite(flat_value)).reshape(nline, nfiber)
        own_design = series.legvander(u, own_degree)
        for f in range(nfiber):
            w = np.where(use[:, f], 1.0 / np.where(use[:, f], error[:, f], 1.0) ** 2, 0.0)
            w = np.where(np.abs(left[:, f]) < 10 * own_prior, w, 0.0)
            normal = own_design.T @ (w[:, None] * own_design) + np.eye(own_degree + 1) / own_prior**2
            own[f] = np.linalg.solve(normal, own_design.T @ (w * np.where(w > 0, left[:, f], 0.0)))
    return Field(coef.reshape(degree_fiber + 1, degree_wave + 1), own, scatter)


def _reduced(nfiber: int) -> Array:
    return np.linspace(-1.0, 1.0, nfiber) if nfiber > 1 else np.zeros(1)
