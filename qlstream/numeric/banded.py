"""Symmetric positive definite banded systems: Cholesky factor, solution, and the band of the inverse.

Storage: `a[k, d]` is the element (k, k + d), d = 0 ... width - 1; row k is contiguous, so a sample that touches
neighbouring unknowns adds to neighbouring memory. Everything is O(n width^2) and callable from other kernels.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]


@njit(nogil=True, cache=True)
def factorize(a: Array) -> None:
    """Replace `a` (n, width) by its Cholesky factor: A = U^T U with U[k, k + d] in a[k, d].

    Raises
    ------
    ValueError : not positive definite (an unknown that no sample and no penalty constrains)
    """
    n, width = a.shape
    for k in range(n):
        pivot = a[k, 0]
        if not pivot > 0.0:
            raise ValueError("banded matrix is not positive definite: an unknown has no data")
        root = np.sqrt(pivot)
        for d in range(width):
            a[k, d] /= root
        last = min(width, n - k)
        for i in range(1, last):
            factor = a[k, i]
            for d in range(last - i):
                a[k + i, d] -= factor * a[k, i + d]


@njit(nogil=True, cache=True)
def solve(factor: Array, rhs: Array) -> None:
    """Replace `rhs` (n,) by the solution of A x = rhs, `factor` being that of `factorize`."""
    n, width = factor.shape
    for k in range(n):
        rhs[k] /= factor[k, 0]
        for d in range(1, min(width, n - k)):
            rhs[k + d] -= factor[k, d] * rhs[k]
    for k in range(n - 1, -1, -1):
        total = rhs[k]
        for d in range(1, min(width, n - k)):
            total -= factor[k, d] * rhs[k + d]
        rhs[k] = total / factor[k, 0]


@njit(nogil=True, cache=True)
def inverse_band(factor: Array) -> Array:
    """The band (n, width) of the inverse of A, without the rest of it.

    Takahashi, Fagan & Chin (1973): from Z = U^-1 U^-T follows a recursion from the last row up that needs no
    element outside the band of U.
    """
    n, width = factor.shape
    z = np.zeros((n, width))
    for i in range(n - 1, -1, -1):
        last = min(width, n - i)
        root = factor[i, 0]
        for d in range(last - 1, -1, -1):
            total = 1.0 / root if d == 0 else 0.0
            for e in range(1, last):
                low = min(d, e)
                total -= factor[i, e] * z[i + low, abs(d - e)]
            z[i, d] = total / root
    return z
