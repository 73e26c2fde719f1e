"""One job per camera and version: claimed, fenced by its attempt number, closed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, delete, exists, func, or_, select, update

from qlstream.store.database import Store
from qlstream.store.events import append, shortened
from qlstream.store.exposures import UNFINISHED, refresh_state
from qlstream.store.schema import calibrations, exposures, jobs, products, qa, stages


class StaleAttempt(RuntimeError):
    """Another attempt has taken over this job; what this one found is refused."""


@dataclass(frozen=True)
class Policy:
    """What decides which job is next.

    Attributes
    ----------
    calibration_wait_s : how long an exposure waits, from its being ready, for an unfinished calibration taken
        before it in the same night with the same camera [s]
    """

    calibration_wait_s: float = 600.0


@dataclass(frozen=True)
class Job:
    """A claimed job: one camera of one version of an exposure.

    Attributes
    ----------
    attempt : the fence; every write of results gives it
    failures : attempts before this one that a retry followed
    path : the raw file
    fibermap : its fibermap, if one was found
    """

    id: int
    night: int
    expid: int
    camera: str
    version: int
    flavor: str
    mjd: float
    attempt: int
    failures: int
    path: Path
    fibermap: Path | None
    ready_utc: float


def claim_next(store: Store, source: str, policy: Policy) -> Job | None:
    """Take the first ready job by class and time, or None if no job may start now.

    The newest night comes first. In it: calibrations that other ready exposures need, in the order they were taken;
    then the newest exposure; then the others, newest first. Older nights (backlog) follow by the same rule. An
    exposure waits for the arcs and flats of its camera that were taken before it and are still unfinished, a flat for
    the arcs, and both for earlier exposures that are still coming in and may be such, at most
    `policy.calibration_wait_s`. So a replay uses the calibrations that the live night used.

    Raises
    ------
    StoreAway : nothing was claimed
    """
    with store.write() as conn:
        now = time.time()
        nights = select(jobs.c.night).where(jobs.c.state == "ready").distinct().order_by(jobs.c.night.desc())
        for night in conn.execute(nights).scalars().all():
            job_id = conn.execute(_first_of(night, now - policy.calibration_wait_s)).scalar()
            if job_id is not None:
                return _claim(conn, source, job_id, now)
    return None


def is_current(conn: Connection, job_id: int, attempt: int) -> bool:
    """Whether results of this attempt are still wanted."""
    found = conn.execute(select(jobs.c.attempt, jobs.c.state).where(jobs.c.id == job_id)).one_or_none()
    return found is not None and found.attempt == attempt and found.state == "running"


def require_current(conn: Connection, job_id: int, attempt: int) -> None:
    """Raise StaleAttempt unless results of this attempt are still wanted."""
    if not is_current(conn, job_id, attempt):
        raise StaleAttempt(f"attempt {attempt} of job {job_id} is no longer the current one; its results are refused")


def set_worker(store: Store, job: Job, worker: int) -> None:
    """Note which process works on the job."""
    with store.write() as conn:
        require_current(conn, job.id, job.attempt)
        conn.execute(update(jobs).where(jobs.c.id == job.id).values(worker=worker))


def close(
    store: Store,
    source: str,
    job_id: int,
    attempt: int,
    state: str,
    reason: str = "",
    cpu_s: float | None = None,
    peak_mb: float | None = None,
) -> None:
    """End a job as "done" or "failed".

    Raises
    ------
    StaleAttempt : the attempt is no longer the current one
    """
    if state not in ("done", "failed"):
        raise ValueError(f"a job is closed as done or failed, not as {state!r}")
    with store.write() as conn:
        require_current(conn, job_id, attempt)
        now = time.time()
        conn.execute(
            update(jobs)
            .where(jobs.c.id == job_id)
            .values(state=state, reason=reason, ended_utc=now, cpu_s=cpu_s, peak_mb=peak_mb)
        )
        conn.execute(
            update(stages)
            .where(stages.c.job_id == job_id, stages.c.state == "running")
            .values(state="failed", reason=reason)
        )
        row = conn.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one()
        payload = {
            "version": row["version"],
            "severity": row["severity"],
            "reason": shortened(reason),
            "wall_s": now - row["started_utc"],
            "cpu_s": cpu_s,
            "peak_mb": peak_mb,
        }
        append(conn, f"camera.{state}", source, row["night"], row["expid"], row["camera"], attempt, payload)
        refresh_state(conn, source, row["night"], row["expid"])


def retry(store: Store, source: str, job_id: int, attempt: int, reason: str) -> None:
    """Give a job back for another attempt, since its worker died, hung or grew too large.

    Raises
    ------
    StaleAttempt : the attempt is no longer the current one
    """
    with store.write() as conn:
        require_current(conn, job_id, attempt)
        conn.execute(
            update(jobs)
            .where(jobs.c.id == job_id)
            .values(state="ready", reason=reason, failures=jobs.c.failures + 1, worker=None)
        )
        row = conn.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one()
        payload = {"reason": shortened(reason), "failures": row["failures"]}
        append(conn, "note.retry", source, row["night"], row["expid"], row["camera"], attempt, payload)


def give_back(store: Store, source: str, job_id: int, attempt: int) -> None:
    """Make a job ready again that was stopped on purpose; this does not count as a failure.

    Raises
    ------
    StaleAttempt : the attempt is no longer the current one
    """
    with store.write() as conn:
        require_current(conn, job_id, attempt)
        _release(conn, source, [job_id], "given back at shutdown")


def release_orphans(store: Store, source: str) -> int:
    """Make all running jobs ready again and return how many they were.

    For the start of a service: what runs then belongs to one that was killed (one service per store). A worker that
    outlived it is fenced off by the attempt number.
    """
    with store.write() as conn:
        running = conn.execute(select(jobs.c.id).where(jobs.c.state == "running")).scalars().all()
        _release(conn, source, list(running), "its service ended before it was done")
        return len(running)


def reopen(store: Store, source: str, night: int, expid: int, camera: str | None = None, reason: str = "") -> int:
    """Run the cameras of an exposure again on request: all ended ones, or just `camera`; returns how many."""
    with store.write() as conn:
        version = select(exposures.c.version).where(exposures.c.night == night, exposures.c.expid == expid)
        where = [
            jobs.c.night == night,
            jobs.c.expid == expid,
            jobs.c.version == version.scalar_subquery(),
            jobs.c.state.in_(("done", "failed")),
        ]
        if camera is not None:
            where.append(jobs.c.camera == camera)
        again = {"state": "ready", "reason": reason, "failures": 0, "worker": None, "ready_utc": time.time()}
        count = conn.execute(update(jobs).where(*where).values(**again)).rowcount
        if count:
            conn.execute(
                update(exposures)
                .where(exposures.c.night == night, exposures.c.expid == expid)
                .values(state="ready", reason=reason, done_utc=None)
            )
            payload = {"reason": reason or "run again on request", "again": True}
            append(conn, "exposure.ready", source, night, expid, camera, payload=payload)
        return count


def count_by_state(store: Store) -> dict[str, int]:
    """How many jobs of current versions are in each state."""
    query = (
        select(jobs.c.state, func.count())
        .join(exposures, and_(exposures.c.night == jobs.c.night, exposures.c.expid == jobs.c.expid))
        .where(jobs.c.version == exposures.c.version)
        .group_by(jobs.c.state)
    )
    with store.read() as conn:
        return {row[0]: row[1] for row in conn.execute(query)}


def _first_of(night: int, waited_since: float) -> Any:
    """The id of the first job of `night` that may start; jobs ready since before `waited_since` wait no more."""
    earlier, later = jobs.alias("earlier"), jobs.alias("later")
    held = exists().where(
        earlier.c.night == night,
        earlier.c.camera == jobs.c.camera,
        earlier.c.mjd < jobs.c.mjd,
        earlier.c.state.in_(UNFINISHED),
        _is_needed_by(earlier.c.flavor, jobs.c.flavor),
        jobs.c.ready_utc > waited_since,
    )
    coming = exists().where(
        exposures.c.night == night,
        exposures.c.expid < jobs.c.expid,
        exposures.c.state.in_(("seen", "waiting")),
        or_(exposures.c.flavor.is_(None), _is_needed_by(exposures.c.flavor, jobs.c.flavor)),
        jobs.c.flavor.in_(("flat", "science")),
        jobs.c.ready_utc > waited_since,
    )
    needed = exists().where(
        later.c.night == night,
        later.c.camera == jobs.c.camera,
        later.c.mjd > jobs.c.mjd,
        later.c.state == "ready",
        _is_needed_by(jobs.c.flavor, later.c.flavor),
    )
    may_start = (
        select(jobs.c.id, jobs.c.mjd, jobs.c.expid, jobs.c.camera, needed.label("needed"))
        .where(jobs.c.state == "ready", jobs.c.night == night, ~held, ~coming)
        .subquery()
    )
    c = may_start.c
    return (
        select(c.id)
        .order_by(case((c.needed, 0), else_=1), case((c.needed, c.mjd), else_=-c.mjd), c.expid, c.camera)
        .limit(1)
    )


def _is_needed_by(calibration: ColumnElement[Any], flavor: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether exposures of `flavor` use what exposures of flavor `calibration` give: traces of arcs, flats of flats."""
    return or_(
        and_(flavor == "science", calibration.in_(("arc", "flat"))),
        and_(flavor == "flat", calibration == "arc"),
    )


