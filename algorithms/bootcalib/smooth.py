"""What varies smoothly over a camera, with what each fiber adds; a dark fiber takes that of its neighbours."""

from __future__ import annotations

import numpy as np
from numpy.polynomial import legendre as series
from numpy.typing import NDArray

from algorithms.psffit.field import fit_field, shrunk_series
from qlstream.numeric import legendre

Array = NDArray[np.float64]

_ROUNDS = 8
_SOFT, _CLIP = 3.0, 6.0  # measurements further from their fiber's series count little at first, in the end not at all


def fit_fiber_field(
    u: Array,
    value: Array,
    error: Array,
    bundle_of: NDArray[np.int64],
    degree_fiber: int,
    degree: int,
    own_degree: int,
    own_prior: float,
) -> Array:
    """Series of all fibers: a field that they share, plus what each adds by itself.

    The shared field rejects what deviates, be it a whole fiber. What a fiber adds is then fitted to all it has, and
    only what deviates from its own series is rejected: so a fiber off its neighbours is followed, an outlier is not,
    and priors, of the sizes that all fibers together make likely, hold a fiber of which little was measured near its
    neighbours.

    Parameters
    ----------
    u : (n,) reduced rows or wavelengths
    value, error : (nspec, n); error inf where nothing was measured
    bundle_of : (nspec,); a fiber that was nowhere measured adds what its neighbours of the same bundle do
    degree_fiber, degree : of the shared field
    own_degree, own_prior : of what single fibers add, and its size in the unit of value at most, roughly

    Returns
    -------
    (nspec, ncoef) float64, Legendre series over u
    """
    field = fit_field(u, value.T, error.T, degree_fiber, degree)
    highest = max(field.common.shape[1] - 1, own_degree, 1)
    nodes = np.linspace(-1.0, 1.0, 2 * highest + 1)
    coef = legendre.fit(nodes, field.at(nodes), highest)
    own = _own_series(u, value - field.at(u), error, own_degree, own_prior)
    seen = np.atleast_1d(np.isfinite(error).any(axis=1))
    for b in np.unique(bundle_of):
        here = np.flatnonzero(bundle_of == b)
        known, dark = here[seen[here]], here[~seen[here]]
        if known.size:
            for k in range(own.shape[1]):
                own[dark, k] = np.interp(dark, known, own[known, k])
    coef[:, : own.shape[1]] += own
    return coef


def _own_series(u: Array, left: Array, error: Array, degree: int, prior: float) -> Array:
    """(nspec, degree + 1) series through what the shared field leaves, fiber by fiber, robust."""
    basis = series.legvander(u, degree)
    measured = np.isfinite(error)
    ivar = np.where(measured, 1.0 / np.where(measured, error, 1.0) ** 2, 0.0)
    left = np.where(measured, left, 0.0)
    soft = np.where(np.abs(left) < 30.0 * prior, 1.0, 0.0)
    own = np.zeros((len(left), degree + 1))
    if not measured.any():
        return own
    for n in range(_ROUNDS):
        weight = ivar * soft
        normal = np.einsum("fn,na,nb->fab", weight, basis, basis, optimize=True)
        own = shrunk_series(normal, (weight * left) @ basis)
        residual = np.abs(left - own @ basis.T)
        pull = residual / np.where(measured, error, np.inf)
        scatter = max(1.4826 * float(np.median(pull[measured])), 1.0)
        if n < _ROUNDS // 2:
            soft = 1.0 / (1.0 + (pull / (_SOFT * scatter)) ** 2)
        else:
            soft = (pull < _CLIP * scatter).astype(float)
    return own
