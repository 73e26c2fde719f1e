"""Turns findings into the few sentences that an observer has to read, the worst first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dashboards.glossary import explain, place_of
from dashboards.queries import camera_order
from dashboards.records import Camera, Exposure, Finding
from dashboards.status import Status
from qlstream.pipeline.result import QASeverity


@dataclass(frozen=True)
class Alert:
    """One trouble, however many cameras and exposures it shows in.

    Attributes
    ----------
    sentence : what is wrong
    detail : range and rule, or the reason of a failure
    cameras : that have it, arm by arm
    first, last : EXPIDs
    count : of exposures
    is_open : no later exposure of the same kind is free of it
    help : what to do about it
    place : of its metric in the glossary, where causes stand before what they bring about; -1 for a failure
    """

    status: Status
    sentence: str
    detail: str
    cameras: tuple[str, ...]
    night: int
    first: int
    last: int
    count: int
    is_open: bool = True
    help: str = ""
    place: int = -1


def alerts_of(exposures: Sequence[Exposure]) -> list[Alert]:
    """What is wrong in a night (or in one exposure): open first, then worst, newest, and causes first."""
    found = [*_of_failures(exposures), *_of_findings(exposures)]
    return sorted(found, key=lambda a: (not a.is_open, -a.status.rank, -a.last, a.place, a.sentence))


def headline(exposure: Exposure) -> str:
    """One sentence that says why the exposure has its verdict."""
    if exposure.state in ("incomplete", "failed", "waiting", "seen"):
        return exposure.reason or f"the file is {exposure.state}"
    total = len(exposure.cameras)
    counted = progress(exposure)
    alerts = alerts_of([exposure])
    worst = [a for a in alerts if a.status.rank >= Status.WARNING.rank]
    if worst:
        more = f" And {len(worst) - 1} more below." if len(worst) > 1 else ""
        return f"{worst[0].sentence}.{more}"
    if exposure.status is Status.UNKNOWN:
        return f"{len(exposure.findings)} values could not be judged; see below."
    if exposure.is_done:
        return "The only camera is as it should be." if total == 1 else f"All {total} cameras are as they should be."
    return f"{counted} of {total} cameras ready, nothing wrong so far."


def progress(exposure: Exposure) -> int:
    """How many cameras have ended."""
    return sum(c.state in ("done", "failed", "missing") for c in exposure.cameras.values())


def camera_sentence(camera: Camera) -> str:
    """One line about a camera, for its cell and its page."""
    if camera.state == "failed":
        return f"failed: {camera.reason}"
    if camera.state == "missing":
        return camera.reason
    if camera.findings:
        worst = max(camera.findings, key=lambda f: f.severity)
        more = sum(f.severity > QASeverity.UNKNOWN for f in camera.findings) - 1
        return finding_sentence(worst) + (f", and {more} more" if more > 0 else "")
    if camera.state == "running":
        return f"running {camera.stage}".strip()
    return "waits for a worker" if camera.state == "ready" else "all values in range"


def finding_sentence(finding: Finding) -> str:
    """What is out of range, where, by how much."""
    if finding.severity <= QASeverity.UNKNOWN:
        return f"{finding.place}: {finding.why or f'{finding.metric} could not be judged'}"
    title = explain(finding.metric, finding.result).title
    return f"{_capital(title)} of {finding.place} is {quantity(finding.measured, finding.unit)}, {_side(finding)}"


def quantity(value: float | None, unit: str = "") -> str:
    """A number as people read it, with its unit."""
    if value is None:
        return "no value"
    size = abs(value)
    if value == int(value) and size < 1e6:
        text = f"{int(value):,}".replace(",", " ")
    elif size >= 1000:
        text = f"{value:,.0f}".replace(",", " ") if size < 1e6 else f"{value:.3g}"
    elif size < 1e-3:
        text = f"{value:.1e}".replace("e-0", "e-")
    else:
        text = f"{value:.3g}"
    return f"{text} {unit}".strip()


def interval(normal: tuple[float | None, float | None] | None) -> str:
    """A range as people read it."""
    if normal is None:
        return "no range"
    low, high = normal
    if low is None or high is None:
        return f"at most {quantity(high)}" if low is None else f"at least {quantity(low)}"
    return quantity(low) if low == high else f"{quantity(low)} to {quantity(high)}"


def camera_list(cameras: Iterable[str], limit: int = 6) -> str:
    """Cameras as people say them: "r3", "b0, r0 and z0", "30 cameras"."""
    names = sorted(set(cameras), key=camera_order)
    if len(names) > limit:
        return f"{len(names)} cameras ({names[0]} to {names[-1]})"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _of_failures(exposures: Sequence[Exposure]) -> list[Alert]:
    alerts = []
    for exposure in exposures:
        if exposure.state in ("incomplete", "failed"):
            words = "is incomplete" if exposure.state == "incomplete" else "cannot be used"
            sentence = f"Exposure {exposure.expid} {words}"
            alerts.append(_alert(Status.FAILED, sentence, exposure.reason, (), [exposure]))
        by_reason: dict[tuple[str, str], list[str]] = defaultdict(list)
        for camera in exposure.cameras.values():
            if camera.state in ("failed", "missing"):
                by_reason[camera.state, camera.reason].append(camera.camera)
        for (state, reason), cameras in by_reason.items():
            status = Status.FAILED if state == "failed" else Status.MISSING
            names = _capital(camera_list(cameras)) if len(cameras) > 6 else camera_list(cameras)
            what = "could not be processed" if state == "failed" else "missing from the file"
            verb = "" if state == "failed" else ("is " if len(cameras) == 1 else "are ")
            alerts.append(_alert(status, f"{names} {verb}{what}", reason, tuple(cameras), [exposure]))
    return alerts


def _of_findings(exposures: Sequence[Exposure]) -> list[Alert]:
    """Findings joined first over exposures (same metric and place), then over places with the same history."""
    by_place: dict[tuple[str, str, str, str], list[Finding]] = defaultdict(list)
    flavor_of = {e.expid: e.flavor for e in exposures}
    for exposure in exposures:
        for f in exposure.findings:
            if f.severity > QASeverity.UNKNOWN:
                by_place[f.metric, f.camera, f.element, flavor_of[f.expid]].append(f)
    clean_since = _last_done(exposures)
    groups: dict[tuple[str, int, int, int, bool, str], list[list[Finding]]] = defaultdict(list)
    for (metric, camera, _, flavor), history in by_place.items():
        history.sort(key=lambda f: f.expid)
        last = history[-1]
        is_open = clean_since.get((camera, flavor), -1) <= last.expid
        key = (metric, max(f.severity for f in history), history[0].expid, last.expid, is_open, _direction(last))
        groups[key].append(history)
    alerts: dict[tuple[str, bool, str, tuple[str, ...]], list[Alert]] = defaultdict(list)
    night = exposures[0].night if exposures else 0
    for (metric, severity, first, last_expid, is_open, side), histories in groups.items():
        newest = [history[-1] for history in histories]
        worst = max(newest, key=_excess)
        cameras = tuple(sorted({f.camera for f in newest}, key=camera_order))
        entry = explain(metric, worst.result)
        if len(cameras) == 1 and len(newest) == 1:
            sentence = finding_sentence(worst)
        else:
            places = camera_list(cameras) if len(cameras) > 1 else f"{len(newest)} parts of {cameras[0]}"
            value = quantity(worst.measured, worst.unit)
            sentence = (
                f"{_capital(entry.title)} {side} in {places}; worst is {worst.place} with {value}, {_side(worst)}"
            )
        rule = worst.why.partition(": ")[2]
        alert = Alert(
            status=Status.ALARM if severity >= QASeverity.ALARM else Status.WARNING,
            sentence=sentence,
            detail=_capital(rule),
            cameras=cameras,
            night=night,
            first=first,
            last=last_expid,
            count=len({f.expid for history in histories for f in history}),
            is_open=is_open,
            help=entry.act,
            place=place_of(metric),
        )
        places_key = tuple(sorted(f"{f.camera}{f.element}" for f in newest))
        alerts[metric, is_open, side, places_key].append(alert)
    return [_joined(same) for same in alerts.values()]


def _joined(same: list[Alert]) -> Alert:
    """One alert for the same trouble in exposures of several flavors; the newest tells, the worst counts."""
    newest = max(same, key=lambda a: a.last)
    return Alert(
        **{
            **vars(newest),
            "first": min(a.first for a in same),
            "count": sum(a.count for a in same),
            "status": max((a.status for a in same), key=lambda s: s.rank),
        }
    )


def _last_done(exposures: Sequence[Exposure]) -> dict[tuple[str, str], int]:
    """(camera, flavor) -> the newest exposure whose camera was done."""
    last: dict[tuple[str, str], int] = {}
    for exposure in exposures:
        for camera in exposure.cameras.values():
            if camera.state == "done":
                key = (camera.camera, exposure.flavor)
                last[key] = max(last.get(key, -1), exposure.expid)
    return last


def _alert(status: Status, sentence: str, reason: str, cameras: tuple[str, ...], where: list[Exposure]) -> Alert:
    expids = [e.expid for e in where]
    return Alert(
        status, sentence, _capital(reason), cameras, where[0].night, min(expids), max(expids), len(expids), True
    )


def _excess(finding: Finding) -> float:
    """How far outside, in widths of the normal range; for choosing the worst of several."""
    low, high = finding.normal or (None, None)
    if finding.measured is None:
        return 0.0
    width = (high - low) if low is not None and high is not None and high > low else 1.0
    below = (low - finding.measured) / width if low is not None else 0.0
    above = (finding.measured - high) / width if high is not None else 0.0
    return max(below, above)


def _direction(finding: Finding) -> str:
    low = (finding.normal or (None, None))[0]
    return "low" if low is not None and finding.measured is not None and finding.measured < low else "high"


def _side(finding: Finding) -> str:
    return f"normal is {interval(finding.normal)}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
