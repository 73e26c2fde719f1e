"""Level of the electronic bias."""

from __future__ import annotations

from qlstream.datamodel.image import Image
from qlstream.pipeline.algorithm import MonitoringAlg
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult


class Bias_From_Overscan(MonitoringAlg[Image]):
    """Overscan level BIAS_AMP and its largest step between rows BIAS_STEP_AMP of each amplifier [ADU].

    Measured by preprocessing on the overscan columns of the raw frame (spec preproc-and-extraction §1).
    """

    title = "bias level"

    def run(self, image: Image, context: Context) -> QAResult:
        return QAResult(
            self.name,
            per_amp={
                "BIAS_AMP": {r.name: r.overscan for r in image.readouts},
                "BIAS_STEP_AMP": {r.name: r.ostep for r in image.readouts},
            },
            units={"BIAS_AMP": "ADU", "BIAS_STEP_AMP": "ADU"},
            summary="overscan " + ", ".join(f"{r.name} {r.overscan:.0f}" for r in image.readouts) + " ADU",
        ).graded(context.ranges, context.where)
