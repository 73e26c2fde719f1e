"""Level of the electronic bias, and how it wanders during a readout."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qlstream.datamodel.image import Image
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult


class Bias_From_Overscan(MonitoringAlg[Image]):
    """Overscan level of each amplifier, and its structure along the rows [ADU].

    BIAS_AMP is the level; BIAS_STEP_AMP the largest minus the smallest step between successive smoothed rows, which
    sees jumps; BIAS_DRIFT_AMP the highest minus the lowest of `blocks` blocks of rows, which sees slow drifts too. The
    levels of the rows less BIAS_AMP come along as vectors OVERSCAN_ROWS_A ... All is measured by preprocessing on
    the overscan columns, bias image subtracted (spec preproc-and-extraction §1). The seed's division of the level by
    the exposure time has no meaning and is gone (spec quicklook-qa §1.2).
    """

    title = "bias level"

    class Params(StageParams):
        blocks: int = Field(16, ge=2, le=256, description="blocks of rows whose levels are compared")

    def run(self, image: Image, context: Context) -> QAResult:
        return QAResult(
            self.name,
            per_amp={
                "BIAS_AMP": {r.name: r.overscan for r in image.readouts},
                "BIAS_STEP_AMP": {r.name: r.ostep for r in image.readouts},
                "BIAS_DRIFT_AMP": {r.name: _drift(r.overscan_rows, self.params.blocks) for r in image.readouts},
            },
            vectors={f"OVERSCAN_ROWS_{r.name}": r.overscan_rows for r in image.readouts},
            units={"BIAS_AMP": "ADU", "BIAS_STEP_AMP": "ADU", "BIAS_DRIFT_AMP": "ADU"},
            summary="overscan " + ", ".join(f"{r.name} {r.overscan:.0f}" for r in image.readouts) + " ADU",
        ).graded(context.ranges, context.where)


def _drift(rows: NDArray[np.float32], blocks: int) -> float:
    """Highest minus lowest median of the blocks; NaN if no row has a level."""
    if not np.isfinite(rows).any():
        return float("nan")
    levels = [np.nanmedian(block) for block in np.array_split(rows, blocks) if np.isfinite(block).any()]
    return float(max(levels) - min(levels))
