"""What past exposures gave: the values that reference ranges are learned from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sqlalchemy import and_, select

from qlstream.pipeline.learning import PastValue
from qlstream.pipeline.result import QASeverity
from qlstream.store.database import Store
from qlstream.store.schema import exposures, jobs, qa


def past_values(
    store: Store,
    nights: Iterable[int],
    instrument_of: Callable[[str | None], str],
    worst: QASeverity = QASeverity.UNKNOWN,
) -> Iterator[PastValue]:
    """Every judged value of the cameras that were as they should be, night by night.

    A camera counts if it was done and its worst verdict in the exposure is `worst` or better: a camera that alarms
    teaches nothing, not even with its other metrics.

    Parameters
    ----------
    instrument_of : name of the instrument for what INSTRUME says
    worst : NORMAL, UNKNOWN (also cameras of which some value could not be judged) or WARNING
    """
    current = and_(
        exposures.c.night == jobs.c.night, exposures.c.expid == jobs.c.expid, exposures.c.version == jobs.c.version
    )
    columns = (qa.c.per_amp, qa.c.per_class, qa.c.checks, qa.c.expid, qa.c.camera, exposures.c.flavor)
    for night in nights:
        query = (
            select(*columns, exposures.c.program, exposures.c.instrument)
            .join(jobs, jobs.c.id == qa.c.job_id)
            .join(exposures, current)
            .where(qa.c.night == night, jobs.c.state == "done", jobs.c.severity <= int(worst))
            .order_by(qa.c.expid, qa.c.camera)
        )
        with store.read() as conn:
            for row in conn.execute(query).mappings():
                yield from _values(dict(row), night, instrument_of(row["instrument"]))


def _values(row: dict[str, Any], night: int, instrument: str) -> Iterator[PastValue]:
    place = {
        "instrument": instrument,
        "camera": row["camera"],
        "flavor": row["flavor"] or "",
        "program": row["program"] or "",
    }
    for check in row["checks"]:
        if check["measured"] is None:  # NaN
            continue
        metric, element = check["metric"], check["element"]
        there = dict(place)
        if element:
            there["amp" if metric in row["per_amp"] else "class"] = element
        kept = tuple((key, value) for key, value in there.items() if value)
        yield PastValue(metric, kept, night, row["expid"], float(check["measured"]))
