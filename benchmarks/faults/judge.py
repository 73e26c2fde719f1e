"""Comparison of what a night showed with what its faults should have shown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from benchmarks.faults.expected import EXPECTED, Expected, FiberSet, Trouble
from benchmarks.faults.night import Finding, Night, Place
from qlstream.simulate.faults import KINDS, Fault

T = TypeVar("T")


@dataclass(frozen=True)
class Verdict:
    """What came of one fault.

    Attributes
    ----------
    fault : as written
    expected : what should have been found
    places : cameras x exposures where it should
    missed : where it was not, and what
    stray : alarms at its places that it does not explain
    """

    fault: str
    expected: str
    places: int
    missed: tuple[str, ...]
    stray: tuple[str, ...]

    @property
    def is_right(self) -> bool:
        return not self.missed and not self.stray


def judged(night: Night, faults: Sequence[Fault], learned: bool = False) -> tuple[list[Verdict], list[str]]:
    """The verdict on each fault, and the alarms at places where there was none.

    Parameters
    ----------
    learned : the night was judged by learned ranges
    """
    hitting = {
        (exposure.expid, camera): [fault for fault in faults if fault.hits(exposure, camera)]
        for exposure in night.plan
        for camera in night.cameras
    }
    unexplained: dict[Place, list[str]] = {}
    for place, findings in night.alarms.items():
        allowed = {a for fault in hitting[place] for a in _allowed(fault, _flavor(night, place))}
        rest = sorted(finding for finding in findings if not any(_matches(a, finding) for a in allowed))
        if rest:
            unexplained[place] = [_told(place, finding) for finding in rest]
    verdicts = [_verdict(night, fault, hitting, unexplained, learned) for fault in faults]
    spurious = [text for place, texts in unexplained.items() if not hitting[place] for text in texts]
    return verdicts, sorted(spurious)


def _verdict(
    night: Night,
    fault: Fault,
    hitting: dict[Place, list[Fault]],
    unexplained: dict[Place, list[str]],
    learned: bool,
) -> Verdict:
    expected = EXPECTED[fault.kind]
    hit = [place for place, some in hitting.items() if fault in some]
    stray = tuple(text for place in hit for text in unexplained.get(place, ()))
    if expected.trouble is not None:
        missed, told = _missing_trouble(night, fault, expected.trouble, hit)
        return Verdict(str(fault), told, len(hit), tuple(missed), stray)
    by_place: list[list[str]] = []
    for place in hit:
        flavor = _flavor(night, place)
        needed, fibers = _by_flavor(expected.alarms, flavor) or (), _by_flavor(expected.fibers, flavor)
        needed = (*needed, *((_by_flavor(expected.learned, flavor) or ()) if learned else ()))
        unseen = bool(expected.arms) and place[1][0] not in expected.arms
        if place not in night.jobs or unseen or not (needed or fibers):
            continue
        absent = [
            f"{_told(place, finding)} missing"
            for pattern in needed
            for finding in _findings(pattern, fault)
            if not any(_matches(finding, found) for found in night.alarms.get(place, ()))
        ]
        by_place.append(absent + (_wrong_fibers(night, place, fault, fibers) if fibers else []))
    if not by_place:
        by_place.append(["there is no place where it should show"])
    if expected.once:
        by_place = [min(by_place, key=len)]
    missed = [text for texts in by_place for text in texts]
    return Verdict(str(fault), _summary(expected, fault, learned), len(by_place), tuple(missed), stray)


def _by_flavor(table: Mapping[str, T], flavor: str) -> T | None:
    return table.get(flavor, table.get(""))


def _flavor(night: Night, place: Place) -> str:
    return next(exposure.flavor for exposure in night.plan if exposure.expid == place[0])


def _allowed(fault: Fault, flavor: str) -> set[Finding]:
    expected = EXPECTED[fault.kind]
    patterns = (*(_by_flavor(expected.alarms, flavor) or ()), *expected.also)
    return {finding for pattern in patterns for finding in _findings(pattern, fault)}


def _findings(pattern: str, fault: Fault) -> list[Finding]:
    """What METRIC:AMPLIFIERS stands for; the element "" for any."""
    metric, _, elements = pattern.replace("{part}", _part(fault)).partition(":")
    return [(metric, element) for element in elements] or [(metric, "")]


def _part(fault: Fault) -> str:
    """What the fault names, or strikes without being told."""
    return (fault.part or {"amps": "AB", "lamp": "Ne"}.get(KINDS[fault.kind].part, "A")).upper()


def _matches(wanted: Finding, found: Finding) -> bool:
    return wanted[0] == found[0] and wanted[1] in ("", found[1])


def _wrong_fibers(night: Night, place: Place, fault: Fault, wanted: FiberSet) -> list[str]:
    """A sentence if the metric does not name exactly the fibers of the fault; of known bad ones it may say anything."""
    where = f"{place[1]}@{place[0]} {wanted.name}.{wanted.key}"
    values = night.fibers(place, wanted.name, wanted.key)
    if values is None:
        return [f"{where} missing"]
    named, known = set(np.flatnonzero((values >= wanted.low) & (values <= wanted.high))), night.known[place[1]]
    differing = (named ^ set(fault.fibers)) - known
    return [f"{where} is wrong on fibers {sorted(int(f) for f in differing)}"] if differing else []


def _missing_trouble(night: Night, fault: Fault, trouble: Trouble, hit: Sequence[Place]) -> tuple[list[str], str]:
    """What is not told as it should be, and what should be told."""
    reason = trouble.reason.replace("{camera}", fault.camera or "")
    missed = set()
    for place in hit:
        rows: dict[Any, dict[str, Any]] = night.exposures if trouble.of == "exposure" else night.jobs  # type: ignore[assignment]
        key = place[0] if trouble.of == "exposure" else place
        row = rows.get(key, {})
        if row.get("state") != trouble.state or not re.search(reason, str(row.get("reason"))):
            missed.add(f"{trouble.of} {key}: {row.get('state')}, {row.get('reason')!r}")
    return sorted(missed), f"{trouble.of} {trouble.state}: {reason}"


def _told(place: Place, finding: Finding) -> str:
    metric, element = finding
    return f"{place[1]}@{place[0]} {metric}{':' if element else ''}{element}"


def _summary(expected: Expected, fault: Fault, learned: bool) -> str:
    told = []
    for flavor, patterns in (*expected.alarms.items(), *(expected.learned.items() if learned else ())):
        names = ", ".join(pattern.replace("{part}", _part(fault)) for pattern in patterns)
        told.append(f"{flavor}: {names}" if flavor else names)
    keys = sorted({fibers.key for fibers in expected.fibers.values()})
    return "; ".join(told + [f"{key} names fibers {fault.part or '0-9'}" for key in keys])