def _claim(conn: Connection, source: str, job_id: int, now: float) -> Job:
    """Start a new attempt; what an earlier one stored goes, so that a job has one set of rows."""
    for table in (stages, qa, products, calibrations):
        conn.execute(delete(table).where(table.c.job_id == job_id))
    conn.execute(
        update(jobs)
        .where(jobs.c.id == job_id)
        .values(
            state="running",
            attempt=jobs.c.attempt + 1,
            reason="",
            severity=None,
            worker=None,
            started_utc=now,
            ended_utc=None,
            cpu_s=None,
            peak_mb=None,
        )
    )
    both = and_(exposures.c.night == jobs.c.night, exposures.c.expid == jobs.c.expid)
    row = (
        conn.execute(
            select(jobs, exposures.c.path, exposures.c.fibermap).join(exposures, both).where(jobs.c.id == job_id)
        )
        .mappings()
        .one()
    )
    payload = {"version": row["version"], "flavor": row["flavor"], "waited_s": now - row["ready_utc"]}
    append(conn, "camera.started", source, row["night"], row["expid"], row["camera"], row["attempt"], payload)
    return Job(
        id=row["id"],
        night=row["night"],
        expid=row["expid"],
        camera=row["camera"],
        version=row["version"],
        flavor=row["flavor"],
        mjd=row["mjd"],
        attempt=row["attempt"],
        failures=row["failures"],
        path=Path(row["path"]),
        fibermap=Path(row["fibermap"]) if row["fibermap"] else None,
        ready_utc=row["ready_utc"],
    )


def _release(conn: Connection, source: str, job_ids: list[int], reason: str) -> None:
    if not job_ids:
        return
    conn.execute(update(jobs).where(jobs.c.id.in_(job_ids)).values(state="ready", reason=reason, worker=None))
    payload = {"jobs": len(job_ids), "reason": reason}
    append(conn, "service.released", source, payload=payload)
