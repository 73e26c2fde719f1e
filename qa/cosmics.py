"""How often cosmic rays hit each amplifier."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from qlstream.datamodel.image import Image
from qlstream.datamodel.masks import CCDMask
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

_COSMIC = int(CCDMask.COSMIC)


class Count_Cosmics(MonitoringAlg[Image]):
    """COSMICS_RATE: tracks of cosmic rays on each amplifier per minute [1/min].

    A track is a group of flagged pixels that touch at sides or corners; what crosses into another amplifier counts on
    both. The time is that of the exposure and half the readout, during which a CCD goes on collecting
    (spec quicklook-qa §4).
    """

    title = "cosmic rays"

    class Params(StageParams):
        readout_s: float = Field(
            30.0, ge=0, description="half the readout time where the header has no DIGITIME, of which half counts [s]"
        )

    def run(self, image: Image, context: Context) -> QAResult:
        minutes = (context.exptime + self._half_readout(context)) / 60.0
        tracks = {r.name: count_groups(image.mask[r.amp.ccdsec.slices], _COSMIC) for r in image.readouts}
        rate = {name: count / minutes if minutes > 0 else float("nan") for name, count in tracks.items()}
        return QAResult(
            self.name,
            per_amp={"COSMICS_RATE": rate},
            units={"COSMICS_RATE": "1/min"},
            summary=f"{sum(tracks.values())} tracks of cosmic rays in {minutes:.1f} min",
        ).graded(context.ranges, context.where)

    def _half_readout(self, context: Context) -> float:
        try:
            return 0.5 * float(context.header["DIGITIME"])
        except (KeyError, TypeError, ValueError):
            return float(self.params.readout_s)


def count_groups(mask: NDArray[np.uint16], bit: int) -> int:
    """Groups of pixels with `bit`, connected by sides or corners (8-connected components).

    One pass with a disjoint-set forest over the labels of two rows (Fiorio and Gustedt 1996, TCS 154, 165).

    Parameters
    ----------
    mask : (ny, nx) uint16
    """
    return int(_count_groups(mask, np.uint16(bit)))


@njit(nogil=True, cache=True)
def _count_groups(mask, bit):  # type: ignore[no-untyped-def]
    ny, nx = mask.shape
    above = np.zeros(nx + 2, np.int64)  # labels of the row above, with a margin; 0 is none
    here = np.zeros(nx + 2, np.int64)
    parent = np.zeros(1024, np.int64)
    used, groups = 0, 0
    for j in range(ny):
        for i in range(nx):
            here[i + 1] = 0
            if mask[j, i] & bit == 0:
                continue
            label = 0
            for neighbour in (here[i], above[i], above[i + 1], above[i + 2]):
                if neighbour == 0:
                    continue
                root = neighbour
                while parent[root] != root:
                    parent[root] = parent[parent[root]]
                    root = parent[root]
                if label == 0:
                    label = root
                elif root != label:
                    parent[root] = label
                    groups -= 1
            if label == 0:
                used += 1
                if used == len(parent):
                    longer = np.zeros(2 * len(parent), np.int64)
                    longer[:used] = parent
                    parent = longer
                parent[used] = used
                label = used
                groups += 1
            here[i + 1] = label
        above, here = here, above
    return groups
