"""The first stage: is the header good enough to start, and what kind of exposure is it?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field

from qlstream.datamodel.fibermap import CLASSES
from qlstream.datamodel.image import RawCamera
from qlstream.pipeline.algorithm import PipelineAlg, StageParams
from qlstream.pipeline.context import Context


class Initialize(PipelineAlg[RawCamera, RawCamera]):
    """Checks the cards that later stages cannot do without, and adds what is generally known of the exposure.

    The header gains FLAVOR (the true one: real headers say science even for flats) and, where there is a fibermap,
    NSKY and N + class: how many fibers look at what. All mistakes of a header are named at once.
    """

    class Params(StageParams):
        required: tuple[str, ...] = Field(
            ("CAMERA", "EXPID", "NIGHT", "EXPTIME"), description="cards without which the camera cannot be reduced"
        )

    def run(self, data: RawCamera, context: Context) -> RawCamera:
        """Raises ValueError if a needed card is missing or makes no sense."""
        header = data.header
        wrong = [f"{key} is missing" for key in self.params.required if header.get(key) in (None, "")]
        wrong += _wrong_exptime(header, context.flavor)
        named = str(header.get("CAMERA", data.camera)).strip().lower()
        if named != context.camera:
            wrong.append(f"CAMERA = {named!r}, expected {context.camera!r}")
        wrong += [
            f"{kind}{amp.name} = {section} leaves the readout of {data.pix.shape[1]} columns x {data.pix.shape[0]} rows"
            for amp in data.amps
            for kind, section in (("DATASEC", amp.datasec), ("BIASSEC", amp.biassec))
            if section.y1 > data.pix.shape[0] or section.x1 > data.pix.shape[1]
        ]
        if wrong:
            raise ValueError(f"header of {context.camera.upper()}, exposure {context.expid}: {'; '.join(wrong)}")
        return replace(data, header=dict(header) | {"FLAVOR": context.flavor} | _target_counts(context))


def _wrong_exptime(header: Mapping[str, Any], flavor: str) -> list[str]:
    """A sentence if EXPTIME is there, but is no time that an exposure of this flavor can have taken."""
    value = header.get("EXPTIME")
    if value in (None, ""):
        return []
    try:
        exptime = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        exptime = math.nan
    if (flavor == "zero" and exptime == 0) or 0 < exptime < math.inf:
        return []
    return [f"EXPTIME = {value!r}, expected a positive number of seconds" + (" or 0" if flavor == "zero" else "")]


def _target_counts(context: Context) -> dict[str, int]:
    fibermap = context.fibermap
    if fibermap is None:
        return {}
    counts = {f"N{name}": int(fibermap.is_class(name).sum()) for name in CLASSES}
    return {"NSKY": int(fibermap.is_sky.sum())} | counts
