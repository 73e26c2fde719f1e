"""The offline tasks of the store: states, claims with a lease, and what follows from the end of a task."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from qlstream.store.database import Store
from qlstream.store.events import append, shortened
from qlstream.store.schema import task_inputs, tasks

WAITING, READY, RUNNING, DONE, FAILED, BLOCKED = "waiting", "ready", "running", "done", "failed", "blocked"
OPEN = (WAITING, READY, RUNNING)
LEASE_S = 20.0  # a task whose worker gave no sign of life for so long is taken over


@dataclass(frozen=True)
class NewTask:
    """A task to be stored.

    Attributes
    ----------
    name, kind : e.g. sky_r3_00000012, sky
    order : place in the chain of kinds; smaller ones come first
    inputs : (port, name of the task that makes it, need); need is all, any or prefer
    done : its outputs are there already
    """

    name: str
    kind: str
    order: int
    night: int
    expid: int | None = None
    camera: str = ""
    inputs: tuple[tuple[str, str, str], ...] = ()
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
    """Add tasks, or bring them up to date with what is on disk; running ones are left alone.

    A task whose outputs are there is done; one that had failed, or whose outputs are gone, may run again.

    Parameters
    ----------
    looked_utc : when it was seen what is on disk; default now. What another process has ended since is left alone too
    """
    with store.write() as conn:
        nights = tasks.c.night.in_({task.night for task in new})
        known = {row.name: row for row in conn.execute(select(tasks).where(nights))}
        now = time.time()
        looked = now if looked_utc is None else looked_utc
        for task in new:
            state = DONE if task.done else WAITING
            row = known.get(task.name)
            if row is not None and (row.state == RUNNING or (row.ended_utc or 0.0) > looked):
                continue
            values = {"state": state, "reason": "", "ended_utc": now if task.done else None}
            if row is None:
                fixed = {"kind": task.kind, "position": task.order, "night": task.night, "expid": task.expid}
                conn.execute(insert(tasks).values(name=task.name, camera=task.camera, attempt=0, **fixed, **values))
            else:
                conn.execute(update(tasks).where(tasks.c.name == task.name).values(**values))
            conn.execute(delete(task_inputs).where(task_inputs.c.task == task.name))
            for port, maker, need in task.inputs:
                conn.execute(insert(task_inputs).values(task=task.name, port=port, maker=maker, need=need))
        _settle(conn, source, {t.night for t in new})


def claim(store: Store, source: str, nights: Iterable[int] = ()) -> Claim | None:
    """Take a ready task: of the newest night first, then in the order of the chain, then of time.

    Tasks whose lease has run out belonged to a process that is gone; they are taken over.
    """
    with store.write() as conn:
        now = time.time()
        lost = select(tasks.c.name).where(tasks.c.state == RUNNING, tasks.c.lease_utc < now)
        for name in conn.execute(lost).scalars().all():
            _set(conn, source, name, READY, "its worker gave no more sign of life")
        query = (
            select(tasks)
            .where(tasks.c.state == READY)
            .order_by(tasks.c.night.desc(), tasks.c.position, tasks.c.expid, tasks.c.camera, tasks.c.name)
            .limit(1)
        )
        if chosen := tuple(nights):
            query = query.where(tasks.c.night.in_(chosen))
        row = conn.execute(query).mappings().one_or_none()
        if row is None:
            return None
        attempt = row["attempt"] + 1
        conn.execute(
            update(tasks)
            .where(tasks.c.name == row["name"])
            .values(attempt=attempt, started_utc=now, ended_utc=None, lease_utc=now + LEASE_S)
        )
        _set(conn, source, row["name"], RUNNING)
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
    _require_current(conn, claimed)
    conn.execute(
        update(tasks).where(tasks.c.name == claimed.name).values(ended_utc=time.time(), lease_utc=None, **cost)
    )
    _set(conn, source, claimed.name, state, reason)
    outdated = _outdate(conn, source, claimed.name) if state == DONE else set()
    _follow(conn, source, {claimed.name, *outdated})


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
        _set(conn, source, name, WAITING, "run again on request")
        _settle(conn, source, {row.night})


def release(store: Store, source: str, claims: Iterable[Claim]) -> None:
    """Give back tasks that were stopped on purpose."""
    with store.write() as conn:
        for claimed in claims:
            row = conn.execute(select(tasks.c.attempt).where(tasks.c.name == claimed.name)).one_or_none()
            if row is not None and row.attempt == claimed.attempt:
                _set(conn, source, claimed.name, READY, "given back at shutdown")


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


def _require_current(conn: Connection, claimed: Claim) -> Any:
    row = conn.execute(select(tasks).where(tasks.c.name == claimed.name)).mappings().one_or_none()
    if row is None or row["attempt"] != claimed.attempt or row["state"] != RUNNING:
        raise StaleTask(f"attempt {claimed.attempt} of {claimed.name} is no longer the current one")
    return row


def _outdate(conn: Connection, source: str, maker: str) -> set[str]:
    """What was made without this task's outputs, or with older ones, is to be made again; the names of it."""
    takers = select(task_inputs.c.task).where(task_inputs.c.maker == maker)
    query = select(tasks.c.name).where(tasks.c.name.in_(takers), tasks.c.state == DONE)
    outdated = set(conn.execute(query).scalars())
    for name in sorted(outdated):
        _set(conn, source, name, WAITING, f"{maker} is newer")
    return outdated


