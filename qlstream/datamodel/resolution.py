"""Resolution matrices, stored by diagonals."""

from __future__ import annotations

from functools import cached_property
from math import erf, sqrt
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy.sparse import dia_matrix, issparse, spmatrix

Array = NDArray[np.float64]

DEFAULT_NDIAG = 21
_FEWEST, _MOST = 3, 84  # diagonals with offsets of their own


class Resolution:
    """Banded matrix R that turns a model spectrum into the expected one: expected = R · model (spec datamodel §6).

    Row k of `data` belongs to the offset ndiag//2 - k, and `R[j - offset_k, j] = data[k, j]`: column j of the
    storage spreads model bin j over the output bins j - ndiag//2 ... j + ndiag//2.

    Parameters
    ----------
    data : (ndiag, nwave) bands, ndiag odd; or (nwave,) Gaussian sigmas [bin], or a square matrix, dense or sparse, of
        which the central 21 diagonals are taken (a sparse one in DIA form keeps all it has)
    offsets : (ndiag,) of bands in another order or number, as of a DIA matrix; what is missing for a symmetric set is 0

    Raises
    ------
    ValueError : an even number of bands without offsets, fewer than 3 or more than 84 with them, or another shape
    """

    def __init__(self, data: ArrayLike | spmatrix, offsets: ArrayLike | None = None) -> None:
        self.data: Array = _bands(data, offsets)

    @staticmethod
    def of_bands(data: ArrayLike) -> Resolution:
        """Of (ndiag, nwave) bands, ndiag odd, whatever their number: never taken for a square matrix.

        Raises
        ------
        ValueError : an even number of bands, or another shape
        """
        made = Resolution.__new__(Resolution)
        made.data = _odd(np.asarray(data, dtype=np.float64))
        return made

    @staticmethod
    def from_widths(sigma: ArrayLike, ndiag: int = DEFAULT_NDIAG, mu: float = 0.0) -> Resolution:
        """Gaussian spread, as `gaussian_bands` has it.

        Parameters
        ----------
        sigma : (nwave,) Gaussian sigma of each model bin [bin], positive
        ndiag : number of diagonals, odd
        mu : common offset of all lines, towards smaller indices [bin]

        Raises
        ------
        ValueError : a sigma is not positive, or ndiag is even
        """
        sigma = np.asarray(sigma, dtype=np.float64)
        if sigma.ndim != 1:
            raise ValueError(f"Resolution.from_widths: sigma {sigma.shape} must be (nwave,), positive and finite [bin]")
        return Resolution.of_bands(gaussian_bands(sigma[None, :], ndiag, mu, np.float64)[0])

    @staticmethod
    def from_dense(matrix: ArrayLike, ndiag: int = DEFAULT_NDIAG) -> Resolution:
        """The central `ndiag` diagonals of a square matrix.

        Raises
        ------
        ValueError : not square, or ndiag even
        """
        matrix = np.asarray(matrix, dtype=np.float64)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or ndiag % 2 == 0:
            raise ValueError(f"Resolution.from_dense: matrix {matrix.shape} must be square and ndiag {ndiag} odd")
        n = len(matrix)
        data = np.zeros((ndiag, n))
        for k in range(ndiag):
            offset = ndiag // 2 - k
            columns = np.arange(max(offset, 0), n + min(offset, 0))
            data[k, columns] = matrix[columns - offset, columns]
        return Resolution.of_bands(data)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix."""
        return self.nwave, self.nwave

    @property
    def ndiag(self) -> int:
        return int(self.data.shape[0])

    @property
    def nwave(self) -> int:
        return int(self.data.shape[1])

    @property
    def offsets(self) -> NDArray[np.int64]:
        """(ndiag,) offset of each stored diagonal, descending from ndiag//2."""
        return self.ndiag // 2 - np.arange(self.ndiag)

    @cached_property
    def sparse(self) -> dia_matrix:
        """The matrix in scipy's DIA form."""
        return dia_matrix((self.data, self.offsets), shape=(self.nwave, self.nwave))

    def dense(self) -> Array:
        """(nwave, nwave) matrix."""
        return np.asarray(self.sparse.toarray())

    def to_fits_array(self) -> Array:
        """(ndiag, nwave) as it stands in a RESOLUTION HDU: `data`."""
        return self.data

    def dot(self, model: ArrayLike) -> Array:
        """Expected spectrum of a model on the same grid."""
        return np.asarray(self.sparse @ np.asarray(model, dtype=np.float64))

    __matmul__ = dot


