"""Puts a fibermap together from what each fiber was given to look at and from where it really stood."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.fibermaptable import columns_of, desiname, survey_of
from qlstream.datamodel.flavor import program_of_faflavor
from qlstream.datamodel.masks import FiberMask
from qlstream.datamodel.positions import position_status
from qlstream.instrument import Instrument, instrument_of
from qlstream.io.badamps import parse_badamps
from qlstream.io.companions import Companions, find_companions
from qlstream.io.coordinates import Coordinates, NoPositions, read_coordinates
from qlstream.io.errors import BadFile
from qlstream.io.fiberassign import FiberAssign, card, compare_fiberassign, read_fiberassign
from qlstream.io.fiberflags import read_badfibers
from qlstream.io.fibermap import write_fibermap
from qlstream.io.fitsfile import FitsFile
from qlstream.io.paths import findfile
from qlstream.io.raw import read_exposure_header

_log = logging.getLogger(__name__)

MICRON_PER_ARCSEC = 70.0  # mean plate scale of the focal plane; good to 10 % of an offset
SOURCE_CARD = "QLSOURCE"  # digest of the files that an assembled fibermap was made from
_TILE_CARDS = (
    "TILEID", "TILERA", "TILEDEC", "FIELDROT", "FA_PLAN", "FA_HA", "FA_RUN", "FA_VER", "FA_SURV", "FAFLAVOR", "SURVEY",
    "FAPRGRM", "GOALTIME", "GOALTYPE",
)  # fmt: skip
_EXPOSURE_CARDS = (
    "EXPID", "NIGHT", "EXPTIME", "MJD-OBS", "DATE-OBS", "OBSTYPE", "FLAVOR", "PROGRAM", "AIRMASS", "TARGTRA",
    "TARGTDEC",
)  # fmt: skip
_MEASURED = ("FIBER_X", "FIBER_Y", "DELTA_X", "DELTA_Y", "FIBER_RA", "FIBER_DEC")


class NoFiberAssign(FileNotFoundError):
    """There is no fiberassign file, so nothing tells what the fibers were to look at."""


def assemble_fibermap(
    night: int,
    expid: int,
    badamps: str | None = None,
    badfibers_filename: Path | str | None = None,
    allow_svn_override: bool = True,
    *,
    rawdata_dir: Path | str | None = None,
    specprod_dir: Path | str | None = None,
    tiles_dir: Path | str | None = None,
    instrument: Instrument | str = "auto",
) -> Fibermap:
    """The fibermap of a science exposure, from the files beside its raw data; nothing is written.

    As `assemble_beside`, with the files found by night and exposure number.

    Parameters
    ----------
    badfibers_filename : CSV of FIBER, FIBERSTATUS; by default `calibnight/NIGHT/badfibers-NIGHT.csv` of the
        production, if that is known and has one
    rawdata_dir, specprod_dir, tiles_dir : roots, in place of the environment's (`findfile`)

    Raises
    ------
    KeyError : no raw root is known
    FileNotFoundError : no raw exposure, or a `badfibers_filename` that does not exist
    NoFiberAssign, BadFile, ValueError : as `assemble_beside`
    """
    raw = Path(findfile("raw", night, expid, rawdata_dir=rawdata_dir))
    raw = raw if raw.exists() else raw.with_suffix("")
    if not raw.exists():
        raise FileNotFoundError(f"no exposure {raw}.fz; check night, exposure number and the raw folder")
    if badfibers_filename is None:
        badfibers_filename = _badfibers_of_production(night, specprod_dir)
    tiles = _tiles_root(tiles_dir) if allow_svn_override else None
    return assemble_beside(raw, badamps or "", badfibers_filename, tiles, instrument)


def assemble_beside(
    raw: Path,
    badamps: str = "",
    badfibers: Path | str | None = None,
    tiles: Path | str | None = None,
    instrument: Instrument | str = "auto",
) -> Fibermap:
    """The fibermap of the exposure in `raw`, from the fiberassign and coordinates files in the same folder.

    One row per fiber, sorted by FIBER, with the columns of the data model (spec datamodel §4); rows are matched by
    LOCATION. FIBERSTATUS has what fiberassign gave it, UNASSIGNED for fibers on neither target nor sky, the bits of
    `position_status`, those of bad fibers and the BADAMP bits of bad amplifiers.

    Without usable coordinates (a later part of a split exposure has those of its first part) the fibermap says so:
    COORDFIL is MISSING, COORDWHY tells the reason, and the measured places are NaN. No bit is set then, since
    nothing says that any fiber stands wrong.

    Parameters
    ----------
    badamps : such as "b7D,z8A"
    badfibers : CSV of FIBER, FIBERSTATUS
    tiles : tree of corrected fiberassign files, `TTT/fiberassign-TTTTTT.fits.gz`; one that agrees in all that
        observing depends on takes the place of the file beside the exposure
    instrument : itself, its name or YAML file, or "auto"

    Raises
    ------
    NoFiberAssign : no fiberassign file beside the exposure; the message tells which was looked for
    BadFile : it cannot be read, or is about another tile
    ValueError : `badamps` makes no sense
    """
    header = read_exposure_header(raw)
    expid = int(header["EXPID"])
    companions = find_companions(raw.parent, expid, header)
    if companions.fiberassign is None:
        raise NoFiberAssign(_no_fiberassign(raw, header))
    bad = parse_badamps(badamps)
    assigned = read_fiberassign(companions.fiberassign)
    _check_tile(assigned, header)
    if tiles is not None:
        assigned = _corrected(assigned, Path(tiles))
    coordinates, why_none = _coordinates(companions, raw, header)
    rows = _rows(assigned, header)
    if coordinates is None:
        _log.warning("exposure %d: positions of the fibers unknown: %s", expid, why_none)
        for name in _MEASURED:
            rows[name] = np.nan
    else:
        _place(rows, coordinates)
    meta = _meta(assigned, header, companions, coordinates, why_none)
    fibermap = Fibermap(rows, meta)
    if badfibers is not None:
        flagged = read_badfibers(badfibers)
        fibermap = fibermap.flagged([flagged.get(int(fiber), 0) for fiber in fibermap.fiber])
    nspec = (instrument if isinstance(instrument, Instrument) else instrument_of(header, instrument)).nspec
    for arm, petal, amp in bad:
        on_amp = (rows["PETAL_LOC"] == petal) & ((rows["FIBER"] % nspec < nspec // 2) == (amp in "AC"))
        fibermap = fibermap.flagged(np.where(on_amp, int(FiberMask[f"BADAMP{arm.upper()}"]), 0))
    return fibermap


def provide_fibermap(raw: Path, production: Path, instrument: Instrument | str = "auto") -> Path:
    """The fibermap at `production`, made there from the files beside the exposure unless it was made from these.

    A fibermap there that someone else made is left as it is.

    Raises
    ------
    NoFiberAssign, BadFile : as `assemble_beside`
    OSError : it cannot be written
    """
    header = read_exposure_header(raw)
    companions = find_companions(raw.parent, int(header["EXPID"]), header)
    if production.exists() and not is_outdated(production, companions):
        return production
    write_fibermap(production, assemble_beside(raw, instrument=instrument))
    return production


def is_outdated(fibermap: Path, companions: Companions) -> bool:
    """Whether it was put together here from other files than those that are there now.

    Raises
    ------
    OSError : a file cannot be read
    """
    if companions.fiberassign is None:
        return False
    try:
        with FitsFile(fibermap) as fits:
            source = fits.header("FIBERMAP").get(SOURCE_CARD)
    except BadFile:
        return True  # half of one: another is made
    return source is not None and str(source).strip() != companions.digest()


def _rows(assigned: FiberAssign, header: Mapping[str, Any]) -> NDArray[Any]:
    """All columns but the measured ones, sorted by FIBER."""
    given = assigned.rows[np.argsort(assigned.rows["FIBER"], kind="stable")]
    names = set(given.dtype.names or ())
    layout = columns_of(survey_of(names))
    rows = np.zeros(len(given), dtype=layout)
    for name in layout.names or ():
        if name in names:
            rows[name] = _text(given[name]) if layout[name].kind == "S" else given[name]
    if "PETAL_LOC" not in names:
        rows["PETAL_LOC"], rows["DEVICE_LOC"] = rows["LOCATION"] // 1000, rows["LOCATION"] % 1000
    if "LAMBDA_REF" not in names:
        rows["LAMBDA_REF"] = 5400.0
    if "PLATE_RA" not in names:  # tiles designed before 2021
        rows["PLATE_RA"], rows["PLATE_DEC"] = rows["TARGET_RA"], rows["TARGET_DEC"]
    rows["EXPTIME"] = float(card(header, "EXPTIME", 0.0))
    neither = ~np.isin(rows["OBJTYPE"], (b"TGT", b"SKY"))
    rows["OBJTYPE"][neither] = b"BAD"
    rows["FIBERSTATUS"][neither] |= int(FiberMask.UNASSIGNED)
    unnamed = rows["DESINAME"] == b""
    rows["DESINAME"][unnamed] = desiname(rows["TARGET_RA"][unnamed], rows["TARGET_DEC"][unnamed])
    return rows


def _text(values: NDArray[Any]) -> NDArray[np.bytes_]:
    return np.char.strip(values if values.dtype.kind == "S" else np.char.encode(values.astype(str), "ascii", "replace"))


def _place(rows: NDArray[Any], coordinates: Coordinates) -> None:
    """Fill in the measured columns and their FIBERSTATUS bits; a fiber that was not measured stands at (0, 0)."""
    order = np.argsort(coordinates.location, kind="stable")
    at = np.searchsorted(coordinates.location, rows["LOCATION"], sorter=order)
    at = order[np.minimum(at, len(order) - 1)]
    known = coordinates.location[at] == rows["LOCATION"]
    measured = (coordinates.x, coordinates.y, coordinates.dx, coordinates.dy, coordinates.ra, coordinates.dec)
    for name, values in zip(_MEASURED, measured, strict=True):
        rows[name] = np.where(known, values[at], 0.0)
    if not np.isfinite(coordinates.ra).any():
        _look_up(rows, known)
    rows["NUM_ITER"] = coordinates.moves
    rows["FIBERSTATUS"] |= position_status(rows["FIBER_X"], rows["FIBER_Y"], rows["DELTA_X"], rows["DELTA_Y"])
    pointless = ~np.isfinite(rows["TARGET_RA"]) & known  # fibers without target in early files
    for axis in ("RA", "DEC"):
        rows[f"TARGET_{axis}"][pointless] = rows[f"FIBER_{axis}"][pointless]


def _look_up(rows: NDArray[Any], known: NDArray[np.bool_]) -> None:
    """FIBER_RA and FIBER_DEC of older files: the offset, in CS5 (x to the east, y to the south), off the target."""
    degree = 1000.0 / MICRON_PER_ARCSEC / 3600.0
    cosine = np.maximum(np.cos(np.radians(rows["TARGET_DEC"])), 1e-6)
    rows["FIBER_RA"] = np.where(known, rows["TARGET_RA"] - rows["DELTA_X"] * degree / cosine, 0.0)
    rows["FIBER_DEC"] = np.where(known, rows["TARGET_DEC"] + rows["DELTA_Y"] * degree, 0.0)


def _coordinates(companions: Companions, raw: Path, header: Mapping[str, Any]) -> tuple[Coordinates | None, str]:
    """The exposure's own coordinates, else those of the first part of its visit; and why there are none."""
    expid = int(header["EXPID"])
    why = f"no coordinates-{expid:08d}.fits"
    if companions.coordinates is not None:
        try:
            return read_coordinates(companions.coordinates), ""
        except (NoPositions, BadFile, OSError) as error:
            why = str(error)
    visit = [int(number) for number in re.findall(r"\d+", str(header.get("VISITIDS") or ""))]
    first = min(visit, default=expid)
    if first < expid:
        path = raw.parent.parent / f"{first:08d}" / f"coordinates-{first:08d}.fits"
        try:
            earlier = read_coordinates(path)
        except (NoPositions, BadFile, OSError) as error:
            return None, f"{why}; of exposure {first}, the first of its visit: {error}"
        if card(earlier.meta, "TILEID") in (None, card(header, "TILEID")):
            return earlier, ""
        why += f"; exposure {first}, the first of its visit, is of another tile"
    return None, why


