"""One camera of one exposure: its values, its CCD, its spectra and its fibers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from bokeh.document import Document
from bokeh.models import ColumnDataSource

from dashboards.arrays import EMPTY_TABLE, FiberTable, Preview, Spectra, read_fibers, read_preview, read_spectra
from dashboards.calibrations import served_by
from dashboards.feed import TASK, Change, Feed
from dashboards.figures import SPECTRUM_COLUMNS, amp_boxes, ccd_figure, fiber_figure, paint, show_range, spectrum_figure
from dashboards.figures.ccd import CUTS, STRETCHES
from dashboards.pages.exposure import axis_label, neighbours
from dashboards.pages.page import Page
from dashboards.queries import read_events
from dashboards.records import Camera, Detail, Exposure
from dashboards.render import render
from dashboards.sentences import event_sentence, event_status
from dashboards.strips import amp_keys, amp_tiles, strips_of
from dashboards.verdict import alerts_of, camera_sentence
from qlstream.store.events import Event

T = TypeVar("T")

_EVENT_LINES = 60
_SWITCHES = {"mask": "0", "amps": "1", "gray": "0", "sky": "0"}  # and what they are at first
_IMAGE = ("image", "x", "y", "dw", "dh")
_BOXES = ("left", "right", "bottom", "top", "x", "y", "name")


class CameraPage(Page):
    """`/camera?night=&expid=&camera=&fiber=&stretch=&cut=&mask=&amps=&gray=&sky=&vector=`."""

    name = "camera"
    title = "Camera · qlstream"

    def __init__(self, feed: Feed, query: Mapping[str, str]) -> None:
        super().__init__(feed, query)
        self._fibers: FiberTable = EMPTY_TABLE
        self._preview: Preview | None = None
        self._spectra: Spectra | None = None
        self._events: list[Event] = []
        self._drawn: Preview | None = None
        self._painted: tuple[object, ...] = ()

    @property
    def key(self) -> tuple[int, int] | None:
        night, expid = self.number("night"), self.number("expid")
        return None if night is None or expid is None else (night, expid)

    @property
    def camera_name(self) -> str:
        return self.query.get("camera", "").lower()

    @property
    def exposure(self) -> Exposure | None:
        return self.feed.exposure(*self.key) if self.key else None

    @property
    def camera(self) -> Camera | None:
        return self.exposure.cameras.get(self.camera_name) if self.exposure else None

    @property
    def detail(self) -> Detail:
        return self.feed.details(*self.key).get(self.camera_name, Detail()) if self.key else Detail()

    @property
    def index(self) -> int:
        """Which spectrum is shown: the chosen FIBER, else the first."""
        if self._spectra is None:
            return 0
        fiber = self.number("fiber")
        found = np.flatnonzero(self._spectra.fiber == fiber)
        return int(found[0]) if found.size else 0

    @property
    def switches(self) -> dict[str, bool]:
        """What is switched on."""
        return {key: self.query.get(key, default) == "1" for key, default in _SWITCHES.items()}

    async def prepare(self) -> None:
        if self.key is not None:
            await self.feed.hold_night(self.key[0])
            await self.feed.hold_exposure(*self.key)

    def release(self) -> None:
        if self.key is not None:
            self.feed.release(self.key[0])
            self.feed.release(self.key)

    def concerns(self, change: Change) -> bool:
        cameras = change.exposures.get(self.key or (-1, -1), frozenset())
        return self.camera_name in cameras or None in cameras

    async def gather(self, change: Change | None) -> None:
        details = {self.camera_name: self.detail}
        self._fibers = await asyncio.to_thread(read_fibers, self.feed.redux, details, [self.camera_name])
        products = self.detail.products
        if self.key is not None:
            night, expid = self.key
            self._events = await self.feed.ask(
                lambda store: read_events(store, night, expid, self.camera_name, limit=_EVENT_LINES, without=TASK)
            )
        self._preview = await self._read(read_preview, products.get("preview"))
        self._spectra = await self._read(read_spectra, products.get("spectra"))

    async def _read(self, reader: Callable[[Path], T | None], path: str | None) -> T | None:
        return None if path is None else await asyncio.to_thread(reader, self.feed.redux / path)

    def choose(self, choices: Mapping[str, str]) -> bool:
        known = ("fiber", "stretch", "cut", "vector", *_SWITCHES)
        new = {key: choices[key] for key in known if key in choices}
        if all(self.query.get(key) == value for key, value in new.items()):
            return False
        self.query.update(new)
        return True

    def build(self, doc: Document) -> None:
        self._image = ColumnDataSource({key: [] for key in _IMAGE})
        self._mask = ColumnDataSource({key: [] for key in _IMAGE})
        self._boxes = ColumnDataSource({key: [] for key in _BOXES})
        self._trace = ColumnDataSource({"x": [], "y": []})
        self._spectrum = ColumnDataSource({key: [] for key in SPECTRUM_COLUMNS})
        self._vector = ColumnDataSource({key: [] for key in ("fiber", "camera", "value")})
        self._chosen_fiber = ColumnDataSource({"fiber": [], "value": []})
        self._ccd = ccd_figure(self._image, self._mask, self._boxes, self._trace)
        self._spectrum_figure = spectrum_figure(self._spectrum)
        self._vector_figure = fiber_figure(self._vector, self._chosen_fiber)
        for name, fig in (("ccd", self._ccd), ("spectrum", self._spectrum_figure), ("vector", self._vector_figure)):
            fig.name = name
            doc.add_root(fig)

    def show(self, change: Change | None) -> None:
        exposure, camera, put = self.exposure, self.camera, self.fragments.put
        exposures = self.feed.night(self.key[0]) if self.key else []
        before, after = neighbours(exposures, exposure)
        names = list(exposure.cameras) if exposure else []
        at = names.index(self.camera_name) if self.camera_name in names else -1
        put(
            "hero",
            render("hero_camera", page=self, e=exposure, camera=camera, name=self.camera_name, before=before,
                   after=after, left=names[at - 1] if at > 0 else None,
                   right=names[at + 1] if 0 <= at < len(names) - 1 else None,
                   sentence=camera_sentence, names=names, trouble=self.feed.trouble),
        )  # fmt: skip
        if exposure is None or camera is None or self.key is None:
            return
        if self.doc is not None:
            self.doc.title = f"{camera.camera} of {exposure.expid} {camera.status.word} · qlstream"
        details = {camera.camera: self.detail}
        mine = Exposure(**{**vars(exposure), "cameras": {camera.camera: camera}})
        unknown = [f for f in camera.findings if f.severity == 10]
        put(
            "alerts",
            render("alerts", alerts=alerts_of([mine]), exposures=[exposure], night=exposure.night, unknown=unknown),
        )
        put("metrics", render("metrics", groups=strips_of(details, [camera.camera], single=True), e=exposure,
                              camera=camera.camera))  # fmt: skip
        maps = {key: amp_tiles(details, key).get(camera.camera) for key in amp_keys(details)}
        put("amps", render("amp_maps", maps=maps, units=amp_keys(details)))
        put("stages", render("stages", detail=self.detail, camera=camera, served=served_by(details)))
        lines = [(e, event_sentence(e), event_status(e)) for e in self._events]
        put("events", render("events", lines=lines, e=exposure, camera=camera.camera))
        self._show_image()
        self._show_spectrum()
        self._show_vector()

    def _show_image(self) -> None:
        preview = self._preview
        stretch = self.query.get("stretch", "")
        stretch = stretch if stretch in STRETCHES else STRETCHES[0]
        cut = next((c for c in CUTS if f"{c:g}" == self.query.get("cut")), CUTS[1])
        on = {
            key: self.query.get(key, default) == "1" for key, default in (("mask", "0"), ("amps", "1"), ("gray", "0"))
        }
        self.fragments.put(
            "ccd-controls",
            render("ccd_controls", has=preview is not None, stretch=stretch, stretches=STRETCHES, cut=cut, cuts=CUTS,
                   on=on, camera=self.camera),
        )  # fmt: skip
        self._ccd.visible = preview is not None
        if preview is None:
            return
        if self._drawn is not preview:
            place = {"x": [0], "y": [0], "dw": [preview.nx], "dh": [preview.ny]}
            masked = np.where(preview.mask > 0, np.float32(1), np.float32("nan"))
            self._image.data = {"image": [preview.image], **place}
            self._mask.data = {"image": [masked], **place}
            self._boxes.data = amp_boxes(preview)
            self._ccd.x_range.update(start=0, end=preview.nx)
            self._ccd.y_range.update(start=0, end=preview.ny)
            self._drawn = preview
        colors = (preview, stretch, cut, on["gray"])
        if self._painted != colors:
            paint(self._ccd, preview, stretch, cut, on["gray"])
            self._painted = colors
        self._ccd.select_one("mask").visible = on["mask"]
        self._ccd.select_one("amps").visible = self._ccd.select_one("labels").visible = on["amps"]
        if self.number("fiber") is not None and len(preview.traces) > self.index:
            rows = [0, preview.ny / 2, preview.ny]
            self._trace.data = {"x": preview.traces[self.index], "y": rows}

    def _show_spectrum(self) -> None:
        spectra = self._spectra
        fibers = [] if spectra is None else [int(f) for f in spectra.fiber]
        self.fragments.put(
            "spectrum-controls",
            render("spectrum_controls", fibers=fibers, index=self.index, camera=self.camera,
                   fiber=fibers[self.index] if fibers else None, sky=self.switches["sky"],
                   has_sky=spectra is not None and spectra.sky is not None),
        )  # fmt: skip
        self._spectrum_figure.visible = spectra is not None
        if spectra is None:
            return
        i = self.index
        flux, ivar = spectra.flux[i], spectra.ivar[i]
        with np.errstate(divide="ignore"):
            sigma = np.where(ivar > 0, 1 / np.sqrt(ivar), np.nan).astype(np.float32)
        sky = np.full_like(flux, np.nan) if spectra.sky is None else spectra.sky[i]
        self._spectrum.data = {
            "wave": spectra.wave[i],
            "flux": flux,
            "low": flux - sigma,
            "high": flux + sigma,
            "sky": sky,
        }
        with_sky = self.switches["sky"]
        self._spectrum_figure.select_one("sky").visible = with_sky
        show_range(self._spectrum_figure, flux, *([sky] if with_sky else []))
        self._spectrum_figure.yaxis.axis_label = f"flux [{spectra.bunit}]"

    def _show_vector(self) -> None:
        table = self._fibers
        vectors = [key for key in table.values if key != "CLASS"]
        chosen = self.query.get("vector", "")
        chosen = chosen if chosen in vectors else (vectors[0] if vectors else "")
        self.fragments.put("fiber-choice", render("fiber_choice", arms=[], arm="", vectors=vectors, chosen=chosen))
        self._vector_figure.visible = bool(chosen)
        if not chosen:
            return
        values = table.values[chosen]
        self._vector.data = {"fiber": table.fiber, "camera": table.camera, "value": values}
        self._vector_figure.yaxis.axis_label = axis_label(chosen, table.units)
        here = table.fiber == (self._spectra.fiber[self.index] if self._spectra is not None else -1)
        self._chosen_fiber.data = {"fiber": table.fiber[here], "value": values[here]}
