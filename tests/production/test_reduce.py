"""A night through the production with steps that only note their inputs."""

from __future__ import annotations

import asyncio
import gzip
import os
import time
import zlib
from pathlib import Path

import fitsio
import pytest

from qlstream.engine.worker import DiskFull
from qlstream.instrument import load_instrument
from qlstream.production import reduce as reducing
from qlstream.production.execute import is_whole, log_of
from qlstream.production.graph import Exposure, build_graph
from qlstream.production.kinds import KINDS
from qlstream.production.night import enter
from qlstream.production.plan import OfflinePlan
from qlstream.production.reduce import Production
from qlstream.settings import Settings
from qlstream.store import tasks as ledger
from qlstream.store.database import Store

NIGHT = 20260114
NOTE = "noting_steps:Note"


def plan(**other: str) -> OfflinePlan:
    steps = {kind.name: NOTE for kind in KINDS} | other
    return OfflinePlan(steps, {})


@pytest.fixture(autouse=True)
def _steps_can_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent / "stages")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"redux": tmp_path / "redux", "raw": tmp_path, "engine": {"workers": 2}})


def exposures(folder: Path) -> list[Exposure]:
    raw = folder / "desi.fits"
    if not raw.exists():
        fitsio.write(str(raw), None)
    cameras = ("b0", "r0", "b1", "r1")
    flavors = ("arc", "flat", "science")
    return [Exposure(NIGHT, n + 1, f, cameras, raw, 7 if f == "science" else None) for n, f in enumerate(flavors)]


def reduce(settings: Settings, folder: Path, steps: OfflinePlan, redo: tuple[str, ...] = ()) -> dict[str, str]:
    """Run the night; the state of every task, and what was worked on as state "worked"."""
    assert settings.redux is not None
    settings.redux.mkdir(exist_ok=True)
    with Store.open(None, settings.redux) as store:
        graph = build_graph(exposures(folder), load_instrument("mini"), settings.redux, steps.steps)
        enter(store, graph, redo)
        before = ledger.states_of(store, graph)
        asyncio.run(Production(settings, store, steps, graph).run())
        after = ledger.states_of(store, graph)
        return {
            name: "worked" if before[name] != "done" and state == "done" else state for name, state in after.items()
        }


def test_a_night_is_reduced_from_raw_to_redshift_and_skipped_when_whole(settings: Settings, tmp_path: Path) -> None:
    first = reduce(settings, tmp_path, plan())
    assert set(first.values()) == {"worked"}
    again = reduce(settings, tmp_path, plan())
    assert set(again.values()) == {"done"}, "nothing is done twice"
    assert settings.redux is not None
    (coadd,) = settings.redux.glob("tiles/**/coadd-0-7-*.fits")
    assert "spectra-0-7" in fitsio.read_header(str(coadd))["IN000"]


def test_a_failed_camera_stops_nobody_else(settings: Settings, tmp_path: Path) -> None:
    found = reduce(settings, tmp_path, plan(extract="noting_steps:FailsOnR1"))
    assert found["extract_r1_00000003"] == "failed"
    assert found["sky_r1_00000003"] == found["cframe_r1_00000003"] == "blocked"
    assert found["cframe_b1_00000003"] == "worked"
    assert found["starfit_p1_00000003"] == "worked", "two arms are enough"
    assert found["coadd_7_p1_20260114"] == "worked"
    mended = reduce(settings, tmp_path, plan())
    assert mended["cframe_r1_00000003"] == "worked"
    assert settings.redux is not None
    (spectra,) = settings.redux.glob("tiles/**/spectra-1-7-*.fits*")
    names = [v for k, v in dict(fitsio.read_header(str(spectra))).items() if k.startswith("IN0")]
    assert any("r1" in name for name in names), "what was made without it is made again"


def test_lost_products_are_made_again(settings: Settings, tmp_path: Path) -> None:
    reduce(settings, tmp_path, plan())
    assert settings.redux is not None
    (sky,) = settings.redux.glob("exposures/*/*/sky-r0-*.fits*")
    sky.write_bytes(b"half a file")
    again = reduce(settings, tmp_path, plan())
    worked = [name for name, state in again.items() if state == "worked"]
    assert worked == ["sky_r0_00000003"], "it alone was not whole"
    follow = {"starfit_p0_00000003", "fluxcalib_r0_00000003", "cframe_r0_00000003"}
    times = {p.name: p.stat().st_mtime_ns for p in settings.redux.glob("exposures/*/*/*")}
    assert times["cframe-r0-00000003.fits.gz"] > times["sky-r0-00000003.fits.gz"], f"{follow} are made anew with it"