def _corrected(assigned: FiberAssign, tiles: Path) -> FiberAssign:
    """The copy in the tree of corrected files, if there is one and it is about the same targets and places."""
    tile = int(card(assigned.meta, "TILEID", -1))
    path = Path(findfile("fiberassignsvn", tile=tile, tiles_dir=tiles)) if tile >= 0 else None
    if path is None:
        return assigned
    try:
        corrected = read_fiberassign(path)
        differ = compare_fiberassign(assigned, corrected)
    except FileNotFoundError:
        return assigned
    except (BadFile, KeyError) as error:
        _log.warning("%s does not take the place of %s: %s", path, assigned.path.name, error)
        return assigned
    if differ:
        _log.warning("%s does not take the place of %s: they differ in %s", path, assigned.path.name, ", ".join(differ))
        return assigned
    return corrected


def _meta(
    assigned: FiberAssign,
    header: Mapping[str, Any],
    companions: Companions,
    coordinates: Coordinates | None,
    why_none: str,
) -> dict[str, Any]:
    tile = {name: assigned.meta[name] for name in _TILE_CARDS if card(assigned.meta, name) is not None}
    tile.setdefault("SURVEY", str(card(tile, "FA_SURV", "unknown")))
    tile.setdefault("FAPRGRM", program_of_faflavor(str(tile.get("FAFLAVOR", ""))))
    exposure = {name: header[name] for name in _EXPOSURE_CARDS if card(header, name) is not None}
    sources = {
        "GUIDEFIL": companions.guide.name if companions.guide else "MISSING",
        "COORDFIL": coordinates.path.name if coordinates else "MISSING",
        "FASSGFIL": assigned.path.name,
        SOURCE_CARD: companions.digest(),
    }
    return tile | exposure | sources | ({"COORDWHY": why_none} if why_none else {})


