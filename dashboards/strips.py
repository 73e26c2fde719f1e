"""Where a value lies in its range: the geometry of the bars that show values against what is normal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboards.glossary import GROUPS, Entry, explain
from dashboards.queries import camera_order
from dashboards.records import Detail
from dashboards.status import Status, status_of
from dashboards.verdict import interval, quantity

Interval = tuple[float | None, float | None]

_WARN, _NORMAL = 0.12, 0.30  # where the bands begin, in widths of the bar; mirrored on the right


@dataclass(frozen=True)
class Bands:
    """Left and right ends of the warn and of the normal band, 0 to 1 across the bar."""

    warn: tuple[float, float]
    normal: tuple[float, float]


@dataclass(frozen=True)
class Mark:
    """One value on a bar: where, how bad, whose, and in words."""

    u: float
    status: Status
    camera: str
    label: str
    text: str


@dataclass(frozen=True)
class Strip:
    """All values of one metric in an exposure or a camera.

    Attributes
    ----------
    ranges : the normal range in words, or that it differs from camera to camera
    ticks : SVG path of the normal values, x from 0 to 100
    marks : of values that are not normal, and of all values where they are few
    bands : None where no range judges the metric
    summary : the worst value, or the middle one
    """

    metric: str
    entry: Entry
    unit: str
    status: Status
    ranges: str
    ticks: str
    marks: tuple[Mark, ...]
    bands: Bands | None
    count: int
    summary: str


def bands_of(normal: Interval, warn: Interval) -> Bands:
    """The bands of a range; a side without a limit, or without a warn zone, takes the space."""
    left_warn = 0.0 if warn[0] is None else _WARN
    right_warn = 1.0 if warn[1] is None else 1 - _WARN
    left = left_warn if normal[0] is None or normal[0] == warn[0] else _NORMAL
    right = right_warn if normal[1] is None or normal[1] == warn[1] else 1 - _NORMAL
    return Bands((left_warn, right_warn), (left, right))


def position(value: float, normal: Interval, warn: Interval) -> float:
    """Where `value` lies on the bar: linear inside the normal and the warn band, squeezed beyond them.

    Parameters
    ----------
    normal, warn : (low, high), None for no limit
    """
    bands = bands_of(normal, warn)
    low, high = normal
    scale = _scale(normal, warn)
    if low is not None and value < low:
        return _outside(low - value, bands.normal[0], bands.warn[0], None if warn[0] is None else low - warn[0], scale)
    if high is not None and value > high:
        gap = None if warn[1] is None else warn[1] - high
        return 1 - _outside(value - high, 1 - bands.normal[1], 1 - bands.warn[1], gap, scale)
    n0, n1 = bands.normal
    if low is not None and high is not None:
        return n0 + (n1 - n0) * ((value - low) / (high - low) if high > low else 0.5)
    if low is not None:
        return n0 + (n1 - n0) * (1 - math.exp(-(value - low) / scale)) * 0.9
    if high is not None:
        return n1 - (n1 - n0) * (1 - math.exp(-(high - value) / scale)) * 0.9
    return 0.5


def strips_of(details: Mapping[str, Detail], cameras: Iterable[str], single: bool = False) -> dict[str, list[Strip]]:
    """Group of the glossary -> strips of its metrics, the worst first.

    Parameters
    ----------
    single : mark every value, for the page of one camera
    """
    checks: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = {}
    free: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = {}
    for camera in cameras:
        detail = details.get(camera, Detail())
        judged = set()
        for check in detail.checks:
            checks.setdefault((check["result"], check["metric"]), []).append((camera, check))
            judged.add(check["metric"])
        for name, row in detail.results.items():
            for metric, element, value in _values(row):
                if metric not in judged and value is not None:
                    plain = {"element": element, "measured": value, "severity": 0, "unit": row["units"].get(metric, "")}
                    free.setdefault((name, metric), []).append((camera, plain))
    groups: dict[str, list[Strip]] = {group: [] for group in GROUPS}
    for (result, metric), found in checks.items():
        strip = _strip(metric, result, found, single)
        groups[strip.entry.group].append(strip)
    for strips in groups.values():
        strips.sort(key=lambda s: -s.status.rank)
    for (result, metric), found in free.items():
        strip = _free_strip(metric, result, found)
        groups[strip.entry.group].append(strip)
    return {group: strips for group, strips in groups.items() if strips}


def _strip(metric: str, result: str, found: Sequence[tuple[str, dict[str, Any]]], single: bool) -> Strip:
    ticks, marks = [], []
    ranges = {interval(c["normal"]) for _, c in found if c["normal"] is not None}
    bands = next((bands_of(tuple(c["normal"]), tuple(c["warn"])) for _, c in found if c["normal"] is not None), None)
    worst, worst_rank = found[0], (-1, -1.0)
    for camera, check in found:
        status = status_of(check["severity"])
        u = 0.5
        if check["measured"] is not None and check["normal"] is not None:
            u = position(check["measured"], tuple(check["normal"]), tuple(check["warn"]))
        rank = (status.rank, abs(u - 0.5))
        if rank > worst_rank:
            worst, worst_rank = (camera, check), rank
        if status is Status.NORMAL and not single:
            ticks.append(f"M{100 * u:.1f} 3v10")
        else:
            marks.append(_mark(camera, check, status, u, single))
    camera, check = worst
    status = status_of(check["severity"])
    value = quantity(check["measured"], check["unit"])
    place = _label(camera, check["element"], single)
    summary = check["why"] if check["measured"] is None and check["why"] else f"{place} {value}".strip()
    differs = "differs between cameras" if len(ranges) > 1 else "no range"
    return Strip(
        metric=metric,
        entry=explain(metric, result),
        unit=check["unit"],
        status=status,
        ranges=next(iter(ranges)) if len(ranges) == 1 else differs,
        ticks="".join(ticks),
        marks=tuple(sorted(marks, key=lambda m: m.status.rank)),
        bands=bands,
        count=len(found),
        summary=summary,
    )


def _free_strip(metric: str, result: str, found: Sequence[tuple[str, dict[str, Any]]]) -> Strip:
    """Values that nothing judges: from the smallest to the largest."""
    values = sorted(check["measured"] for _, check in found)
    unit = found[0][1]["unit"]
    low, high = values[0], values[-1]
    text = quantity(low, unit) if low == high else f"{quantity(low)} to {quantity(high, unit)}"
    return Strip(metric, explain(metric, result), unit, Status.NORMAL, "", "", (), None, len(values), text)


def _mark(camera: str, check: Mapping[str, Any], status: Status, u: float, single: bool) -> Mark:
    text = check["why"] or f"{camera} {check['element']} {quantity(check['measured'], check['unit'])}"
    return Mark(u, status, camera, _label(camera, check["element"], single), text)


def _label(camera: str, element: str, single: bool) -> str:
    return element if single else f"{camera} {element}".strip()


def _values(row: Mapping[str, Any]) -> Iterable[tuple[str, str, float | None]]:
    for metric, value in row["metrics"].items():
        yield metric, "", value
    for group in ("per_amp", "per_class"):
        for metric, table in row[group].items():
            for element, value in table.items():
                yield metric, element, value


def _scale(normal: Interval, warn: Interval) -> float:
    """A length to measure excess by."""
    low, high = normal
    if low is not None and high is not None and high > low:
        return high - low
    ends = [abs(v) for v in (*normal, *warn) if v is not None and v != 0]
    return max(ends, default=1.0)


def _outside(excess: float, edge: float, warn_edge: float, gap: float | None, scale: float) -> float:
    """Distance from the bar's near end for a value `excess` beyond the normal band."""
    if gap is not None and gap > 0:
        if excess <= gap:
            return edge - (edge - warn_edge) * excess / gap
        return warn_edge * math.exp(-(excess - gap) / gap)
    return edge * math.exp(-excess / scale)


