"""Which line is which, from nothing but the pattern of one fiber's lines.

A triplet of detected rows and a triplet of known wavelengths fix one quadratic wave(row). Each that has a plausible
dispersion and curvature is judged by how much of the detected light falls on known lines; the best are refined. Known
lines that are not seen cost nothing, so a lamp may be off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]

_STRONGEST = 18  # detected lines from which triplets are made
_SPAN = 0.25  # least distance of the outer two of a triplet, of the detected range
_NEAR = 1.5  # rows within which a line counts for a quadratic [pixel]
_CLOSE = 0.6  # and in the end [pixel]
_CANDIDATES = 40  # quadratics that are refined
_LEAST = 0.4  # share of the detected light that must be identified: chance reaches half of that
_SAME = 0.5  # solutions that agree on this share of the light are one
_RIVAL = 0.85  # another solution may not explain more than this share of what the best one does


class NotIdentified(ValueError):
    """The lines of the arc fit no wavelengths, or several."""


@dataclass(frozen=True)
class DispersionPrior:
    """What is known before.

    Attributes
    ----------
    dispersion : [Angstrom/pixel] in the middle row
    tolerance : relative, of that
    bend : largest change of the dispersion over the CCD, relative
    """

    dispersion: float
    tolerance: float = 0.2
    bend: float = 0.35


@dataclass(frozen=True)
class Identified:
    """Lines of one fiber with their wavelengths.

    Attributes
    ----------
    row, wave : (n,) [pixel], [Angstrom], by row
    index : (n,) which of the detected lines
    coef : polynomial wave = sum coef[k] t^k with t = (row - middle) / middle
    rms : [Angstrom]
    share : of the detected light that is identified, in square roots of fluxes
    """

    row: Array
    wave: Array
    index: NDArray[np.int64]
    coef: Array
    rms: float
    share: float


def identify(row: Array, flux: Array, wave: Array, ny: int, prior: DispersionPrior, least: int = 6) -> Identified:
    """Wavelengths of the lines of one fiber.

    Parameters
    ----------
    row, flux : (n,) detected lines, by row [pixel], [electron]
    wave : (m,) known lines, increasing [Angstrom]
    ny : rows of the CCD
    least : lines that must be identified

    Raises
    ------
    NotIdentified : fewer lines or too little of the light, or another solution is as good
    """
    if len(row) < least or len(wave) < least:
        raise NotIdentified(
            f"{len(row)} lines detected and {len(wave)} known, at least {least} are needed; "
            "were the lamps on, and is the line list that of these lamps?"
        )
    middle = 0.5 * (ny - 1)
    t = (row - middle) / middle
    weight = np.sqrt(flux) / np.sqrt(flux).sum()
    strong = np.sort(np.argsort(flux)[::-1][:_STRONGEST])
    b = prior.dispersion * middle  # Angstrom per unit of t
    score, coef = _vote(
        t, weight, strong, wave, b, prior.tolerance, 0.25 * prior.bend, _SPAN * np.ptp(t), _NEAR * prior.dispersion
    )
    order = np.argsort(-score, kind="stable")
    candidates: list[Array] = []
    for n in order[: 50 * _CANDIDATES]:
        if score[n] > 0 and all(_apart(coef[n], c, prior.dispersion) > _NEAR for c in candidates):
            candidates.append(coef[n])
        if len(candidates) == _CANDIDATES:
            break
    refined = [found for c in candidates if (found := _refine(t, row, weight, wave, c, prior)) is not None]
    refined.sort(key=lambda f: -f.share)
    if not refined or len(refined[0].row) < least or refined[0].share < _LEAST:
        most, share = (len(refined[0].row), refined[0].share) if refined else (0, 0.0)
        raise NotIdentified(
            f"at most {most} of {len(row)} lines, {share:.0%} of their light, fit the line list with a dispersion of "
            f"{prior.dispersion:.3f} Angstrom/pixel within {prior.tolerance:.0%}; were the lamps on, and is that the "
            "instrument's dispersion?"
        )
    best = refined[0]
    for other in refined[1:]:
        agree = np.abs(np.polyval(best.coef[::-1], t) - np.polyval(other.coef[::-1], t)) < prior.dispersion
        if weight[agree].sum() < _SAME and other.share > _RIVAL * best.share:
            raise NotIdentified(
                f"two wavelength solutions explain the lines alike ({best.share:.0%} and {other.share:.0%} of the "
                "light); more lamps or a narrower range of dispersions would decide"
            )
    return best


def _apart(a: Array, b: Array, dispersion: float) -> float:
    """Largest difference of two polynomials over the CCD [pixel]."""
    t = np.linspace(-1.0, 1.0, 9)
    return float(np.abs(np.polyval(a[::-1], t) - np.polyval(b[::-1], t)).max()) / dispersion


def _refine(t: Array, row: Array, weight: Array, wave: Array, coef: Array, prior: DispersionPrior) -> Identified | None:
    """Match and fit by turns, with growing degree and narrowing tolerance."""
    steps = ((2, _NEAR), (2, _NEAR), (3, _NEAR), (3, 1.0), (4, 1.0), (4, _CLOSE), (4, _CLOSE))
    for degree, near in steps:
        mine, known = _pairs(t, weight, wave, coef, near * prior.dispersion)
        if len(mine) < 4:
            return None
        degree = min(degree, max(1, len(mine) // 3))
        fitted = np.polynomial.polynomial.polyfit(t[mine], wave[known], degree, w=np.sqrt(weight[mine]))
        coef = np.asarray(fitted, dtype=np.float64)
    mine, known = _pairs(t, weight, wave, coef, _CLOSE * prior.dispersion)
    if len(mine) < 4:
        return None
    residual = np.polyval(coef[::-1], t[mine]) - wave[known]
    slope = np.polyval(np.polynomial.polynomial.polyder(coef)[::-1], np.linspace(-1, 1, 9))
    if not (slope > 0).all():
        return None
    rms = float(np.sqrt(np.average(residual**2, weights=weight[mine])))
    quality = 1.0 - np.abs(residual) / (2.0 * _CLOSE * prior.dispersion)
    return Identified(row[mine], wave[known], mine, coef, rms, float((weight[mine] * quality).sum()))


def _pairs(
    t: Array, weight: Array, wave: Array, coef: Array, tolerance: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Detected and known lines that lie close; of two that claim the same, the nearer."""
    predicted = np.polyval(coef[::-1], t)
    right = np.clip(np.searchsorted(wave, predicted), 1, len(wave) - 1)
    known = np.where(predicted - wave[right - 1] < wave[right] - predicted, right - 1, right)
    distance = np.abs(predicted - wave[known])
    best: dict[int, int] = {}
    for n in np.flatnonzero(distance < tolerance):
        k = int(known[n])
        if k not in best or distance[n] < distance[best[k]]:
            best[k] = int(n)
    mine = np.array(sorted(best.values()), dtype=np.int64)
    return mine, known[mine] if len(mine) else mine


