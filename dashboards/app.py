"""The dashboard's process: a Bokeh server and the feed, in one asyncio loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from bokeh.application import Application
from bokeh.server.server import Server
from bokeh.settings import settings as bokeh_settings
from tornado.ioloop import IOLoop
from tornado.web import StaticFileHandler

from dashboards.feed import Feed
from dashboards.glossary import add_words
from dashboards.handlers import routes
from dashboards.pages import CameraPage, ExposurePage, NightPage, PageHandler
from dashboards.sitewords import read_words
from qlstream.settings import Settings

log = logging.getLogger(__name__)

PAGES = {"/": NightPage, "/night": NightPage, "/exposure": ExposurePage, "/camera": CameraPage}

# A wrong name here would be swallowed silently, and sessions would pile up: a test holds each against BokehTornado.
SERVER_OPTIONS = {
    "keep_alive_milliseconds": 15_000,
    "check_unused_sessions_milliseconds": 5_000,
    "unused_session_lifetime_milliseconds": 15_000,
    "session_token_expiration": 300,
}


async def main(settings: Settings) -> None:
    """Serve the pages of the store that `settings` name until cancelled.

    Raises
    ------
    SettingsError : there is no redux folder
    OSError : the port is taken
    """
    settings.require("redux")
    assert settings.redux is not None
    logging.getLogger("bokeh").setLevel(logging.ERROR)  # tabs that come and go are no news
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    pages = settings.dashboard
    if pages.glossary is not None:
        try:
            add_words(read_words(pages.glossary))
        except ValueError as error:  # the pages can do without
            log.error("dashboard.glossary: %s", error)
    feed = Feed(settings.redux, settings.store)
    server = build_server(feed, pages.host, pages.port, pages.origins, pages.max_sessions)
    server.start()
    log.info("dashboard of %s listens on %s:%s", settings.redux, pages.host or "*", server.port)
    try:
        await feed.run()
    finally:
        await stop_server(server)
        feed.close()


def build_server(
    feed: Feed, host: str = "127.0.0.1", port: int = 5006, origins: Sequence[str] = (), max_sessions: int = 50
) -> Server:
    """The server, bound but not started; BokehJS and everything else comes from it, nothing from other hosts.

    Parameters
    ----------
    origins : HOST:PORT that pages may be opened from, beside the own address
    """
    bokeh_settings.resources = "server"
    own = {f"localhost:{port}", f"127.0.0.1:{port}", f"{host or 'localhost'}:{port}"}
    applications = {path: Application(PageHandler(page, feed, max_sessions)) for path, page in PAGES.items()}
    static = (r"/assets/(.*)", StaticFileHandler, {"path": str(Path(__file__).parent / "static")})
    return Server(
        applications,
        io_loop=IOLoop.current(),
        address=host or None,
        port=port,
        allow_websocket_origin=sorted({*own, *origins}),
        extra_patterns=[*routes(feed), static],
        **SERVER_OPTIONS,
    )


async def stop_server(server: Server) -> None:
    """Stop listening, drop all connections."""
    server.stop()
    server.unlisten()  # closes the connections in a later turn of the loop
    await asyncio.sleep(0.05)