@dataclass(frozen=True)
class AmpTile:
    """The amplifiers of one camera as they lie on the CCD: rows from top to bottom of (name, value, status)."""

    camera: str
    rows: tuple[tuple[tuple[str, float | None, Status], ...], ...]


def amp_keys(details: Mapping[str, Detail]) -> dict[str, str]:
    """Per-amplifier keys of all results -> unit, in the order they came."""
    found: dict[str, str] = {}
    for camera in sorted(details, key=camera_order):
        for row in details[camera].results.values():
            for key in row["per_amp"]:
                found.setdefault(key, row["units"].get(key, ""))
    return found


def amp_tiles(details: Mapping[str, Detail], key: str) -> dict[str, AmpTile]:
    """Camera -> the values of `key` on its amplifiers; A and B below, C and D above, as they are read out."""
    tiles = {}
    for camera, detail in details.items():
        for row in detail.results.values():
            table = row["per_amp"].get(key)
            if not table:
                continue
            judged = {c["element"]: status_of(c["severity"]) for c in row["checks"] if c["metric"] == key}
            cells = [(amp, value, judged.get(amp, Status.NORMAL)) for amp, value in table.items()]
            half = 2 if len(cells) > 2 else len(cells)
            tiles[camera] = AmpTile(camera, tuple(c for c in (tuple(cells[half:]), tuple(cells[:half])) if c))
    return tiles
