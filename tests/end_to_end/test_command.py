"""`qlstream run` as a user starts and ends it."""

from __future__ import annotations

import shutil
import signal
import socket
import time
import urllib.request

import psutil

from qlstream.io.qframe import read_qframe
from qlstream.store import query
from qlstream.store.database import Store
from qlstream.store.schema import calibrations, jobs, qa

from .conftest import CAMERAS, NIGHT


def test_once_processes_what_is_there_ends_with_status_0_and_does_nothing_the_second_time(service, night):
    shutil.copytree(night / "raw", service.raw, dirs_exist_ok=True)

    out, _ = service.start("--no-dashboard", "--once").communicate(timeout=120)

    assert service.process.returncode == 0, out
    assert f"{13 * len(CAMERAS)} cameras done, 0 failed" in out
    service.check_exactly_once(dict.fromkeys(range(1, 14), 1))
    with Store.open(None, service.redux) as store:
        science = query.products_of(store, NIGHT, 13, "r0")
        results = {row["name"] for row in query.qa_of(store, NIGHT, 13, "r0")}
    paths = {row["kind"]: service.redux / row["path"] for row in science}
    assert {"qframe", "qcframe", "qsky", "qa", "preview", "spectra"} <= set(paths)
    assert read_qframe(paths["qcframe"]).nspec == 40
    assert {"Get_RMS", "Sky_Residual", "Calculate_SNR"} <= results
    for job in service.rows(jobs):  # results do not wait for the end of their camera
        times = sorted(row["time_utc"] for row in service.rows(qa, qa.c.job_id == job["id"]))
        assert job["started_utc"] < times[0] < times[-1] < job["ended_utc"]
    of_science = {row["id"] for row in service.rows(jobs) if row["expid"] == 13}
    served = {row["kind"]: row for row in service.rows(calibrations) if row["job_id"] in of_science}
    assert {kind for kind, row in served.items() if row["origin"] == "tonight"} == {"TRACES", "FIBERFLAT"}
    assert "/00000011/psf-" in served["TRACES"]["path"]  # of the arc
    assert "/00000012/qfiberflat-" in served["FIBERFLAT"]["path"]  # of the flat
    assert served["TRACES"]["mjd"] < served["FIBERFLAT"]["mjd"]

    again, _ = service.start("--no-dashboard", "--once").communicate(timeout=120)

    assert service.process.returncode == 0, again
    assert {row["attempt"] for row in service.rows(jobs)} == {1}


def test_once_ends_with_another_status_if_an_exposure_never_became_whole(service, night):
    name = f"{NIGHT}/00000001/desi-00000001.fits.fz"
    (service.raw / name).parent.mkdir(parents=True)
    (service.raw / name).write_bytes((night / "raw" / name).read_bytes()[:30_000])

    out, _ = service.start("--no-dashboard", "--once").communicate(timeout=120)

    assert service.process.returncode == 1
    assert "1 exposures could not be used" in out


def test_a_second_service_on_the_same_folder_is_refused(service):
    first = service.start("--no-dashboard")
    service.wait((service.redux / "qlstream.db").exists)

    out, _ = service.start("--no-dashboard").communicate(timeout=60)

    assert service.process.returncode == 1
    assert f"is being worked on by process {first.pid}" in out
    service.process = first
    assert service.stop(signal.SIGINT)[0] == 0


def test_the_dashboard_is_started_again_when_it_dies_and_nothing_is_left_after_the_end(service):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    service.start("--port", str(port))
    service.wait(lambda: _answers(url))
    pages = [p for p in service.family() if "qlstream.engine.dashboard_process" in " ".join(p.cmdline())]
    assert len(pages) == 1

    pages[0].kill()
    service.wait(lambda: not _answers(url), 10)
    service.wait(lambda: _answers(url))

    family = service.family()
    status, out = service.stop()
    assert status == 0, out
    assert "dashboard ended with status -9" in out
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        time.sleep(0.1)
        return False
