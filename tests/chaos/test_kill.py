"""The service is killed with -9 in the middle of the night and started again: nothing is lost, nothing done twice."""

from __future__ import annotations

import random
import shutil
import signal
import time
from contextlib import suppress

import psutil

from qlstream.engine.preview import read_preview
from qlstream.store.schema import events, jobs, products, qa
from qlstream.store.vectors import read_vectors

from ..end_to_end.conftest import NIGHT

KILLS = 3


def test_a_service_killed_again_and_again_loses_nothing_and_does_nothing_twice(service, night):
    moments = random.Random(4)
    arrivals = sorted((night / "raw" / str(NIGHT)).iterdir())
    per_life = -(-len(arrivals) // (KILLS + 1))
    for life in range(KILLS):
        bring(service, arrivals[life * per_life : (life + 1) * per_life])
        done = len(service.rows(events, events.c.kind == "camera.done"))
        service.start("--no-dashboard")
        more = moments.randint(1, per_life)
        service.wait(lambda: len(service.rows(events, events.c.kind == "camera.done")) >= done + more)  # noqa: B023
        time.sleep(moments.uniform(0, 0.1))
        family = service.family()

        service.process.kill()

        _, alive = psutil.wait_procs(family, timeout=10)
        assert alive == []
        service.process.communicate()
    bring(service, arrivals[KILLS * per_life :])

    out, _ = service.start("--no-dashboard", "--once").communicate(timeout=120)

    assert service.process.returncode == 0, out
    service.check_exactly_once(dict.fromkeys(range(1, len(arrivals) + 1), 1))
    attempts = [row["attempt"] for row in service.rows(jobs)]
    print(f"{len(attempts)} cameras, {sum(a > 1 for a in attempts)} of them were running when the service was killed")
    assert all(row["failures"] == 0 for row in service.rows(jobs))
    for row in service.rows(qa, qa.c.vectors.is_not(None)):
        read_vectors(service.redux / row["vectors"])
    for row in service.rows(products, products.c.kind.in_(("preview", "spectra"))):
        read_preview(service.redux / row["path"])


def test_a_worker_killed_from_outside_costs_its_camera_one_retry(service, night):
    service.start("--no-dashboard")
    service.wait(lambda: service.rows(events, events.c.kind == "service.heartbeat"))
    bring(service, sorted((night / "raw" / str(NIGHT)).iterdir()))

    def kill_until_one_is_retried() -> bool:
        for row in service.rows(jobs, jobs.c.state == "running", jobs.c.attempt == 1, jobs.c.worker.is_not(None)):
            with suppress(psutil.NoSuchProcess):
                psutil.Process(row["worker"]).send_signal(signal.SIGKILL)
        return bool(service.rows(events, events.c.kind == "note.retry"))

    service.wait(kill_until_one_is_retried)
    service.wait(lambda: len(service.states()) == 13 and set(service.states().values()) == {"done"})
    assert service.stop()[0] == 0
    found = service.rows(jobs)
    assert {row["state"] for row in found} == {"done"}
    assert all(row["attempt"] == row["failures"] + 1 for row in found)
    for event in service.rows(events, events.c.kind == "note.retry"):
        assert "SIGKILL" in event["payload"]["reason"]
    service.check_exactly_once(dict.fromkeys(range(1, 14), 1))


def bring(service, folders) -> None:
    for folder in folders:
        shutil.copytree(folder, service.raw / str(NIGHT) / folder.name)
