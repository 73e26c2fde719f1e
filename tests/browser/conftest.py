"""One dashboard process, one browser, and pages that fail the test on a console error or a request elsewhere."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qlstream.settings import DashboardSettings, Settings
from qlstream.store.database import Store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """The generator of made-up nights that the tests of the pages use."""
    path = Path(__file__).parents[1] / "dashboards" / "synthetic_night.py"
    spec = importlib.util.spec_from_file_location("synthetic_night_for_browsers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Dashboard:
    """A dashboard process as the service starts it; it can be killed and started again at the same address."""

    def __init__(self, redux: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.settings = Settings(redux=redux, dashboard=DashboardSettings(port=port))
        self.url = f"http://127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "qlstream.engine.dashboard_process"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert self._process.stdin is not None
        self._process.stdin.write(self.settings.model_dump_json().encode() + b"\n")
        self._process.stdin.flush()
        give_up = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/healthz", timeout=2):
                    return
            except OSError:
                assert self._process.poll() is None, "the dashboard ended at once"
                assert time.monotonic() < give_up, "the dashboard did not start within 60 s"
                time.sleep(0.1)

    def kill(self) -> None:
        """As the kernel's out-of-memory killer does it."""
        self._end(lambda process: process.kill())

    def stop(self) -> int:
        """As the service does it; returns the exit status."""
        return self._end(lambda process: process.terminate())

    def _end(self, how: Callable[[subprocess.Popen[bytes]], None]) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        how(process)
        status = process.wait(20)
        assert process.stdin is not None
        process.stdin.close()
        return status


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(None, tmp_path_factory.mktemp("redux")) as opened:
        yield opened


@pytest.fixture(scope="session")
def dashboard(store: Store) -> Iterator[Dashboard]:
    served = Dashboard(store.redux)
    served.start()
    yield served
    served.stop()


_nights = itertools.count(20260115)


@pytest.fixture
def night(store: Store, synthetic: ModuleType) -> Any:
    """A night newer than all before: three cameras, r0 with a noisy amplifier, two finished exposures."""
    faults = [("noisy-amp", None, "r0")]
    made = synthetic.SyntheticNight(store, ["b0", "r0", "z0"], night=next(_nights), faults=faults, side=80)
    made.expose(1001, "arc")
    made.expose(1002, "science")
    made.process()
    return made


@pytest.fixture(scope="module")  # while it is open its loop runs in this thread, and no other test may need one
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs a browser: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'qlstream[test]'")
    with api.sync_playwright() as playwright:
        instance = playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS, env={**os.environ, "DISPLAY": ""}
        )
        yield instance
        instance.close()


@pytest.fixture
def open_page(browser: Any, dashboard: Dashboard, night: Any) -> Iterator[Callable[..., Any]]:
    """Open a path of the dashboard; at the end no page may have logged an error or asked another host."""
    errors: list[str] = []
    foreign: list[str] = []
    contexts = []
    outage_expected = False

    def open_one(path: str, width: int = 1400, height: int = 900, may_lose_server: bool = False) -> Any:
        nonlocal outage_expected
        outage_expected |= may_lose_server
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "request", lambda r: None if r.url.startswith((dashboard.url, "data:", "blob:")) else foreign.append(r.url)
        )
        page.goto(dashboard.url + path)
        page.wait_for_selector("[data-verdict]", timeout=30_000)
        page.wait_for_selector(".badge.live")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert foreign == []
    if not outage_expected:
        assert errors == []
