"""Raw exposures `desi-EXPID.fits.fz`: one compressed HDU per camera, exposure cards in an HDU of their own.

Format: spec raw-and-calib §1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.amplifier import AMP_NAMES, amplifiers
from qlstream.datamodel.image import RawCamera
from qlstream.io.errors import BadFile
from qlstream.io.fitsfile import HDU, Cards, FitsFile, required, write_fits
from qlstream.io.nights import header_to_night

_CAMERA = re.compile(r"^[A-Z]\d$")
_RENAMED = {"FIBERASSIGN": "FIBASSGN", "EPOCH": "EQUINOX"}


def read_raw(path: Path | str, camera: str) -> RawCamera:
    """One camera of an exposure; only its HDU and the headers are read.

    Its data are compared with DATASUM, since flipped bits may decompress without complaint.

    Parameters
    ----------
    camera : e.g. "r3"

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : the file, the camera's HDU or a needed keyword is missing or broken
    """
    with FitsFile(path) as fits:
        primary, _ = _exposure_header(fits)
        index = fits.require(camera.upper())
        header = fits.header(index)
        first, extra = fits.header(0), fits.header("PLC") if "PLC" in fits else {}
        header = _renamed(_merged(header, first, extra, primary))
        _check_night(fits, header, primary, index)
        header["NIGHT"] = primary["NIGHT"]
        header.pop("INHERIT", None)  # done by now
        label = camera.upper()
        required(fits.path, header, "EXPID", int, label)
        try:
            amps = amplifiers(header)
        except (KeyError, ValueError) as error:
            raise BadFile(fits.path, str(error.args[0]), label) from None
        pix = fits.image(index, verify=True)
        if pix.ndim != 2 or pix.dtype.kind not in "iu":
            raise BadFile(fits.path, f"data of shape {pix.shape}, {pix.dtype}", label, expected="a 2-D integer image")
        for amp in amps:
            for section in (amp.datasec, amp.biassec, *((amp.orsec,) if amp.orsec else ())):
                if section.y1 > pix.shape[0] or section.x1 > pix.shape[1]:
                    raise BadFile(
                        fits.path,
                        f"section {section} of amplifier {amp.name} leaves the image",
                        label,
                        expected=f"a section inside {pix.shape[1]} columns x {pix.shape[0]} rows",
                    )
        return RawCamera(pix, camera.lower(), header, primary, amps, fits.names, fits.path)


def read_exposure_header(path: Path | str) -> Cards:
    """The exposure-level cards: those of the first HDU that has EXPTIME, with NIGHT repaired.

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : no FITS file, no HDU has EXPTIME, or the night cannot be told
    """
    with FitsFile(path) as fits:
        return _exposure_header(fits)[0]


def list_cameras(path: Path | str) -> tuple[str, ...]:
    """The cameras of an exposure, lower case, in the order of the file.

    Raises
    ------
    FileNotFoundError, BadFile : as above
    """
    with FitsFile(path) as fits:
        return tuple(name.lower() for name in fits.names if _CAMERA.match(name.upper()))


def write_raw(path: Path | str, primary: Mapping[str, Any], cameras: Mapping[str, tuple[NDArray[Any], Cards]]) -> None:
    """Write an exposure as the instrument does: empty HDU 0, SPEC with the exposure cards, one HDU per camera.

    Images are Rice-compressed, one tile per row.

    Parameters
    ----------
    primary : exposure cards; must have EXPTIME
    cameras : camera -> (image, cards); integer pixels, written as uint16, int16 or int32 [ADU]

    Raises
    ------
    KeyError : needed cards are missing; the message lists all of them
    ValueError : pixels are no integers, or beyond 32 bits
    """
    missing = [] if "EXPTIME" in primary else ["EXPTIME (exposure)"]
    for camera, (_, cards) in cameras.items():
        amps = [a for a in AMP_NAMES if f"BIASSEC{a}" in cards] or ["A"]
        needed = [f"{section}{a}" for a in amps for section in ("CCDSEC", "BIASSEC", "DATASEC")]
        missing += [f"{key} ({camera})" for key in needed if key not in cards]
        missing += [f"{k} ({camera})" for k in ("DOSVER", "FEEVER", "DETECTOR") if k not in cards and k not in primary]
    if missing:
        raise KeyError(f"{path}: a raw exposure needs the cards {', '.join(missing)}")
    hdus = [HDU("", None), HDU("SPEC", np.arange(10, dtype=np.int32), primary, compress_rows=True)]
    for camera, (pix, cards) in cameras.items():
        own = {**cards, "CAMERA": camera.lower()}
        hdus.append(HDU(camera.upper(), _storable(pix, camera), own, compress_rows=True))
    write_fits(path, hdus)


def _exposure_header(fits: FitsFile) -> tuple[Cards, int]:
    for index in range(len(fits)):
        header = fits.header(index)
        if "EXPTIME" in header:
            header = _renamed(header)
            try:
                header["NIGHT"] = header_to_night(header)
            except ValueError as error:
                raise BadFile(fits.path, str(error), fits.names[index] or index) from None
            return header, index
    raise BadFile(fits.path, "no HDU has EXPTIME", expected="an HDU SPEC (or SPS, or HDU 0) with the exposure cards")


def _merged(header: Cards, *others: Cards) -> Cards:
    """The camera's cards, completed by those of the others in turn; the camera's own win."""
    merged = dict(header)
    for other in others:
        for name, value in other.items():
            merged.setdefault(name, value)
    return merged


def _renamed(header: Cards) -> Cards:
    return {_RENAMED.get(name, name): value for name, value in header.items()}


def _check_night(fits: FitsFile, header: Cards, primary: Cards, index: int) -> None:
    try:
        night = header_to_night(header)
    except ValueError:
        return  # the exposure header has told it
    if night != primary["NIGHT"]:
        raise BadFile(
            fits.path, "the camera's night differs", fits.names[index], "NIGHT", night,
            f"{primary['NIGHT']} of the exposure header",
        )  # fmt: skip


def _storable(pix: NDArray[Any], camera: str) -> NDArray[Any]:
    if pix.dtype.kind not in "iu" or pix.ndim != 2:
        raise ValueError(f"{camera}: raw pixels are {pix.dtype} {pix.shape}; expected a 2-D integer image [ADU]")
    if pix.dtype in (np.uint16, np.int16, np.int32):
        return pix
    if pix.size and np.abs(pix.astype(np.int64)).max() >= 2**31:
        raise ValueError(f"{camera}: raw pixels exceed 32 bits; expected ADU below 2^31")
    return pix.astype(np.int32)
