"""The scan of whole nights: finds what no event told of. The second source of truth."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from qlstream.ingest.fibermaps import exposure_stamp
from qlstream.ingest.names import Place, nights_in, places_in
from qlstream.store.database import Store
from qlstream.store.exposures import unsettled
from qlstream.store.schema import exposures


def newest_nights(raw: Path, count: int, only: tuple[int, ...] = ()) -> list[int]:
    """The nights to watch, newest first: just `only` if it is not empty."""
    nights = [night for night in nights_in(raw) if not only or night in only]
    return nights if only else nights[:count]


def scan(store: Store, raw: Path, redux: Path, nights: list[int]) -> list[Place]:
    """Exposures of these nights whose files differ from what the store last saw, and all unsettled ones of any night.

    Raises
    ------
    StoreAway : the store cannot be read now
    """
    columns = (exposures.c.night, exposures.c.expid, exposures.c.stamp, exposures.c.path)
    query = select(*columns).where(exposures.c.night.in_(nights))
    with store.read() as conn:
        known = {Place(row.night, row.expid): (row.stamp, row.path) for row in conn.execute(query)}
        found = {Place(row["night"], row["expid"]) for row in unsettled(conn)}
    for night in nights:
        for place in places_in(raw, night):
            path = place.find(raw)
            if path is None:
                continue
            if known.get(place) != (exposure_stamp(path, raw, redux, place), str(path)):
                found.add(place)
    return sorted(found, reverse=True)
