"""The precision of one fiber of a bundle, its neighbours marginalised."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from algorithms.extract.spectroperfect.system import NormalEquations

Array = NDArray[np.float64]


def marginal_precisions(equations: NormalEquations) -> list[Array]:
    """`marginal_precision` of every fiber."""
    return [marginal_precision(equations, f) for f in range(equations.rhs.shape[1])]


def marginal_precision(equations: NormalEquations, fiber: int) -> Array:
    """(nwave, reach + 1) upper band of a fiber's precision, its neighbours marginalised.

    The exact Schur complement M_ff - M_fg M_gg^-1 M_gf is dense. Spots of neighbours have nearly the same shape along
    the dispersion, so M_fg is the same band as M_ff times a share e of the light in common, and the complement is
    e^2 M_ff to that order. e^2 is 1e-5 where fibers are 7 pixels apart, and its own error a small part of that.
    """
    nwave, nfiber = equations.rhs.shape
    reach = equations.reach
    own = equations.of_fiber(fiber, fiber)
    total = own.sum(axis=1)
    common = np.zeros(nwave)
    for other in (fiber - 1, fiber + 1):
        if 0 <= other < nfiber:
            across = equations.of_fiber(fiber, other).sum(axis=1)
            along = equations.of_fiber(other, other).sum(axis=1)
            bound = np.maximum(total * along, 1e-300)
            common += np.where((total > 0) & (along > 0), across**2 / bound, 0.0)
    keep = np.sqrt(1.0 - np.minimum(common, 0.9))
    band = own[:, reach:].copy()
    for d in range(reach + 1):
        band[: nwave - d, d] *= keep[: nwave - d] * keep[d:]
    return band
