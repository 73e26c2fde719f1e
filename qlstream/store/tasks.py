"""The offline tasks of the store: what there is to do, claims with a lease, and how they ended."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from qlstream.store.database import Store
from qlstream.store.schema import task_inputs, tasks
from qlstream.store.taskstates import (
    BLOCKED,
    DONE,
    FAILED,
    OPEN,
    READY,
    RUNNING,
    WAITING,
    Input,
    ended_since,
    follow,
    judge,
    outdate,
    set_state,
    settle,
)

__all__ = ["BLOCKED", "DONE", "FAILED", "OPEN", "READY", "RUNNING", "WAITING", "Input"]  # seen by who works with tasks

LEASE_S = 20.0  # a task whose worker gave no sign of life for so long is taken over


@dataclass(frozen=True)
class NewTask:
    """A task to be stored.

    Attributes
    ----------
    name, kind : e.g. sky_r3_00000012, sky
    order : place in the chain of kinds; smaller ones come first
    inputs : what it waits for
    done : its outputs are there already
    """

    name: str
    kind: str
    order: int
    night: int
    expid: int | None = None
    camera: str = ""
    inputs: tuple[Input, ...] = ()
    done: bool = False


@dataclass(frozen=True)
class Claim:
    """A task that this process may work on; every later write gives the attempt, which fences off older ones."""

    name: str
    kind: str
    attempt: int


class StaleTask(RuntimeError):
    """Another attempt at this task has taken over."""


def put(store: Store, source: str, new: Sequence[NewTask], looked_utc: float | None = None) -> None:
    """Add tasks, or bring them up to date with what is on disk; the states of running ones are left alone.

    A task whose outputs are there is done; one that had failed, or whose outputs are gone, may run again. What a
    running task waits for may have changed, too: it is made again once that is there.

    Parameters
    ----------
    looked_utc : when it was seen what is on disk; default now. What was ended since keeps its state, too
    """
    with store.write() as conn:
        nights = tasks.c.night.in_({task.night for task in new})
        known = {row.name: row for row in conn.execute(select(tasks).where(nights))}
        now = time.time()
        looked = now if looked_utc is None else looked_utc
        for task in new:
            state = DONE if task.done else WAITING
            row = known.get(task.name)
            values = {"state": state, "reason": "", "ended_utc": now if task.done else None}
            if row is None:
                fixed = {"kind": task.kind, "position": task.order, "night": task.night, "expid": task.expid}
                conn.execute(insert(tasks).values(name=task.name, camera=task.camera, attempt=0, **fixed, **values))
            elif row.state not in (RUNNING, state) and (row.ended_utc or 0.0) <= looked:
                conn.execute(update(tasks).where(tasks.c.name == task.name).values(**values))
            conn.execute(delete(task_inputs).where(task_inputs.c.task == task.name))
            for port, maker, need in task.inputs:
                conn.execute(insert(task_inputs).values(task=task.name, port=port, maker=maker, need=need))
        settle(conn, source, {t.night for t in new})


def claim(
    store: Store,
    source: str,
    nights: Iterable[int] = (),
    knows: Callable[[str, set[Input]], bool] = lambda *_: True,
) -> Claim | None:
    """Take a ready task: of the newest night first, then in the order of the chain, then of time.

    Tasks whose lease has run out belonged to a process that is gone; they are taken over.

    Parameters
    ----------
    nights : those whose tasks are wanted; default all
    knows : whether this process knows a task with these inputs. Another one may have entered more exposures since, and
        a task that is done without them would pass as whole
    """
    if not _is_any_to_claim(store):  # writers, of whom there is one at a time, are not kept waiting for nothing
        return None
    with store.write() as conn:
        now = time.time()
        lost = select(tasks.c.name).where(tasks.c.state == RUNNING, tasks.c.lease_utc < now)
        for name in conn.execute(lost).scalars().all():
            set_state(conn, source, name, READY, "its worker gave no more sign of life")
        query = (
            select(tasks)
            .where(tasks.c.state == READY)
            .order_by(tasks.c.night.desc(), tasks.c.position, tasks.c.expid, tasks.c.camera, tasks.c.name)
        )
        if chosen := tuple(nights):
            query = query.where(tasks.c.night.in_(chosen))
        ready = conn.execute(query).mappings().all()
        row = next((row for row in ready if knows(row["name"], _inputs_of(conn, row["name"]))), None)
        if row is None:
            return None
        attempt = row["attempt"] + 1
        conn.execute(
            update(tasks)
            .where(tasks.c.name == row["name"])
            .values(attempt=attempt, started_utc=now, ended_utc=None, lease_utc=now + LEASE_S)
        )
        set_state(conn, source, row["name"], RUNNING)
        return Claim(row["name"], row["kind"], attempt)


def renew(store: Store, claimed: Claim) -> None:
    """Sign of life of the process that works on the task.

    Raises
    ------
    StaleTask : another attempt has taken over
    """
    with store.write() as conn:
        _require_current(conn, claimed)
        conn.execute(update(tasks).where(tasks.c.name == claimed.name).values(lease_utc=time.time() + LEASE_S))


def close(conn: Connection, source: str, claimed: Claim, state: str, reason: str = "", **cost: float) -> None:
    """End a task as done or failed, or make it ready again; then settle what waits for it.

    Parameters
    ----------
    cost : cpu_s, peak_mb

    Raises
    ------
    StaleTask : another attempt has taken over
    """
    row = _require_current(conn, claimed)
    conn.execute(
        update(tasks).where(tasks.c.name == claimed.name).values(ended_utc=time.time(), lease_utc=None, **cost)
    )
    set_state(conn, source, claimed.name, state, reason)
    outdated = outdate(conn, source, claimed.name) if state == DONE else set()
    if state == DONE and (newer := ended_since(conn, claimed.name, row["started_utc"])):
        set_state(conn, source, claimed.name, WAITING, f"{newer} is newer")
        judge(conn, source, tasks.c.name == claimed.name)
    follow(conn, source, {claimed.name, *outdated})


def retry(store: Store, source: str, name: str) -> None:
    """Let a failed task run again, and what was blocked by it wait for it.

    Raises
    ------
    LookupError : there is no such task
    """
    with store.write() as conn:
        row = conn.execute(select(tasks.c.night).where(tasks.c.name == name)).one_or_none()
        if row is None:
            raise LookupError(f"no task {name!r}")
        set_state(conn, source, name, WAITING, "run again on request")
        settle(conn, source, {row.night})


def release(store: Store, source: str, claims: Iterable[Claim]) -> None:
    """Give back tasks that were stopped on purpose."""
    with store.write() as conn:
        for claimed in claims:
            with suppress(StaleTask):  # it ended, or was taken over
                _require_current(conn, claimed)
                set_state(conn, source, claimed.name, READY, "given back at shutdown")


def are_running(store: Store, nights: Iterable[int]) -> bool:
    """Whether any task of these nights runs, here or elsewhere, as far as is known."""
    query = select(tasks.c.name).where(tasks.c.state == RUNNING, tasks.c.night.in_(tuple(nights))).limit(1)
    with store.read() as conn:
        return conn.execute(query).first() is not None


def states(store: Store, night: int | None = None) -> dict[str, Counter[str]]:
    """Kind -> how many tasks are in each state."""
    position = func.min(tasks.c.position)
    query = select(tasks.c.kind, tasks.c.state, func.count()).group_by(tasks.c.kind, tasks.c.state).order_by(position)
    if night is not None:
        query = query.where(tasks.c.night == night)
    table: dict[str, Counter[str]] = defaultdict(Counter)
    with store.read() as conn:
        for kind, state, count in conn.execute(query):
            table[kind][state] = count
    return dict(table)


def costs(store: Store, night: int) -> dict[str, tuple[float, float]]:
    """Kind -> CPU time of all its tasks [s], and the largest memory of one [MB]; 0 where nothing is known."""
    columns = (tasks.c.kind, func.sum(tasks.c.cpu_s), func.max(tasks.c.peak_mb))
    with store.read() as conn:
        rows = conn.execute(select(*columns).where(tasks.c.night == night).group_by(tasks.c.kind))
        return {kind: (cpu or 0.0, peak or 0.0) for kind, cpu, peak in rows}


def of_state(store: Store, state: str, night: int | None = None) -> list[Mapping[str, Any]]:
    """Rows of all tasks in one state."""
    query = select(tasks).where(tasks.c.state == state).order_by(tasks.c.position, tasks.c.name)
    if night is not None:
        query = query.where(tasks.c.night == night)
    with store.read() as conn:
        return [dict(row) for row in conn.execute(query).mappings()]


def states_of(store: Store, names: Iterable[str]) -> dict[str, str]:
    """Name -> state."""
    with store.read() as conn:
        rows = conn.execute(select(tasks.c.name, tasks.c.state).where(tasks.c.name.in_(tuple(names))))
        return {row.name: row.state for row in rows}


def _is_any_to_claim(store: Store) -> bool:
    lost = (tasks.c.state == RUNNING) & (tasks.c.lease_utc < time.time())
    with store.read() as conn:
        return conn.execute(select(tasks.c.name).where((tasks.c.state == READY) | lost).limit(1)).first() is not None


def _inputs_of(conn: Connection, name: str) -> set[Input]:
    rows = conn.execute(select(task_inputs).where(task_inputs.c.task == name))
    return {(row.port, row.maker, row.need) for row in rows}


def _require_current(conn: Connection, claimed: Claim) -> Any:
    row = conn.execute(select(tasks).where(tasks.c.name == claimed.name)).mappings().one_or_none()
    if row is None or row["attempt"] != claimed.attempt or row["state"] != RUNNING:
        raise StaleTask(f"attempt {claimed.attempt} of {claimed.name} is no longer the current one")
    return row
