"""The event log: what happened, in the order in which it was committed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import Connection, func, insert, select

from qlstream.pipeline.result import plain
from qlstream.store.database import Store
from qlstream.store.schema import events

MAX_PAYLOAD = 8192  # bytes of JSON; larger things belong into tables or files

KINDS = frozenset(
    (
        "exposure.seen",
        "exposure.waiting",
        "exposure.ready",
        "exposure.done",
        "exposure.incomplete",
        "exposure.failed",
        "camera.started",
        "camera.done",
        "camera.failed",
        "stage.started",
        "stage.done",
        "stage.skipped",
        "qa.result",
        "verdict.changed",
        "calibration.used",
        "task.state",
    )
)
FAMILIES = ("alert.", "note.", "service.")  # kinds whose second word is free


@dataclass(frozen=True)
class Event:
    """One line of the log.

    Attributes
    ----------
    id : grows with every commit; may skip
    time_utc : seconds since 1970-01-01 UTC, by the writer's clock
    source : who tells: ingest, engine, worker-1234 ...
    kind : one of KINDS, or of a family: alert.*, note.*, service.*
    """

    id: int
    time_utc: float
    source: str
    kind: str
    night: int | None = None
    expid: int | None = None
    camera: str | None = None
    attempt: int | None = None
    payload: dict[str, Any] = field(default_factory=dict)


def append(
    conn: Connection,
    kind: str,
    source: str,
    night: int | None = None,
    expid: int | None = None,
    camera: str | None = None,
    attempt: int | None = None,
    payload: Mapping[str, Any] | None = None,
) -> int:
    """Add an event to the transaction `conn` of `Store.write` and return its id.

    Raises
    ------
    ValueError : the kind is not in the list, or the payload is larger than 8 kB
    """
    if kind not in KINDS and not any(kind.startswith(f) and len(kind) > len(f) for f in FAMILIES):
        raise ValueError(f"event kind {kind!r} is none of {', '.join(sorted(KINDS))}, alert.*, note.*, service.*")
    content = plain(payload or {})
    size = len(orjson.dumps(content))
    if size > MAX_PAYLOAD:
        raise ValueError(f"payload of {kind} is {size} bytes, at most {MAX_PAYLOAD} fit; put it into a table or a file")
    values = {
        "time_utc": time.time(),
        "source": source,
        "kind": kind,
        "night": night,
        "expid": expid,
        "camera": camera,
        "attempt": attempt,
        "payload": content,
    }
    event_id = int(conn.execute(insert(events).values(**values).returning(events.c.id)).scalar_one())
    conn.info["last_event_id"] = event_id
    return event_id


def shortened(text: str, limit: int = 1500) -> str:
    """`text` such that it fits into a payload; the tables keep all of it."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def events_after(store: Store, last_id: int, limit: int = 1000) -> list[Event]:
    """The events with id > `last_id`, oldest first, at most `limit`."""
    query = select(events).where(events.c.id > last_id).order_by(events.c.id).limit(limit)
    with store.read() as conn:
        return [Event(**row) for row in conn.execute(query).mappings()]


def last_event_id(store: Store) -> int:
    """The id of the newest event; 0 if there is none."""
    with store.read() as conn:
        return int(conn.execute(select(func.max(events.c.id))).scalar() or 0)
