"""Extraction: flux and errors against the true electrons in the same apertures, and what resampling keeps of S/N."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from algorithms.extract.boxcar import BoxcarExtract
from benchmarks.truth.exposed import Exposed
from benchmarks.truth.line import Line, compared, pulls
from benchmarks.truth.windows import Cumulated, windows_of


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
    step, qframe = np.gradient(frame.wave), exposed.qframe
    expected, _ = exposed.aperture
    kept = []
    for i in np.flatnonzero(exposed.live):
        good = qframe.ivar[i] > 0
        rows = Cumulated(qframe.wave[i], (qframe.flux[i], 1.0 / np.where(good, qframe.ivar[i], 1.0), expected[i]), good)
        good = frame.ivar[i] > 0
        counts = frame.flux[i] * step, step**2 / np.where(good, frame.ivar[i], 1.0)
        bins = Cumulated(frame.wave, counts, good)
        for window in windows_of(frame.wave):
            in_bins, in_rows = bins.summed(*window), rows.summed(*window)
            if in_bins is not None and in_rows is not None:
                kept.append((*in_bins, *in_rows))
    table = np.array(kept)
    per_bin, per_row = (np.abs(table[:, k]) / np.sqrt(table[:, k + 1]) for k in (0, 2))
    bright = per_row > 10
    ratio = float(np.median(per_bin[bright] / per_row[bright]))
    told = f"{ratio:.4f} of {bright.sum()} windows"
    name = "S/N on the common grid over S/N on the rows"
    yield Line("BoxcarExtract", name, "1", told, math.nan, "1.00 ± 0.01", abs(ratio - 1) <= 0.01)
    pull = (table[:, 0] - table[:, 4]) / np.sqrt(table[:, 1])
    yield pulls("BoxcarExtract", "pull of counts in 50 Å", pull, 0.02, granted=1e-3)
