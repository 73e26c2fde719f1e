"""One exposure: its cameras, what is wrong, every metric against its range, and where the time went."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from bokeh.document import Document
from bokeh.models import ColumnDataSource
from bokeh.plotting import figure

from dashboards.arrays import EMPTY_TABLE, FiberTable, read_fibers
from dashboards.calibrations import served_by
from dashboards.feed import Change, Feed
from dashboards.figures import (
    GANTT_COLUMNS,
    fiber_figure,
    gantt_figure,
    snr_figure,
    stage_colors,
    width_figure,
)
from dashboards.figures.gantt import WAITING, gantt_height
from dashboards.figures.style import CATEGORIES
from dashboards.pages.night import arrange_cameras
from dashboards.pages.page import Page
from dashboards.records import Detail, Exposure
from dashboards.render import render
from dashboards.sentences import event_sentence, event_status
from dashboards.strips import amp_keys, amp_tiles, strips_of
from dashboards.verdict import alerts_of, camera_sentence, headline, progress
from qlstream.datamodel.fibermap import CLASSES

_EVENT_LINES = 60


class ExposurePage(Page):
    """`/exposure?night=&expid=`; without expid, or with live=1, it follows the newest exposure."""

    name = "exposure"
    title = "Exposure · qlstream"

    def __init__(self, feed: Feed, query: Mapping[str, str]) -> None:
        super().__init__(feed, query)
        self.key: tuple[int, int] | None = None
        self._held: list[int | tuple[int, int]] = []
        self._fibers: FiberTable = EMPTY_TABLE

    @property
    def is_live(self) -> bool:
        return self.query.get("live") == "1" or self.number("expid") is None

    @property
    def exposure(self) -> Exposure | None:
        return self.feed.exposure(*self.key) if self.key else None

    @property
    def arm(self) -> str:
        """The arm whose fibers are shown: the chosen one, else the middle one."""
        arms = list(arrange_cameras([self.exposure])) if self.exposure else []
        chosen = self.query.get("arm", "")
        return chosen if chosen in arms else (arms[len(arms) // 2] if arms else "")

    def release(self) -> None:
        for held in self._held:
            self.feed.release(held)
        self._held = []

    def wanted(self) -> tuple[int, int] | None:
        """Night and number of the exposure to show now."""
        night = self.number("night") or self.feed.newest_night
        expid = self.number("expid")
        if self.is_live:
            night = self.feed.newest_night
            exposures = self.feed.night(night)
            expid = exposures[-1].expid if exposures else None
        return None if night is None or expid is None else (night, expid)

    async def gather(self, change: Change | None) -> None:
        wanted = self.wanted()
        if wanted != self.key and wanted is not None:
            before, self._held = self._held, [wanted[0], wanted]
            await self.feed.hold_night(wanted[0])
            await self.feed.hold_exposure(*wanted)
            for held in before:
                self.feed.release(held)
            self.key = wanted
        if self.key is not None and self.exposure is not None:
            cameras = [name for name in self.exposure.cameras if name[:1] == self.arm]
            details = self.feed.details(*self.key)
            self._fibers = await asyncio.to_thread(read_fibers, self.feed.redux, details, cameras)

    def concerns(self, change: Change) -> bool:
        return self.key is None or self.key in change.exposures or self.key[0] in change.nights or self.is_live

    def choose(self, choices: Mapping[str, str]) -> bool:
        new = {key: choices[key] for key in ("arm", "vector", "amp") if key in choices}
        if all(self.query.get(key) == value for key, value in new.items()):
            return False
        self.query.update(new)
        return True

    def build(self, doc: Document) -> None:
        self._snr = ColumnDataSource({key: [] for key in ("fiber", "camera", "target", "magnitude", "snr")})
        self._model = ColumnDataSource({key: [] for key in ("xs", "ys", "camera", "target", "color")})
        self._width = ColumnDataSource({key: [] for key in ("fiber", "camera", "xsigma", "wsigma")})
        self._vector = ColumnDataSource({key: [] for key in ("fiber", "camera", "value")})
        self._gantt = ColumnDataSource({key: [] for key in GANTT_COLUMNS})
        self._gantt_figure = gantt_figure(self._gantt, list(self.exposure.cameras) if self.exposure else [])
        self._vector_figure = fiber_figure(self._vector)
        self._figures: dict[str, figure] = {
            "snr": snr_figure(self._snr, self._model, CLASSES),
            "width": width_figure(self._width),
            "vector": self._vector_figure,
            "gantt": self._gantt_figure,
        }
        for name, fig in self._figures.items():
            fig.name = name
            fig.visible = False  # until there is something to draw
            doc.add_root(fig)

    def show(self, change: Change | None) -> None:
        exposure, put = self.exposure, self.fragments.put
        night = self.key[0] if self.key else self.feed.newest_night
        exposures = self.feed.night(night)
        before, after = neighbours(exposures, exposure)
        put(
            "hero",
            render("hero_exposure", page=self, e=exposure, headline=headline, progress=progress, before=before,
                   after=after, newest=exposures[-1] if exposures else None, night=night, wanted=self.wanted(),
                   trouble=self.feed.trouble),
        )  # fmt: skip
        if exposure is None or self.key is None:
            return
        if self.doc is not None:
            self.doc.title = f"{exposure.expid} {exposure.status.word} · qlstream"
        details = self.feed.details(*self.key)
        arms = arrange_cameras([exposure])
        put("cameras", render("cameras", e=exposure, arms=arms, sentence=camera_sentence))
        unknown = [f for f in exposure.findings if f.severity == 10]
        put(
            "alerts", render("alerts", alerts=alerts_of([exposure]), exposures=[exposure], night=night, unknown=unknown)
        )
        put("metrics", render("metrics", groups=strips_of(details, exposure.cameras), e=exposure, camera=""))
        keys = amp_keys(details)
        amp = self.query.get("amp", "")
        amp = amp if amp in keys else next((k for k in ("NOISE_AMP", *keys) if k in keys), "")
        put("amps", render("amps", e=exposure, arms=arms, tiles=amp_tiles(details, amp), keys=keys, key=amp))
        self._show_fibers(arms)
        self._show_times(exposure, details)
        put("calibrations", render("calibrations", served=served_by(details)))
        lines = [(e, event_sentence(e), event_status(e)) for e in self.feed.events(*self.key)[:_EVENT_LINES]]
        put("events", render("events", lines=lines, e=exposure, camera=""))

    def _show_fibers(self, arms: Mapping[str, list[str]]) -> None:
        table = self._fibers
        vectors = [key for key in table.values if key not in ("CLASS", "SNR_MODEL")]
        chosen = self.query.get("vector", "")
        chosen = chosen if chosen in vectors else (vectors[0] if vectors else "")
        has_snr = {"MEDIAN_SNR", "MAGNITUDE", "CLASS"} <= table.values.keys()
        has_width = not {"XSIGMA_FIB", "WSIGMA_FIB"}.isdisjoint(table.values)  # a flat has no lines, so no w
        self.fragments.put(
            "fiber-choice", render("fiber_choice", arms=list(arms), arm=self.arm, vectors=vectors, chosen=chosen)
        )
        for name, shown in (("snr", has_snr), ("width", has_width), ("vector", bool(chosen))):
            self._figures[name].visible = shown
        self.fragments.put("snr-note", render("note", has=has_snr, what="signal to noise", flavor="science"))
        self.fragments.put(
            "width-note", render("note", has=has_width, what="spot widths", flavor="arc, flat or science")
        )
        self.fragments.put("vector-note", render("note", has=bool(vectors), what="values of each fiber", flavor=""))
        if has_snr:
            self._snr.data, self._model.data = _snr_columns(table)
        else:
            self._snr.data = {key: [] for key in self._snr.data}
            self._model.data = {key: [] for key in self._model.data}
        if has_width:
            nothing = np.full(len(table.fiber), np.nan, np.float32)
            self._width.data = {
                "fiber": table.fiber,
                "camera": table.camera,
                "xsigma": table.values.get("XSIGMA_FIB", nothing),
                "wsigma": table.values.get("WSIGMA_FIB", nothing),
            }
        else:
            self._width.data = {key: [] for key in self._width.data}
        if chosen:
            self._vector.data = {"fiber": table.fiber, "camera": table.camera, "value": table.values[chosen]}
            self._vector_figure.yaxis.axis_label = axis_label(chosen, table.units)
        else:
            self._vector.data = {key: [] for key in self._vector.data}

    def _show_times(self, exposure: Exposure, details: Mapping[str, Detail]) -> None:
        rows, colors = _gantt_rows(exposure, details)
        self._gantt.data = {key: [row[key] for row in rows] for key in GANTT_COLUMNS}
        cameras = list(exposure.cameras)
        self._gantt_figure.visible = bool(rows)
        if cameras and self._gantt_figure.y_range.factors != cameras[::-1]:
            self._gantt_figure.y_range.factors = cameras[::-1]
            self._gantt_figure.height = gantt_height(len(cameras))
        self.fragments.put("gantt-legend", render("gantt_legend", colors=colors))


def neighbours(exposures: list[Exposure], exposure: Exposure | None) -> tuple[Exposure | None, Exposure | None]:
    """The exposures before and after `exposure`."""
    numbers = [e.expid for e in exposures]
    if exposure is None or exposure.expid not in numbers:
        return None, None
    at = numbers.index(exposure.expid)
    return (exposures[at - 1] if at else None), (exposures[at + 1] if at + 1 < len(exposures) else None)


def axis_label(key: str, units: Mapping[str, str]) -> str:
    """Key and unit of a per-fiber vector."""
    return f"{key} [{units[key]}]" if units.get(key) else key


def _snr_columns(table: FiberTable) -> tuple[dict[str, Any], dict[str, Any]]:
    """Columns of the points and of the fitted curves, one curve per camera and class."""
    number = table.values["CLASS"]
    snr, magnitude = table.values["MEDIAN_SNR"], table.values["MAGNITUDE"]
    shown = np.isfinite(number) & np.isfinite(magnitude) & (snr > 0)
    names = np.array(CLASSES)
    targets = names[number[shown].astype(int)]
    points = {
        "fiber": table.fiber[shown],
        "camera": table.camera[shown],
        "target": targets,
        "magnitude": magnitude[shown],
        "snr": snr[shown],
    }
    curves: dict[str, list[Any]] = {key: [] for key in ("xs", "ys", "camera", "target", "color")}
    model = table.values.get("SNR_MODEL")
    if model is not None:
        fitted = shown & np.isfinite(model)
        for camera in dict.fromkeys(table.camera[fitted]):
            for index in np.unique(number[fitted]).astype(int):
                members = np.flatnonzero(fitted & (table.camera == camera) & (number == index))
                if len(members) < 2:
                    continue
                members = members[np.argsort(magnitude[members])]
                for key, value in zip(
                    curves,
                    (magnitude[members], model[members], str(camera), CLASSES[index], CATEGORIES[index]),
                    strict=True,
                ):
                    curves[key].append(value)
    return points, curves


def _gantt_rows(exposure: Exposure, details: Mapping[str, Detail]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Bars of the time figure and the color of each stage."""
    start = exposure.ready_utc or min((c.ready_utc or time.time() for c in exposure.cameras.values()), default=0.0)
    names = dict.fromkeys(s["stage"] for detail in details.values() for s in detail.stages if s["state"] != "skipped")
    colors = stage_colors(names)
    rows = []
    for name, camera in exposure.cameras.items():
        waited = (camera.started_utc or time.time()) - start
        if camera.state == "missing":
            continue
        rows.append(_bar(name, WAITING, 0.0, max(waited, 0.0), "#8a94a0", 0.25, ""))
        for stage in details.get(name, Detail()).stages:
            if stage["started_utc"] is None:
                continue
            left = stage["started_utc"] - start
            wall = stage["wall_s"]
            right = left + wall if wall is not None else max(left, (camera.ended_utc or time.time()) - start)
            state = "" if stage["state"] == "done" else stage["state"]
            alpha = 0.9 if stage["state"] == "done" else 0.5
            rows.append(_bar(name, stage["stage"], left, right, colors[stage["stage"]], alpha, state, stage))
    return rows, colors


def _bar(
    camera: str, stage: str, left: float, right: float, color: str, alpha: float, state: str,
    cost: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    cost = cost or {}
    return {
        "camera": camera, "stage": stage, "left": left, "right": right, "color": color, "alpha": alpha, "state": state,
        "wall": cost.get("wall_s") or right - left, "cpu": cost.get("cpu_s") or 0.0, "peak": cost.get("peak_mb") or 0.0,
    }  # fmt: skip
