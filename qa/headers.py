"""Is the exposure what its header promises?"""

from __future__ import annotations

import math

from pydantic import Field

from qlstream.datamodel.image import RawCamera
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

_EXPECTED = ("EXPTIME", "MJD-OBS", "DATE-OBS", "OBSTYPE", "PROGRAM", "DETECTOR", "CCDTEMP")
_EXPECTED_ON_SKY = ("AIRMASS", "TILEID")


class Check_HDUs(MonitoringAlg[RawCamera]):
    """Problems of the header and of the readout's layout, counted by kind.

    CHECKHDUS counts every problem; MISSINGKEYS the absent cards; EXPTIME_FRACTION compares the time exposed with the
    time asked for; FLATPIXELS is the fraction of pixels that hold the frame's most common value, near 1 for a
    readout that never happened. The seed's check could only succeed or end the process (spec quicklook-qa §1.1).
    """

    title = "file and header"

    class Params(StageParams):
        sample: int = Field(16, ge=1, le=256, description="look at every n-th row for constant pixels")

    def run(self, raw: RawCamera, context: Context) -> QAResult:
        expected = _EXPECTED + (_EXPECTED_ON_SKY if context.flavor == "science" else ())
        missing = [key for key in expected if raw.header.get(key) in (None, "")]
        problems = [f"{key} is missing" for key in missing]
        named = str(raw.header.get("CAMERA", "")).strip().lower()
        if named != context.camera:
            problems.append(f"the HDU of {context.camera} says CAMERA = {named!r}")
        rows, columns = raw.pix.shape
        for amp in raw.amps:
            for label, section in (("DATASEC", amp.datasec), ("BIASSEC", amp.biassec)):
                if section.y1 > rows or section.x1 > columns:
                    problems.append(f"{label}{amp.name} {section} lies outside the {rows} x {columns} readout")
        constant = _constant_fraction(raw, self.params.sample)
        if constant > 0.5:
            problems.append(f"{100 * constant:.0f} % of the pixels hold one value")
        requested = float(raw.primary.get("REQTIME") or math.nan)
        fraction = context.exptime / requested if requested > 0 else math.nan
        metrics = {"CHECKHDUS": float(len(problems)), "MISSINGKEYS": float(len(missing)), "FLATPIXELS": constant}
        if math.isfinite(fraction):
            metrics["EXPTIME_FRACTION"] = fraction
        summary = "; ".join(problems) if problems else "header complete, layout consistent"
        return QAResult(self.name, metrics, summary=summary).graded(context.ranges, context.where)


def _constant_fraction(raw: RawCamera, step: int) -> float:
    """Largest fraction of the sampled active pixels of an amplifier that hold one and the same value."""
    worst = 0.0
    for amp in raw.amps:
        sample = raw.pix[amp.datasec.slices][::step].ravel()
        if sample.size:
            middle = sample[sample.size // 2]
            worst = max(worst, float((sample == middle).mean()))
    return worst
