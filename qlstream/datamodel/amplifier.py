"""Amplifiers of a CCD readout: their sections in the raw and in the trimmed image."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_SECTION = re.compile(r"^\s*\[\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]\s*$")
AMP_NAMES = ("A", "B", "C", "D", "1", "2", "3", "4")


@dataclass(frozen=True)
class Section:
    """A rectangle of pixels as 0-based half-open ranges; `slices` indexes a numpy image [rows, columns]."""

    x0: int
    x1: int
    y0: int
    y1: int

    @classmethod
    def parse(cls, text: str, where: str = "section") -> Section:
        """From FITS notation `[x1:x2, y1:y2]`, 1-based with both ends included.

        Raises
        ------
        ValueError : the text is not such a section, or is empty
        """
        match = _SECTION.match(str(text))
        if not match:
            raise ValueError(f"{where} = {text!r} is no FITS section; expected [x1:x2, y1:y2]")
        x1, x2, y1, y2 = map(int, match.groups())
        if not (1 <= x1 <= x2 and 1 <= y1 <= y2):
            raise ValueError(f"{where} = {text!r} is empty or reversed; expected 1 <= x1 <= x2 and 1 <= y1 <= y2")
        return cls(x1 - 1, x2, y1 - 1, y2)

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    @property
    def shape(self) -> tuple[int, int]:
        return self.y1 - self.y0, self.x1 - self.x0

    def __str__(self) -> str:
        return f"[{self.x0 + 1}:{self.x1},{self.y0 + 1}:{self.y1}]"


@dataclass(frozen=True)
class Amp:
    """One amplifier: `datasec` and the overscans index the raw image, `ccdsec` the trimmed one."""

    name: str
    datasec: Section
    ccdsec: Section
    biassec: Section
    orsec: Section | None = None

    @classmethod
    def from_header(cls, name: str, header: Mapping[str, object]) -> Amp:
        """The amplifier `name` of a raw camera header.

        Raises
        ------
        KeyError : DATASECx, CCDSECx or BIASSECx is missing
        ValueError : a section does not parse, or DATASEC and CCDSEC differ in shape
        """
        sections = {}
        for kind in ("DATASEC", "CCDSEC", "BIASSEC"):
            key = kind + name
            if key not in header:
                raise KeyError(
                    f"header of {header.get('CAMERA', 'the camera')} has no {key}; amplifier {name} needs it"
                )
            sections[kind] = Section.parse(str(header[key]), key)
        orsec = Section.parse(str(header["ORSEC" + name]), "ORSEC" + name) if "ORSEC" + name in header else None
        if sections["DATASEC"].shape != sections["CCDSEC"].shape:
            raise ValueError(
                f"DATASEC{name} {sections['DATASEC']} and CCDSEC{name} {sections['CCDSEC']} differ in shape"
            )
        return cls(name, sections["DATASEC"], sections["CCDSEC"], sections["BIASSEC"], orsec)

    @property
    def reads_left(self) -> bool:
        """True if the overscan lies to the right of the data, as for the left amplifiers A and C."""
        return self.biassec.x0 >= self.datasec.x0


def amplifiers(header: Mapping[str, object]) -> tuple[Amp, ...]:
    """All amplifiers of a raw camera header: every one of A-D (or 1-4) that has a BIASSEC, in that order.

    Raises
    ------
    KeyError : none has, or a section of one is missing
    ValueError : a section does not parse
    """
    names = [name for name in AMP_NAMES if "BIASSEC" + name in header]
    if not names:
        raise KeyError(
            f"header of {header.get('CAMERA', 'the camera')} has no BIASSECA-D nor BIASSEC1-4; "
            "without overscan sections the readout cannot be interpreted"
        )
    return tuple(Amp.from_header(name, header) for name in names)


def trimmed_shape(amps: tuple[Amp, ...]) -> tuple[int, int]:
    """(ny, nx) of the trimmed image: the largest row and column that a CCDSEC reaches."""
    return max(a.ccdsec.y1 for a in amps), max(a.ccdsec.x1 for a in amps)
