import asyncio
import os
import socket
import subprocess
import sys
import time

import pytest

from qlstream.engine import kernel_cache
from qlstream.engine.dashboard_process import PortTaken, settle_port, supervise, url_of
from qlstream.engine.hub import count
from qlstream.engine.lock import AlreadyRunning, sole_service
from qlstream.engine.sweep import sweep_temporary
from qlstream.engine.warmup import plan_modules
from qlstream.engine.worker import disk_trouble
from qlstream.io.atomic import temporary_name
from qlstream.pipeline.plan import load_plans
from qlstream.settings import load_settings
from qlstream.store.database import Store

PAGES = """
import asyncio, os, sys
from pathlib import Path

async def main(settings):
    log = Path(settings.redux, "lives")
    with log.open("a") as file:
        file.write(f"{os.getpid()} {settings.dashboard.port}\\n")
    if len(log.read_text().splitlines()) < 3:
        sys.exit(5)
    await asyncio.sleep(600)
"""


def pages_settings(tmp_path, **flags):
    return load_settings(flags={"redux": tmp_path, **{k.replace("__", "."): v for k, v in flags.items()}}, environ={})


async def test_a_dashboard_that_dies_is_started_again_at_the_same_port_and_stopped_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("qlstream.engine.dashboard_process.FIRST_PAUSE_S", 0.05)
    (tmp_path / "own_pages.py").write_text(PAGES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    settings = pages_settings(tmp_path, dashboard__app="own_pages:main", dashboard__port=4242)
    supervisor = asyncio.create_task(supervise(settings))
    async with asyncio.timeout(60):
        while not (tmp_path / "lives").exists() or len((tmp_path / "lives").read_text().splitlines()) < 3:
            await asyncio.sleep(0.05)
    lives = [line.split() for line in (tmp_path / "lives").read_text().splitlines()]

    supervisor.cancel()
    with pytest.raises(asyncio.CancelledError):
        await supervisor

    assert [port for _, port in lives] == ["4242"] * 3
    assert not os.path.exists(f"/proc/{lives[-1][0]}")


def test_a_dashboard_ends_when_its_service_is_gone(tmp_path):
    (tmp_path / "own_pages.py").write_text(PAGES)
    (tmp_path / "lives").write_text("1\n2\n")
    settings = pages_settings(tmp_path, dashboard__app="own_pages:main")
    command = [sys.executable, "-m", "qlstream.engine.dashboard_process"]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environ)
    assert process.stdin is not None
    process.stdin.write(settings.model_dump_json().encode() + b"\n")
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while str(process.pid) not in (tmp_path / "lives").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)

    process.stdin.close()

    assert process.wait(timeout=10) == 0


def test_a_port_that_is_taken_is_told_before_anything_starts(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"cannot listen on 127.0.0.1:{port}.*--port 0"):
            settle_port(pages_settings(tmp_path, dashboard__port=port), wait_s=0)


def test_port_0_becomes_a_free_port_once_for_all(tmp_path):
    settings = settle_port(pages_settings(tmp_path, dashboard__port=0))

    assert settings.dashboard.port > 1024
    assert url_of(settings) == f"http://127.0.0.1:{settings.dashboard.port}/"


def test_only_one_service_may_work_on_a_production_folder(tmp_path):
    refused = pytest.raises(AlreadyRunning, match=f"process {os.getpid()} on")
    with sole_service(tmp_path), refused, sole_service(tmp_path):
        pass

    with sole_service(tmp_path):
        pass


def test_the_sweep_takes_temporary_files_of_dead_processes_only(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    product = tmp_path / "exposures" / "qframe-r3-00000082.fits"
    product.parent.mkdir()
    for path in (product, temporary_name(product, dead.pid), temporary_name(product, os.getpid())):
        path.touch()

    assert sweep_temporary(tmp_path) == 0  # young: another host may be writing
    assert sweep_temporary(tmp_path, older_than_s=-1) == 1
    assert sorted(p.name for p in product.parent.iterdir()) == sorted([product.name, temporary_name(product).name])


def test_kernels_are_warm_until_the_code_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    (tmp_path / "site_stages").mkdir()
    stages = tmp_path / "site_stages" / "__init__.py"
    stages.write_text("first = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert not kernel_cache.is_warm(["site_stages"])
    kernel_cache.mark_warm(["site_stages"])
    assert kernel_cache.is_warm(["site_stages"])

    stages.write_text("second = 2\n" * 2)
    assert not kernel_cache.is_warm(["site_stages"])


def test_a_package_folder_that_cannot_be_written_falls_back_to_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    real = kernel_cache._is_writable
    monkeypatch.setattr(kernel_cache, "_is_writable", lambda p: p.is_relative_to(tmp_path) and real(p))

    assert kernel_cache.find_cache() == tmp_path / "qlstream" / "numba"
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "qlstream" / "numba")


def test_the_modules_of_the_shipped_plans_are_preloaded():
    modules = plan_modules(load_plans().values())

    assert "algorithms.preproc.stage" in modules
    assert "qa.snr" in modules
    assert len(modules) == len(set(modules))


def test_a_disk_with_too_little_room_or_no_folder_is_told(tmp_path):
    assert disk_trouble(pages_settings(tmp_path)) == ""
    assert "MB are free on the disk of" in disk_trouble(pages_settings(tmp_path, engine__low_water_mb=10**9))
    assert "cannot be reached" in disk_trouble(pages_settings(tmp_path / "unmounted"))


def test_an_empty_store_counts_as_good(tmp_path):
    with Store.open(None, tmp_path) as store:
        tally = count(store)

    assert tally.is_good
    assert str(tally) == "0 cameras done, 0 failed"
