"""The parameters of a star on the surface through the templates around one of them: downhill, and their errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from algorithms.stars.response import Counts, total_chi2
from algorithms.stars.surface import Surface

Array = NDArray[np.float64]

_STEPS = 12


def downhill(
    counts: Sequence[Counts], surface: Surface, seen: Sequence[Array], at: Array, extent: Array
) -> tuple[Array, Array, float]:
    """Gauss-Newton steps for the parameters on a surface, the responses being solved for at every step.

    Parameters
    ----------
    counts : of the star, arm by arm
    seen : (m, n) of each arm, the members of the surface through its resolution
    at : (naxis,) where to start
    extent : (naxis,) half the range of the whole grid: no parameter is less known than that

    Returns
    -------
    at, errors : (naxis,) within the range of the surface; errors are 0 on axes of one value
    chi2 : there
    """
    free = surface.high > surface.low

    def chi2_at(place: Array) -> float:
        return float(total_chi2(counts, [(surface.mixture(place) @ s)[None] for s in seen])[0])

    chi2 = chi2_at(at)
    curvature = np.eye(at.size)
    for _ in range(_STEPS):
        curvature, slope = _linearised(counts, surface, seen, at)
        # an axis on whose end the star already stands, and that leads on outwards, waits
        held = ~free | ((at <= surface.low) & (slope < 0)) | ((at >= surface.high) & (slope > 0))
        step = np.where(held, 0.0, np.linalg.solve(_held(curvature, held), np.where(held, 0.0, slope)))
        size = 1.0
        while size > 0.05 and chi2_at(np.clip(at + size * step, surface.low, surface.high)) > chi2:
            size *= 0.5
        new = np.clip(at + size * step, surface.low, surface.high)
        gain = chi2 - chi2_at(new)
        if gain <= 0:
            break
        at, chi2 = new, chi2 - gain
        if gain < 0.01:
            break
    known = curvature + np.diag(np.where(free, 1.0 / np.where(free, extent, 1.0) ** 2, 0.0))
    errors = np.where(free, np.sqrt(np.diag(np.linalg.inv(_held(known, ~free)))), 0.0)
    return at, errors, chi2


def _linearised(counts: Sequence[Counts], surface: Surface, seen: Sequence[Array], at: Array) -> tuple[Array, Array]:
    """Curvature (naxis, naxis) and downhill slope (naxis,) of chi2 / 2, with the responses free."""
    curvature, slope = np.zeros((at.size, at.size)), np.zeros(at.size)
    mixture, slopes = surface.mixture(at), surface.slopes(at)
    for c, models in zip(counts, seen, strict=True):
        model = mixture @ models
        response = c.response(model)
        change = response * (slopes @ models)
        change -= model * np.stack([c.projected(row, model) for row in change])
        curvature += (change * c.weight) @ change.T
        slope += (change * c.weight) @ (c.flux - response * model)
    return curvature, slope


def _held(curvature: Array, held: NDArray[np.bool_]) -> Array:
    """The curvature with the axes that are held taken out, and a ridge for what the lines do not tell at all."""
    out = np.where(held[:, None] | held[None, :], 0.0, curvature)
    diagonal = np.where(held, 1.0, np.diag(curvature) * (1.0 + 1e-9) + 1e-300)
    np.fill_diagonal(out, diagonal)
    return out
