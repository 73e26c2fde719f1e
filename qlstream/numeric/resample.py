"""Resampling of spectra that keeps their totals: exact integrals over bins, in one sweep of both grids."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def bin_edges(x: ArrayLike) -> Array:
    """(n + 1,) edges of the bins centred on `x` (n,): midpoints, and half a step beyond both ends.

    Raises
    ------
    ValueError : fewer than two bins, or x does not increase
    """
    x = np.asarray(x, dtype=float)
    if x.ndim != 1 or x.size < 2 or not (np.diff(x) > 0).all():
        raise ValueError(f"bin centres must be a strictly increasing vector of 2 or more, got shape {x.shape}")
    middle = 0.5 * (x[1:] + x[:-1])
    return np.concatenate([[2 * x[0] - middle[0]], middle, [2 * x[-1] - middle[-1]]])


def resample_flux(
    xout: ArrayLike, x: ArrayLike, flux: ArrayLike, ivar: ArrayLike | None = None
) -> Array | tuple[Array, Array]:
    """Mean density in each output bin, with the integral kept (spec preproc-and-extraction §9.2).

    The input counts as a piecewise linear density that falls to zero one step beyond each end; the output is its exact
    integral over each bin, divided by the bin's width. With `ivar`, bins are weighted by it:
    out = R(flux ivar) / R(ivar), and ivar_out = R(ivar / dx) dX. Correlations of neighbours are ignored.

    Parameters
    ----------
    xout : (nout,) increasing bin centres
    x : (nin,) increasing
    flux : (nin,) density, e.g. [electron/Angstrom]
    ivar : (nin,) or None; bins with 0 do not count

    Returns
    -------
    flux : (nout,) float64; alone if `ivar` is None
    ivar : (nout,) float64; 0 (and flux 0) where no input with information lies

    Raises
    ------
    ValueError : grids do not increase, or shapes differ
    """
    x, flux = _same_shape("resample_flux", x, flux)
    edges = bin_edges(xout)
    bin_edges(x)
    width = np.diff(edges)
    if ivar is None:
        return _integrate_linear(edges, x, flux) / width
    _, weight = _same_shape("resample_flux", x, ivar)
    total = _integrate_linear(edges, x, weight)
    information = _integrate_linear(edges, x, weight / np.gradient(x))
    have = total > 0
    out = np.zeros(edges.size - 1)
    out[have] = _integrate_linear(edges, x, np.where(weight > 0, flux * weight, 0.0))[have] / total[have]
    return out, np.where(have, information, 0.0)


def project_flux(xout: ArrayLike, x: ArrayLike, flux: ArrayLike, ivar: ArrayLike) -> tuple[Array, Array]:
    """Share each input bin's counts and variance among the output bins by overlap (spec preproc-and-extraction §9.1).

    Totals of counts and of variance are kept ("S/N conserving"), correlations ignored.

    Parameters
    ----------
    xout, x : (nout,), (nin,) increasing bin centres
    flux, ivar : (nin,) density and inverse variance

    Returns
    -------
    flux, ivar : (nout,) float64; ivar is 0 only where the bin meets an input bin of ivar 0 or leaves the input

    Raises
    ------
    ValueError : grids do not increase, or shapes differ
    """
    x, flux = _same_shape("project_flux", x, flux)
    _, ivar = _same_shape("project_flux", x, ivar)
    return _project(bin_edges(xout), bin_edges(x), flux, ivar)


def _same_shape(who: str, x: ArrayLike, values: ArrayLike) -> tuple[Array, Array]:
    x, values = np.asarray(x, dtype=float), np.asarray(values, dtype=float)
    if x.shape != values.shape:
        raise ValueError(f"{who}: {values.shape} values on {x.shape} bins; give one value per bin")
    return x, values


@njit(nogil=True, cache=True)
def _integrate_linear(edges: Array, x: Array, f: Array) -> Array:
    """Integral of the piecewise linear density over each bin: two pointers, O(nin + nout)."""
    n = x.size
    nodes = np.empty(n + 2)
    values = np.zeros(n + 2)
    nodes[1:-1] = x
    values[1:-1] = f
    nodes[0] = 2 * x[0] - x[1]
    nodes[-1] = 2 * x[-1] - x[-2]
    out = np.zeros(edges.size - 1)
    i = 0
    for o in range(out.size):
        left, right = edges[o], edges[o + 1]
        while i < n and nodes[i + 1] <= left:
            i += 1
        k = i
        while k <= n and nodes[k] < right:
            a = max(left, nodes[k])
            b = min(right, nodes[k + 1])
            if b > a:
                slope = (values[k + 1] - values[k]) / (nodes[k + 1] - nodes[k])
                out[o] += (b - a) * (values[k] + slope * (0.5 * (a + b) - nodes[k]))
            k += 1
    return out


@njit(nogil=True, cache=True)
def _project(edges_out: Array, edges: Array, flux: Array, ivar: Array) -> tuple[Array, Array]:
    nout = edges_out.size - 1
    n = edges.size - 1
    flux_out = np.zeros(nout)
    ivar_out = np.zeros(nout)
    i = 0
    for o in range(nout):
        left, right = edges_out[o], edges_out[o + 1]
        while i < n and edges[i + 1] <= left:
            i += 1
        counts = 0.0
        variance = 0.0
        whole = left >= edges[0] - 1e-9 * (right - left) and right <= edges[n] + 1e-9 * (right - left)
        k = i
        while k < n and edges[k] < right:
            overlap = min(right, edges[k + 1]) - max(left, edges[k])
            width = edges[k + 1] - edges[k]
            if ivar[k] > 0:
                counts += flux[k] * overlap
                variance += overlap * width / ivar[k]
            elif overlap > 1e-9 * width:
                whole = False
            k += 1
        flux_out[o] = counts / (right - left)
        if whole and variance > 0:
            ivar_out[o] = (right - left) ** 2 / variance
    return flux_out, ivar_out
