"""How well a model spectrum fits counts, whatever the smooth response of the instrument is.

The response of an arm is a spline, in which the counts are linear: so it is solved for, exactly and for each model,
before models are compared. Lines count, and neither calibration nor colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit
from numpy.typing import NDArray

from qlstream.datamodel.stars import StarTemplates
from qlstream.numeric.banded import factorize, solve
from qlstream.numeric.bspline import Knots, add_sample, bridge_gaps, locate, value_at
from qlstream.numeric.deconvolution import spread

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """A star in one arm, ready to be compared.

    Attributes
    ----------
    wave : (n,) [Angstrom]
    flux, weight : (n,) and inverse variances, 0 for bins that do not count
    bands : (ndiag, n) of the resolution matrix
    knots : of the response
    """

    wave: Array
    flux: Array
    weight: Array
    bands: Array
    knots: Knots

    @cached_property
    def kept(self) -> Array:
        """(n,) part of the light that the resolution leaves in the grid, at its ends less than all."""
        return np.maximum(spread(self.bands, np.ones(self.wave.size)), 0.1)

    def seen(self, templates: StarTemplates, chosen: NDArray[np.int64], redshift: float) -> Array:
        """(nchosen, n) redshifted templates through the resolution; linear between their own wavelengths."""
        shifted = templates.wave * (1.0 + redshift)
        left = np.clip(np.searchsorted(shifted, self.wave) - 1, 0, shifted.size - 2)
        share = np.clip((self.wave - shifted[left]) / (shifted[left + 1] - shifted[left]), 0.0, 1.0)
        return np.asarray(_seen(templates.flux, chosen, left, share, self.bands, self.kept))

    def chi2(self, models: Array) -> Array:
        """(nmodel,) of each model (nmodel, n), which have passed the resolution, with its own response."""
        return np.asarray(_chi2(self.wave, self.flux, self.weight, np.ascontiguousarray(models), self.knots))

    def response(self, model: Array) -> Array:
        """(n,) the response with which a model (n,) fits best."""
        return self.projected(self.flux, model)

    def projected(self, spectrum: Array, model: Array) -> Array:
        """(n,) smooth curve whose product with `model` (n,) is nearest to `spectrum` (n,), by our weights."""
        safe = np.where(model > 0, model, 1.0)
        coef, _ = self.knots.fit(self.wave, spectrum / safe, np.where(model > 0, self.weight * safe**2, 0.0))
        return self.knots.evaluate(coef, self.wave)


def total_chi2(counts: Sequence[Counts], models: Sequence[Array]) -> Array:
    """(nmodel,) of all arms of a star, models (nmodel, n) for each."""
    return np.asarray(sum(c.chi2(m) for c, m in zip(counts, models, strict=True)))


@njit(nogil=True, cache=True)
def _seen(flux, chosen, left, share, bands, kept):  # type: ignore[no-untyped-def]
    ndiag, n = bands.shape
    half = ndiag // 2
    out, row = np.zeros((chosen.size, n)), np.empty(n)
    for m in range(chosen.size):
        template = flux[chosen[m]]
        for j in range(n):
            row[j] = template[left[j]] * (1.0 - share[j]) + template[left[j] + 1] * share[j]
        for k in range(ndiag):
            shift = k - half  # bin j lights bin j + shift
            for j in range(max(0, -shift), min(n, n - shift)):
                out[m, j + shift] += bands[k, j] * row[j]
        for j in range(n):
            out[m, j] /= kept[j]
    return out


@njit(nogil=True, cache=True)
def _chi2(wave, flux, weight, models, knots):  # type: ignore[no-untyped-def]
    out = np.zeros(models.shape[0])
    for m in range(models.shape[0]):
        normal, rhs = np.zeros((knots.n, 4)), np.zeros(knots.n)
        for j in range(wave.size):
            if weight[j] > 0:
                k, t = locate(wave[j], knots)
                add_sample(normal, rhs, k, t, models[m, j], flux[j], weight[j])
        bridge_gaps(normal)
        factorize(normal)
        solve(normal, rhs)
        for j in range(wave.size):
            if weight[j] > 0:
                k, t = locate(wave[j], knots)
                out[m] += weight[j] * (flux[j] - models[m, j] * value_at(rhs, k, t)) ** 2
    return out
