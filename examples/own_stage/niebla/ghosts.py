"""Masks known ghosts: light that is reflected from one place of the CCD to another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from qlstream.datamodel.image import Image
from qlstream.datamodel.masks import CCDMask
from qlstream.pipeline.algorithm import PipelineAlg, StageParams
from qlstream.pipeline.context import Context

Box = tuple[int, int, int, int]  # first row, end row, first column, end column


class Ghost(BaseModel):
    """Where a reflection falls, and where its light comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    box: Box = Field(description="pixels that the ghost spoils")
    source: Box = Field(description="pixels whose light is reflected")
    above: float = Field(ge=0, description="there is a ghost if the source holds more light than this [electron]")


class MaskGhosts(PipelineAlg[Image, Image]):
    """Takes the pixels of known ghosts out of the extraction, where their source is bright; NGHOST counts them."""

    needs = ("Preproc",)

    class Params(StageParams):
        ghosts: dict[str, tuple[Ghost, ...]] = Field(default_factory=dict, description="camera -> its ghosts")

    def run(self, image: Image, context: Context) -> Image:
        """Raises ValueError if a box leaves the image."""
        mask = image.mask.copy()  # what comes in stays as it is
        found = 0
        for ghost in self.params.ghosts.get(context.camera, ()):
            box, source = (self._window(image, b, context.camera) for b in (ghost.box, ghost.source))
            light = np.where(image.mask[source] == 0, image.pix[source], 0.0).sum(dtype=float)
            if light > ghost.above:
                mask[box] |= np.uint16(CCDMask.BAD)
                found += mask[box].size
        context.log.info("%d pixels of ghosts masked", found)
        return replace(image, mask=mask, meta={**image.meta, "NGHOST": found})

    @staticmethod
    def _window(image: Image, box: Box, camera: str) -> tuple[slice, slice]:
        y0, y1, x0, x1 = box
        if not (0 <= y0 < y1 <= image.ny and 0 <= x0 < x1 <= image.nx):
            raise ValueError(f"box {box} of {camera} leaves the image of {image.ny} rows x {image.nx} columns")
        return slice(y0, y1), slice(x0, x1)
