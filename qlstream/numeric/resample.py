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
    if x.ndim != 1:
        raise ValueError(f"bin centres must be a strictly increasing vector of 2 or more, got shape {x.shape}")
    return edges_of_rows(x[None, :])[0]


def edges_of_rows(x: Array) -> Array:
    """(nspec, n + 1) edges of the bins centred on each row of `x` (nspec, n); as `bin_edges`."""
    if x.ndim != 2 or x.shape[1] < 2 or not (np.diff(x, axis=1) > 0).all():
        raise ValueError(f"bin centres must be strictly increasing rows of 2 or more, got shape {x.shape}")
    edges = np.empty((x.shape[0], x.shape[1] + 1))
    edges[:, 1:-1] = 0.5 * (x[:, 1:] + x[:, :-1])
    edges[:, 0] = 2 * x[:, 0] - edges[:, 1]
    edges[:, -1] = 2 * x[:, -1] - edges[:, -2]
    return edges


def resample_flux(
    xout: ArrayLike, x: ArrayLike, flux: ArrayLike, ivar: ArrayLike | None = None, extrapolate: bool = False
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
    extrapolate : the density stays at its first and last value beyond the ends, instead of falling to zero

    Returns
    -------
    flux : (nout,) float64; alone if `ivar` is None
    ivar : (nout,) float64; 0 (and flux 0) where no input with information lies

    Raises
    ------
    ValueError : grids do not increase, shapes differ, or `extrapolate` together with `ivar`: what was not seen has none
    """
    x, flux = _same_shape("resample_flux", x, flux)
    edges = bin_edges(xout)
    bin_edges(x)
    width = np.diff(edges)
    if extrapolate:
        if ivar is not None:
            raise ValueError("resample_flux: cannot extrapolate ivar; give ivar=None or extrapolate=False")
        ends = min(edges[0], x[0]) - width[0], max(edges[-1], x[-1]) + width[-1]
        x, flux = np.concatenate([ends[:1], x, ends[1:]]), np.pad(flux, 1, mode="edge")
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
    edges = bin_edges(x)
    width = np.diff(edges)
    mask = np.zeros((1, x.size), np.uint32)
    found = _projected(bin_edges(xout), edges[None, :], (flux * width)[None, :], (ivar / width**2)[None, :], mask)
    return found[0][0], found[1][0]


def project_counts(
    xout: ArrayLike,
    x: Array,
    counts: NDArray[np.floating],
    ivar: NDArray[np.floating],
    mask: NDArray[np.uint32],
) -> tuple[Array, Array, NDArray[np.uint32]]:
    """As `project_flux`, for many spectra with a grid each, from counts per bin; O(nin + nout) per spectrum.

    Parameters
    ----------
    xout : (nout,) increasing bin centres, common to all
    x : (nspec, nin) increasing along each row
    counts, ivar : (nspec, nin) per input bin; where ivar is 0, counts may be anything
    mask : (nspec, nin) uint32

    Returns
    -------
    flux, ivar : (nspec, nout) float64, density and its inverse variance
    mask : (nspec, nout) uint32, the bits of all input bins that an output bin meets

    Raises
    ------
    ValueError : grids do not increase, or shapes differ
    """
    if not x.shape == counts.shape == ivar.shape == mask.shape:
        raise ValueError(
            f"project_counts: x {x.shape}, counts {counts.shape}, ivar {ivar.shape}, mask {mask.shape} "
            "must be of one shape (nspec, nin)"
        )
    return _projected(bin_edges(xout), edges_of_rows(x), counts, ivar, mask)


def _projected(
    edges_out: Array, edges: Array, counts: NDArray[np.floating], ivar: NDArray[np.floating], mask: NDArray[np.uint32]
) -> tuple[Array, Array, NDArray[np.uint32]]:
    shape = edges.shape[0], edges_out.size - 1
    out = np.zeros(shape), np.zeros(shape), np.zeros(shape, np.uint32)
    _project(edges_out, edges, counts, ivar, mask, *out)
    return out


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
def _project(edges_out, edges, counts, ivar, mask, flux_out, ivar_out, mask_out):  # type: ignore[no-untyped-def]
    nspec, nout = flux_out.shape
    n = edges.shape[1] - 1
    for f in range(nspec):
        first, last = edges[f, 0], edges[f, n]
        i = 0
        for o in range(nout):
            left, right = edges_out[o], edges_out[o + 1]
            while i < n and edges[f, i + 1] <= left:
                i += 1
            total = 0.0
            variance = 0.0
            bits = np.uint32(0)
            whole = left >= first - 1e-9 * (right - left) and right <= last + 1e-9 * (right - left)
            k = i
            while k < n and edges[f, k] < right:
                low, high = edges[f, k], edges[f, k + 1]
                share = (min(right, high) - max(left, low)) / (high - low)
                if share > 1e-9:
                    bits |= mask[f, k]
                    if ivar[f, k] > 0:
                        total += counts[f, k] * share
                        variance += share / ivar[f, k]
                    else:
                        whole = False
                k += 1
            flux_out[f, o] = total / (right - left)
            mask_out[f, o] = bits
            if whole and variance > 0:
                ivar_out[f, o] = (right - left) ** 2 / variance
