"""How far each emission line lies from its expected row."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from algorithms.flexure.blends import WINDOW, Features, find_features
from algorithms.flexure.field import POINT
from algorithms.flexure.windows import Windows
from qlstream.datamodel.image import Image
from qlstream.datamodel.masks import EXTRACT_MASK
from qlstream.datamodel.traces import XYTraceSet

Array = NDArray[np.float64]

NPAR = 6  # line, its derivative, constant, slope, neighbours on the left and on the right
SEARCH_FIBERS, SEARCH_LINES = 12, 16  # enough for the search of a common offset
MAX_ROWS = 128  # of a window; sizes the work arrays
THROUGHPUT_ERROR = 0.3  # how much a line of a fiber may deviate from line strength times throughput
_BAD = int(EXTRACT_MASK)


def visible_features(lines: NDArray[np.void], traces: XYTraceSet, most: int) -> Features:
    """The `most` strongest measurable features of a line table within the domain of the traces."""
    lines = lines[(lines["wave"] > traces.wavemin) & (lines["wave"] < traces.wavemax)]
    wave = np.ascontiguousarray(lines["wave"], dtype=float)
    sigma = np.hypot(traces.ysig_vs_wave(wave), 12**-0.5) / traces.dy_dwave(wave)
    strength = np.ascontiguousarray(lines["strength"], dtype=float)
    return find_features(wave, strength, lines["name"], np.median(sigma, axis=0), most)


def measure_lines(
    image: Image,
    traces: XYTraceSet,
    windows: Windows,
    features: Features,
    fibers: NDArray[np.int64],
    min_snr: float = 15.0,
) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Offset of each feature of each fiber from its expected row.

    In a window about the feature the light is f(y) = A T(y) - A shift T'(y) + constant + slope y + neighbours, T the
    pixel-integrated Gaussians of its lines. This is linear in A and in B = A shift. shift = B / A' is then formed with
    A' = line strength x fiber throughput, both from all measurements together, not with the noisy A: so it is
    unbiased for features far below the noise of one fiber, and thousands of those add up. What deviates from A' (an
    emission line of a galaxy, a cosmic ray, a dead fiber) is left out.

    Parameters
    ----------
    fibers : indices of the spectra to use
    min_snr : of a feature in all fibers together

    Returns
    -------
    points : (npoint,) POINT
    feature : (npoint,) index of the feature of each point
    """
    line, slope, line_error, slope_error = fit_lines(image, traces.select(fibers), windows.select(fibers), features)
    model = _strength_times_throughput(line, line_error, min_snr)
    with np.errstate(divide="ignore", invalid="ignore"):
        tolerance = 5.0 * np.hypot(line_error, THROUGHPUT_ERROR * model)
        shift, error = slope / model, slope_error / model
        good = (model > 0) & (np.abs(line - model) < tolerance) & (error < 1.5)
    feature, at = np.nonzero(good)
    points = np.zeros(len(at), POINT)
    points["fiber"], points["wave"] = fibers[at], features.center[feature]
    points["shift"], points["error"] = shift[good], error[good]
    return points, feature


