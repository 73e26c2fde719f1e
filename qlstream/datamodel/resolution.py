"""Resolution matrix of one spectrum, stored by diagonals."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import dia_matrix
from scipy.special import erf

Array = NDArray[np.float64]

DEFAULT_NDIAG = 21


class Resolution:
    """Banded matrix R that turns a model spectrum into the expected one: expected = R · model (spec datamodel §6).

    Row k of `data` belongs to the offset ndiag//2 - k, and `R[j - offset_k, j] = data[k, j]`: column j of the
    storage spreads model bin j over the output bins j - ndiag//2 ... j + ndiag//2.

    Parameters
    ----------
    data : (ndiag, nwave) float, ndiag odd
    """

    def __init__(self, data: ArrayLike) -> None:
        self.data: Array = np.asarray(data, dtype=np.float64)
        if self.data.ndim != 2 or self.data.shape[0] % 2 == 0:
            raise ValueError(
                f"Resolution: data {self.data.shape} must be (ndiag, nwave) with an odd ndiag; "
                "use from_dense for a matrix and from_widths for Gaussian sigmas"
            )

    @classmethod
    def from_widths(cls, sigma: ArrayLike, ndiag: int = DEFAULT_NDIAG) -> Resolution:
        """Gaussian spread: entries are integrals of the Gaussian over each pixel.

        Parameters
        ----------
        sigma : (nwave,) Gaussian sigma of each model bin [pixel], positive
        ndiag : number of diagonals, odd

        Raises
        ------
        ValueError : a sigma is not positive, or ndiag is even
        """
        sigma = np.asarray(sigma, dtype=np.float64)
        if sigma.ndim != 1 or not (sigma > 0).all():
            raise ValueError("Resolution.from_widths: sigma must be (nwave,), positive and finite [pixel]")
        if ndiag % 2 == 0:
            raise ValueError(f"Resolution.from_widths: ndiag = {ndiag} must be odd")
        edges = np.arange(ndiag + 1) - ndiag // 2 - 0.5  # of the output bins, relative to the model bin
        cumulative = 0.5 * (1 + erf(edges[:, None] / (np.sqrt(2) * sigma)))
        return cls(np.diff(cumulative, axis=0))

    @classmethod
    def from_dense(cls, matrix: ArrayLike, ndiag: int = DEFAULT_NDIAG) -> Resolution:
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
        return cls(data)

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

    def dot(self, model: ArrayLike) -> Array:
        """Expected spectrum of a model on the same grid."""
        return np.asarray(self.sparse @ np.asarray(model, dtype=np.float64))

    __matmul__ = dot
