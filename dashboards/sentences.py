"""Lines of the event log in words."""

from __future__ import annotations

from typing import Any

from dashboards.status import Status, status_of
from qlstream.store.events import Event


def event_status(event: Event) -> Status | None:
    """The state that a line reports, if it reports one."""
    if event.kind in ("exposure.failed", "exposure.incomplete", "camera.failed"):
        return Status.FAILED
    if event.kind in ("qa.result", "camera.done", "verdict.changed", "exposure.done"):
        severity = event.payload.get("severity")
        return status_of(severity) if severity in (0, 10, 20, 30) else None
    if event.kind in ("stage.skipped", "note.retry"):
        return Status.WARNING
    return None


def event_sentence(event: Event) -> str:
    """What happened, for people."""
    payload = event.payload
    reason = str(payload.get("reason") or "")
    match event.kind:
        case "exposure.seen":
            return f"file seen{_colon(reason)}"
        case "exposure.waiting":
            return f"waiting{_colon(reason)}"
        case "exposure.ready":
            return f"complete, cameras {payload.get('cameras') or ''}{_colon(reason)}"
        case "exposure.done":
            failed = payload.get("failed") or 0
            return f"all cameras ended, {failed} failed" if failed else "all cameras done"
        case "exposure.incomplete" | "exposure.failed":
            return f"{event.kind.partition('.')[2]}{_colon(reason)}"
        case "camera.started":
            return "started" + (f", attempt {event.attempt}" if (event.attempt or 1) > 1 else "")
        case "camera.done":
            return f"done{_took(payload)}"
        case "camera.failed":
            return f"failed{_colon(reason)}"
        case "stage.started":
            return f"{payload.get('stage')} started"
        case "stage.done":
            return f"{payload.get('stage')} done{_took(payload)}"
        case "stage.skipped":
            return f"{payload.get('stage')} skipped{_colon(reason)}"
        case "qa.result":
            worst = next((c.get("why") for c in payload.get("checks", ()) if c.get("why")), "")
            return f"{payload.get('name')}: {worst or payload.get('summary') or ''}"
        case "verdict.changed":
            severity = payload.get("severity")
            return f"verdict is now {status_of(severity).word}" if severity is not None else "verdict is open again"
        case "task.state":
            return f"offline: {payload.get('task')} {payload.get('state')}{_colon(reason)}"
        case "calibration.used":
            return f"uses {payload.get('kind')} of {payload.get('origin')}: {payload.get('path')}"
    text = reason or str(payload.get("text") or payload.get("message") or "")
    return f"{event.kind}{_colon(text)}"


def _colon(text: str) -> str:
    return f": {text}" if text else ""


def _took(payload: dict[str, Any]) -> str:
    wall, cpu = payload.get("wall_s"), payload.get("cpu_s")
    if wall is None:
        return ""
    return f" in {wall:.2f} s" + (f", CPU {cpu:.2f} s" if cpu is not None else "")