def _vote(
    t: Array, weight: Array, strong: NDArray[np.int64], wave: Array, b: float, tolerance: float, bend: float,
    span: float, near: float,
) -> tuple[Array, Array]:  # fmt: skip
    """Score and coefficients (n, 3) of every plausible quadratic."""
    number = _quadratics(t, weight, strong, wave, b, tolerance, bend, span, near, np.zeros(0), np.zeros((0, 3)))
    score, coef = np.zeros(number), np.zeros((number, 3))
    _quadratics(t, weight, strong, wave, b, tolerance, bend, span, near, score, coef)
    return score, coef


@njit(nogil=True, cache=True)
def _quadratics(t, weight, strong, wave, b, tolerance, bend, span, near, score, coef):  # type: ignore[no-untyped-def]
    """Number of plausible quadratics; they are written if there is room."""
    n, m = strong.size, wave.size
    count = 0
    for i in range(n - 2):
        for k in range(i + 2, n):
            t1, t3 = t[strong[i]], t[strong[k]]
            if t3 - t1 < span:
                continue
            for j in range(i + 1, k):
                t2 = t[strong[j]]
                if min(t2 - t1, t3 - t2) < 0.15 * (t3 - t1):
                    continue
                for p in range(m - 2):
                    for r in range(p + 2, m):
                        slope = (wave[r] - wave[p]) / (t3 - t1)
                        if slope < b * (1 - tolerance - 2 * bend):
                            continue
                        if slope > b * (1 + tolerance + 2 * bend):
                            break
                        for q in range(p + 1, r):
                            s1 = (wave[q] - wave[p]) / (t2 - t1)
                            a = (slope - s1) / (t3 - t2)
                            linear = s1 - a * (t1 + t2)
                            if abs(linear / b - 1) > tolerance or abs(a) > bend * linear:
                                continue
                            if score.size:
                                c = wave[p] - t1 * (linear + a * t1)
                                coef[count, 0], coef[count, 1], coef[count, 2] = c, linear, a
                                score[count] = _explained(t, weight, wave, c, linear, a, near)
                            count += 1
    return count


@njit(nogil=True, cache=True)
def _explained(t, weight, wave, c, b, a, near):  # type: ignore[no-untyped-def]
    total = 0.0
    k = 0
    for n in range(t.size):  # both are in order, and so is the prediction
        value = c + t[n] * (b + a * t[n])
        while k < wave.size - 1 and wave[k + 1] <= value:
            k += 1
        distance = abs(value - wave[k])
        if k < wave.size - 1:
            distance = min(distance, abs(wave[k + 1] - value))
        if distance < near:
            total += weight[n] * (1.0 - distance / near)
    return total