def _check_tile(assigned: FiberAssign, header: Mapping[str, Any]) -> None:
    own, wanted = card(assigned.meta, "TILEID"), card(header, "TILEID")
    if own is not None and wanted is not None and int(own) != int(wanted):
        raise BadFile(assigned.path, "it is about another tile", 0, "TILEID", own, f"{wanted} as the exposure says")


def _no_fiberassign(raw: Path, header: Mapping[str, Any]) -> str:
    tile = card(header, "TILEID")
    if tile is None:
        return (
            f"{raw.parent}: no fiberassign-*.fits(.gz), and the exposure has no TILEID (OBSTYPE "
            f"{header.get('OBSTYPE')}); only exposures of a tile have a fibermap"
        )
    return (
        f"{raw.parent}: no fiberassign-{int(tile):06d}.fits(.gz), so nothing tells what the fibers looked at; "
        "bring the file there, or a finished fibermap"
    )


def _badfibers_of_production(night: int, specprod_dir: Path | str | None) -> Path | None:
    try:
        path = Path(findfile("badfibers", night, specprod_dir=specprod_dir))
    except KeyError:  # no production is known
        return None
    return path if path.exists() else None


def _tiles_root(given: Path | str | None) -> Path | None:
    try:
        return Path(findfile("fiberassignsvn", tile=0, tiles_dir=given)).parent.parent
    except KeyError:  # there is no such tree
        return None
