"""Faults that a simulated night can be given, by name: what an observer should be told about."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from qlstream.instrument import Instrument
from qlstream.simulate.schedule import Exposure

# kind -> (what may stand behind the camera, what happens)
KINDS: dict[str, tuple[str, str]] = {
    "noisy-amp": ("amp", "an amplifier's read noise is six times as large"),
    "dead-amp": ("amp", "an amplifier delivers its bias level but no signal"),
    "bias-jump": ("amp", "an amplifier's level steps by 40 ADU half-way through the readout"),
    "warm-ccd": ("", "the CCD is 20 K warmer and its dark current 50 times as large"),
    "lamp-off": ("", "an arc or flat exposure without light"),
    "out-of-focus": ("", "spots are half again as wide"),
    "mispositioned": ("fibers", "fibers of a science exposure stand 1.2 arcsec beside their targets"),
    "moonlit": ("", "a science exposure with the moon near and bright"),
    "missing-camera": ("", "the camera's HDU is not in the file, though the header promises it"),
    "missing-keyword": ("keyword", "a keyword is not in the camera's header; CCDSECA unless another is named"),
    "missing-fibermap": ("", "the exposure comes without its fibermap"),
    "truncated": ("", "the file ends in the middle of the camera's HDU"),
    "corrupt-hdu": ("", "the camera's HDU cannot be decompressed"),
}
GRAMMAR = "KIND[:CAMERA[:AMP or FIBERS]][@EXPID]"
_FAULT = re.compile(r"^(?P<kind>[a-z-]+)(:(?P<camera>[A-Za-z]\d))?(:(?P<part>[^@:]+))?(@(?P<expid>\d+))?$")


@dataclass(frozen=True)
class Fault:
    """One fault; what is left open (None) holds for every camera or exposure.

    Attributes
    ----------
    kind : one of KINDS
    camera, part, expid : where; `part` is an amplifier, fibers ("3,7-9", indices on the CCD) or a keyword
    """

    kind: str
    camera: str | None = None
    part: str | None = None
    expid: int | None = None

    def __str__(self) -> str:
        place = ":".join(part for part in (self.kind, self.camera, self.part) if part)
        return place if self.expid is None else f"{place}@{self.expid}"

    def hits(self, exposure: Exposure, camera: str | None = None) -> bool:
        """Whether it concerns this exposure, and this camera if one is given."""
        if self.expid is not None and self.expid != exposure.expid:
            return False
        if camera is not None and self.camera is not None and not self._concerns(camera):
            return False
        if self.kind == "lamp-off":
            return exposure.flavor in ("arc", "flat")
        if self.kind in ("mispositioned", "moonlit", "missing-fibermap"):
            return exposure.flavor == "science"
        return True

    def _concerns(self, camera: str) -> bool:
        """A misplaced fiber darkens all arms of its spectrograph."""
        return camera[1:] == (self.camera or "")[1:] if self.kind == "mispositioned" else camera == self.camera

    @property
    def fibers(self) -> tuple[int, ...]:
        """Fiber indices that `part` lists; without one, the first ten."""
        chosen: list[int] = []
        for item in (self.part or "0-9").split(","):
            first, _, last = item.partition("-")
            chosen += range(int(first), int(last or first) + 1)
        return tuple(chosen)


def parse_fault(text: str, instrument: Instrument) -> Fault:
    """A fault written as KIND[:CAMERA[:AMP or FIBERS]][@EXPID], e.g. "noisy-amp:r0:B@11".

    Raises
    ------
    ValueError : it is none; the message tells what is allowed
    """
    match = _FAULT.match(text.strip())
    kind = match["kind"] if match else text.partition(":")[0].partition("@")[0]
    if kind not in KINDS:
        allowed = "\n".join(f"  {name:17}{what}" for name, (_, what) in KINDS.items())
        raise ValueError(f"unknown fault {text!r}; expected {GRAMMAR} with KIND one of\n{allowed}")
    if match is None:
        raise ValueError(f"fault {text!r} does not read as {GRAMMAR}, for example {kind}:{instrument.cameras[0]}@4")
    camera = match["camera"].lower() if match["camera"] else None
    if camera is not None and camera not in instrument.cameras:
        known = f"{instrument.cameras[0]} to {instrument.cameras[-1]}"
        raise ValueError(f"fault {text!r}: {instrument.name} has no camera {camera}; it has {known}")
    fault = Fault(kind, camera, match["part"], int(match["expid"]) if match["expid"] else None)
    _check_part(fault, text, instrument)
    return fault


def amplifiers_hit(faults: Iterable[Fault], kind: str) -> frozenset[str]:
    """Amplifiers that faults of this kind name; a fault that names none means amplifier A."""
    return frozenset((fault.part or "A").upper() for fault in faults if fault.kind == kind)


def _check_part(fault: Fault, text: str, instrument: Instrument) -> None:
    expected = KINDS[fault.kind][0]
    if fault.part is None:
        return
    if not expected:
        raise ValueError(f"fault {text!r}: {fault.kind} concerns a whole camera; leave out {fault.part!r}")
    if expected == "amp" and fault.part.upper() not in ("A", "B", "C", "D"):
        raise ValueError(f"fault {text!r}: no amplifier {fault.part!r}; expected A, B, C or D")
    if expected == "fibers":
        if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", fault.part):
            raise ValueError(f"fault {text!r}: {fault.part!r} lists no fibers; expected for example 3,7-9")
        if max(fault.fibers) >= instrument.nspec:
            raise ValueError(f"fault {text!r}: {instrument.name} has fibers 0 to {instrument.nspec - 1} in a camera")
