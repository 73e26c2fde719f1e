"""Faults that a simulated night can be given, by name: what an observer should be told about."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from qlstream.instrument import Instrument
from qlstream.simulate.detector import AMP_NAMES
from qlstream.simulate.lamps import LAMPS
from qlstream.simulate.schedule import Exposure

_LIT = ("arc", "flat", "science")
_TAKEN = ("dark", "arc", "flat", "science")
_ALL = ("zero", "dark", "arc", "flat", "science")


@dataclass(frozen=True)
class Kind:
    """What a kind of fault is and where it can strike.

    Attributes
    ----------
    what : happens, as half a sentence
    flavors : of the exposures that it changes
    scope : camera; spectrograph, whose arms all suffer; or exposure
    part : what may stand behind the camera: "amp", "amps" (two), "fibers", "lamp", "keyword" or nothing
    """

    what: str
    flavors: tuple[str, ...] = _ALL
    scope: str = "camera"
    part: str = ""


KINDS = {
    # the detector and its electronics
    "noisy-amp": Kind("an amplifier's read noise is six times as large", part="amp"),
    "dead-amp": Kind("an amplifier delivers its bias level but no signal", part="amp"),
    "bias-jump": Kind("an amplifier's level steps by 40 ADU half-way through the readout", part="amp"),
    "pickup": Kind("the rows of an amplifier share a noise of 6 ADU", part="amp"),
    "swapped-amps": Kind("two amplifiers, A and B unless others are named, are taken for each other", part="amps"),
    "no-readout": Kind("all pixels of the camera hold one number"),
    "warm-ccd": Kind("the CCD is 20 K warmer and its dark current 50 times as large"),
    "light-leak": Kind("light leaks into a dark exposure, 0.2 electrons a second and more to one side", ("dark",)),
    "cosmic-storm": Kind("twenty times as many cosmic rays, as a radioactive part near the CCD makes"),
    # lamps and optics
    "lamp-off": Kind("an arc or flat exposure without light", ("arc", "flat")),
    "dim-lamp": Kind("an arc or flat exposure with two fifths of its light", ("arc", "flat")),
    "dead-lamp": Kind("one of the arc lamps, Ne unless another is named, is off", ("arc",), part="lamp"),
    "closed-shutter": Kind("the camera's shutter stays closed on a science exposure", ("science",)),
    "out-of-focus": Kind("spots are half again as wide", _LIT),
    "shifted-traces": Kind("spectra lie 2.5 pixels beside and 2.5 pixels above their places", _LIT),
    # fibers
    "mispositioned": Kind(
        "fibers of a science exposure stand 1.2 arcsec beside their targets", ("science",), "spectrograph", "fibers"
    ),
    "dead-fibers": Kind("fibers are broken and nobody knows", _LIT, "spectrograph", "fibers"),
    "dim-fibers": Kind("fibers have lost two thirds of their light", _LIT, "spectrograph", "fibers"),
    # the sky, and what the telescope did
    "clouds": Kind("clouds take 85 % of the starlight of a science exposure", ("science",), "exposure"),
    "moonlit": Kind("a science exposure with the moon near and bright", ("science",), "exposure"),
    "short-exposure": Kind("the shutter closes after a twentieth of the time asked for", _TAKEN, "exposure"),
    # files
    "missing-camera": Kind("the camera's HDU is not in the file, though the header promises it"),
    "missing-keyword": Kind("a keyword is not in the camera's header; CCDSECA unless another is named", part="keyword"),
    "missing-fibermap": Kind("the exposure comes without its fibermap", ("science",), "exposure"),
    "truncated": Kind("the file ends in the middle of the camera's HDU"),
    "corrupt-hdu": Kind("the camera's HDU cannot be decompressed"),
}
_CLOUDS, _MOON, _MOONSEP, _SHORT = 0.15, 8.0, 12.0, 0.05  # factor, units of `Exposure.moonlight`, degree, factor
GRAMMAR = "KIND[:CAMERA][:AMP or FIBERS or LAMP or KEYWORD][@EXPID]"
_FAULT = re.compile(r"^(?P<kind>[a-z-]+)(:(?P<camera>[A-Za-z]\d))?(:(?P<part>[^@:]+))?(@(?P<expid>\d+))?$")


@dataclass(frozen=True)
class Fault:
    """One fault; what is left open (None) holds for every camera or exposure.

    Attributes
    ----------
    kind : one of KINDS
    camera, part, expid : where; `part` is an amplifier, two ("AB"), fibers ("3,7-9", indices on the CCD), a lamp or a
        keyword
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
        if exposure.flavor not in KINDS[self.kind].flavors:
            return False
        return camera is None or self.camera is None or self._concerns(camera, self.camera)

    def _concerns(self, camera: str, named: str) -> bool:
        """A fiber brings its light, or none, to all arms of its spectrograph."""
        return camera[1:] == named[1:] if KINDS[self.kind].scope == "spectrograph" else camera == named

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
        allowed = "\n".join(f"  {name:17}{known.what}" for name, known in KINDS.items())
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


def fibers_hit(faults: Iterable[Fault], kind: str) -> list[int]:
    """Fiber indices that faults of this kind name."""
    return sorted({fiber for fault in faults if fault.kind == kind for fiber in fault.fibers})


def as_observed(exposure: Exposure, faults: Iterable[Fault]) -> Exposure:
    """The exposure as it went, after the faults that concern all of it: its sky, and how long the shutter was open."""
    kinds = {fault.kind for fault in faults if fault.hits(exposure)}
    if "clouds" in kinds:
        exposure = replace(exposure, transparency=round(exposure.transparency * _CLOUDS, 4))
    if "moonlit" in kinds:
        exposure = replace(exposure, moonlight=exposure.moonlight + _MOON, moonsep=_MOONSEP)
    if "short-exposure" in kinds:
        exposure = replace(exposure, exptime=round(exposure.exptime * _SHORT, 4), reqtime=exposure.exptime)
    return exposure


def _check_part(fault: Fault, text: str, instrument: Instrument) -> None:
    kind = KINDS[fault.kind]
    if kind.scope == "exposure" and fault.camera is not None:
        raise ValueError(f"fault {text!r}: {fault.kind} concerns a whole exposure; leave out {fault.camera!r}")
    if fault.part is None:
        return
    expected, part = kind.part, fault.part.upper()
    if not expected:
        raise ValueError(f"fault {text!r}: {fault.kind} concerns a whole {kind.scope}; leave out {fault.part!r}")
    if expected == "amp" and part not in AMP_NAMES:
        raise ValueError(f"fault {text!r}: no amplifier {fault.part!r}; expected A, B, C or D")
    if expected == "amps" and (len(part) != 2 or part[0] == part[1] or not set(part) <= set(AMP_NAMES)):
        raise ValueError(f"fault {text!r}: {fault.part!r} names no two amplifiers; expected for example AB")
    if expected == "lamp" and part not in {name.upper() for name in LAMPS}:
        raise ValueError(f"fault {text!r}: no lamp {fault.part!r}; expected {', '.join(LAMPS)}")
    if expected == "fibers":
        if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", fault.part):
            raise ValueError(f"fault {text!r}: {fault.part!r} lists no fibers; expected for example 3,7-9")
        if max(fault.fibers) >= instrument.nspec:
            raise ValueError(f"fault {text!r}: {instrument.name} has fibers 0 to {instrument.nspec - 1} in a camera")
