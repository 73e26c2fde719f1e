"""Is the exposure what its header promises?"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import Field

from qlstream.datamodel.amplifier import Section
from qlstream.datamodel.image import RawCamera
from qlstream.io.camword import promised_cameras
from qlstream.io.nights import night_of_time, parse_date_obs
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult, QASeverity

Problem = tuple[QASeverity, str]  # how bad, and the sentence that tells it

_EXPECTED = ("EXPTIME", "MJD-OBS", "DATE-OBS", "OBSTYPE", "PROGRAM", "DETECTOR", "CCDTEMP")
_EXPECTED_ON_SKY = ("AIRMASS", "TILEID")
_SENSORS = {  # card -> (unit, lowest and highest value that a working sensor can tell)
    "CCDTEMP": ("degC", -250.0, 100.0),  # 850 stands for no sensor (spec raw-and-calib §1.2)
    "CRYOTEMP": ("K", 1.0, 400.0),
    "CRYOPRES": ("mbar", 1e-12, 2000.0),
    "VCCDSEC": ("s", 0.0, math.inf),
}
_SAME_START = 300.0  # the cameras of an exposure begin within this time of each other [s]


class Check_HDUs(MonitoringAlg[RawCamera]):
    """Whether header, file name and layout of the readout agree, and what the camera's sensors tell.

    Every problem is a sentence. CHECKHDUS_STATUS and EXPNUM_STATUS are the severity (0, 20, 30) of the worst problem
    of header and layout, and of the exposure's identity (number, night, camera, kind). CHECKHDUS counts all problems,
    MISSINGKEYS the absent cards, MISSINGCAMERAS the cameras that are promised and not in the file; EXPTIME_FRACTION
    compares the time exposed with the time asked for; FLATPIXELS is the largest fraction of an amplifier's pixels that
    hold one value, near 1 for a readout that never happened. CCDTEMP, CRYOTEMP, CRYOPRES and VCCDSEC are reported
    where the header has them and the sensor works. The seed's check could only succeed or end the process
    (spec quicklook-qa §1.1).
    """

    title = "file and header"

    class Params(StageParams):
        sample: int = Field(16, ge=1, le=256, description="look at every n-th row for constant pixels")

    def run(self, raw: RawCamera, context: Context) -> QAResult:
        expected = _EXPECTED + (_EXPECTED_ON_SKY if context.flavor == "science" else ())
        missing = [key for key in expected if raw.header.get(key) in (None, "")]
        content: list[Problem] = [(QASeverity.WARNING, f"{key} is missing") for key in missing]
        content += [*_contradictions(raw), *_layout(raw, context), *_voltage(raw)]
        identity = list(_identity(raw, context))
        absent = _absent_cameras(raw, context, content)
        constant = _constant_fraction(raw, self.params.sample)
        notes = [f"{', '.join(absent)} promised, but not in the file"] if absent else []
        if constant > 0.5:
            notes.append(f"{100 * constant:.0f} % of the pixels of an amplifier hold one value")
        metrics = {
            "CHECKHDUS": float(len(content) + len(identity)),
            "CHECKHDUS_STATUS": float(_worst(content)),
            "EXPNUM_STATUS": float(_worst(identity)),
            "MISSINGKEYS": float(len(missing)),
            "MISSINGCAMERAS": float(len(absent)),
            "FLATPIXELS": constant,
        }
        requested = _number(raw.primary, "REQTIME")
        if requested > 0:
            metrics["EXPTIME_FRACTION"] = context.exptime / requested
        metrics |= _telemetry(raw)
        told = {"CHECKHDUS_STATUS": _told(content), "EXPNUM_STATUS": _told(identity)}
        result = QAResult(
            self.name,
            metrics,
            units={card: unit for card, (unit, _, _) in _SENSORS.items() if card in metrics},
            summary="; ".join([text for _, text in (*identity, *content)] + notes)
            or "header complete, layout consistent",
        ).graded(context.ranges, context.where)
        # a count against a range tells an observer nothing: the sentence is what is wrong
        return replace(
            result,
            checks=tuple(
                replace(c, why=told[c.metric]) if c.severity and c.metric in told else c for c in result.checks
            ),
        )


def _contradictions(raw: RawCamera) -> Iterator[Problem]:
    """Cards of the camera that differ from those of the exposure."""
    for key in ("OBSTYPE", "TILEID"):
        own, exposure = raw.header.get(key), raw.primary.get(key)
        if None not in (own, exposure) and str(own).strip().upper() != str(exposure).strip().upper():
            yield QASeverity.ALARM, f"{key} = {own!r}, but the exposure's is {exposure!r}"
    own, exposure = _number(raw.header, "EXPTIME"), _number(raw.primary, "EXPTIME")
    if abs(own - exposure) > max(1.0, 0.02 * exposure):
        yield QASeverity.WARNING, f"EXPTIME = {own:g} s, but the exposure's is {exposure:g} s"
    own, exposure = _number(raw.header, "MJD-OBS"), _number(raw.primary, "MJD-OBS")
    if abs(own - exposure) * 86400.0 > _SAME_START:
        yield QASeverity.WARNING, f"MJD-OBS = {own:.5f}, but the exposure's is {exposure:.5f}"


def _identity(raw: RawCamera, context: Context) -> Iterator[Problem]:
    """Whether camera, number, night and kind of the exposure are the same wherever they stand."""
    camera = str(raw.header.get("CAMERA", "")).strip().lower()
    if camera != context.camera:
        yield QASeverity.ALARM, f"the HDU of {context.camera} says CAMERA = {camera!r}"
    for key, known in (("EXPID", context.expid), ("NIGHT", context.night)):
        for header in (raw.header, raw.primary):
            value = _number(header, key)
            if math.isfinite(value) and value != known:
                yield QASeverity.ALARM, f"{key} = {value:.0f}, expected {known}"
                break
    if raw.path is not None:
        for key, number, known in zip(
            ("EXPID", "NIGHT"), _in_path(raw.path), (context.expid, context.night), strict=True
        ):
            if number is not None and number != known:
                yield QASeverity.ALARM, f"{key} = {known}, but the file is {'/'.join(raw.path.parts[-3:])}"
    flavor = str(raw.primary.get("FLAVOR", "")).strip().lower()
    if flavor not in ("", "science", context.flavor, *(["bias"] if context.flavor == "zero" else [])):
        # real exposures say science, whatever they are (spec raw-and-calib §1.1)
        yield QASeverity.WARNING, f"FLAVOR = {flavor!r}, but OBSTYPE = {raw.header.get('OBSTYPE')!r}"
    if context.flavor == "zero" and context.exptime > 0:
        yield QASeverity.WARNING, f"a bias frame with EXPTIME = {context.exptime:g} s"
    try:
        night = night_of_time(parse_date_obs(str(raw.header["DATE-OBS"])))
    except (KeyError, ValueError):
        return  # absent cards are counted elsewhere
    if night != context.night:
        yield QASeverity.WARNING, f"DATE-OBS = {raw.header['DATE-OBS']} is of night {night}, NIGHT says {context.night}"


def _layout(raw: RawCamera, context: Context) -> Iterator[Problem]:
    """Whether the amplifiers' sections lie in the readout and tile the CCD that the instrument has."""
    rows, columns = raw.pix.shape
    for amp in raw.amps:
        for label, section in (("DATASEC", amp.datasec), ("BIASSEC", amp.biassec), ("ORSEC", amp.orsec)):
            if section is not None and (section.y1 > rows or section.x1 > columns):
                yield QASeverity.ALARM, f"{label}{amp.name} {section} lies outside the {rows} x {columns} readout"
        if amp.datasec.shape != amp.ccdsec.shape:
            yield QASeverity.ALARM, f"DATASEC{amp.name} {amp.datasec} and CCDSEC{amp.name} {amp.ccdsec} differ in shape"
        for other in raw.amps:
            if _overlap(amp.biassec, other.datasec):
                yield QASeverity.ALARM, f"BIASSEC{amp.name} {amp.biassec} overlaps DATASEC{other.name} {other.datasec}"
    for one, other in combinations(raw.amps, 2):
        if _overlap(one.ccdsec, other.ccdsec):
            yield QASeverity.ALARM, f"CCDSEC{one.name} {one.ccdsec} overlaps CCDSEC{other.name} {other.ccdsec}"
    ny, nx = raw.trimmed_shape
    covered = sum(amp.ccdsec.shape[0] * amp.ccdsec.shape[1] for amp in raw.amps)
    if covered < ny * nx:
        yield QASeverity.ALARM, f"the amplifiers cover {covered} of the {ny * nx} pixels of the CCD"
    expected = context.arm.shape
    if (ny, nx) != expected:
        text = f"the CCD has {ny} x {nx} pixels, {context.instrument.name}'s arm {context.arm.name} "
        yield QASeverity.ALARM, text + f"{expected[0]} x {expected[1]}"
    size = re.findall(r"\d+", str(raw.header.get("CCDSIZE", "")))
    if len(size) == 2 and [int(n) for n in size] != [rows, columns]:
        yield QASeverity.WARNING, f"CCDSIZE = {raw.header['CCDSIZE']!r}, but the readout has {rows} x {columns} pixels"


