"""Reads the records of a night from the store. Everything blocks: the feed calls it in a thread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import and_, select

from dashboards.records import Camera, Detail, Exposure, Finding
from qlstream.io.camword import decode_camword
from qlstream.pipeline.result import QASeverity
from qlstream.store import query
from qlstream.store.database import Store
from qlstream.store.events import Event
from qlstream.store.schema import events, exposures, jobs, qa, stages

_current = and_(
    exposures.c.night == jobs.c.night, exposures.c.expid == jobs.c.expid, exposures.c.version == jobs.c.version
)


def read_exposures(store: Store, night: int, expids: Collection[int] | None = None) -> dict[int, Exposure]:
    """Exposures of a night by number: all of them, or those in `expids`, in one consistent read."""
    wanted = [exposures.c.night == night]
    if expids is not None:
        wanted.append(exposures.c.expid.in_(tuple(expids)))
    with store.read() as conn:
        rows = conn.execute(select(exposures).where(*wanted).order_by(exposures.c.expid)).mappings().all()
        job_rows = conn.execute(select(jobs).join(exposures, _current).where(*wanted)).mappings().all()
        running = conn.execute(
            select(stages.c.job_id, stages.c.stage)
            .join(jobs, jobs.c.id == stages.c.job_id)
            .join(exposures, _current)
            .where(*wanted, stages.c.state == "running")
        ).all()
        judged = conn.execute(
            select(qa.c.job_id, qa.c.expid, qa.c.camera, qa.c.name, qa.c.checks, qa.c.time_utc)
            .join(jobs, jobs.c.id == qa.c.job_id)
            .join(exposures, _current)
            .where(*wanted, qa.c.severity > QASeverity.NORMAL)
            .order_by(qa.c.time_utc)
        ).all()
    stage_of = {row.job_id: row.stage for row in running}
    findings: dict[int, list[Finding]] = defaultdict(list)
    for job_id, expid, camera, name, checks, time_utc in judged:
        findings[job_id] += [_finding(expid, camera, name, c, time_utc) for c in checks if c["severity"] > 0]
    cameras: dict[int, dict[str, Camera]] = defaultdict(dict)
    for job in job_rows:
        if job["state"] != "superseded":
            cameras[job["expid"]][job["camera"]] = Camera(
                camera=job["camera"],
                state=job["state"],
                job_id=job["id"],
                reason=job["reason"],
                severity=job["severity"],
                attempt=job["attempt"],
                stage=stage_of.get(job["id"], "") if job["state"] == "running" else "",
                ready_utc=job["ready_utc"],
                started_utc=job["started_utc"],
                ended_utc=job["ended_utc"],
                cpu_s=job["cpu_s"],
                peak_mb=job["peak_mb"],
                findings=tuple(findings[job["id"]]),
            )
    return {row["expid"]: _exposure(row, cameras[row["expid"]]) for row in rows}


def read_details(store: Store, night: int, expid: int, cameras: Iterable[str] | None = None) -> dict[str, Detail]:
    """All that is known of the cameras of an exposure: of each, or of those in `cameras`."""
    found: dict[str, Detail] = {}
    for camera in (None,) if cameras is None else tuple(cameras):
        results: dict[str, dict[str, Any]] = defaultdict(dict)
        rows: dict[str, list[Any]] = defaultdict(list)
        products: dict[str, dict[str, str]] = defaultdict(dict)
        served: dict[str, list[Any]] = defaultdict(list)
        for row in query.qa_of(store, night, expid, camera):
            results[row["camera"]][row["name"]] = row
        for row in query.stage_costs(store, night, expid, camera):
            rows[row["camera"]].append(row)
        for row in query.products_of(store, night, expid, camera):
            products[row["camera"]][row["kind"]] = row["path"]
        for row in query.calibrations_of(store, night, expid, camera):
            served[row["camera"]].append(row)
        for name in {camera} if camera else {*results, *rows, *products, *served}:
            found[name] = Detail(results[name], tuple(rows[name]), products[name], tuple(served[name]))
    return found


def read_events(
    store: Store,
    night: int | None = None,
    expid: int | None = None,
    camera: str | None = None,
    after: int = 0,
    limit: int = 200,
    newest_first: bool = True,
    without: str = "",
) -> list[Event]:
    """Lines of the event log with id > `after`; `camera` also gives those of the exposure as a whole.

    Parameters
    ----------
    without : kind of lines to leave out
    """
    where = [events.c.id > after, events.c.kind != without]
    if night is not None:
        where.append(events.c.night == night)
    if expid is not None:
        where.append(events.c.expid == expid)
    if camera is not None:
        where.append((events.c.camera == camera) | events.c.camera.is_(None))
    order = events.c.id.desc() if newest_first else events.c.id
    with store.read() as conn:
        rows = conn.execute(select(events).where(*where).order_by(order).limit(limit)).mappings()
        return [Event(**row) for row in rows]


def _exposure(row: Any, cameras: dict[str, Camera]) -> Exposure:
    missing = decode_camword(row["missing"]) if row["missing"] else ()
    for camera in missing:
        cameras.setdefault(camera, Camera(camera, "missing", reason="promised by the header, not in the file"))
    text: dict[str, Any] = {key: row[key] or "" for key in ("reason", "flavor", "program", "instrument", "path")}
    plain = ("night", "expid", "state", "version", "tileid", "exptime", "mjd", "airmass", "seeing")
    times = ("seen_utc", "ready_utc", "done_utc")
    ordered = dict(sorted(cameras.items(), key=lambda item: camera_order(item[0])))
    return Exposure(**{key: row[key] for key in (*plain, *times)}, **text, cameras=ordered)


def camera_order(camera: str) -> tuple[str, int, str]:
    """Sorts cameras arm by arm, then by spectrograph: b0 ... b9, r0 ..."""
    return camera[:1], int(camera[1:]) if camera[1:].isdigit() else -1, camera


def _finding(expid: int, camera: str, name: str, check: dict[str, Any], time_utc: float) -> Finding:
    normal = check.get("normal")
    return Finding(
        expid=expid,
        camera=camera,
        result=name,
        metric=check["metric"],
        element=check["element"],
        severity=check["severity"],
        measured=check["measured"],
        normal=None if normal is None else (normal[0], normal[1]),
        unit=check.get("unit") or "",
        why=check.get("why") or "",
        time_utc=time_utc,
    )