def _settle(conn: Connection, source: str, nights: set[int]) -> None:
    """Every task of these nights that waits becomes ready or blocked, or waits again, as what it waits for ended."""
    _judge(conn, source, tasks.c.night.in_(tuple(nights)))


def _follow(conn: Connection, source: str, ended: set[str]) -> None:
    """The same for what waits for tasks that ended, and for what waits for those in turn."""
    while ended:
        takers = select(task_inputs.c.task).where(task_inputs.c.maker.in_(ended))
        ended = _judge(conn, source, tasks.c.name.in_(takers))


def _judge(conn: Connection, source: str, chosen: ColumnElement[bool]) -> set[str]:
    """Set the state of the chosen tasks by what they wait for; names of those whose state is another now.

    One pass in the order of the chain is enough, since a task waits for earlier kinds only.
    """
    waiting = chosen & tasks.c.state.in_((WAITING, READY, BLOCKED))
    rows = list(conn.execute(select(tasks.c.name, tasks.c.state).where(waiting).order_by(tasks.c.position)))
    state: dict[str, str] = {}
    inputs: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    maker = tasks.alias("maker")
    wanted = (
        select(task_inputs, maker.c.state)
        .join(tasks, tasks.c.name == task_inputs.c.task)
        .outerjoin(maker, maker.c.name == task_inputs.c.maker)
        .where(waiting)
    )
    for row in conn.execute(wanted):
        inputs[row.task].append((row.port, row.maker, row.need))
        if row.state is not None:
            state[row.maker] = row.state
    changed = set()
    for name, before in rows:
        new, reason = _verdict(inputs[name], state)
        if new != before:
            _set(conn, source, name, new, reason)
            state[name] = new
            changed.add(name)
    return changed


def _verdict(inputs: list[tuple[str, str, str]], state: Mapping[str, str]) -> tuple[str, str]:
    ports: dict[str, list[str]] = defaultdict(list)
    need: dict[str, str] = {}
    for port, maker, how in inputs:
        ports[port].append(maker)
        need[port] = how
    waits = False
    for port, makers in ports.items():
        ends = [state.get(m, DONE) for m in makers]
        bad = [m for m, end in zip(makers, ends, strict=True) if end in (FAILED, BLOCKED)]
        if (need[port] == "all" and bad) or (need[port] == "any" and len(bad) == len(makers)):
            return BLOCKED, f"needs {', '.join(bad[:3])}, which {'was' if len(bad) == 1 else 'were'} not made"
        waits |= any(end in OPEN for end in ends)
    return (WAITING, "") if waits else (READY, "")


def _set(conn: Connection, source: str, name: str, state: str, reason: str = "") -> None:
    conn.execute(update(tasks).where(tasks.c.name == name).values(state=state, reason=reason))
    row = conn.execute(select(tasks).where(tasks.c.name == name)).mappings().one()
    payload = {"task": name, "kind": row["kind"], "state": state, "reason": shortened(reason)}
    append(conn, "task.state", source, row["night"], row["expid"], row["camera"] or None, row["attempt"], payload)
