"""What a raw exposure promises and what is there: cameras, checksum sidecar."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlstream.datamodel.flavor import flavor_of, program_of
from qlstream.ingest.names import Place
from qlstream.instrument import instrument_of
from qlstream.io.camword import promised_cameras
from qlstream.io.errors import BadFile
from qlstream.io.fitsfile import FitsFile, required
from qlstream.io.nights import parse_date_obs
from qlstream.io.raw import list_cameras, read_exposure_header
from qlstream.store.exposures import Facts

_MJD_OF_UNIX_ZERO = 40587.0
_CHUNK = 1 << 22  # bytes read at a time
_SUMS = ("sha256sum", "md5sum")  # endings of checksum sidecars, and (less "sum") the hash they hold


@dataclass(frozen=True)
class Sidecar:
    """A checksum that the sender put beside the file."""

    path: Path
    algorithm: str
    expected: str


def read_facts(path: Path, place: Place, instrument: str) -> tuple[Facts, bool]:
    """What the header tells, the fibermap apart; and whether it promises which cameras are to come.

    Parameters
    ----------
    instrument : name, YAML file or "auto"; it knows which cameras a promised spectrograph has

    Raises
    ------
    BadFile : a needed keyword is missing or wrong, with HDU, keyword, value and what was expected
    OSError : it cannot be read
    """
    header = read_exposure_header(path)
    hdu = _exposure_hdu(path)
    for keyword, from_path in (("EXPID", place.expid), ("NIGHT", place.night)):
        value = required(path, header, keyword, int, hdu)
        if value != from_path:
            raise BadFile(path, "the header contradicts the path", hdu, keyword, value, f"{from_path} as in the path")
    try:
        flavor = flavor_of(header)
    except ValueError as error:
        raise BadFile(path, str(error), hdu) from None
    cameras = list_cameras(path)
    if not cameras:
        raise BadFile(path, "it has no camera", expected="at least one HDU named like B0 or R3")
    promised = _promised_cameras(path, header, instrument)
    facts = Facts(
        flavor=flavor,
        obstype=str(header.get("OBSTYPE", header.get("FLAVOR", ""))).strip(),
        mjd=_mjd(path, header, hdu),
        cameras=cameras,
        missing=tuple(c for c in promised if c not in cameras),
        program=program_of(header),
        tileid=_number(header, "TILEID", int),
        exptime=required(path, header, "EXPTIME", float, hdu),
        airmass=_number(header, "AIRMASS", float),
        seeing=next((s for k in ("SEEING", "ETCSEENG", "PMSEEING") if (s := _number(header, k, float))), None),
        instrument=str(header["INSTRUME"]).strip() if header.get("INSTRUME") else None,
    )
    return facts, bool(promised)


def find_sidecar(path: Path, place: Place) -> Sidecar | None:
    """The checksum of the file, if its sender left one: checksum-EXPID.sha256sum (or .md5sum) in the same folder.

    The format is that of the command `sha256sum`: one line `HEX  NAME` per file. A sidecar that does not (yet) name
    the file is none.
    """
    for ending in _SUMS:
        sidecar = path.parent / f"checksum-{place.expid:08d}.{ending}"
        try:
            lines = sidecar.read_text().splitlines()
        except (FileNotFoundError, UnicodeDecodeError):
            continue
        for line in lines:
            match = re.match(r"^([0-9a-fA-F]{32,64}) [ *](.+)$", line)
            if match and Path(match.group(2).strip()).name == path.name:
                return Sidecar(sidecar, ending.removesuffix("sum"), match.group(1).lower())
    return None


def content_identity(path: Path, sidecar: Sidecar | None = None) -> tuple[str, str]:
    """Two names for the content of a file: ours (blake2b), and the one to compare with its sidecar ("" without)."""
    ours = hashlib.blake2b(digest_size=16)
    theirs = hashlib.new(sidecar.algorithm, usedforsecurity=False) if sidecar else None
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            ours.update(chunk)
            if theirs is not None:
                theirs.update(chunk)
    return ours.hexdigest(), theirs.hexdigest() if theirs is not None else ""


def _exposure_hdu(path: Path) -> str | int:
    """Name or number of the HDU with the exposure header, for messages."""
    with FitsFile(path) as fits:
        return next(name or index for index, name in enumerate(fits.names) if "EXPTIME" in fits.header(index))


def _promised_cameras(path: Path, header: Mapping[str, Any], instrument: str) -> tuple[str, ...]:
    """Cameras that the header says were read out."""
    arms = [arm.name for arm in instrument_of(header, instrument).arms]
    try:
        return promised_cameras(header, arms)
    except ValueError as error:
        raise BadFile(path, str(error), None, "CAMERAS", header["CAMERAS"], "a list of cameras") from None


def _mjd(path: Path, header: Mapping[str, Any], hdu: str | int) -> float:
    """Start of the exposure [day]: MJD-OBS, else from DATE-OBS."""
    if header.get("MJD-OBS") is None and header.get("DATE-OBS"):
        try:
            return parse_date_obs(str(header["DATE-OBS"])).timestamp() / 86400 + _MJD_OF_UNIX_ZERO
        except ValueError as error:
            raise BadFile(path, str(error), hdu) from None
    return float(required(path, header, "MJD-OBS", float, hdu))


def _number(header: Mapping[str, Any], keyword: str, kind: type) -> Any:
    """A card that is nice to have: None if it is missing or no finite number."""
    try:
        value = kind(header[keyword])
    except (KeyError, TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
