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
_DARK_FLAVORS = ("cmxelg", "cmxlrgqso", "sv1elg", "sv1elgqso", "sv1lrgqso", "sv1lrgqso2")
_PROGRAM_WORDS = {
    "backup": ("backup",),
    "bright": ("bright", "bgs", "mws"),
    "gray": ("gray", "grey"),
    "dark": ("dark", "elg", "lrg", "qso"),
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


def program_of(header: Mapping[str, Any], tile: Mapping[str, Any] | None = None) -> str:
    """The program of a science exposure that selects reference ranges: dark, gray, bright, backup or other; else "".

    The first that names one decides: FAFLAVOR of the tile, then FAPRGRM, NTSPROG and GOALTYPE, then the words of
    PROGRAM, which is free text in real headers ("SV1 BGS+MWS tile 80616"). The continuations dark1b and bright1b are
    judged as dark and bright.

    Parameters
    ----------
    header : exposure or camera cards
    tile : cards of the fibermap, where they are known
    """
    if flavor_of(header) != "science":
        return ""
    cards = {**(tile or {}), **header}
    program = program_of_faflavor(str(cards.get("FAFLAVOR") or ""))
    if program == "other":
        words = (_named_in(str(cards.get(key) or "")) for key in ("FAPRGRM", "NTSPROG", "GOALTYPE", "PROGRAM"))
        program = next((word for word in words if word), "other")
    return program.removesuffix("1b")


def program_of_faflavor(faflavor: str) -> str:
    """The program that FAFLAVOR, survey and program of a tile in one word, stands for (spec paths-and-names §8).

    dark, bright, backup, dark1b or bright1b; "other" if none of these.
    """
    name = faflavor.strip().lower()
    if name in _DARK_FLAVORS or (name.startswith("special") and any(field in name for field in ("m31", "odin"))):
        return "dark"
    if name == "sv1unwisebluebright":
        return "other"
    if name == "sv1bgsmws":
        return "bright"
    if name == "sv1backup1":
        return "backup"
    return next((p for p in ("dark1b", "bright1b", "dark", "bright", "backup") if name.endswith(p)), "other")


def _named_in(text: str) -> str:
    """The program that the words of a text tell of; "" if none."""
    text = text.lower()
    for program, words in _PROGRAM_WORDS.items():
        if any(word in text for word in words):
            return program
    return ""
