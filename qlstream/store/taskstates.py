"""States of offline tasks, and what follows for others when one changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from sqlalchemy import ColumnElement, Connection, select, update

from qlstream.store.events import append, shortened
from qlstream.store.schema import task_inputs, tasks

WAITING, READY, RUNNING, DONE, FAILED, BLOCKED = "waiting", "ready", "running", "done", "failed", "blocked"
OPEN = (WAITING, READY, RUNNING)
Input = tuple[str, str, str]  # port, name of the task that makes it, need (all, any or prefer)


def outdate(conn: Connection, source: str, maker: str) -> set[str]:
    """What was made without this task's outputs, or with older ones, is to be made again; the names of it."""
    takers = select(task_inputs.c.task).where(task_inputs.c.maker == maker)
    query = select(tasks.c.name).where(tasks.c.name.in_(takers), tasks.c.state == DONE)
    outdated = set(conn.execute(query).scalars())
    for name in sorted(outdated):
        set_state(conn, source, name, WAITING, f"{maker} is newer")
    return outdated


def ended_since(conn: Connection, taker: str, utc: float) -> str | None:
    """One of the tasks that make the taker's inputs, if it was done only after the taker began."""
    makers = select(task_inputs.c.maker).where(task_inputs.c.task == taker)
    query = select(tasks.c.name).where(tasks.c.name.in_(makers), tasks.c.state == DONE, tasks.c.ended_utc > utc)
    return conn.execute(query.limit(1)).scalar()


def settle(conn: Connection, source: str, nights: set[int]) -> None:
    """Every task of these nights that waits becomes ready or blocked, or waits again, as what it waits for ended."""
    judge(conn, source, tasks.c.night.in_(tuple(nights)))


def follow(conn: Connection, source: str, ended: set[str]) -> None:
    """The same for what waits for tasks that ended, and for what waits for those in turn."""
    while ended:
        takers = select(task_inputs.c.task).where(task_inputs.c.maker.in_(ended))
        ended = judge(conn, source, tasks.c.name.in_(takers))


def judge(conn: Connection, source: str, chosen: ColumnElement[bool]) -> set[str]:
    """Set the state of the chosen tasks by what they wait for; names of those whose state is another now.

    One pass in the order of the chain is enough, since a task waits for earlier kinds only.
    """
    waiting = chosen & tasks.c.state.in_((WAITING, READY, BLOCKED))
    rows = list(conn.execute(select(tasks.c.name, tasks.c.state).where(waiting).order_by(tasks.c.position)))
    state: dict[str, str] = {}
    inputs: dict[str, list[Input]] = defaultdict(list)
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
            set_state(conn, source, name, new, reason)
            state[name] = new
            changed.add(name)
    return changed


def _verdict(inputs: list[Input], state: Mapping[str, str]) -> tuple[str, str]:
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


def set_state(conn: Connection, source: str, name: str, state: str, reason: str = "") -> None:
    conn.execute(update(tasks).where(tasks.c.name == name).values(state=state, reason=reason))
    row = conn.execute(select(tasks).where(tasks.c.name == name)).mappings().one()
    payload = {"task": name, "kind": row["kind"], "state": state, "reason": shortened(reason)}
    append(conn, "task.state", source, row["night"], row["expid"], row["camera"] or None, row["attempt"], payload)