def _voltage(raw: RawCamera) -> Iterator[Problem]:
    voltage = str(raw.header.get("VCCD", "")).strip().upper()
    if voltage not in ("", "ON"):
        yield QASeverity.ALARM, f"VCCD = {voltage!r}: the voltage of the CCD is off"


def _absent_cameras(raw: RawCamera, context: Context, problems: list[Problem]) -> tuple[str, ...]:
    if not raw.hdus:
        return ()
    try:
        promised = promised_cameras(raw.primary, [arm.name for arm in context.instrument.arms])
    except ValueError as error:
        problems.append((QASeverity.WARNING, f"CAMERAS: {error}"))
        return ()
    there = {name.lower() for name in raw.hdus}
    return tuple(camera for camera in promised if camera not in there)


def _telemetry(raw: RawCamera) -> dict[str, float]:
    """What the sensors of the camera tell; a card that is absent or cannot be a reading is left out."""
    readings = {card: _number(raw.header, card) for card in _SENSORS}
    return {card: value for card, value in readings.items() if _SENSORS[card][1] <= value <= _SENSORS[card][2]}


def _in_path(path: Path) -> tuple[int | None, int | None]:
    """Exposure number and night in NIGHT/EXPID/desi-EXPID.fits.fz; None where the path has none."""
    expid, night = re.search(r"-(\d{8})\.fits", path.name), re.fullmatch(r"20\d{6}", path.parent.parent.name)
    return int(expid[1]) if expid else None, int(night[0]) if night else None


def _constant_fraction(raw: RawCamera, step: int) -> float:
    """Largest fraction of the sampled active pixels of an amplifier that hold one and the same value."""
    worst = 0.0
    for amp in raw.amps:
        sample = raw.pix[amp.datasec.slices][::step].ravel()
        if sample.size:
            middle = sample[sample.size // 2]
            worst = max(worst, float((sample == middle).mean()))
    return worst


def _overlap(one: Section, other: Section) -> bool:
    return one.x0 < other.x1 and other.x0 < one.x1 and one.y0 < other.y1 and other.y0 < one.y1


def _worst(problems: list[Problem]) -> QASeverity:
    return max((severity for severity, _ in problems), default=QASeverity.NORMAL)


def _told(problems: list[Problem]) -> str:
    return "; ".join(text for _, text in sorted(problems, key=lambda problem: -problem[0]))


def _number(header: Mapping[str, Any], key: str) -> float:
    """A card as a number; NaN if it is absent or none."""
    try:
        return float(header[key])
    except (KeyError, TypeError, ValueError):
        return math.nan
