"""The night: what came last and how it went, what is wrong, and every exposure with all its cameras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bokeh.document import Document
from bokeh.models import ColumnDataSource

from dashboards.feed import Change, Feed
from dashboards.figures import TIMELINE_COLUMNS, timeline_figure
from dashboards.pages.page import Page
from dashboards.queries import camera_order
from dashboards.records import Exposure
from dashboards.render import render
from dashboards.verdict import alerts_of, camera_sentence, headline, progress


class NightPage(Page):
    """`/` follows the newest night; `/night?night=20260115` stays with one."""

    name = "night"
    title = "Night · qlstream"

    def __init__(self, feed: Feed, query: Mapping[str, str]) -> None:
        super().__init__(feed, query)
        self._columns: dict[str, list[str]] = {}  # of the rows that are shown

    @property
    def pinned(self) -> int | None:
        return self.number("night")

    @property
    def night(self) -> int | None:
        return self.pinned or self.feed.newest_night

    async def prepare(self) -> None:
        await self.feed.hold_night(self.pinned)

    def release(self) -> None:
        if self.pinned is not None:
            self.feed.release(self.pinned)

    def build(self, doc: Document) -> None:
        self._timeline = ColumnDataSource({key: [] for key in TIMELINE_COLUMNS})
        self._figure = timeline_figure(self._timeline)
        self._figure.name = "timeline"
        doc.add_root(self._figure)

    def show(self, change: Change | None) -> None:
        exposures = self.feed.night(self.night)
        columns = arrange_cameras(exposures)
        alerts = alerts_of(exposures)
        newest = exposures[-1] if exposures else None
        newer = self.feed.newest_night if self.pinned and self.feed.newest_night != self.pinned else None
        self.fragments.put(
            "hero",
            render("hero_night", page=self, night=self.night, newest=newest, newer=newer, columns=columns,
                   headline=headline, progress=progress, sentence=camera_sentence, nights=self.feed.nights,
                   trouble=self.feed.trouble or self.feed.waiting),
        )  # fmt: skip
        self.fragments.put("alerts", render("alerts", alerts=alerts, night=self.night, exposures=exposures))
        self.fragments.put("offline", render("offline", offline=self.feed.offline(self.night), night=self.night))
        self.fragments.put("columns", render("columns", columns=columns) if exposures else "")
        rows: dict[str, str] = {}
        for before, exposure in zip([None, *exposures], exposures, strict=False):
            if before is not None and exposure.expid > before.expid + 1:
                rows[f"{before.expid + 1:09d}"] = render("gap", first=before.expid + 1, last=exposure.expid - 1)
            key = f"{exposure.expid:09d}"
            touched = change is None or (exposure.night, exposure.expid) in change.exposures
            shown = f"list/exposures/{key}"
            if touched or columns != self._columns or shown not in self.fragments:
                rows[key] = render("row", e=exposure, columns=columns, headline=headline, sentence=camera_sentence)
            else:
                rows[key] = self.fragments[shown]
        self._columns = columns
        self.fragments.put_list("exposures", rows)
        self._timeline.data = _timeline(exposures)
        self._figure.visible = bool(self._timeline.data["expid"])
        self.fragments.put(
            "when", "" if self._figure.visible else render("note", has=False, what="exposure times", flavor="")
        )

    def concerns(self, change: Change) -> bool:
        return self.night in change.nights | change.reduced or bool(self.pinned is None and change.nights)


def arrange_cameras(exposures: Sequence[Exposure]) -> dict[str, list[str]]:
    """Arm -> its cameras, of all exposures together, so that cells of all rows stand under each other."""
    names = sorted({name for e in exposures for name in e.cameras}, key=camera_order)
    arms: dict[str, list[str]] = {}
    for name in names:
        arms.setdefault(name[:1], []).append(name)
    return arms


def _timeline(exposures: Sequence[Exposure]) -> dict[str, list[object]]:
    data: dict[str, list[object]] = {key: [] for key in TIMELINE_COLUMNS}
    for e in exposures:
        if e.start_utc is None:
            continue
        start = 1e3 * e.start_utc
        end = start + 1e3 * max(e.exptime or 0.0, 1.0)
        status = e.status
        row = {
            "expid": e.expid,
            "night": e.night,
            "start": start,
            "end": end,
            "mid": (start + end) / 2,
            "flavor": e.flavor,
            "color": status.color,
            "marker": status.marker,
            "word": status.word,
            "what": " ".join(filter(None, [e.program, f"tile {e.tileid}" if (e.tileid or -1) > 0 else ""])),
            "exptime": e.exptime or 0.0,
            "headline": headline(e),
        }
        for key, value in row.items():
            data[key].append(value)
    return data
