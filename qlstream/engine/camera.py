"""One camera of one exposure, from its raw file to its products: the work of a worker, and of `qlstream process`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from qlstream import __version__
from qlstream.calibration.badfibers import flag_bad_fibers
from qlstream.calibration.finder import find_calibration
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.flavor import flavor_of, program_of
from qlstream.instrument import Instrument, instrument_of
from qlstream.io.atomic import atomic_path
from qlstream.io.fibermap import read_fibermap
from qlstream.io.paths import findfile
from qlstream.io.products import write_product
from qlstream.io.raw import read_raw
from qlstream.logging import exposure_log
from qlstream.pipeline.context import Buffers, Context
from qlstream.pipeline.plan import Plan
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.result import plain
from qlstream.pipeline.runner import Outcome, Reporter, Runner


@dataclass(frozen=True)
class CameraRequest:
    """What to reduce and where its surroundings are.

    Attributes
    ----------
    raw : the exposure file
    camera : e.g. "r3"
    redux : production folder: products go there, tonight's calibrations come from there
    calib : calibration tree; None runs the stages that need none
    fibermap : its file, or None to look beside the raw file and in the production
    instrument : name, path of a YAML file, or "auto" for what the header says
    requested : products wanted beside those of the plan
    allow_expired : let the newest expired calibration serve where none is valid
    products : False keeps everything in memory
    """

    raw: Path
    camera: str
    redux: Path
    calib: Path | None = None
    fibermap: Path | None = None
    instrument: str = "auto"
    requested: frozenset[str] = frozenset()
    allow_expired: bool = False
    products: bool = True


@dataclass(frozen=True)
class Reduced:
    """What became of a camera.

    Attributes
    ----------
    outcome : outputs, results and costs of the stages
    context : what they ran in
    written : product kind -> file
    """

    outcome: Outcome
    context: Context
    written: dict[str, Path] = field(default_factory=dict)


class Superseded(RuntimeError):
    """Another attempt at this camera has taken over; nothing more is written."""


def reduce_camera(
    request: CameraRequest,
    plans: Mapping[str, Plan],
    ranges: Ranges,
    reporter: Reporter,
    buffers: Buffers,
    is_current: Callable[[], bool] = lambda: True,
    take: Callable[[Reduced], None] = lambda _: None,
) -> Reduced:
    """Read, calibrate, run the plan of the exposure's flavor, write the products.

    Products of the stages that ran are written even if a later stage fails, each by a temporary name and only
    while `is_current()`. In the end `take` gets what there is, also if a stage failed.

    Raises
    ------
    BadFile, KeyError, ValueError : the file or its header cannot be read
    StageFailed : a stage broke
    Superseded : the attempt is no longer the current one
    """
    raw = read_raw(request.raw, request.camera)
    flavor = flavor_of(raw.header)
    instrument = instrument_of(raw.header, request.instrument)
    night, expid = int(raw.header["NIGHT"]), int(raw.header["EXPID"])
    log = exposure_log(expid, request.camera)
    calibration = find_calibration(
        raw.header,
        request.calib,
        prod_dir=request.redux,
        cache_dir=request.redux / "qlstream" / "cache",
        allow_expired=request.allow_expired,
        flavor=flavor,
    )
    fibermap = _fibermap(request, instrument, flavor, night, expid, log.warning)
    if fibermap is not None:
        fibermap = flag_bad_fibers(fibermap, calibration.cards, request.camera, instrument.nspec)
    context = Context(
        night=night,
        expid=expid,
        camera=request.camera,
        flavor=flavor,
        program=program_of(raw.header),
        header=raw.header,
        fibermap=fibermap,
        instrument=instrument,
        calibration=calibration,
        ranges=ranges,
        buffers=buffers,
        log=log,
    )
    runner = Runner(plans[flavor], reporter, request.requested)
    reduced = Reduced(runner.outcome, context)
    try:
        runner.run(raw, context)
    finally:
        if request.products:
            _write(request, reduced, is_current)
        take(reduced)
    return reduced


def _fibermap(
    request: CameraRequest,
    instrument: Instrument,
    flavor: str,
    night: int,
    expid: int,
    warn: Callable[..., None],
) -> Fibermap | None:
    """The rows of this camera's fibers, in CCD order, or None if there is no fibermap."""
    if flavor in ("zero", "dark"):
        return None
    beside = request.raw.parent / f"fibermap-{expid:08d}.fits"
    in_production = Path(findfile("fibermap", night=night, expid=expid, specprod_dir=str(request.redux)))
    for path in (request.fibermap, beside, in_production):
        if path is not None and path.exists():
            return read_fibermap(path).select(instrument.fibers(request.camera))
    warn("no fibermap: looked for %s and %s; metrics that need targets are skipped", beside, in_production)
    return None


def _write(request: CameraRequest, reduced: Reduced, is_current: Callable[[], bool]) -> None:
    context = reduced.context

    def path_of(kind: str) -> Path:
        prod = str(request.redux)
        return Path(str(findfile(kind, context.night, context.expid, context.camera, specprod_dir=prod)))

    for kind, data in reduced.outcome.products.items():
        path = path_of(kind)
        _require_current(is_current)
        write_product(kind, data, path)
        reduced.written[kind] = path
    path = path_of("ql_mergedQA_file")
    _require_current(is_current)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        Path(temporary).write_bytes(orjson.dumps(_merged_qa(reduced), option=orjson.OPT_INDENT_2))
    reduced.written["qa"] = path


def _require_current(is_current: Callable[[], bool]) -> None:
    if not is_current():
        raise Superseded("another attempt at this camera has taken over")


def _merged_qa(reduced: Reduced) -> dict[str, Any]:
    """All metrics of the camera as JSON data, stage by stage; NaN is null (spec quicklook-pipeline §6)."""
    context, outcome = reduced.context, reduced.outcome
    tasks = {stage: {"COST": plain(vars(cost)), "QA": {}, "STATE": "done"} for stage, cost in outcome.costs.items()} | {
        stage: {"STATE": "skipped", "REASON": why, "QA": {}} for stage, why in outcome.skipped.items()
    }
    for stage, result in outcome.judged:
        tasks[stage]["QA"][result.name] = result.to_json()
    general = {key: context.header.get(key) for key in ("PROGRAM", "EXPTIME", "MJD-OBS", "AIRMASS", "SEEING", "TILEID")}
    return {
        "NIGHT": context.night,
        "EXPID": context.expid,
        "CAMERA": context.camera,
        "FLAVOR": context.flavor,
        "SEVERITY": outcome.severity.name,
        "GENERAL_INFO": plain(general) | {"VERSION": __version__, "RANGES": context.ranges.version},
        "TASKS": tasks,
    }