def _bands(data: ArrayLike | spmatrix, offsets: ArrayLike | None) -> Array:
    """(ndiag, nwave) bands of whatever tells a resolution matrix, see `Resolution`."""
    if issparse(data):
        if data.format != "dia":  # type: ignore[union-attr]
            return Resolution.from_dense(data.toarray()).data  # type: ignore[union-attr]
        return _symmetric(np.asarray(data.data, dtype=np.float64), data.offsets, data.shape[1])  # type: ignore[union-attr]
    values = np.asarray(data, dtype=np.float64)
    if offsets is not None:
        if values.ndim != 2 or not _FEWEST <= len(values) <= _MOST:
            raise ValueError(f"Resolution: data {values.shape} with offsets must be {_FEWEST} to {_MOST} bands")
        return _symmetric(values, offsets, values.shape[1])
    if values.ndim == 1:
        return Resolution.from_widths(values).data
    if values.ndim == 2 and values.shape[0] == values.shape[1] > 1:
        return Resolution.from_dense(values).data
    return _odd(values)


def _odd(values: Array) -> Array:
    if values.ndim != 2 or values.shape[0] % 2 == 0:
        raise ValueError(
            f"Resolution: data {values.shape} must be (ndiag, nwave) with an odd ndiag, (nwave,) Gaussian sigmas, or a "
            "square matrix; an even number of bands needs their offsets"
        )
    return values


def _symmetric(bands: Array, offsets: ArrayLike, nwave: int) -> Array:
    """Bands of any offsets, sorted and completed to ndiag // 2 ... -(ndiag // 2)."""
    order = np.asarray(offsets, dtype=np.int64)
    if order.shape != bands.shape[:1] or np.unique(order).size != order.size:
        raise ValueError(f"Resolution: {len(bands)} bands need as many different offsets, got {order.tolist()}")
    half = int(np.abs(order).max()) if order.size else 0
    out = np.zeros((2 * half + 1, nwave))
    known = min(nwave, bands.shape[1])
    out[half - order, :known] = bands[:, :known]
    return out


def gaussian_bands(sigma: Array, ndiag: int, mu: float = 0.0, dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Bands of many resolution matrices at once, from the widths of their lines.

    The entry of offset d is the integral of a Gaussian over one bin, 1/2 [erf((d + 1/2 - mu) / (sqrt2 sigma)) -
    erf((d - 1/2 - mu) / (sqrt2 sigma))] (spec preproc-and-extraction §10.2), over the sum of that column's entries:
    what lies beyond the outermost band is shared among the others, so that every line keeps its flux. Light that
    leaves the spectrum at its ends is not given back, since it does leave it.

    Parameters
    ----------
    sigma : (nspec, nwave) Gaussian sigma of each model bin, in bins of the spectrum itself; positive
    ndiag : number of diagonals, odd
    mu : common offset of all lines, towards smaller indices [bin]

    Returns
    -------
    (nspec, ndiag, nwave) of `dtype`, in the order of `Resolution.data`

    Raises
    ------
    ValueError : a sigma is not positive, or ndiag is even
    """
    sigma = np.asarray(sigma, dtype=np.float64)
    if sigma.ndim != 2 or not ((sigma > 0) & np.isfinite(sigma)).all():
        raise ValueError("gaussian_bands: sigma must be (nspec, nwave), positive and finite [bin]")
    if ndiag < 1 or ndiag % 2 == 0:
        raise ValueError(f"gaussian_bands: ndiag = {ndiag} must be odd")
    bands = np.empty((sigma.shape[0], ndiag, sigma.shape[1]), dtype)
    _fill_bands(sigma, float(mu), bands)
    return bands


@njit(nogil=True, cache=True)
def _fill_bands(sigma, mu, bands):  # type: ignore[no-untyped-def]
    nspec, ndiag, nwave = bands.shape
    half = ndiag // 2
    value = np.empty(ndiag)
    for i in range(nspec):
        for j in range(nwave):
            root = 1.0 / (sqrt(2.0) * sigma[i, j])
            high = erf((half + 0.5 - mu) * root)
            first = high
            for k in range(ndiag):
                low = erf((half - k - 0.5 - mu) * root)
                value[k] = high - low
                high = low
            norm = 1.0 / (first - high)
            for k in range(ndiag):
                bands[i, k, j] = value[k] * norm
