"""The state of each exposure: from the first sight of its file to the end of its last camera."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from qlstream.io.camword import create_camword
from qlstream.store.events import append, shortened
from qlstream.store.schema import exposures, jobs

UNFINISHED = ("ready", "running")


@dataclass(frozen=True)
class Facts:
    """What the header of a complete exposure tells.

    Attributes
    ----------
    flavor : zero, dark, arc, flat or science
    exptime : [second]
    seeing : [arcsec]
    cameras : in the file
    missing : promised by the header but not in the file
    fibermap : its file, if it has one
    """

    flavor: str
    obstype: str
    mjd: float
    cameras: tuple[str, ...]
    missing: tuple[str, ...] = ()
    program: str = ""
    tileid: int | None = None
    exptime: float | None = None
    airmass: float | None = None
    seeing: float | None = None
    instrument: str | None = None
    fibermap: Path | None = None


def find(conn: Connection, night: int, expid: int) -> RowMapping | None:
    """The row of an exposure."""
    query = select(exposures).where(exposures.c.night == night, exposures.c.expid == expid)
    return conn.execute(query).mappings().one_or_none()


def see(conn: Connection, source: str, night: int, expid: int, path: Path, stamp: str, reason: str) -> None:
    """Note that a file is there, for the first time or changed; `stamp` is its size and mtime."""
    now = time.time()
    if find(conn, night, expid) is None:
        conn.execute(
            insert(exposures).values(
                night=night,
                expid=expid,
                version=1,
                path=str(path),
                identity="",
                stamp=stamp,
                state="seen",
                reason=reason,
                seen_utc=now,
            )
        )
    else:
        _set(conn, night, expid, path=str(path), stamp=stamp, state="seen", reason=reason, seen_utc=now)
    append(conn, "exposure.seen", source, night, expid, payload={"path": str(path), "stamp": stamp, "reason": reason})


def see_again(conn: Connection, source: str, night: int, expid: int, path: Path, stamp: str, reason: str) -> None:
    """Note that a file arrived again with the content that was processed already: no run follows."""
    row = find(conn, night, expid)
    if row is None:
        raise LookupError(f"exposure {expid} of {night} was never seen; call see() first")
    state = "ready" if row["done_utc"] is None else "done"
    _set(conn, night, expid, path=str(path), stamp=stamp, state=state, reason="")
    payload = {"path": str(path), "stamp": stamp, "reason": reason, "again": True}
    append(conn, "exposure.seen", source, night, expid, payload=payload)
    refresh_state(conn, source, night, expid)  # its cameras may have ended while the file was looked at


def wait(conn: Connection, source: str, night: int, expid: int, stamp: str, reason: str) -> None:
    """Note why a file is not processed yet."""
    _set(conn, night, expid, stamp=stamp, state="waiting", reason=reason)
    append(conn, "exposure.waiting", source, night, expid, payload={"reason": shortened(reason)})


def mark_incomplete(conn: Connection, source: str, night: int, expid: int, stamp: str, reason: str) -> None:
    """Give up waiting for the rest of a file; a change of the file opens it again."""
    _set(conn, night, expid, stamp=stamp, state="incomplete", reason=reason)
    append(conn, "exposure.incomplete", source, night, expid, payload={"reason": shortened(reason)})


def mark_failed(conn: Connection, source: str, night: int, expid: int, stamp: str, reason: str) -> None:
    """Note that a file is whole but cannot be used; a change of the file opens it again."""
    _set(conn, night, expid, stamp=stamp, state="failed", reason=reason)
    append(conn, "exposure.failed", source, night, expid, payload={"reason": shortened(reason)})


def open_for_processing(
    conn: Connection,
    source: str,
    night: int,
    expid: int,
    path: Path,
    facts: Facts,
    identity: str,
    stamp: str,
    reason: str = "",
) -> int:
    """Make one ready job per camera and return the version that they belong to.

    A content (`identity`) other than that of the last version makes a new one; the older version's unfinished
    jobs are superseded, its results stay in the history.
    """
    row = find(conn, night, expid)
    if row is None:
        raise LookupError(f"exposure {expid} of {night} was never seen; call see() first")
    version = row["version"] + (1 if row["identity"] not in ("", identity) else 0)
    now = time.time()
    conn.execute(
        update(jobs)
        .where(jobs.c.night == night, jobs.c.expid == expid, jobs.c.version < version, jobs.c.state.in_(UNFINISHED))
        .values(state="superseded", ended_utc=now, reason=f"the file changed; version {version} takes its place")
    )
    cameras = {
        "cameras": create_camword(list(facts.cameras)),
        "missing": create_camword(list(facts.missing)) if facts.missing else None,
    }
    _set(
        conn,
        night,
        expid,
        version=version,
        path=str(path),
        identity=identity,
        stamp=stamp,
        state="ready",
        reason=reason,
        flavor=facts.flavor,
        obstype=facts.obstype,
        program=facts.program,
        tileid=facts.tileid,
        exptime=facts.exptime,
        mjd=facts.mjd,
        airmass=facts.airmass,
        seeing=facts.seeing,
        instrument=facts.instrument,
        fibermap=str(facts.fibermap) if facts.fibermap else None,
        severity=None,
        ready_utc=now,
        done_utc=None,
        **cameras,
    )
    _insert_jobs(conn, night, expid, version, facts, now)
    payload: dict[str, Any] = {"version": version, "flavor": facts.flavor, "reason": reason, **cameras}
    append(conn, "exposure.ready", source, night, expid, payload=payload)
    return version


def refresh_state(conn: Connection, source: str, night: int, expid: int) -> None:
    """Bring the exposure up to date with its jobs.

    Call it in the transaction that changed a job. The worst severity of the cameras becomes that of the exposure
    (event verdict.changed if it differs); once no camera is left the exposure is done (event exposure.done).
    """
    row = find(conn, night, expid)
    if row is None:
        return
    current = conn.execute(select(jobs.c.state, jobs.c.severity).where(*_current_jobs(row))).all()
    severity = max((s for _, s in current if s is not None), default=None)
    if severity != row["severity"]:
        _set(conn, night, expid, severity=severity)
        payload = {"severity": severity, "before": row["severity"]}
        append(conn, "verdict.changed", source, night, expid, payload=payload)
    states = [state for state, _ in current]
    if row["state"] == "ready" and not any(state in UNFINISHED for state in states):
        _set(conn, night, expid, state="done", done_utc=time.time())
        payload = {
            "version": row["version"],
            "severity": severity,
            "done": states.count("done"),
            "failed": states.count("failed"),
        }
        append(conn, "exposure.done", source, night, expid, payload=payload)


def unsettled(conn: Connection) -> list[RowMapping]:
    """Exposures of any night whose file has to be looked at again: seen or waiting."""
    return list(conn.execute(select(exposures).where(exposures.c.state.in_(("seen", "waiting")))).mappings())


def _current_jobs(row: RowMapping) -> tuple[Any, ...]:
    return (jobs.c.night == row["night"], jobs.c.expid == row["expid"], jobs.c.version == row["version"])


def _insert_jobs(conn: Connection, night: int, expid: int, version: int, facts: Facts, now: float) -> None:
    have = set(
        conn.execute(
            select(jobs.c.camera).where(jobs.c.night == night, jobs.c.expid == expid, jobs.c.version == version)
        ).scalars()
    )
    rows = [
        {
            "night": night,
            "expid": expid,
            "camera": camera,
            "version": version,
            "flavor": facts.flavor,
            "mjd": facts.mjd,
            "state": "ready",
            "ready_utc": now,
        }
        for camera in facts.cameras
        if camera not in have
    ]
    if rows:
        conn.execute(insert(jobs), rows)


def _set(conn: Connection, night: int, expid: int, **values: Any) -> None:
    where = (exposures.c.night == night, exposures.c.expid == expid)
    conn.execute(update(exposures).where(*where).values(**values))
