"""Which calibration serves an exposure: tonight's, the night's, the tree's, or by choice an expired one."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.calibration.cache import load_image
from qlstream.calibration.dark import load_dark
from qlstream.calibration.darkseries import latest_pair
from qlstream.calibration.served import Calibration, CalibrationUse, MissingCalibration
from qlstream.calibration.tonight import latest_before
from qlstream.calibration.tree import FILE_KEYS, CalibrationTreeError, TreeEntry, find_entry
from qlstream.datamodel.amplifier import AMP_NAMES
from qlstream.datamodel.masks import CCDMask
from qlstream.io.badamps import amps_of_camera
from qlstream.io.compression import existing_file
from qlstream.io.fiberflat import read_fiberflat
from qlstream.io.fluxcalib import read_average_fluxcalib
from qlstream.io.nights import header_to_night
from qlstream.io.psf import read_psf
from qlstream.io.xytraceset import read_xytraceset

_log = logging.getLogger(__name__)

_OF_THE_NIGHT = {"BIAS": "biasnight", "DARK": "darknight", "PSF": "psfnight", "FIBERFLAT": "fiberflatnight"}
# products of a single exposure; a flat serves qframes and frames, whichever of them it was made of
_OF_AN_EXPOSURE = {"TRACES": ("psf",), "FIBERFLAT": ("qfiberflat", "fiberflat")}
_GIVEN_BY = {"TRACES": "arc", "FIBERFLAT": "flat"}  # flavors of exposures


def find_calibration(
    header: Mapping[str, Any],
    calib_dir: Path | None,
    prod_dir: Path | None = None,
    cache_dir: Path | None = None,
    tonight: bool = True,
    allow_expired: bool = False,
    flavor: str = "",
    dark_dir: Path | None = None,
    psfid: int | None = None,
    flatid: int | None = None,
    badamps: str = "",
) -> Calibration:
    """The calibration of one camera of one exposure; its parts are loaded when a stage asks for them.

    Parameters
    ----------
    header : camera header completed by the exposure header; CAMERA and NIGHT (or DATE-OBS) are needed
    calib_dir : DESI_SPECTRO_CALIB tree, or None
    prod_dir : production, for calibnight/ and tonight's quick products, or None
    cache_dir : where calibration images are unpacked, or None to read them anew each time
    tonight : look for the quick products of earlier exposures of the night
    allow_expired : let the newest expired entry of the tree serve if none is valid, with a warning
    flavor : zero and dark exposures have no use for traces and flats, so tonight's are not looked for
    dark_dir : DESI_SPECTRO_DARK, a series of darks and biases that override those of the tree, or None
    badamps : amplifiers of any camera that are known to be bad, such as "b7D,z8A"
    psfid, flatid : exposures whose traces and fiber flat in `prod_dir` serve, whatever else there is

    Raises
    ------
    MissingCalibration : `prod_dir` holds no traces of `psfid`, or no flat of `flatid`
    KeyError : no CAMERA
    ValueError : the night cannot be told
    CalibrationTreeError : the tree has a mistake that concerns this camera
    """
    camera, night = str(header["CAMERA"]).strip().lower(), header_to_night(header)
    if calib_dir is None:
        entry = TreeEntry(why_none="no calibration tree was given")
    elif not calib_dir.is_dir():
        entry = TreeEntry(why_none=f"the calibration tree {calib_dir} does not exist")
    else:
        entry = find_entry(calib_dir, header, camera, night, allow_expired)
    series = _of_the_series(dark_dir, header, entry, camera, night) if dark_dir is not None else {}
    uses, why = _of_the_tree(entry, series)
    if prod_dir is not None:
        uses |= _of_the_night(prod_dir, camera, night)
    if "PSF" in uses:
        uses["TRACES"] = CalibrationUse("TRACES", uses["PSF"].path, uses["PSF"].origin)
    if prod_dir is not None and tonight and flavor not in ("zero", "dark"):
        uses |= _of_tonight(prod_dir, camera, night, header)
    for kind, expid in (("TRACES", psfid), ("FIBERFLAT", flatid)):
        if expid is not None:
            uses[kind] = _of_an_exposure(prod_dir, kind, expid, camera)
    _report_gains(header, entry, camera)
    flagged = _region_mask(calib_dir, camera, header)
    return Calibration(
        camera=camera,
        night=night,
        parts={kind: _loader(use, cache_dir, flagged) for kind, use in uses.items()},
        cards={key: value for key, value in entry.values.items() if key not in FILE_KEYS},
        uses=uses,
        why_missing=why,
        bad_amps=amps_of_camera(badamps, camera),
    )


def _of_the_tree(entry: TreeEntry, series: Mapping[str, Path]) -> tuple[dict[str, CalibrationUse], dict[str, str]]:
    """Files of the tree by kind, those of the series of darks in their place, and why the others are missing."""
    uses = {kind: CalibrationUse(kind, path, "series") for kind, path in series.items()}
    why: dict[str, str] = {}
    for kind in FILE_KEYS:
        if kind in series:
            continue
        if kind not in entry.values:
            why[kind] = entry.why_none or f"{entry.source} has no {kind}"
            continue
        try:
            path = existing_file(entry.values[kind])
        except FileNotFoundError as error:
            why[kind] = f"{entry.source}, {kind}: {error}"
            _log.warning(why[kind])
            continue
        uses[kind] = CalibrationUse(kind, path, "tree" if entry.expired is None else "expired")
    return uses, why


def _of_the_series(
    dark_dir: Path, header: Mapping[str, Any], entry: TreeEntry, camera: str, night: int
) -> dict[str, Path]:
    try:
        unit, ccdtemp = f"sm{int(header['SPECID'])}-{camera[0]}", float(header["CCDTEMP"])
    except (KeyError, TypeError, ValueError):
        _log.warning("SPECID = %r, CCDTEMP = %r: %s is not used", header.get("SPECID"), header.get("CCDTEMP"), dark_dir)
        return {}
    if not dark_dir.is_dir():
        _log.warning("the series of darks %s does not exist; the tree's serve", dark_dir)
        return {}
    pair = latest_pair(dark_dir, unit, entry.values, ccdtemp, night)
    missing = [str(path) for path in pair.values() if not path.exists()]
    if missing:
        _log.warning("%s: listed, but not there: %s; the tree's serve", dark_dir, ", ".join(missing))
        return {}
    return pair


def _of_the_night(prod_dir: Path, camera: str, night: int) -> dict[str, CalibrationUse]:
    """What the offline reduction of the night has made so far."""
    uses = {}
    for kind, name in _OF_THE_NIGHT.items():
        try:
            path = existing_file(prod_dir / "calibnight" / str(night) / f"{name}-{camera}-{night}.fits")
        except FileNotFoundError:
            continue
        uses[kind] = CalibrationUse(kind, path, "night")
    return uses


def _of_tonight(prod_dir: Path, camera: str, night: int, header: Mapping[str, Any]) -> dict[str, CalibrationUse]:
    """The latest quick products of earlier exposures."""
    try:
        mjd = float(header["MJD-OBS"])
        if not np.isfinite(mjd):
            raise ValueError("no time")
    except (KeyError, TypeError, ValueError):
        _log.warning("MJD-OBS = %r: calibrations of tonight are not used", header.get("MJD-OBS"))
        return {}
    uses = {}
    for kind, products in _OF_AN_EXPOSURE.items():
        found = latest_before(prod_dir, night, products, camera, mjd, _GIVEN_BY[kind])
        if found is not None:
            uses[kind] = CalibrationUse(kind, found[0], "tonight", found[1])
    return uses


def _of_an_exposure(prod_dir: Path | None, kind: str, expid: int, camera: str) -> CalibrationUse:
    """The traces or the flat of an exposure that was chosen."""
    names = [f"{product}-{camera}-{expid:08d}.fits" for product in _OF_AN_EXPOSURE[kind]]
    for name in names:
        for path in sorted((prod_dir / "exposures").glob(f"*/{expid:08d}/{name}*")) if prod_dir is not None else ():
            if path.name in (name, f"{name}.gz"):
                return CalibrationUse(kind, path, "chosen")
    what = "traces" if kind == "TRACES" else "fiber flat"
    raise MissingCalibration(
        f"no {what} of exposure {expid} for {camera}: no {' or '.join(names)} in {prod_dir}/exposures; "
        "reduce that exposure first, or choose another"
    )


def _loader(use: CalibrationUse, cache_dir: Path | None, flagged: list[tuple[slice, slice]]) -> Callable[[], Any]:
    readers: dict[str, Callable[[], Any]] = {
        "BIAS": lambda: load_image(use.path, cache_dir, np.float32),
        "PIXFLAT": lambda: load_image(use.path, cache_dir, np.float32),
        "MASK": lambda: _flag(load_image(use.path, cache_dir, np.uint16), flagged),
        "DARK": lambda: load_dark(use.path, cache_dir),
        "PSF": lambda: read_psf(use.path),
        "TRACES": lambda: read_xytraceset(use.path),
        "FIBERFLAT": lambda: read_fiberflat(use.path),
        "FLUXCALIB": lambda: read_average_fluxcalib(use.path),
    }
    return readers[use.kind]


def _region_mask(calib_dir: Path | None, camera: str, header: Mapping[str, Any]) -> list[tuple[slice, slice]]:
    """Regions of this very exposure and camera that `ccd/ccd-region-mask.csv` declares bad."""
    path = calib_dir / "ccd" / "ccd-region-mask.csv" if calib_dir is not None else None
    if path is None or not path.exists():
        return []
    regions = []
    with path.open(newline="") as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            try:
                expid, *box = (int(row[key]) for key in ("EXPID", "YMIN", "YMAX", "XMIN", "XMAX"))
            except (KeyError, TypeError, ValueError):
                raise CalibrationTreeError(
                    f"{path}: {row}; expected whole numbers in EXPID, XMIN, XMAX, YMIN and YMAX"
                ) from None
            if str(row.get("CAMERA")).strip().lower() == camera and expid == header.get("EXPID"):
                regions.append((slice(box[0], box[1]), slice(box[2], box[3])))
    return regions


def _flag(mask: NDArray[np.uint16], regions: list[tuple[slice, slice]]) -> NDArray[np.uint16]:
    if not regions:
        return mask
    mask = mask.copy()
    for region in regions:
        mask[region] |= np.uint16(CCDMask.BAD)
    return mask


def _report_gains(header: Mapping[str, Any], entry: TreeEntry, camera: str) -> None:
    """Say which amplifiers have no gain anywhere; preprocessing decides what to do without."""
    amps = [a for a in AMP_NAMES if f"BIASSEC{a}" in header]
    missing = [f"GAIN{a}" for a in amps if f"GAIN{a}" not in entry.values and header.get(f"GAIN{a}") is None]
    if missing:
        where = entry.why_none or f"nor in {entry.source}"
        _log.warning("%s: no %s in the header, %s", camera, ", ".join(missing), where)
