"""The plain addresses beside the pages: JSON of what they show, metrics for Prometheus, health, own static files."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Iterable
from typing import Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from tornado.web import HTTPError, RequestHandler

from dashboards.feed import Feed
from dashboards.queries import read_events
from qlstream.pipeline.result import plain
from qlstream.store import query
from qlstream.store.database import StoreAway

STALE_S = 10.0  # a feed that could not read its store for longer is not healthy
_MAX_ROWS = 5000


class JsonHandler(RequestHandler):
    """Answers with JSON; says in JSON what was wrong with a question."""

    def initialize(self, feed: Feed) -> None:
        self.feed = feed

    def set_default_headers(self) -> None:
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")

    def number(self, name: str, required: bool = False, default: int | None = None) -> int | None:
        """A whole number of the query."""
        text = self.get_query_argument(name, "")
        if not text:
            if required:
                raise HTTPError(400, reason=f"give {name}=NUMBER")
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= 12):
            raise HTTPError(400, reason=f"{name} is a whole number")
        return int(text)

    def answer(self, content: Any, status: int = 200) -> None:
        self.set_status(status)
        self.finish(orjson.dumps(plain(content)))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None))[1]
        if isinstance(error, StoreAway):
            self.answer({"error": str(error)}, 503)
        else:
            self.answer({"error": self._reason}, status_code)


class NightsHandler(JsonHandler):
    """`/api/v1/nights`: every night, newest first."""

    async def get(self) -> None:
        self.answer({"nights": await self.feed.ask(query.nights)})


class ExposuresHandler(JsonHandler):
    """`/api/v1/exposures?night=[&expid=]`: exposures with their cameras; without night the newest night."""

    async def get(self) -> None:
        night, expid = self.number("night", default=self.feed.newest_night), self.number("expid")
        if night is None:
            self.answer({"night": None, "exposures": []})
            return
        rows = await self.feed.ask(lambda store: query.exposures_of(store, night))
        jobs = await self.feed.ask(lambda store: query.jobs_of(store, night, expid))
        cameras: dict[int, list[dict[str, Any]]] = {}
        for job in jobs:
            cameras.setdefault(job["expid"], []).append(job)
        wanted = [{**row, "jobs": cameras.get(row["expid"], [])} for row in rows if expid in (None, row["expid"])]
        self.answer({"night": night, "exposures": wanted})


class QAHandler(JsonHandler):
    """`/api/v1/qa?night=&expid=[&camera=]`: results with all their checks."""

    async def get(self) -> None:
        night, expid = self.number("night", required=True), self.number("expid", required=True)
        camera = self.get_query_argument("camera", "") or None
        assert night is not None
        assert expid is not None
        rows = await self.feed.ask(lambda store: query.qa_of(store, night, expid, camera))
        self.answer({"night": night, "expid": expid, "results": rows})


class EventsHandler(JsonHandler):
    """`/api/v1/events?[after=&night=&expid=&camera=&limit=]`: the log, newest first; with `after` oldest first."""

    async def get(self) -> None:
        after = self.number("after")
        night, expid = self.number("night"), self.number("expid")
        camera = self.get_query_argument("camera", "") or None
        limit = min(self.number("limit", default=500) or 0, _MAX_ROWS)
        found = await self.feed.ask(
            lambda store: read_events(store, night, expid, camera, after or 0, limit, newest_first=after is None)
        )
        self.answer({"sequence": self.feed.sequence, "events": [vars(event) for event in found]})


class HealthHandler(JsonHandler):
    """`/healthz`: 200 while the feed reads its store; tells a page which life of the server answers."""

    def get(self) -> None:
        feed = self.feed
        behind = time.time() - feed.read_utc
        healthy = not feed.trouble and behind < STALE_S
        content = {
            "boot": feed.boot,
            "sequence": feed.sequence,
            "pages": feed.followers,
            "store": feed.trouble or feed.waiting or "ok",
            "read_s_ago": round(behind, 3) if feed.read_utc else None,
        }
        self.answer(content, 200 if healthy else 503)


class _Numbers:
    """What Prometheus is told, read from the snapshot at the time it asks."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def collect(self) -> Iterable[Metric]:
        feed = self._feed
        exposures = feed.night(feed.newest_night)
        jobs = Tally(camera.state for e in exposures for camera in e.cameras.values())
        verdicts = Tally(e.status.word.lower() for e in exposures)
        yield _labelled(
            "qlstream_exposures", "Exposures of the newest night", "state", Tally(e.state for e in exposures)
        )
        yield _labelled("qlstream_verdicts", "Exposures of the newest night by verdict", "verdict", verdicts)
        yield _labelled("qlstream_cameras", "Cameras of the newest night by state of their job", "state", jobs)
        lag = time.time() - feed.read_utc if feed.read_utc else float("nan")
        waits = [e.done_utc - e.ready_utc for e in exposures if e.done_utc and e.ready_utc]
        for name, text, value in (
            ("qlstream_dashboard_pages", "Open pages", feed.followers),
            ("qlstream_dashboard_sequence", "Id of the last event shown", feed.sequence),
            ("qlstream_dashboard_store_lag_seconds", "Time since the store was read", lag),
            ("qlstream_dashboard_up_seconds", "Time since the dashboard started", time.time() - feed.started),
            (
                "qlstream_last_verdict_seconds",
                "From complete file to verdict, newest exposure",
                waits[-1] if waits else 0,
            ),
        ):
            yield GaugeMetricFamily(name, text, value=value)


class MetricsHandler(RequestHandler):
    """`/metrics` for Prometheus."""

    def initialize(self, feed: Feed) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Numbers(feed))  # type: ignore[arg-type]  # collect() is all it needs

    def get(self) -> None:
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(generate_latest(self._registry))


def routes(feed: Feed) -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """Tornado's routes."""
    found: list[tuple[str, type[RequestHandler]]] = [
        (r"/api/v1/nights", NightsHandler),
        (r"/api/v1/exposures", ExposuresHandler),
        (r"/api/v1/qa", QAHandler),
        (r"/api/v1/events", EventsHandler),
        (r"/healthz", HealthHandler),
        (r"/metrics", MetricsHandler),
    ]
    return [(pattern, handler, {"feed": feed}) for pattern, handler in found]


def _labelled(name: str, text: str, label: str, counts: Tally[str]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family
