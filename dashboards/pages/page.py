"""What every page has: fragments that are pushed when they change, a pulse, choices that come back, an orderly end."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from bokeh.application.application import SessionContext
from bokeh.application.handlers.handler import Handler
from bokeh.document import Document
from bokeh.models import ColumnDataSource, Div

from dashboards.feed import Change, Feed
from dashboards.render import link, page_template, render
from qlstream.store.database import StoreAway

log = logging.getLogger(__name__)

_LONGEST_CHOICE = 64  # characters of a value that a browser may send


class Fragments:
    """Named pieces of HTML in a Bokeh source; only those that change travel.

    Keys are ids of elements of the page, "list/LIST/SORTKEY" for the children of a list (in falling order of the sort
    key, gone if empty), or "@pulse". `static/live.js` puts them in their places.
    """

    def __init__(self) -> None:
        self.source = ColumnDataSource({"key": [], "html": []}, name="fragments")
        self._index: dict[str, int] = {}

    def __getitem__(self, key: str) -> str:
        return str(self.source.data["html"][self._index[key]])

    def __contains__(self, key: str) -> bool:
        return key in self._index

    def keys(self, prefix: str = "") -> list[str]:
        return [key for key in self._index if key.startswith(prefix)]

    def put(self, key: str, html: str) -> None:
        """Show `html` under `key`; nothing travels if it is shown already."""
        index = self._index.get(key)
        if index is None:
            self._index[key] = len(self._index)
            self.source.stream({"key": [key], "html": [html]})
        elif self.source.data["html"][index] != html:
            self.source.patch({"html": [(index, html)]})

    def put_list(self, name: str, items: Mapping[str, str]) -> None:
        """Show these children of a list by sort key, and no others."""
        for key in self.keys(f"list/{name}/"):
            if key.rpartition("/")[2] not in items:
                self.put(key, "")
        for sort_key, html in items.items():
            self.put(f"list/{name}/{sort_key}", html)


class Page:
    """One browser tab.

    The URL holds its whole state. `prepare` runs before the document is built, `gather` before each update (both
    may wait for the store); `build`, `show` and `choose` hold the document's lock and must not wait.
    """

    name = ""  # of its template
    title = ""

    def __init__(self, feed: Feed, query: Mapping[str, str]) -> None:
        self.feed = feed
        self.query = dict(query)
        self.fragments = Fragments()
        self.choices = ColumnDataSource({"name": [], "value": []}, name="choices")
        self.doc: Document | None = None
        self.context: SessionContext | None = None
        self._pending: Change | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._shown = 0  # sequence that the page shows
        self._beat = 0
        self._trouble = ""

    async def prepare(self) -> None:
        """Hold what the page shows; raises StoreAway if the store cannot be read."""

    def build(self, doc: Document) -> None:
        """Add sources and figures as named roots."""

    def concerns(self, change: Change) -> bool:
        """Whether the page shows something that changed."""
        return True

    async def gather(self, change: Change | None) -> None:
        """Read what the next `show` needs; None is the first time."""

    def show(self, change: Change | None) -> None:
        """Bring fragments and sources up to date; None is the first time."""

    def choose(self, choices: Mapping[str, str]) -> bool:
        """Take what the user chose; whether `gather` and `show` must follow. Everything in it is hostile input."""
        return False

    def release(self) -> None:
        """Let go of what `prepare` and `gather` hold."""

    def number(self, key: str) -> int | None:
        """A whole number of the query; None if there is none."""
        value = self.query.get(key, "")
        return int(value) if value.isascii() and value.isdigit() and len(value) <= 9 else None

    def wires(self) -> Div:
        """An invisible root that brings the sources to the browser, where `static/live.js` finds them by name."""
        return Div(name="wires", visible=False, tags=[self.fragments.source, self.choices])

    @property
    def is_connected(self) -> bool:
        """Whether a browser shows the page; a tab that was closed lingers for a while."""
        session = getattr(self.context, "session", None)
        return session is not None and session.connection_count > 0

    async def open(self) -> None:
        """Before the document exists: fetch what it will show."""
        try:
            await self.prepare()
            await self.gather(None)
        except StoreAway as away:
            log.info("a page opens without the store: %s", away)

    def attach(self, doc: Document) -> None:
        """Fill the document and follow the feed from this moment on."""
        self.doc, self.context = doc, doc.session_context
        doc.template = page_template(self.name)
        doc.title = self.title
        doc.config.notify_connection_status = False  # the badge tells, and tells more
        doc.add_root(self.wires())
        self.choices.on_change("data", self._chosen)
        self.build(doc)
        try:
            self._refresh(None)
        except Exception as error:
            log.exception("page %s cannot be shown", self.name)
            self.fragments.put("hero", render("hero_error", error=error))
            self._trouble = f"this page cannot be shown: {type(error).__name__}"
            self._pulse()
        self.feed.follow(self)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    async def close(self) -> None:
        """Leave the feed; called when the session is gone."""
        self.feed.unfollow(self)
        self.release()
        if self._task is not None:
            self._task.cancel()

    def offer(self, change: Change | None) -> None:
        """Called by the feed; changes that come while the page is busy are merged into one."""
        if change is not None:
            self._pending = change if self._pending is None else self._pending.merged(change)
        self._wake.set()

    async def _serve(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            change, self._pending = self._pending, None
            try:
                await self._update(change)
            except Exception as error:
                log.exception("page %s could not take a change", self.name)
                self._trouble = f"{type(error).__name__}: {error}"

    async def _update(self, change: Change | None) -> None:
        if change is None and not self.is_connected:
            return
        wanted = change is not None and self.concerns(change)
        if wanted:
            await self.gather(change)

        async def work(_: Document) -> None:
            if wanted:
                self._refresh(change)
                return
            if change is not None:
                self._shown = change.sequence
                self._show_masthead()
            self._pulse()

        if self.context is not None and not self.context.destroyed:
            await self.context.with_locked_document(work)

    def _refresh(self, change: Change | None) -> None:
        self.show(change)
        self._show_masthead()
        self._shown = self.feed.sequence if change is None else change.sequence
        self._trouble = ""
        self._pulse()

    def _show_masthead(self) -> None:
        self.fragments.put("masthead", render("masthead", feed=self.feed, page=self))

    def _pulse(self) -> None:
        """The heartbeat: the browser judges by its own clock how old the last one is.

        Every update ends with one. So a browser that misses a number knows that what came with it is lost too, as
        after a short break of the line, which Bokeh bridges without sending again what was sent meanwhile.
        """
        feed = self.feed
        self._beat += 1
        pulse = {
            "boot": feed.boot,
            "beat": self._beat,
            "time": time.time(),
            "sequence": feed.sequence,
            "shown": self._shown,
            "read": feed.read_utc,
            "trouble": feed.trouble or self._trouble,
        }
        self.fragments.put("@pulse", json.dumps(pulse))

    def _chosen(self, attr: str, old: Any, new: Any) -> None:
        try:
            pairs = dict(zip(new["name"], new["value"], strict=True))
        except (KeyError, TypeError, ValueError):
            return
        choices = {str(k): str(v) for k, v in pairs.items() if len(str(v)) <= _LONGEST_CHOICE}
        if self.choose(choices) and self.doc is not None:
            self.doc.add_next_tick_callback(self._after_choice)

    async def _after_choice(self) -> None:
        await self.gather(None)
        self._refresh(None)

    def url(self, path: str, **query: Any) -> str:
        return link(path, **query)


class FullPage(Page):
    """Says that as many pages are open as the server may serve, instead of slowing all of them down."""

    name = "full"
    title = "Full · qlstream"

    def attach(self, doc: Document) -> None:
        doc.template = page_template(self.name)
        doc.title = self.title
        doc.add_root(self.wires())
        self.fragments.put("hero", render("hero_full", pages=self.feed.followers))
        self._pulse()


class PageHandler(Handler):
    """Makes one Page per session; Bokeh calls it."""

    def __init__(self, page: type[Page], feed: Feed, max_pages: int) -> None:
        super().__init__()
        self._page = page
        self._feed = feed
        self._max_pages = max_pages
        self._pages: dict[str, Page] = {}

    async def on_session_created(self, session_context: SessionContext) -> None:
        request = session_context.request
        arguments = {} if request is None else request.arguments
        query = {k: v[-1].decode("utf-8", "replace")[:_LONGEST_CHOICE] for k, v in arguments.items() if v}
        full = self._feed.followers >= self._max_pages
        page = FullPage(self._feed, query) if full else self._page(self._feed, query)
        self._pages[session_context.id] = page
        await page.open()

    def modify_document(self, doc: Document) -> None:
        if doc.session_context is not None:
            self._pages[doc.session_context.id].attach(doc)

    async def on_session_destroyed(self, session_context: SessionContext) -> None:
        page = self._pages.pop(session_context.id, None)
        if page is not None:
            await page.close()
