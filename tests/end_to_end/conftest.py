"""A simulated night, and the real command as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select

from qlstream.instrument import load_instrument
from qlstream.simulate.night import simulate_night
from qlstream.store.database import Store
from qlstream.store.schema import events, exposures, jobs, products, qa

NIGHT = 20260115
CAMERAS = ("b0", "r0")
# Waits of the service that a test need not sit through.
QUICK = {
    "QLSTREAM_INGEST_SETTLE_S": "0.5",
    "QLSTREAM_INGEST_SCAN_S": "1",
    "QLSTREAM_INGEST_GIVE_UP_S": "4",
    "QLSTREAM_INGEST_FIBERMAP_WAIT_S": "30",
    "QLSTREAM_ENGINE_HEARTBEAT_S": "0.5",
    "QLSTREAM_LOGGING_LEVEL": "WARNING",
}


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """raw, calib and truth of nine biases, a dark, an arc, a flat and a science exposure with two cameras."""
    out = tmp_path_factory.mktemp("night")
    kinds = ("zero",) * 9 + ("dark", "arc", "flat", "science-dark")
    simulate_night(load_instrument("mini"), NIGHT, out, CAMERAS, kinds=kinds)
    return out


class Service:
    """`qlstream run` on folders of a test, as a process."""

    def __init__(self, raw: Path, calib: Path, redux: Path) -> None:
        self.raw, self.calib, self.redux = raw, calib, redux
        self.process: subprocess.Popen[str] | None = None

    def start(self, *options: str, **environment: str) -> subprocess.Popen[str]:
        folders = ["--raw", self.raw, "--calib", self.calib, "--redux", self.redux]
        command = [sys.executable, "-m", "qlstream.cli.main", "run", *map(str, folders), "--workers", "2", *options]
        environ = {**os.environ, **QUICK, **environment}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.process = subprocess.Popen(command, env=environ, text=True, start_new_session=True, **pipes)
        return self.process

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; the exit status and what was printed."""
        assert self.process is not None
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, out

    def family(self) -> list[psutil.Process]:
        """The service's process and all that it started."""
        assert self.process is not None
        me = psutil.Process(self.process.pid)
        return [me, *me.children(recursive=True)]

    @contextmanager
    def reading(self) -> Iterator[Any]:
        with Store.open(None, self.redux) as store, store.read() as conn:
            yield conn

    def rows(self, table: Any, *where: Any) -> list[dict[str, Any]]:
        if not (self.redux / "qlstream.db").exists():
            return []
        with self.reading() as conn:
            return [dict(row) for row in conn.execute(select(table).where(*where)).mappings()]

    def states(self) -> dict[int, str]:
        """State of each exposure by its number."""
        return {row["expid"]: row["state"] for row in self.rows(exposures)}

    def wait(self, condition: Callable[[], Any], seconds: float = 60.0) -> None:
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                pytest.fail(f"it did not come to pass; states {self.states()}\n{self.process.communicate()[0]}")
            time.sleep(0.05)

    def check_exactly_once(self, versions: dict[int, int], cameras: tuple[str, ...] = CAMERAS) -> None:
        """Every camera of every version of every exposure was reduced, and has one set of rows."""
        wanted = {(e, c, v) for e, last in versions.items() for v in range(1, last + 1) for c in cameras}
        found = self.rows(jobs)
        assert {(row["expid"], row["camera"], row["version"]) for row in found} == wanted
        assert len(found) == len(wanted)
        assert {row["state"] for row in found} == {"done"}
        for row in found:
            where = (events.c.expid == row["expid"], events.c.camera == row["camera"])
            told = [e for e in self.rows(events, *where) if e["payload"].get("version") == row["version"]]
            attempts = [e["attempt"] for e in told if e["kind"] == "camera.started"]
            assert attempts == list(range(1, row["attempt"] + 1))
            assert [e["attempt"] for e in told if e["kind"] == "camera.done"] == [row["attempt"]]
            names = [result["name"] for result in self.rows(qa, qa.c.job_id == row["id"])]
            assert len(names) == len(set(names)) > 0
            if row["version"] == versions[row["expid"]]:
                for product in self.rows(products, products.c.job_id == row["id"]):
                    assert (self.redux / product["path"]).stat().st_size == product["bytes"]


@pytest.fixture
def service(night: Path, tmp_path: Path) -> Iterator[Service]:
    """A service that is not started yet, on an empty raw folder and the night's calibration tree."""
    (tmp_path / "raw").mkdir()
    service = Service(tmp_path / "raw", night / "calib", tmp_path / "redux")
    yield service
    if service.process is not None and service.process.poll() is None:
        for process in reversed(service.family()):
            process.kill()
        service.process.communicate()
