"""The width of a bin, for kernels."""

from __future__ import annotations

from numba import njit
from numpy.typing import NDArray


@njit(nogil=True, cache=True, inline="always")
def bin_width(x: NDArray, j: int) -> float:  # type: ignore[type-arg]
    """Width of the bin j centred on x[j], as np.gradient has it."""
    first, last = max(j - 1, 0), min(j + 1, x.size - 1)
    return (x[last] - x[first]) / (last - first)
