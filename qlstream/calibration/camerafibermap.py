"""The fibermap of one camera: found or put together, with all that is known to be bad about its fibers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from qlstream.calibration.badfibers import flag_bad_amps, flag_bad_fibers, flag_listed
from qlstream.calibration.served import Calibration, MissingCalibration
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.image import RawCamera
from qlstream.datamodel.traces import XYTraceSet
from qlstream.instrument import Instrument
from qlstream.io.assemble import NoFiberAssign, assemble_beside, is_outdated, provide_fibermap
from qlstream.io.companions import find_companions
from qlstream.io.compression import existing_file
from qlstream.io.errors import BadFile
from qlstream.io.fiberflags import read_badfibers, read_flagged_fibers
from qlstream.io.fibermap import read_fibermap
from qlstream.io.paths import findfile

Log = logging.Logger | logging.LoggerAdapter[Any]


def camera_fibermap(
    raw: RawCamera,
    path: Path,
    flavor: str,
    instrument: Instrument,
    calibration: Calibration,
    prod_dir: Path,
    calib_dir: Path | None,
    log: Log,
    given: Path | None = None,
    save: bool = True,
) -> Fibermap | None:
    """The rows of this camera's fibers, in CCD order, with the FIBERSTATUS bits of all that is known to be bad.

    The fibermap is the given one, else that beside the raw file, else that in the production, else one that is put
    together of the fiberassign and coordinates files beside the raw file, and kept in the production. Arcs and flats
    can do without, since all fibers look at the lamps. Known to be bad are the fibers that the calibration tree
    lists, those of `badfibers-NIGHT.csv` in the production, those that `ccd/flagged_fibers.ecsv` of the tree lists
    for this exposure, and those on bad amplifiers.

    Parameters
    ----------
    path : of the raw file
    save : False keeps what is put together in memory

    Returns
    -------
    None for zero and dark, and for science whose targets nobody knows

    Raises
    ------
    BadFile : a file cannot be understood
    KeyError : the fibermap lacks fibers of this camera
    OSError : the production cannot be written
    """
    if flavor in ("zero", "dark"):
        return None
    night, expid = int(raw.header["NIGHT"]), int(raw.header["EXPID"])
    fibers = instrument.fibers(raw.camera)
    if given is not None and given.exists():
        whole: Fibermap | None = read_fibermap(given)
    else:
        whole = _find(raw, path, flavor, instrument, prod_dir, log, save)
    if whole is not None:
        fibermap = whole.select(fibers)
    elif flavor == "science":
        return None
    else:
        fibermap = Fibermap.of_lamps(fibers, instrument.nspec)
    fibermap = flag_bad_fibers(fibermap, calibration.cards, raw.camera, instrument.nspec)
    of_night = Path(findfile("badfibers", night, specprod_dir=prod_dir))
    if of_night.exists():
        fibermap = flag_listed(fibermap, read_badfibers(of_night))
    of_exposure = Path(findfile("flagged_fibers", calib_dir=calib_dir)) if calib_dir is not None else None
    if of_exposure is not None and of_exposure.exists():
        fibermap = flag_listed(fibermap, read_flagged_fibers(of_exposure, expid))
    if calibration.bad_amps:
        letters, traces = calibration.bad_amps, _traces(calibration)
        fibermap = flag_bad_amps(fibermap, letters, raw.camera, instrument.nspec, raw.amps, traces)
    return fibermap


def _find(
    raw: RawCamera, path: Path, flavor: str, instrument: Instrument, prod_dir: Path, log: Log, save: bool
) -> Fibermap | None:
    night, expid = int(raw.header["NIGHT"]), int(raw.header["EXPID"])
    beside = path.parent / f"fibermap-{expid:08d}.fits"
    try:
        return read_fibermap(existing_file(beside))
    except FileNotFoundError:
        pass
    production = Path(findfile("fibermap", night, expid, specprod_dir=prod_dir))
    companions = find_companions(path.parent, expid, raw.primary)
    if production.exists() and not is_outdated(production, companions):
        return read_fibermap(production)
    if flavor != "science" and companions.fiberassign is None:
        return None
    try:
        if save:
            return read_fibermap(provide_fibermap(path, production, instrument))
        return assemble_beside(path, instrument=instrument)
    except (NoFiberAssign, BadFile) as error:
        log.warning(
            "no fibermap: neither %s nor %s, and none can be made: %s; metrics that need targets are skipped",
            beside, production, error,
        )  # fmt: skip
        return None


def _traces(calibration: Calibration) -> XYTraceSet | None:
    try:
        return calibration.traces
    except MissingCalibration:
        return None
