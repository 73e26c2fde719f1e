"""What pages and `qlstream status` read: plain dictionaries of the present state, current versions only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from sqlalchemy import Select, and_, case, func, select

from qlstream.store.database import Store
from qlstream.store.schema import calibrations, exposures, jobs, products, qa, stages, tasks
from qlstream.store.vectors import read_vectors

Row = dict[str, Any]

_current = and_(
    exposures.c.night == jobs.c.night, exposures.c.expid == jobs.c.expid, exposures.c.version == jobs.c.version
)


def nights(store: Store) -> list[Row]:
    """Every night, newest first: night, exposures, done, failed (or incomplete), severity, newest (last ready_utc).

    Nights that were reduced offline alone have no exposures here.
    """
    e = exposures.c
    query = (
        select(
            e.night,
            func.count().label("exposures"),
            func.sum(case((e.state == "done", 1), else_=0)).label("done"),
            func.sum(case((e.state.in_(("failed", "incomplete")), 1), else_=0)).label("failed"),
            func.max(e.severity).label("severity"),
            func.max(e.ready_utc).label("newest"),
        )
        .group_by(e.night)
        .order_by(e.night.desc())
    )
    found = _rows(store, query)
    seen = {row["night"] for row in found}
    with store.read() as conn:
        reduced = [night for night in conn.execute(select(tasks.c.night).distinct()).scalars() if night not in seen]
    nothing = {"exposures": 0, "done": 0, "failed": 0, "severity": None, "newest": None}
    return sorted([*found, *({"night": night, **nothing} for night in reduced)], key=lambda row: -row["night"])


def exposures_of(store: Store, night: int) -> list[Row]:
    """The exposures of a night in the order they were taken; columns of the table `exposures`."""
    e = exposures.c
    return _rows(store, select(exposures).where(e.night == night).order_by(e.mjd.is_(None), e.mjd, e.expid))


def exposure(store: Store, night: int, expid: int) -> Row | None:
    """One exposure, or None."""
    found = _rows(store, select(exposures).where(exposures.c.night == night, exposures.c.expid == expid))
    return found[0] if found else None


def jobs_of(store: Store, night: int, expid: int | None = None) -> list[Row]:
    """The cameras of a night or of one exposure; columns of the table `jobs`."""
    query = select(jobs).join(exposures, _current).where(jobs.c.night == night)
    if expid is not None:
        query = query.where(jobs.c.expid == expid)
    return _rows(store, query.order_by(jobs.c.mjd, jobs.c.expid, jobs.c.camera))


def qa_of(store: Store, night: int, expid: int, camera: str | None = None) -> list[Row]:
    """The results of an exposure or of one camera, in the order they came; columns of the table `qa`."""
    query = _of_jobs(qa, night, expid, camera)
    return _rows(store, query.order_by(jobs.c.camera, qa.c.time_utc))


def checks_worse_than(store: Store, night: int, severity: int) -> list[Row]:
    """Every check of a night with a severity above `severity`, worst first, then newest first.

    Each is a check (metric, element, severity, measured, normal, warn, unit, rule, why) with its expid, camera, name
    (of the metric class), stage and time_utc.
    """
    query = (
        select(qa)
        .join(jobs, jobs.c.id == qa.c.job_id)
        .join(exposures, _current)
        .where(qa.c.night == night, qa.c.severity > severity)
    )
    found = [
        {**check, **{key: row[key] for key in ("night", "expid", "camera", "name", "stage", "time_utc")}}
        for row in _rows(store, query)
        for check in row["checks"]
        if check["severity"] > severity
    ]
    return sorted(found, key=lambda check: (-check["severity"], -check["time_utc"], check["camera"]))


def stage_costs(store: Store, night: int, expid: int | None = None, camera: str | None = None) -> list[Row]:
    """What each stage took, camera by camera in the order of the plan; table `stages` with expid and camera."""
    query = _of_jobs(stages, night, expid, camera)
    return _rows(store, query.order_by(jobs.c.mjd, jobs.c.camera, stages.c.position))


def products_of(store: Store, night: int, expid: int, camera: str | None = None) -> list[Row]:
    """The files made from an exposure; table `products` with expid and camera."""
    return _rows(store, _of_jobs(products, night, expid, camera).order_by(jobs.c.camera, products.c.kind))


def calibrations_of(store: Store, night: int, expid: int, camera: str | None = None) -> list[Row]:
    """The calibrations that served an exposure; table `calibrations` with expid and camera."""
    return _rows(store, _of_jobs(calibrations, night, expid, camera).order_by(jobs.c.camera, calibrations.c.kind))


def vectors(store: Store, path: str | Path) -> dict[str, dict[str, NDArray[Any]]]:
    """The arrays that a row of `qa` points to: {"per_fiber": {key: array}, "vectors": {key: array}}."""
    return read_vectors(store.redux / path)


def history(
    store: Store, name: str, metric: str, camera: str, limit: int = 100, flavor: str | None = None
) -> list[Row]:
    """A metric of one camera over past exposures, oldest first.

    Parameters
    ----------
    name, metric : metric class and key, e.g. "Get_RMS", "NOISE_AMP"
    limit : the newest so many exposures
    flavor : only exposures of this kind

    Returns
    -------
    rows with night, expid, mjd, flavor, program, severity and value (a number, or {amplifier or class: number})
    """
    query = (
        select(qa, exposures.c.mjd, exposures.c.flavor, exposures.c.program)
        .join(jobs, jobs.c.id == qa.c.job_id)
        .join(exposures, _current)
        .where(qa.c.name == name, qa.c.camera == camera)
        .order_by(exposures.c.mjd.desc())
        .limit(limit)
    )
    if flavor is not None:
        query = query.where(exposures.c.flavor == flavor)
    found = []
    for row in _rows(store, query):
        for group in ("metrics", "per_amp", "per_class"):
            if metric in row[group]:
                keys = ("night", "expid", "mjd", "flavor", "program", "severity")
                found.append({**{key: row[key] for key in keys}, "value": row[group][metric]})
                break
    return found[::-1]


def _of_jobs(table: Any, night: int, expid: int | None, camera: str | None) -> Select[Any]:
    """Rows of `table` that belong to current jobs, with expid and camera."""
    columns = [c for c in table.c if c.name not in ("night", "expid", "camera")]
    query = (
        select(*columns, jobs.c.night, jobs.c.expid, jobs.c.camera)
        .join(jobs, jobs.c.id == table.c.job_id)
        .join(exposures, _current)
        .where(jobs.c.night == night)
    )
    if expid is not None:
        query = query.where(jobs.c.expid == expid)
    if camera is not None:
        query = query.where(jobs.c.camera == camera)
    return query


def _rows(store: Store, query: Select[Any]) -> list[Row]:
    with store.read() as conn:
        return [dict(row) for row in conn.execute(query).mappings()]
