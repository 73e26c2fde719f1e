"""The fibermap of an exposure: found, or put together from the files that came beside the raw one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qlstream.datamodel.flavor import program_of
from qlstream.ingest.names import Place
from qlstream.ingest.structure import read_structure
from qlstream.io.assemble import is_outdated, provide_fibermap
from qlstream.io.companions import companion_files, find_companions
from qlstream.io.compression import other_form
from qlstream.io.errors import BadFile
from qlstream.io.fitsfile import FitsFile
from qlstream.io.paths import findfile
from qlstream.io.raw import read_exposure_header
from qlstream.store.exposures import Facts


@dataclass(frozen=True)
class FoundFibermap:
    """What there is of a fibermap.

    Attributes
    ----------
    path : the file; None if there is none, or only part of one
    missing : what is not there (yet), if it is worth waiting for
    note : what an observer should know
    program : of the tile, as in `Facts`; "" if the fibermap does not tell
    """

    path: Path | None = None
    missing: str = ""
    note: str = ""
    program: str = ""


def is_awaited(facts: Facts) -> bool:
    """Whether its fibermap must come: an exposure of a tile has one, flats without a tile can do without."""
    return facts.flavor == "science" or (facts.flavor == "flat" and facts.tileid is not None)


def obtain_fibermap(path: Path, raw: Path, redux: Path, place: Place, instrument: str, hurry: bool) -> FoundFibermap:
    """The fibermap beside the raw file, else the one in the production, which is made there if there are a fiberassign
    and a coordinates file (and made anew when these change).

    Parameters
    ----------
    path : the raw file, whole
    raw, redux : the folders of raw exposures and of the production
    instrument : name, YAML file or "auto"
    hurry : do without coordinates that have not come

    Raises
    ------
    OSError : a file cannot be read or written
    """
    folder = place.folder(raw)
    beside = folder / f"fibermap-{place.expid:08d}.fits"
    for candidate in (beside, other_form(beside)):
        if _is_whole(candidate):
            return _described(candidate, path)
    production = _in_production(redux, place)
    companions = find_companions(folder, place.expid, read_exposure_header(path))
    if _is_whole(production) and not is_outdated(production, companions):
        return _described(production, path)
    if companions.fiberassign is None:
        return FoundFibermap(missing="its fibermap")
    if not hurry and not (companions.coordinates and _is_whole(companions.coordinates)):
        return FoundFibermap(missing=f"its fibermap, or coordinates-{place.expid:08d}.fits to make one")
    try:
        return _described(provide_fibermap(path, production, instrument), path)
    except BadFile as error:  # perhaps it is still coming
        return FoundFibermap(missing="its fibermap", note=f"none can be made: {error}")


def fibermap_stamp(raw: Path, redux: Path, place: Place) -> str:
    """Size [byte] and modification time [ns] of the fibermap beside the raw file, else of the files that one is made
    from, else of the one in the production; "" if none of them is there."""
    folder = place.folder(raw)
    beside = folder / f"fibermap-{place.expid:08d}.fits"
    for candidate in (beside, other_form(beside)):
        if stamp := stamp_of(candidate):
            return stamp
    companions = [stamp for path in companion_files(folder, place.expid) if (stamp := stamp_of(path))]
    return " ".join(companions) or stamp_of(_in_production(redux, place))


def exposure_stamp(path: Path, raw: Path, redux: Path, place: Place) -> str:
    """The stamp of the raw file and, behind a space, that of its fibermap; "" if the raw file is not there."""
    stamp, fibermap = stamp_of(path), fibermap_stamp(raw, redux, place)
    return f"{stamp} {fibermap}" if stamp and fibermap else stamp


def stamp_of(path: Path) -> str:
    """`SIZE:MTIME` of a file [byte, ns]; "" if it is not there."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}"


def _described(fibermap: Path, raw: Path) -> FoundFibermap:
    """With what its header says."""
    try:
        with FitsFile(fibermap) as fits:
            meta = fits.header("FIBERMAP")
    except BadFile as error:
        return FoundFibermap(missing="its fibermap", note=str(error))
    why = meta.get("COORDWHY")
    program = program_of(read_exposure_header(raw), meta)
    return FoundFibermap(fibermap, note=f"positions of the fibers unknown: {why}" if why else "", program=program)


def _is_whole(path: Path) -> bool:
    return path.is_file() and (path.suffix == ".gz" or read_structure(path).is_whole)


def _in_production(redux: Path, place: Place) -> Path:
    return Path(findfile("fibermap", night=place.night, expid=place.expid, specprod_dir=str(redux)))
