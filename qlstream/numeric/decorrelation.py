"""From the deconvolved flux to the flux whose bins of a fiber are uncorrelated, with its resolution matrix.

Of a fiber's deconvolved flux x with covariance C, Q = C^-1/2 (symmetric) gives Q x with unit covariance; dividing each
row by its sum s leaves a flux F = R x with variances 1/s^2 and a resolution R whose rows sum to 1 (Bolton & Schlegel
2010). C^-1 = P, the precision of a fiber with its neighbours marginalised, is a band, so nothing of this needs a dense
matrix: with the rational approximation of Hale, Higham & Trefethen (2008, SIAM J. Numer. Anal. 46, 2505, method 3)

    P^1/2 = sum_j c_j (1 - t_j (P + t_j)^-1),

its action on vectors takes one banded Cholesky solution per term, and its band the selected inverse
(Takahashi et al. 1973). The cost grows linearly with the number of wavelengths.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import ellipj, ellipk

Array = NDArray[np.float64]

_TERMS = 22
_RANGE = 1e-9  # of eigenvalues that matter: smallest over largest; with 22 terms the root is right to 1e-8


def decorrelate(precisions: list[Array], x: Array, ndiag: int) -> tuple[Array, Array, Array]:
    """Flux, inverse variance and resolution of every fiber of a bundle.

    Parameters
    ----------
    precisions : per fiber the (nwave, width) upper band of its precision
    x : (nwave, nfiber) deconvolved flux
    ndiag : number of diagonals of the resolution, odd

    Returns
    -------
    flux, ivar : (nfiber, nwave)
    resolution : (nfiber, ndiag, nwave) bands as in `qlstream.datamodel.resolution.Resolution`
    """
    nwave, nfiber = x.shape
    flux, ivar = np.empty((nfiber, nwave)), np.empty((nfiber, nwave))
    resolution = np.zeros((nfiber, ndiag, nwave))
    for f, precision in enumerate(precisions):
        widened = np.zeros((nwave, max(precision.shape[1], ndiag // 2 + 1)))
        widened[:, : precision.shape[1]] = precision
        low, high = _spectral_range(precision)
        shifts, factors = root_terms(low, high, _TERMS)
        root, rows = np.zeros_like(widened), np.stack([np.ones(nwave), x[:, f]])
        applied = np.zeros_like(rows)
        _apply_root(widened, shifts, factors, rows, root, applied)
        s = applied[0]
        # a row whose sum is not positive belongs to a bin without data: it says nothing
        good = s > 1e-12 * np.sqrt(high)
        safe = np.where(good, s, 1.0)
        flux[f] = np.where(good, applied[1] / safe, 0.0)
        ivar[f] = np.where(good, s**2, 0.0)
        _bands(root, safe, resolution[f])
    return flux, ivar, resolution


def root_terms(low: float, high: float, n: int) -> tuple[Array, Array]:
    """Shifts t and factors c of the sum above for eigenvalues from low to high."""
    complement = 1.0 - low / high
    quarter = float(ellipk(complement))
    sn, cn, dn, _ = ellipj((np.arange(n) + 0.5) * quarter / n, complement)
    shifts = low * (sn / cn) ** 2
    factors = 2.0 * quarter * np.sqrt(low) / (np.pi * n) * dn / cn**2
    return np.asarray(shifts), np.asarray(factors)


def _spectral_range(band: Array) -> tuple[float, float]:
    """Bounds of the eigenvalues: Gershgorin's above, a fraction of it below."""
    n = len(band)
    radius = np.abs(band[:, 0]).copy()
    for d in range(1, band.shape[1]):
        radius[: n - d] += np.abs(band[: n - d, d])
        radius[d:] += np.abs(band[: n - d, d])
    high = float(radius.max())
    return _RANGE * high, high


@njit(nogil=True, cache=True, fastmath=True)
def _apply_root(band, shifts, factors, rows, root, applied):  # type: ignore[no-untyped-def]
    """All shifted systems side by side, so that the inner loops run over them: as `factorize`, `solve`, `inverse_band`.

    Adds to `root` the band of the root, to `applied` what it makes of `rows`.
    """
    n, width = band.shape
    nshift = shifts.size
    u, x = np.empty((n, width, nshift)), np.empty((len(rows), n, nshift))
    z = np.empty((width, width, nshift))  # of the inverse, the rows i ... i + width - 1, each where i % width says
    scale, total = np.empty(nshift), np.empty(nshift)
    for k in range(n):
        for d in range(width):
            u[k, d, :] = band[k, d]
        for j in range(nshift):
            u[k, 0, j] += shifts[j]
        for r in range(len(rows)):
            x[r, k, :] = rows[r, k]
    for k in range(n):
        last = min(width, n - k)
        for j in range(nshift):
            if not u[k, 0, j] > 0.0:
                raise ValueError("banded matrix is not positive definite: an unknown has no data")
            scale[j] = 1.0 / np.sqrt(u[k, 0, j])
        for d in range(width):
            for j in range(nshift):
                u[k, d, j] *= scale[j]
        for i in range(1, last):
            for d in range(last - i):
                for j in range(nshift):
                    u[k + i, d, j] -= u[k, i, j] * u[k, i + d, j]
        for r in range(len(rows)):
            for j in range(nshift):
                x[r, k, j] *= scale[j]
            for i in range(1, last):
                for j in range(nshift):
                    x[r, k + i, j] -= u[k, i, j] * x[r, k, j]
    for i in range(n - 1, -1, -1):
        last = min(width, n - i)
        for j in range(nshift):
            scale[j] = 1.0 / u[i, 0, j]
        for r in range(len(rows)):
            for d in range(1, last):
                for j in range(nshift):
                    x[r, i, j] -= u[i, d, j] * x[r, i + d, j]
            for j in range(nshift):
                x[r, i, j] *= scale[j]
                applied[r, i] += factors[j] * (rows[r, i] - shifts[j] * x[r, i, j])
        for d in range(last - 1, -1, -1):
            for j in range(nshift):
                total[j] = scale[j] if d == 0 else 0.0
            for e in range(1, last):
                row, beyond = (i + min(d, e)) % width, abs(d - e)
                for j in range(nshift):
                    total[j] -= u[i, e, j] * z[row, beyond, j]
            for j in range(nshift):
                z[i % width, d, j] = total[j] * scale[j]
                root[i, d] -= factors[j] * shifts[j] * z[i % width, d, j]
        for j in range(nshift):
            root[i, 0] += factors[j]


@njit(nogil=True, cache=True)
def _bands(root, s, out):  # type: ignore[no-untyped-def]
    """R[j - offset, j] = Q[j - offset, j] / s[j - offset] in the storage of Resolution."""
    ndiag, n = out.shape
    for k in range(ndiag):
        offset = ndiag // 2 - k
        for j in range(n):
            i = j - offset
            if 0 <= i < n:
                out[k, j] = root[min(i, j), abs(offset)] / s[i]
