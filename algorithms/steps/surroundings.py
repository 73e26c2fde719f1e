"""What a stage may know beside its input, put together from files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from qlstream.calibration.badfibers import flag_bad_fibers
from qlstream.calibration.finder import find_calibration
from qlstream.calibration.served import Calibration
from qlstream.configs import config_path
from qlstream.datamodel.flavor import flavor_of, program_of
from qlstream.instrument import instrument_of
from qlstream.io.fibermap import read_fibermap
from qlstream.io.nights import header_to_night
from qlstream.logging import exposure_log
from qlstream.pipeline.algorithm import StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.ranges import Ranges


class Surroundings(StageParams):
    """Where calibrations come from, for steps whose files do not tell."""

    camera: str = Field("", description="camera, e.g. r3; default: what the input's header says")
    calib: Path | None = Field(None, description="calibration tree")
    redux: Path | None = Field(None, description="production folder, for calibrations of the night")
    instrument: str = Field("auto", description="name, YAML file, or auto for what the header says")


def context_of(header: Mapping[str, Any], params: Surroundings, fibermap: Path | None = None, **parts: Any) -> Context:
    """The context of one camera of one exposure.

    Parameters
    ----------
    header : cards of the camera or of a product of it: CAMERA, EXPID, NIGHT, OBSTYPE or FLAVOR
    fibermap : its file, or None
    parts : calibrations by kind that serve in place of those of the tree, e.g. PSF=..., FIBERFLAT=...

    Raises
    ------
    KeyError, ValueError : the header does not tell what it must
    BadFile : the fibermap cannot be read
    """
    camera = (params.camera or str(header["CAMERA"])).strip().lower()
    cards = {**header, "CAMERA": camera}
    instrument = instrument_of(cards, params.instrument)
    night, expid, flavor = header_to_night(cards), int(cards["EXPID"]), flavor_of(cards)
    found = find_calibration(cards, params.calib, params.redux, tonight=False, flavor=flavor, allow_expired=True)
    rows = None
    if fibermap is not None:
        rows = read_fibermap(fibermap).select(instrument.fibers(camera))
        rows = flag_bad_fibers(rows, found.cards, camera, instrument.nspec)
    return Context(
        night=night,
        expid=expid,
        camera=camera,
        flavor=flavor,
        program=program_of(cards),
        header=cards,
        fibermap=rows,
        instrument=instrument,
        calibration=Calibration(camera, night, parts, found.cards) if parts else found,
        ranges=Ranges.load(config_path("qa", "quicklook")),
        log=exposure_log(expid, camera),
    )


def stage_params(stage: type, params: StageParams) -> dict[str, Any]:
    """The parameters of a step that are those of the stage it runs."""
    return {name: getattr(params, name) for name in stage.Params.model_fields}  # type: ignore[attr-defined]
