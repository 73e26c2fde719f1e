"""Read noise of each amplifier."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Annotated, Any

from pydantic import Field

from qa.overscan import measure_pixels
from qlstream.datamodel.amplifier import Section
from qlstream.datamodel.image import Image, RawCamera
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

Percent = Annotated[float, Field(gt=0, lt=100)]


class Get_RMS(MonitoringAlg[Image]):
    """Read noise and its texture, from the overscan columns of the raw frame.

    NOISE_AMP is the noise of a pixel of the data as preprocessing found it, that of the bias image included
    [electron]; READNOISE_RATIO the same over the expected RDNOISEx, where header or calibration has one.
    NOISE_OVERSCAN_AMP is the scatter of the overscan pixels alone, without any bias image: the two agree unless the
    bias image is noisy. BIAS_PATNOISE is what the levels of rows scatter beyond it, BIAS_COLNOISE those of columns
    [electron]. DIFF1SIG, DIFF2SIG, DIFF3SIG are the widths of the ranges with the middle `percentiles` of the overscan
    pixels [electron]: 2, 4 and 6 sigma of a Gaussian; NOISE_TAILS is DIFF2SIG over DIFF1SIG in units of a Gaussian's,
    so that 1 is Gaussian. DATA5SIG counts overscan pixels more than 5 sigma low, of which a Gaussian has 0.3 per
    million; LOW5SIG_AMP is that count per million. The seed took the pixel-based numbers from active pixels
    by mistake, all amplifiers in one, divided by the exposure time (spec quicklook-qa §1.3).
    """

    title = "read noise"

    class Params(StageParams):
        percentiles: tuple[Percent, Percent, Percent] = Field(
            (68.2, 95.4, 99.7), alias="PERCENTILES", description="of the pixels in the ranges of DIFF1SIG ... [percent]"
        )

    def run(self, image: Image, context: Context) -> QAResult:
        noise = {r.name: r.readnoise for r in image.readouts}
        per_amp = {
            "NOISE_AMP": noise,
            "BIAS_PATNOISE": {r.name: r.row_pattern for r in image.readouts},
            "LOW5SIG_AMP": {r.name: r.low_outliers for r in image.readouts},
        }
        expected = {r.name: _expected("RDNOISE" + r.name, context) for r in image.readouts}
        if all(value > 0 for value in expected.values()):
            per_amp["READNOISE_RATIO"] = {amp: value / expected[amp] for amp, value in noise.items()}
        raw = context.earlier.get("Initialize")
        if isinstance(raw, RawCamera):  # else a plan of a site's own that starts otherwise: what preprocessing tells
            per_amp |= self._pixels(image, raw, context)
        return QAResult(
            self.name,
            per_amp=per_amp,
            units={key: _UNITS[key] for key in per_amp if key in _UNITS},
            summary="read noise " + ", ".join(f"{amp} {value:.2f}" for amp, value in noise.items()) + " electron",
        ).graded(context.ranges, context.where)

    def _pixels(self, image: Image, raw: RawCamera, context: Context) -> dict[str, dict[str, float]]:
        """What the raw overscan pixels tell, by key and amplifier."""
        percentiles = self.params.percentiles
        found: dict[str, dict[str, float]] = {key: {} for key in _FROM_PIXELS}
        for r in image.readouts:
            good = context.calibration.cards.get("GOODBIASSEC" + r.name)
            pixels = measure_pixels(raw.pix, r.amp, None if good is None else Section.parse(str(good)))
            widths = [pixels.width(percent) for percent in percentiles]
            gaussian = _gaussian_width(percentiles[1]) / _gaussian_width(percentiles[0])
            values = (
                pixels.scatter * r.gain,
                pixels.columns * r.gain,
                *(width * r.gain for width in widths),
                widths[1] / widths[0] / gaussian if widths[0] > 0 else math.nan,
                round(1e-6 * r.low_outliers * pixels.count) if math.isfinite(r.low_outliers) else math.nan,
            )
            for key, value in zip(_FROM_PIXELS, values, strict=True):
                found[key][r.name] = value
        return found


_FROM_PIXELS = (
    "NOISE_OVERSCAN_AMP",
    "BIAS_COLNOISE",
    "DIFF1SIG",
    "DIFF2SIG",
    "DIFF3SIG",
    "NOISE_TAILS",
    "DATA5SIG",
)
_UNITS = dict.fromkeys(
    ("NOISE_AMP", "NOISE_OVERSCAN_AMP", "BIAS_PATNOISE", "BIAS_COLNOISE", "DIFF1SIG", "DIFF2SIG", "DIFF3SIG"),
    "electron",
) | {"LOW5SIG_AMP": "per million", "DATA5SIG": "pixels"}


def _gaussian_width(percent: float) -> float:
    """Width of the range with the middle `percent` of a Gaussian [sigma]."""
    return 2.0 * NormalDist().inv_cdf(0.5 + 0.005 * percent)


def _expected(card: str, context: Context) -> float:
    """The read noise that the header, else the calibration, expects [electron]; NaN if neither does."""
    value: Any = context.header.get(card, context.calibration.cards.get(card))
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
