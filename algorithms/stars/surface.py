"""Templates between the points of their grid: a quadratic surface through the points around one of them.

A grid may be irregular or have holes, and an axis with a single value: what the points at hand do not tell is left out
of the surface. It is linear in the templates, so a mixture of them, with weights that sum to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Surface:
    """The surface around a template.

    Attributes
    ----------
    members : (m,) indices of the templates that it goes through
    low, high : (naxis,) the range of their parameters
    center, width : (naxis,) that make parameters run from -1 to 1
    powers : (nterm, naxis) exponents of each term
    weights : (nterm, m) from templates to terms
    """

    members: NDArray[np.int64]
    low: Array
    high: Array
    center: Array
    width: Array
    powers: NDArray[np.int64]
    weights: Array

    def mixture(self, at: Array) -> Array:
        """(m,) weights of the members at these parameters (naxis,)."""
        return np.asarray(_terms(self._scaled(at)[None], self.powers)[0] @ self.weights)

    def slopes(self, at: Array) -> Array:
        """(naxis, m) derivatives of the mixture by each parameter; 0 on an axis of one value."""
        x = self._scaled(at)
        out = np.zeros((at.size, self.members.size))
        for axis in range(at.size):
            lower = self.powers.copy()
            lower[:, axis] = np.maximum(lower[:, axis] - 1, 0)
            terms = _terms(x[None], lower)[0] * self.powers[:, axis]
            out[axis] = terms @ self.weights / self.width[axis]
        return out

    def _scaled(self, at: Array) -> Array:
        return np.asarray((at - self.center) / self.width)


def surface_around(parameters: Array, index: int) -> Surface:
    """The surface around template `index`, one step of the grid to either side on every axis.

    Parameters
    ----------
    parameters : (ntemplate, naxis) of all templates
    """
    near = np.ones(len(parameters), dtype=bool)
    for axis in range(parameters.shape[1]):
        values = np.unique(parameters[:, axis])
        at = int(np.searchsorted(values, parameters[index, axis]))
        first = int(np.clip(at - 1, 0, max(values.size - 3, 0)))
        three = values[first : first + 3]
        near &= (parameters[:, axis] >= three[0]) & (parameters[:, axis] <= three[-1])
    members = np.flatnonzero(near)
    here = parameters[members]
    low, high = here.min(axis=0), here.max(axis=0)
    center, width = 0.5 * (low + high), np.where(high > low, 0.5 * (high - low), 1.0)
    powers = _powers([np.unique(column).size for column in here.T])
    weights: Array = np.linalg.pinv(_terms((here - center) / width, powers)).astype(np.float64)
    return Surface(members, low, high, center, width, powers, weights)


def _powers(values: list[int]) -> NDArray[np.int64]:
    """Exponents of a quadratic in axes that have so many different values."""
    unit = np.eye(len(values), dtype=np.int64)
    linear = [a for a, n in enumerate(values) if n > 1]
    terms = [np.zeros(len(values), dtype=np.int64), *(unit[a] for a in linear)]
    terms += [2 * unit[a] for a in linear if values[a] > 2]
    terms += [unit[a] + unit[b] for a, b in combinations(linear, 2)]
    return np.array(terms)


def _terms(x: Array, powers: NDArray[np.int64]) -> Array:
    """(n, nterm) of places (n, naxis)."""
    return np.asarray(np.prod(x[:, None, :] ** powers[None, :, :], axis=2))
