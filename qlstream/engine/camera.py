"""One camera of one exposure, from its raw file to its products: the work of a worker, and of `qlstream process`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qlstream.calibration.camerafibermap import camera_fibermap
from qlstream.calibration.finder import find_calibration
from qlstream.datamodel.flavor import flavor_of, program_of
from qlstream.engine.qafiles import merged_qa_path, outputs, qa_path, write_merged_qa, write_qa_file
from qlstream.instrument import instrument_of
from qlstream.io.paths import findfile
from qlstream.io.products import write_product
from qlstream.io.raw import read_raw
from qlstream.logging import exposure_log
from qlstream.pipeline.context import Buffers, Context
from qlstream.pipeline.plan import Plan
from qlstream.pipeline.ranges import Ranges
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
    dark : series of darks and biases (DESI_SPECTRO_DARK) that override those of the tree
    badamps : amplifiers that are known to be bad, of any camera, such as "b7D,z8A"
    fibermap : its file, or None to look beside the raw file and in the production
    instrument : name, path of a YAML file, or "auto" for what the header says
    requested : products wanted beside those of the plan
    allow_expired : let the newest expired calibration serve where none is valid
    products : False keeps spectra, traces and the merged QA in memory
    qa_files : "json" or "yaml" writes a file for each metric; "none" does not
    psfid, flatid : exposures of this production whose traces and fiber flat serve, in place of the default
    """

    raw: Path
    camera: str
    redux: Path
    calib: Path | None = None
    dark: Path | None = None
    badamps: str = ""
    fibermap: Path | None = None
    instrument: str = "auto"
    requested: frozenset[str] = frozenset()
    allow_expired: bool = False
    products: bool = True
    qa_files: str = "none"
    psfid: int | None = None
    flatid: int | None = None


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

    Products and results of the stages that ran are written even if a later stage fails, each by a temporary name and
    only while `is_current()`. In the end `take` gets what there is, also if a stage failed.

    Raises
    ------
    BadFile, KeyError, ValueError : the file or its header cannot be read
    LookupError : none of `plans` is for an exposure of its flavor
    MissingCalibration : the chosen `psfid` or `flatid` has no traces or flat of this camera
    StageFailed : a stage broke
    Superseded : the attempt is no longer the current one
    """
    raw = read_raw(request.raw, request.camera)
    flavor = flavor_of(raw.header)
    if flavor not in plans:
        raise LookupError(f"this is an exposure of flavor {flavor}; there is a plan for {', '.join(plans)} only")
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
        dark_dir=request.dark,
        psfid=request.psfid,
        flatid=request.flatid,
        badamps=request.badamps,
    )
    fibermap = camera_fibermap(
        raw, request.raw, flavor, instrument, calibration, request.redux, request.calib, log, request.fibermap,
        request.products,
    )  # fmt: skip
    context = Context(
        night=night,
        expid=expid,
        camera=request.camera,
        flavor=flavor,
        program=program_of(raw.header, fibermap.meta if fibermap is not None else None),
        header=raw.header,
        fibermap=fibermap,
        instrument=instrument,
        calibration=calibration,
        ranges=ranges.on(night),
        buffers=buffers,
        log=log,
    )
    runner = Runner(plans[flavor], reporter, request.requested)
    reduced = Reduced(runner.outcome, context)
    try:
        runner.run(raw, context)
    finally:
        _write(request, plans[flavor], reduced, is_current)
        take(reduced)
    return reduced


def _write(request: CameraRequest, plan: Plan, reduced: Reduced, is_current: Callable[[], bool]) -> None:
    """The products, then the results: whoever sees the merged QA finds all it tells of."""
    context, redux = reduced.context, request.redux
    night, expid, camera = context.night, context.expid, context.camera
    try:
        for kind, data in reduced.outcome.products.items() if request.products else ():
            path = Path(str(findfile(kind, night, expid, camera, specprod_dir=redux)))
            _require_current(is_current)
            write_product(kind, data, path)
            reduced.written[kind] = path
    finally:
        for stage, result in reduced.outcome.judged if request.qa_files != "none" else ():
            path = qa_path(redux, result.name, night, expid, camera, request.qa_files)
            _require_current(is_current)
            write_qa_file(path, context, plan, stage, result)
            reduced.written[f"ql-{outputs().stem(result.name)}"] = path
        if request.products:
            path = merged_qa_path(redux, night, expid, camera)
            _require_current(is_current)
            write_merged_qa(path, context, plan, reduced.outcome)
            reduced.written["qa"] = path


def _require_current(is_current: Callable[[], bool]) -> None:
    if not is_current():
        raise Superseded("another attempt at this camera has taken over")
