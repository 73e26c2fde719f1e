"""Read noise of each amplifier."""

from __future__ import annotations

from qlstream.datamodel.image import Image
from qlstream.pipeline.algorithm import MonitoringAlg
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult


class Get_RMS(MonitoringAlg[Image]):
    """Read noise and its texture, from the overscan columns of the raw frame.

    NOISE_AMP is the robust scatter [electron]; BIAS_PATNOISE what the row levels scatter beyond it [electron];
    LOW5SIG_AMP how many overscan pixels per million lie more than 5 sigma low. The seed looked at active pixels by
    mistake (spec quicklook-qa §1.3), so its DIFF1SIG, DIFF2SIG and DATA5SIG have no successor of the same name.
    """

    title = "read noise"

    def run(self, image: Image, context: Context) -> QAResult:
        noise = {r.name: r.readnoise for r in image.readouts}
        return QAResult(
            self.name,
            per_amp={
                "NOISE_AMP": dict(noise),
                "BIAS_PATNOISE": {r.name: r.row_pattern for r in image.readouts},
                "LOW5SIG_AMP": {r.name: r.low_outliers for r in image.readouts},
            },
            units={"NOISE_AMP": "electron", "BIAS_PATNOISE": "electron", "LOW5SIG_AMP": "per million"},
            summary="read noise " + ", ".join(f"{amp} {value:.2f}" for amp, value in noise.items()) + " electron",
        ).graded(context.ranges, context.where)
