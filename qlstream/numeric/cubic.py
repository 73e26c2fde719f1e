"""Piecewise cubic interpolation with known slopes: the fast inverse of a smooth monotone series."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def interpolate(at: Array, nodes: Array, values: Array, slopes: Array, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Cubic Hermite interpolation of every row; linear with the slope of the end node beyond the nodes.

    With the exact slopes the error falls with the fourth power of the node spacing, so a few hundred nodes of a
    trace give its inverse far better than any measurement could.

    Parameters
    ----------
    at : (n,) shared by all rows, or (nspec, n); any order, increasing is fastest
    nodes : (nspec, m) increasing, m >= 2
    values, slopes : (nspec, m) function and d(function)/d(node coordinate)
    out : (nspec, n) floating, to be filled and returned; a fresh float64 array if not given

    Returns
    -------
    (nspec, n) of the type of `out`

    Raises
    ------
    ValueError : the shapes do not fit
    """
    if not (nodes.shape == values.shape == slopes.shape) or nodes.ndim != 2 or nodes.shape[1] < 2:
        raise ValueError(
            f"cubic.interpolate: nodes {nodes.shape}, values {values.shape} and slopes {slopes.shape} "
            "must be of one shape (nspec, m) with m >= 2"
        )
    at = np.broadcast_to(np.asarray(at, dtype=float), (nodes.shape[0], np.shape(at)[-1]))
    if out is None:
        out = np.empty(at.shape)
    _interpolate(at, nodes, values, slopes, out)
    return out


@numba.njit(nogil=True, cache=True)
def _interpolate(at: Array, nodes: Array, values: Array, slopes: Array, out: NDArray[Any]) -> None:
    nspec, n = at.shape
    last = nodes.shape[1] - 2
    for f in range(nspec):
        k = 0
        loaded = -1
        c0 = c1 = c2 = c3 = 0.0
        for i in range(n):
            t = at[f, i]
            while k < last and t > nodes[f, k + 1]:
                k += 1
            while k > 0 and t < nodes[f, k]:
                k -= 1
            if t < nodes[f, 0]:
                out[f, i] = values[f, 0] + slopes[f, 0] * (t - nodes[f, 0])
            elif t > nodes[f, last + 1]:
                out[f, i] = values[f, last + 1] + slopes[f, last + 1] * (t - nodes[f, last + 1])
            else:
                if k != loaded:
                    h = nodes[f, k + 1] - nodes[f, k]
                    rise = (values[f, k + 1] - values[f, k]) / h
                    c0, c1 = values[f, k], slopes[f, k]
                    c2 = (3.0 * rise - 2.0 * slopes[f, k] - slopes[f, k + 1]) / h
                    c3 = (slopes[f, k] + slopes[f, k + 1] - 2.0 * rise) / (h * h)
                    loaded = k
                d = t - nodes[f, k]
                out[f, i] = c0 + d * (c1 + d * (c2 + d * c3))
