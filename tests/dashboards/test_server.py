"""The server: pages, JSON, metrics, health, and who may connect."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from bokeh.document import Document
from bokeh.server.server import Server
from bokeh.server.tornado import BokehTornado
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect

from dashboards.app import PAGES, SERVER_OPTIONS, build_server, stop_server
from dashboards.feed import Feed
from dashboards.pages import CameraPage, ExposurePage, NightPage, PageHandler
from dashboards.pages.page import FullPage

NIGHT = 20260115


@pytest.fixture
async def server(feed: Feed) -> AsyncIterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = build_server(feed, port=port)
    server.start()
    yield server
    await stop_server(server)


async def fetch(server: Server, path: str, **headers: str) -> tuple[int, str]:
    request = HTTPRequest(f"http://127.0.0.1:{server.port}{path}", headers=headers)
    answer = await AsyncHTTPClient().fetch(request, raise_error=False)
    return answer.code, answer.body.decode()


async def fetch_json(server: Server, path: str) -> tuple[int, Any]:
    status, text = await fetch(server, path)
    return status, json.loads(text)


@pytest.mark.parametrize("name", sorted(SERVER_OPTIONS))
def test_every_server_option_is_one_that_bokeh_knows(name):
    # an unknown one would be swallowed silently, and sessions would pile up
    assert name in inspect.signature(BokehTornado.__init__).parameters


@pytest.mark.parametrize("path", sorted(PAGES))
async def test_pages_come_from_this_server_alone(server, path):
    status, html = await fetch(server, path)

    assert status == 200
    assert "cdn." not in html
    assert "https://" not in html
    assert "/assets/live.js" in html
    assert "static/js/bokeh.min.js" in html


async def test_more_pages_than_allowed_get_a_page_that_says_so(feed):
    handler = PageHandler(NightPage, feed, max_pages=0)
    context = SimpleNamespace(id="one", request=None)
    await handler.on_session_created(context)

    page = handler._pages["one"]

    assert isinstance(page, FullPage)
    doc = Document()
    page.attach(doc)
    assert "FULL" in page.fragments["hero"]
    await handler.on_session_destroyed(context)


async def test_own_files_are_served_and_nothing_beside_them(server):
    assert (await fetch(server, "/assets/live.js"))[0] == 200
    assert (await fetch(server, "/assets/dashboard.css"))[0] == 200
    assert (await fetch(server, "/assets/../app.py"))[0] in (403, 404)
    assert (await fetch(server, "/assets/%2e%2e/app.py"))[0] in (403, 404)


async def test_the_api_tells_what_the_store_holds(server):
    _, nights = await fetch_json(server, "/api/v1/nights")
    _, exposures = await fetch_json(server, f"/api/v1/exposures?night={NIGHT}&expid=1010")
    _, qa = await fetch_json(server, f"/api/v1/qa?night={NIGHT}&expid=1005&camera=z1")
    _, events = await fetch_json(server, "/api/v1/events?after=0&limit=5")

    assert nights["nights"][0]["night"] == NIGHT
    assert {job["camera"]: job["state"] for job in exposures["exposures"][0]["jobs"]}["b1"] == "failed"
    noise = next(row for row in qa["results"] if row["name"] == "Get_RMS")
    assert noise["per_amp"]["NOISE_AMP"]["C"] == 9.3
    ids = [event["id"] for event in events["events"]]
    assert ids == sorted(ids)
    assert len(ids) == 5


async def test_a_wrong_question_gets_an_answer_that_says_so(server):
    status, answer = await fetch_json(server, "/api/v1/qa?night=20260115&expid=1%20OR%201")
    assert (status, answer["error"]) == (400, "expid is a whole number")
    status, answer = await fetch_json(server, "/api/v1/qa?night=20260115")
    assert (status, answer["error"]) == (400, "give expid=NUMBER")


async def test_health_and_metrics_tell_of_the_feed(server, feed):
    async with asyncio.timeout(10):
        while not feed.sequence:
            await asyncio.sleep(0.01)
    status, health = await fetch_json(server, "/healthz")
    _, text = await fetch(server, "/metrics")

    assert status == 200
    assert health["boot"] == feed.boot
    assert health["store"] == "ok"
    assert 'qlstream_exposures{state="incomplete"} 1.0' in text
    assert f"qlstream_dashboard_sequence {float(feed.sequence)}" in text or "e+" in text


async def test_a_websocket_from_another_origin_is_refused(server):
    request = HTTPRequest(f"ws://127.0.0.1:{server.port}/ws", headers={"Origin": "http://evil.example"})

    with pytest.raises(Exception, match="403"):
        await websocket_connect(request, subprotocols=["bokeh", "token"])


async def test_hostile_or_unknown_addresses_give_a_calm_page(server):
    for path in (
        "/camera",
        "/camera?night=1&expid=2&camera=../../etc",
        "/exposure?night=99999999&expid=5",
        "/exposure?night=abc&expid=<script>",
        "/night?night=20200101",
        f"/camera?night={NIGHT}&expid=1006&camera=q9&fiber=-1",
        f"/camera?night={NIGHT}&expid=1009&camera=b0",
    ):
        status, _ = await fetch(server, path)
        assert status == 200, path


async def shown(page) -> dict[str, str]:
    """The fragments of a page, built without a browser."""
    from bokeh.document import Document

    await page.open()
    doc = Document()
    page.build(doc)
    page._refresh(None)
    return dict(zip(page.fragments.source.data["key"], page.fragments.source.data["html"], strict=True))


async def test_the_night_shows_verdict_gap_and_reasons(feed):
    fragments = await shown(NightPage(feed, {}))

    assert "EXPID 1007 never arrived" in fragments["list/exposures/000001007"]
    assert "gave up after 60 s" in fragments["list/exposures/000001009"]
    assert "What is wrong" in fragments["alerts"]
    assert "RUNNING" in fragments["hero"]
    assert "3 of 6 cameras" in fragments["hero"]
    pulse = json.loads(fragments["@pulse"])
    assert pulse["boot"] == feed.boot
    assert pulse["shown"] == feed.sequence


async def test_the_exposure_shows_failed_cameras_with_their_reason(feed):
    page = ExposurePage(feed, {"night": str(NIGHT), "expid": "1010", "arm": "r", "amp": "BIAS_AMP"})
    fragments = await shown(page)

    assert "GAINA" in fragments["cameras"]
    assert "bias level" in fragments["amps"]
    assert len(page._snr.data["fiber"]) > 20
    assert {"Preproc", "waiting for a worker"} <= set(page._gantt.data["stage"])
    await page.close()


async def test_the_camera_shows_the_fiber_that_is_chosen(feed):
    page = CameraPage(feed, {"night": str(NIGHT), "expid": "1006", "camera": "r1", "fiber": "45"})
    fragments = await shown(page)

    assert 'value="45"' in fragments["spectrum-controls"]
    assert page._chosen_fiber.data["fiber"].tolist() == [45]
    assert page._image.data["dw"] == [800]
    assert page.choose({"fiber": "46", "evil": "1"})
    await page.gather(None)
    page._refresh(None)
    assert page._chosen_fiber.data["fiber"].tolist() == [46]
    assert "evil" not in page.query
    assert not page.choose({"fiber": "46"})
    await page.close()


async def test_text_from_files_is_escaped(live_feed, empty_night):
    await asyncio.to_thread(empty_night.expose, 1001, program="<img src=x onerror=alert(1)>")
    async with asyncio.timeout(10):
        while live_feed.exposure(NIGHT, 1001) is None:
            await asyncio.sleep(0.01)

    fragments = await shown(NightPage(live_feed, {}))

    assert "<img" not in fragments["hero"]
    assert "&lt;img" in fragments["hero"]