def test_a_kind_can_be_redone(settings: Settings, tmp_path: Path) -> None:
    reduce(settings, tmp_path, plan())
    again = reduce(settings, tmp_path, plan(), ("coadd",))
    assert sorted(name for name, state in again.items() if state == "worked") == [
        "coadd_7_p0_20260114",
        "coadd_7_p1_20260114",
    ]


def test_a_raw_exposure_that_was_replaced_is_reduced_anew(settings: Settings, tmp_path: Path) -> None:
    reduce(settings, tmp_path, plan())
    later = time.time() + 5
    os.utime(tmp_path / "desi.fits", (later, later))
    again = reduce(settings, tmp_path, plan())
    assert {state for name, state in again.items() if name.startswith("preproc")} == {"worked"}


def test_a_worker_that_dies_costs_one_more_try(settings: Settings, tmp_path: Path) -> None:
    found = reduce(settings, tmp_path, plan(sky="noting_steps:DiesOnce"))
    assert settings.redux is not None
    assert list(settings.redux.rglob("died")), "a worker was lost"
    assert set(found.values()) == {"worked"}


def test_a_task_that_kills_its_workers_fails_and_the_others_go_on(settings: Settings, tmp_path: Path) -> None:
    found = reduce(settings, tmp_path, plan(extract="noting_steps:DiesOnR1"))
    assert found["extract_r1_00000003"] == "failed"
    assert found["coadd_7_p1_20260114"] == "worked"
    assert settings.redux is not None
    with Store.open(None, settings.redux) as store:
        reasons = {row["name"]: row["reason"] for row in ledger.of_state(store, "failed")}
    assert "killed by SIGKILL" in reasons["extract_r1_00000003"]
    assert "2 times" in reasons["extract_r1_00000003"]


def test_the_log_of_a_failed_task_has_its_traceback(settings: Settings, tmp_path: Path) -> None:
    reduce(settings, tmp_path, plan(extract="noting_steps:FailsOnR1"))
    assert settings.redux is not None
    graph = build_graph(exposures(tmp_path), load_instrument("mini"), settings.redux, plan().steps)
    text = log_of(graph["extract_r1_00000003"], settings.redux).read_text()
    assert "Traceback" in text
    assert "r1 cannot be extracted" in text


def test_a_full_disk_ends_the_run_and_fails_no_task(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reducing, "PATIENCE_S", 0.1)
    full = settings.model_copy(update={"engine": settings.engine.model_copy(update={"low_water_mb": 10**12})})
    with pytest.raises(DiskFull, match="make room"):
        reduce(full, tmp_path, plan())
    assert set(reduce(settings, tmp_path, plan()).values()) == {"worked"}


def test_two_at_the_same_time_share_the_work(settings: Settings, tmp_path: Path) -> None:
    assert settings.redux is not None
    settings.redux.mkdir()
    with Store.open(None, settings.redux) as store, Store.open(None, settings.redux) as other:
        graph = build_graph(exposures(tmp_path), load_instrument("mini"), settings.redux, plan().steps)

        async def both() -> None:
            one, two = (Production(settings, s, plan(), graph, workers=1) for s in (store, other))
            enter(store, graph)
            first = asyncio.create_task(one.run())
            await asyncio.sleep(1.0)
            await asyncio.to_thread(enter, other, graph)
            await asyncio.gather(first, two.run())

        asyncio.run(both())
        done = ledger.of_state(store, "done")
    assert len(done) == len(graph)
    assert {row["attempt"] for row in done} == {1}


def test_tasks_of_exposures_that_came_later_are_left_to_who_knows_them(settings: Settings, tmp_path: Path) -> None:
    assert settings.redux is not None
    settings.redux.mkdir()
    every = exposures(tmp_path)
    with Store.open(None, settings.redux) as store:
        few, all_ = (
            build_graph(chosen, load_instrument("mini"), settings.redux, plan().steps) for chosen in (every[:1], every)
        )
        enter(store, few)
        enter(store, all_)
        asyncio.run(Production(settings, store, plan(), few).run())
        assert not ledger.of_state(store, "failed")
        assert {row["name"] for row in ledger.of_state(store, "done")} == set(few)
        asyncio.run(Production(settings, store, plan(), all_).run())
        assert len(ledger.of_state(store, "done")) == len(all_)


def test_a_corrupt_gzip_file_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "sky.fits.gz"
    packed = bytearray(gzip.compress(b"SIMPLE  =                    T" * 1000))
    packed[10:20] = b"\xff" * 10
    path.write_bytes(packed)
    with pytest.raises(zlib.error):
        gzip.decompress(packed)
    assert not is_whole(path)
