"""What kind of exposure a header describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BY_OBSTYPE = {
    "ZERO": "zero",
    "BIAS": "zero",
    "DARK": "dark",
    "ARC": "arc",
    "TESTARC": "arc",
    "FLAT": "flat",
    "TESTFLAT": "flat",
    "PIXFLAT": "flat",
    "SCIENCE": "science",
    "SKY": "science",
    "TWILIGHT": "science",
}


def flavor_of(header: Mapping[str, Any]) -> str:
    """The flavor that selects the plan: zero, dark, arc, flat or science.

    OBSTYPE decides; FLAVOR only where OBSTYPE is missing, since real exposures say FLAVOR = science even for
    flats and arcs (spec raw-and-calib §1.1).

    Raises
    ------
    ValueError : neither keyword names a known kind
    """
    for key in ("OBSTYPE", "FLAVOR"):
        text = str(header.get(key, "")).strip().upper()
        if text in _BY_OBSTYPE:
            return _BY_OBSTYPE[text]
        if text and key == "OBSTYPE":
            break
    raise ValueError(
        f"OBSTYPE = {header.get('OBSTYPE')!r}, FLAVOR = {header.get('FLAVOR')!r}: cannot tell the kind of exposure; "
        f"expected OBSTYPE to be one of {', '.join(_BY_OBSTYPE)}"
    )


def program_of(header: Mapping[str, Any]) -> str:
    """The program of a science exposure that selects reference ranges: dark, gray, bright, backup or other; else "".

    PROGRAM is free text in real headers ("SV1 BGS+MWS tile 80616"), so it is read by the words in it.
    """
    if flavor_of(header) != "science":
        return ""
    text = f"{header.get('FAPRGRM', '')} {header.get('NTSPROG', '')} {header.get('PROGRAM', '')}".lower()
    for program, words in (
        ("backup", ("backup",)),
        ("bright", ("bright", "bgs", "mws")),
        ("gray", ("gray", "grey")),
        ("dark", ("dark", "elg", "lrg", "qso")),
    ):
        if any(word in text for word in words):
            return program
    return "other"
