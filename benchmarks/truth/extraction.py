"""Extraction: flux and errors against the true electrons in the same apertures, and what resampling keeps of S/N."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from algorithms.extract.boxcar import BoxcarExtract
from benchmarks.truth.exposed import Exposed
from benchmarks.truth.line import Array, Line, compared, pulls
from qlstream.datamodel.qframe import QFrame

_WINDOW = 50.0  # [Angstrom]


def lines(exposed: Exposed) -> Iterator[Line]:
    """All that this exposure tells of the extraction."""
    if exposed.context.flavor in ("zero", "dark"):
        return
    yield _pulls(exposed)
    yield from _counts(exposed)
    if exposed.context.flavor == "science":
        yield _lost_rows(exposed)
        yield from _resampled(exposed)


def _pulls(exposed: Exposed) -> Line:
    qframe = exposed.qframe
    expected, _ = exposed.aperture
    good = (qframe.ivar > 0) & exposed.in_range
    pull = ((qframe.flux - expected) * np.sqrt(qframe.ivar))[good]
    reference = "0.999 / 1.006" if exposed.context.flavor == "science" else ""
    return pulls("Extract_QP", "flux pull in the same aperture", pull, 0.01, reference)


def _lost_rows(exposed: Exposed) -> Line:
    lost = float((exposed.qframe.ivar[exposed.in_range] == 0).mean())
    told = f"{100 * lost:.3f} %"
    return Line("Extract_QP", "fiber rows lost, live fibers", "0", told, math.nan, "≤ 0.2 %", lost <= 0.002, "1–2 %")


def _counts(exposed: Exposed) -> Iterator[Line]:
    """Fibers with light, and the level of the light."""
    result = exposed.result("CountSpectralBins")
    assert result is not None
    expected, variance = exposed.aperture
    good = exposed.qframe.ivar > 0
    shining = np.where(good, exposed.truth.flux, 0.0).sum(axis=1) > 0
    lit = result.per_fiber["GOOD_FIBERS"] > 0
    told = f"{lit.sum()} ({(lit != shining).sum()} wrong)"
    name = "NGOODFIB, and which they are"
    yield Line(
        "CountSpectralBins", name, str(shining.sum()), told, math.nan, "none wrong", bool(np.all(lit == shining))
    )
    rows = np.maximum(good.sum(axis=1), 1)
    level = np.where(good, expected, 0.0).sum(axis=1) / rows
    error = np.sqrt(np.where(good, variance, 0.0).sum(axis=1)) / rows
    use = exposed.live & (good.sum(axis=1) > 0)
    sigma = 1.25 * float(np.median(error[use])) / math.sqrt(use.sum())
    truth = float(np.median(level[use]))
    yield compared("CountSpectralBins", "FLUXLEVEL [e/row]", truth, result.metrics["FLUXLEVEL"], sigma, relative=0.005)


def _resampled(exposed: Exposed) -> Iterator[Line]:
    """S/N on a common grid against S/N on the rows, both of the counts within windows of 50 Angstrom.

    Over so many bins the sums do not depend on how neighbouring bins share noise: if flux and variance add up to what
    they were, nothing of the S/N is lost or invented. The pulls tell whether that S/N is true.
    """
    frame = BoxcarExtract().run(exposed.image, exposed.context)
    step = np.gradient(frame.wave)
    expected, _ = exposed.aperture
    kept: list[Array] = []
    for i in np.flatnonzero(exposed.live):
        rows = _Rows(exposed.qframe, i, expected[i])
        for low in np.arange(frame.wave[0] + 10.0, frame.wave[-1] - 10.0 - _WINDOW, _WINDOW):
            bins = (frame.wave > low) & (frame.wave < low + _WINDOW)
            summed = rows.summed(float((frame.wave - 0.5 * step)[bins][0]), float((frame.wave + 0.5 * step)[bins][-1]))
            if summed is not None and frame.ivar[i, bins].all():
                flux, variance = frame.flux[i, bins] @ step[bins], (step[bins] ** 2 / frame.ivar[i, bins]).sum()
                kept.append(np.array([flux, variance, *summed]))
    table = np.array(kept)
    in_bins, in_rows = (np.abs(table[:, k]) / np.sqrt(table[:, k + 1]) for k in (0, 2))
    bright = in_rows > 10
    ratio = float(np.median(in_bins[bright] / in_rows[bright]))
    told = f"{ratio:.4f} of {bright.sum()} windows"
    name = "S/N on the common grid over S/N on the rows"
    yield Line("BoxcarExtract", name, "1", told, math.nan, "1.00 ± 0.01", abs(ratio - 1) <= 0.01)
    pull = (table[:, 0] - table[:, 4]) / np.sqrt(table[:, 1])
    yield pulls("BoxcarExtract", "pull of counts in 50 Å", pull, 0.02)


class _Rows:
    """The rows of one fiber, cumulated so that any stretch of wavelength can be summed."""

    def __init__(self, qframe: QFrame, fiber: int, expected: Array) -> None:
        wave = qframe.wave[fiber]
        middle = 0.5 * (wave[1:] + wave[:-1])
        self.edges = np.concatenate([[2 * wave[0] - middle[0]], middle, [2 * wave[-1] - middle[-1]]])
        good = qframe.ivar[fiber] > 0
        variance = np.where(good, 1.0 / np.where(good, qframe.ivar[fiber], 1.0), 0.0)
        self.totals = [self._cumulated(values) for values in (qframe.flux[fiber], variance, expected, ~good)]

    def summed(self, low: float, high: float) -> tuple[float, float, float] | None:
        """(flux, variance, true flux) between two wavelengths, rows by the part inside; None if one of them is bad."""
        flux, variance, expected, bad = (
            float(np.interp(high, self.edges, total) - np.interp(low, self.edges, total)) for total in self.totals
        )
        return None if bad > 0 else (flux, variance, expected)

    @staticmethod
    def _cumulated(values: Array) -> Array:
        return np.concatenate([[0.0], np.cumsum(values, dtype=float)])
