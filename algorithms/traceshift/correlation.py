"""By how much the wavelengths of spectra are wrong, from a reference spectrum: chi2 against the shift, bin by bin.

The reference is moved, not the data, so that nothing of the data is interpolated and its errors stay what they are. Its
scale and a straight line under it are free in each bin: throughput and continua are no part of the question.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numba import njit
from numpy.typing import NDArray

from algorithms.flexure.field import POINT
from qlstream.datamodel.traces import XYTraceSet

Array = NDArray[np.float64]

_STEP = 0.25  # of the shifts [row]
_AROUND = 3  # steps on each side of the least chi2 through which its parabola goes
_LEAST_ROWS = 20  # of a bin
_LEAST_SNR = 5.0  # of what the reference shows beside a straight line


@dataclass(frozen=True)
class Reference:
    """A spectrum whose wavelengths are right.

    Attributes
    ----------
    wave : (n,) evenly spaced, increasing [Angstrom]
    flux : (nbin, n) as seen at the resolution of each bin, or (1, n) for all; in any unit
    """

    wave: Array
    flux: Array


def correlate(
    wave: Array, flux: Array, ivar: Array, reference: Reference, traces: XYTraceSet, edges: Array, reach: float
) -> NDArray[np.void]:
    """Shift along the rows of every fiber in every bin.

    Parameters
    ----------
    wave, flux, ivar : (nspec, ny) spectra by row, at the wavelengths of `traces`
    edges : (nbin + 1,) of the bins [Angstrom]
    reach : shifts that are tried, both ways [row]

    Returns
    -------
    (npoint,) POINT; a bin whose best shift lies at the end of the range, or that shows too little, gives none
    """
    number = 2 * int(np.ceil(reach / _STEP)) + 1
    found = []
    for n, (low, high) in enumerate(pairwise(edges)):
        seen = reference.flux[min(n, len(reference.flux) - 1)]
        middle = np.array([0.5 * (low + high)])
        per_row = 1.0 / traces.dy_dwave(middle)[:, 0]
        result = np.zeros((len(wave), 3))
        result[:, 1] = np.inf
        _scan(wave, flux, ivar, reference.wave[0], reference.wave[1] - reference.wave[0], seen, low, high,
              _STEP * per_row, number, result)  # fmt: skip
        good = np.flatnonzero(np.isfinite(result[:, 1]))
        points = np.zeros(good.size, POINT)
        points["fiber"], points["wave"] = good, result[good, 2]
        # light of a wavelength that is higher than expected stands further down: its spectrum moved down
        points["shift"] = -result[good, 0] / per_row[good]
        points["error"] = result[good, 1] / per_row[good]
        found.append(points)
    return np.concatenate(found)


@njit(nogil=True, cache=True)
def _scan(wave, flux, ivar, start, step, reference, low, high, shifts, number, result):  # type: ignore[no-untyped-def]
    """Per fiber the shift [Angstrom], its error (inf: none), and the mean wavelength of what tells it."""
    nspec, ny = wave.shape
    nref = reference.size
    chi2 = np.empty(number)
    model = np.empty(ny)
    for f in range(nspec):
        first, last = np.searchsorted(wave[f], low), np.searchsorted(wave[f], high)
        reach = shifts[f] * (number // 2)
        while first < last and wave[f, first] - reach < start:
            first += 1
        while last > first and wave[f, last - 1] + reach > start + step * (nref - 2):
            last -= 1
        rows = 0
        s0, s1, s2, d0, d1 = 0.0, 0.0, 0.0, 0.0, 0.0
        center, half = 0.5 * (low + high), 0.5 * (high - low)
        for j in range(first, last):
            w = ivar[f, j]
            if w > 0:
                t = (wave[f, j] - center) / half
                rows += 1
                s0 += w
                s1 += w * t
                s2 += w * t * t
                d0 += w * flux[f, j]
                d1 += w * t * flux[f, j]
        det = s0 * s2 - s1 * s1
        if rows < _LEAST_ROWS or not det > 0:
            continue
        a, b = (d0 * s2 - d1 * s1) / det, (d1 * s0 - d0 * s1) / det
        best = -1
        told = 0.0
        for i in range(number):
            shift = (i - number // 2) * shifts[f]
            m0, m1 = 0.0, 0.0
            for j in range(first, last):
                w = ivar[f, j]
                if w > 0:
                    at = (wave[f, j] + shift - start) / step
                    k = int(at)
                    model[j] = reference[k] + (at - k) * (reference[k + 1] - reference[k])
                    t = (wave[f, j] - center) / half
                    m0 += w * model[j]
                    m1 += w * t * model[j]
            p, q = (m0 * s2 - m1 * s1) / det, (m1 * s0 - m0 * s1) / det
            square, product, total = 0.0, 0.0, 0.0
            for j in range(first, last):
                w = ivar[f, j]
                if w > 0:
                    t = (wave[f, j] - center) / half
                    m = model[j] - p - q * t
                    d = flux[f, j] - a - b * t
                    square += w * m * m
                    product += w * m * d
                    total += w * d * d
            gain = product * product / square if product > 0 and square > 0 else 0.0
            chi2[i] = total - gain
            if best < 0 or chi2[i] < chi2[best]:
                best = i
                told = gain
        if best < _AROUND or best >= number - _AROUND or told < _LEAST_SNR**2:
            continue
        # least squares through the points about the least: c (i - best)^2 + e (i - best) + constant
        n, x2, x4, y0, y1, y2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(best - _AROUND, best + _AROUND + 1):
            x, y = float(i - best), chi2[i] - chi2[best]
            n += 1.0
            x2 += x * x
            x4 += x**4
            y0 += y
            y1 += x * y
            y2 += x * x * y
        c = (n * y2 - x2 * y0) / (n * x4 - x2 * x2)
        if not c > 0:
            continue
        vertex = -0.5 * (y1 / x2) / c
        if abs(vertex) > 1.0:
            continue
        weight, mean = 0.0, 0.0
        for j in range(first + 1, last - 1):  # where the reference is steep
            if ivar[f, j] > 0:
                at = (wave[f, j] + (best - number // 2) * shifts[f] - start) / step
                k = int(at)
                slope = reference[k + 1] - reference[k]
                weight += ivar[f, j] * slope * slope
                mean += ivar[f, j] * slope * slope * wave[f, j]
        if not weight > 0:
            continue
        result[f, 0] = (best - number // 2 + vertex) * shifts[f]
        result[f, 1] = shifts[f] * np.sqrt(max(chi2[best] / max(rows - 4, 1), 1.0) / c)
        result[f, 2] = mean / weight