def search_rows(image: Image, traces: XYTraceSet, windows: Windows, features: Features, reach: int) -> float:
    """The common offset within +-`reach` rows at which the lines are seen best [pixel]; 0 unless clearly so."""
    fibers = np.arange(0, traces.nspec, max(1, traces.nspec // SEARCH_FIBERS))
    bright = features.brightest(SEARCH_LINES)
    traces, windows = traces.select(fibers), windows.select(fibers)
    seen = []
    for trial in range(-reach, reach + 1):
        line, _, error, _ = fit_lines(image, traces, windows, bright, float(trial))
        seen.append(np.log1p(np.maximum(line / error, 0.0) ** 2).sum())
    best = int(np.argmax(seen))
    return float(best - reach) if seen[best] > 1.2 * seen[reach] else 0.0


def fit_lines(
    image: Image, traces: XYTraceSet, windows: Windows, features: Features, offset: float = 0.0
) -> tuple[Array, Array, Array, Array]:
    """Linear fit of every feature of every fiber about the expected rows moved by `offset` [pixel].

    Least squares without weights, which noisy inverse variances cannot bias; the errors are propagated from ivar.

    Returns
    -------
    A, B, error of A, error of B : (ngroup, nspec) float64 [electron], [electron pixel]; errors are infinite where
        the window leaves the CCD or has too few good rows
    """
    y = traces.y_vs_wave(features.wave) + offset
    ysig = np.sqrt(traces.ysig_vs_wave(features.wave) ** 2 + 1.0 / 12.0)  # a pixel-integrated Gaussian, very nearly
    shape = (len(features), traces.nspec)
    out = np.zeros(shape), np.zeros(shape), np.full(shape, np.inf), np.full(shape, np.inf)
    _fit_lines(
        image.pix, image.ivar, image.mask, windows.center, windows.reach,
        traces.y_vs_wave(features.center) + offset, y, ysig, features.strength,
        features.left, features.first, features.last, features.right, *out,
    )  # fmt: skip
    return out


def _strength_times_throughput(line: Array, error: Array, min_snr: float) -> Array:
    """Rank-1 model of the line fluxes (ngroup, nfiber); 0 for features that are not seen."""
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where(np.isfinite(error), 1.0 / error**2, 0.0)
    known = weight > 0
    strength = np.array([np.median(a[k]) if k.any() else 0.0 for a, k in zip(line, known, strict=True)])
    throughput = np.ones(line.shape[1])
    good = known
    for _ in range(4):
        # a line may deviate by THROUGHPUT_ERROR, so a bright one must not outvote all others
        expected = strength[:, None] * throughput
        w = np.where(good, 1.0 / (1.0 / np.maximum(weight, 1e-30) + (THROUGHPUT_ERROR * expected) ** 2), 0.0)
        throughput = _ratio((w * line * strength[:, None]).sum(axis=0), (w * strength[:, None] ** 2).sum(axis=0))
        throughput = np.maximum(throughput, 0.0)
        strength = _ratio((w * line * throughput).sum(axis=1), (w * throughput**2).sum(axis=1))
        expected = strength[:, None] * throughput
        good = known & (
            (line - expected) ** 2 < 25.0 * (1.0 / np.maximum(weight, 1e-30) + (THROUGHPUT_ERROR * expected) ** 2)
        )
    snr = strength * np.sqrt((weight * good * throughput**2).sum(axis=1))
    return np.where(snr[:, None] > min_snr, expected, 0.0)


def _ratio(numerator: Array, denominator: Array) -> Array:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _fit_lines(
    pix, ivar, mask, xnode, xreach, middle, y, ysig, strength,
    left, first, last, right, line, slope, line_error, slope_error,
):  # fmt: skip
    ny, nx = pix.shape
    last_node = xnode.shape[1] - 2
    design = np.empty((NPAR, MAX_ROWS))
    value, var = np.empty(MAX_ROWS), np.empty(MAX_ROWS)
    normal = np.empty((NPAR, NPAR))
    solution = np.empty((2, NPAR))
    for g in range(len(first)):
        for f in range(y.shape[0]):
            sigma = ysig[f, first[g]]
            low, high = math.floor(middle[f, g] - WINDOW * sigma), math.ceil(middle[f, g] + WINDOW * sigma)
            n = high - low + 1
            if low < 0 or high >= ny or n > MAX_ROWS:
                continue
            ngood = 0
            half = 0.5 * (high - low)
            for t in range(n):
                value[t], var[t] = _collapse(pix, ivar, mask, xnode[f], xreach[f], low + t, last_node, nx)
                if var[t] < np.inf:
                    ngood += 1
            design[:, :n] = 0.0
            for k in range(left[g], right[g]):
                part = 0 if first[g] <= k < last[g] else (4 if k < first[g] else 5)
                inverse = 1.0 / (ysig[f, k] * ysig[f, k])
                begin = max(0, math.ceil(y[f, k] - 5.0 * sigma) - low)
                end = min(n, math.floor(y[f, k] + 5.0 * sigma) - low + 1)
                d = low + begin - y[f, k]
                light = strength[k] / math.sqrt(2.0 * math.pi) / ysig[f, k] * math.exp(-0.5 * d * d * inverse)
                ratio, bend = math.exp(-(d + 0.5) * inverse), math.exp(-inverse)  # of one row's light to the last's
                for t in range(begin, end):
                    design[part, t] += light
                    if part == 0:
                        design[1, t] += (low + t - y[f, k]) * inverse * light
                    light *= ratio
                    ratio *= bend
            for t in range(n):
                design[2, t] = 1.0
                design[3, t] = t / half - 1.0
            if ngood < NPAR + 2:
                continue
            for a in range(NPAR):
                for b in range(a + 1):
                    total = 0.0
                    for t in range(n):
                        if var[t] < np.inf:
                            total += design[a, t] * design[b, t]
                    normal[a, b] = total
            if not _solve_two(normal, solution):
                continue
            A = B = vA = vB = 0.0
            for t in range(n):
                if var[t] < np.inf:
                    hA = hB = 0.0
                    for a in range(NPAR):
                        hA += solution[0, a] * design[a, t]
                        hB += solution[1, a] * design[a, t]
                    A += hA * value[t]
                    B += hB * value[t]
                    vA += hA * hA * var[t]
                    vB += hB * hB * var[t]
            if vA > 0 and vB > 0:
                line[g, f], slope[g, f] = A, B
                line_error[g, f], slope_error[g, f] = math.sqrt(vA), math.sqrt(vB)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _collapse(pix, ivar, mask, xnode, xreach, j, last_node, nx):
    """Light of a fiber in row j under a biweight window, and its variance: infinite if a pixel is masked."""
    at = j * (last_node + 1) / (pix.shape[0] - 1.0)
    k = min(int(at), last_node)
    x = xnode[k] + (at - k) * (xnode[k + 1] - xnode[k])
    r = xreach[k]
    first, last = math.ceil(x - r), math.floor(x + r)
    if first < 0 or last >= nx:
        return 0.0, np.inf
    inverse = 1.0 / (r * r)
    light = variance = 0.0
    for i in range(first, last + 1):
        if not ivar[j, i] > 0 or (mask[j, i] & _BAD) != 0:
            return 0.0, np.inf
        d = i - x
        w = 1.0 - d * d * inverse
        w *= w
        light += w * pix[j, i]
        variance += w * w / ivar[j, i]
    return light, variance


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _solve_two(normal, solution):
    """First two columns of the inverse of a symmetric matrix (lower triangle given, overwritten) by Cholesky.

    Parameters that the data do not constrain (no neighbour in the window) come out as 0. False if one of the first
    two is not constrained.
    """
    n = normal.shape[0]
    size = np.empty(n)
    for a in range(n):
        size[a] = normal[a, a]
    for a in range(n):
        for b in range(a + 1):
            total = normal[a, b]
            for c in range(b):
                total -= normal[a, c] * normal[b, c]
            if a == b:
                if total <= 1e-9 * size[a] or size[a] <= 1e-12:
                    if a < 4:
                        return False
                    normal[a, a] = 0.0
                    for c in range(a):
                        normal[a, c] = 0.0
                else:
                    normal[a, a] = math.sqrt(total)
            else:
                normal[a, b] = total / normal[b, b] if normal[b, b] > 0 else 0.0
    for s in range(2):
        for a in range(n):
            total = 1.0 if a == s else 0.0
            for c in range(a):
                total -= normal[a, c] * solution[s, c]
            solution[s, a] = total / normal[a, a] if normal[a, a] > 0 else 0.0
        for a in range(n - 1, -1, -1):
            total = solution[s, a]
            for c in range(a + 1, n):
                total -= normal[c, a] * solution[s, c]
            solution[s, a] = total / normal[a, a] if normal[a, a] > 0 else 0.0
    return True
