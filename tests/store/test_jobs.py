"""Which job is next, and who may write what it finds."""

import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import select, update

from qlstream.store import exposures, jobs, query
from qlstream.store.events import events_after
from qlstream.store.jobs import Policy, StaleAttempt, claim_next
from qlstream.store.schema import jobs as table

NIGHT = 20260115


def claimed(store, policy=Policy(calibration_wait_s=3600.0)):  # noqa: B008 - frozen
    """All jobs that may start now, in order; each is closed at once, so that nothing waits for it."""
    order = []
    while (job := claim_next(store, "test", policy)) is not None:
        order.append((job.expid, job.camera))
        jobs.close(store, "test", job.id, job.attempt, "done")
    return order


def test_tonights_needed_calibrations_come_first_then_the_newest_then_the_rest_then_backlog(store, add_exposure):
    add_exposure(1, "science", night=20260114)
    add_exposure(2, "science", night=20260114)
    add_exposure(10, "zero")
    add_exposure(11, "arc")
    add_exposure(12, "flat")
    add_exposure(13, "science")
    add_exposure(14, "science")
    add_exposure(15, "arc")  # after the science: nobody waits for it

    assert [expid for expid, _ in claimed(store)] == [11, 12, 15, 14, 13, 10, 2, 1]


def test_the_order_is_that_of_mjd_not_of_arrival_or_number(store, add_exposure):
    add_exposure(3, "science", mjd=5.0)
    add_exposure(9, "science", mjd=1.0)
    add_exposure(5, "flat", mjd=0.2)
    add_exposure(4, "arc", mjd=0.1)

    assert [expid for expid, _ in claimed(store)] == [4, 5, 3, 9]


def test_science_waits_for_its_cameras_earlier_calibration_and_no_other(store, add_exposure):
    add_exposure(1, "flat", cameras=("b0",))
    add_exposure(2, "science", cameras=("b0", "r0"))
    add_exposure(3, "flat", cameras=("r0",))  # later: not waited for
    policy = Policy(calibration_wait_s=3600.0)

    flat = claim_next(store, "test", policy)
    others = [claim_next(store, "test", policy) for _ in range(3)]

    assert (flat.expid, flat.camera) == (1, "b0")
    assert [(job.expid, job.camera) if job else None for job in others] == [(3, "r0"), (2, "r0"), None]
    jobs.close(store, "test", flat.id, flat.attempt, "failed", "no light")
    job = claim_next(store, "test", policy)
    assert (job.expid, job.camera) == (2, "b0")


def test_a_flat_waits_for_an_earlier_arc_but_a_dark_for_nothing(store, add_exposure):
    add_exposure(1, "arc")
    add_exposure(2, "flat")
    add_exposure(3, "dark")
    policy = Policy(calibration_wait_s=3600.0)

    started = [claim_next(store, "test", policy) for _ in range(3)]

    assert [job.expid if job else None for job in started] == [1, 3, None]


def test_the_wait_for_a_calibration_is_bounded(store, add_exposure):
    add_exposure(1, "arc")
    add_exposure(2, "science")
    assert claim_next(store, "test", Policy(calibration_wait_s=60.0)).expid == 1
    assert claim_next(store, "test", Policy(calibration_wait_s=60.0)) is None

    with store.write() as conn:
        conn.execute(update(table).where(table.c.expid == 2).values(ready_utc=time.time() - 61))

    assert claim_next(store, "test", Policy(calibration_wait_s=60.0)).expid == 2


def test_held_back_jobs_of_tonight_leave_the_workers_to_the_backlog(store, add_exposure):
    add_exposure(1, "science", night=20260114)
    add_exposure(2, "arc")
    add_exposure(3, "science")
    policy = Policy(calibration_wait_s=3600.0)

    assert [claim_next(store, "test", policy).expid for _ in range(2)] == [2, 1]


def test_each_job_is_claimed_once_by_many_at_a_time(store, another, add_exposure):
    for expid in range(5):
        add_exposure(expid, cameras=("b0", "r0", "z0"))
    found = []

    def claim_all(own):
        while (job := claim_next(own, "test", Policy())) is not None:
            found.append(job.id)

    threads = [threading.Thread(target=claim_all, args=(another(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == len(set(found)) == 15


def test_a_job_tells_what_a_worker_needs(store, add_exposure):
    add_exposure(7, "arc", cameras=("b0",))

    job = claim_next(store, "test", Policy())

    assert (job.night, job.expid, job.camera, job.flavor) == (NIGHT, 7, "b0", "arc")
    assert (job.version, job.attempt, job.failures) == (1, 1, 0)
    assert str(job.path) == f"/raw/{NIGHT}/00000007/desi-00000007.fits.fz"
    assert [e.kind for e in events_after(store, 0)][-1] == "camera.started"


def test_a_retry_counts_the_failure_and_fences_the_old_attempt(store, add_exposure):
    add_exposure(7)
    first = claim_next(store, "test", Policy())

    jobs.retry(store, "test", first.id, first.attempt, "killed")
    with pytest.raises(StaleAttempt):
        jobs.close(store, "test", first.id, first.attempt, "done")
    second = claim_next(store, "test", Policy())

    assert (second.attempt, second.failures) == (2, 1)
    with pytest.raises(StaleAttempt, match="attempt 1 of job .* is no longer the current one"):
        jobs.close(store, "test", first.id, first.attempt, "done")
    jobs.close(store, "test", second.id, second.attempt, "failed", "killed again")
    with pytest.raises(StaleAttempt):
        jobs.close(store, "test", second.id, second.attempt, "done")
    (row,) = query.jobs_of(store, NIGHT)
    assert (row["state"], row["reason"]) == ("failed", "killed again")


def test_orphans_of_a_killed_service_are_ready_again_and_their_worker_is_fenced_off(store, add_exposure):
    add_exposure(7, cameras=("b0", "r0"))
    orphans = [claim_next(store, "test", Policy()) for _ in range(2)]

    assert jobs.release_orphans(store, "engine") == 2
    assert jobs.release_orphans(store, "engine") == 0
    again = [claim_next(store, "test", Policy()) for _ in range(2)]

    assert [(job.attempt, job.failures) for job in again] == [(2, 0)] * 2
    with store.read() as conn:
        assert not any(jobs.is_current(conn, job.id, job.attempt) for job in orphans)
        assert all(jobs.is_current(conn, job.id, job.attempt) for job in again)


def test_a_job_given_back_at_shutdown_counts_no_failure(store, add_exposure):
    add_exposure(7)
    job = claim_next(store, "test", Policy())

    jobs.give_back(store, "test", job.id, job.attempt)

    assert claim_next(store, "test", Policy()).failures == 0


def test_an_exposure_is_done_when_its_last_camera_has_ended(store, add_exposure):
    add_exposure(7, cameras=("b0", "r0"))
    first, second = (claim_next(store, "test", Policy()) for _ in range(2))

    jobs.close(store, "test", first.id, first.attempt, "done", cpu_s=2.0, peak_mb=300.0)
    state_between = query.exposure(store, NIGHT, 7)["state"]
    jobs.close(store, "test", second.id, second.attempt, "failed", "no PSF")

    assert state_between == "ready"
    assert query.exposure(store, NIGHT, 7)["state"] == "done"
    done = events_after(store, 0)[-1]
    assert (done.kind, done.payload["done"], done.payload["failed"]) == ("exposure.done", 1, 1)
    assert jobs.count_by_state(store) == {"done": 1, "failed": 1}


def test_a_changed_content_supersedes_what_runs_and_waits(store, add_exposure):
    add_exposure(7, cameras=("b0", "r0"), identity="old")
    running = claim_next(store, "test", Policy())

    version = add_exposure(7, cameras=("b0", "r0"), identity="new")

    assert version == 2
    with pytest.raises(StaleAttempt):
        jobs.close(store, "test", running.id, running.attempt, "done")
    with store.read() as conn:
        states = sorted(conn.execute(select(table.c.version, table.c.state)).all())
    assert states == [(1, "superseded"), (1, "superseded"), (2, "ready"), (2, "ready")]
    assert len(claimed(store)) == 2
    assert query.exposure(store, NIGHT, 7)["state"] == "done"


def test_the_same_content_opened_again_makes_no_new_job(store, add_exposure):
    assert add_exposure(7) == add_exposure(7) == 1

    assert len(query.jobs_of(store, NIGHT)) == 1


def test_an_operator_may_run_an_ended_camera_again(store, add_exposure):
    add_exposure(7, cameras=("b0", "r0"))
    claimed(store)

    count = jobs.reopen(store, "operator", NIGHT, 7, "b0", "new calibration")

    assert count == 1
    assert query.exposure(store, NIGHT, 7)["state"] == "ready"
    assert claimed(store) == [(7, "b0")]
    assert query.exposure(store, NIGHT, 7)["state"] == "done"
    assert jobs.reopen(store, "operator", NIGHT, 99) == 0


def test_a_file_touched_while_its_last_camera_ends_is_done_after_all(store, add_exposure):
    add_exposure(7)
    job = claim_next(store, "test", Policy())
    row = query.exposure(store, NIGHT, 7)
    with store.write() as conn:
        exposures.wait(conn, "test", NIGHT, 7, "2:2", "it grows")
    jobs.close(store, "test", job.id, job.attempt, "done")
    state_meanwhile = query.exposure(store, NIGHT, 7)["state"]

    with store.write() as conn:
        exposures.see_again(conn, "test", NIGHT, 7, row["path"], "2:2", "same content")

    assert (state_meanwhile, query.exposure(store, NIGHT, 7)["state"]) == ("waiting", "done")
    assert [e.kind for e in events_after(store, 0)][-1] == "exposure.done"


def test_science_waits_for_an_earlier_exposure_that_is_still_coming_in_but_not_for_a_later_one(store, add_exposure):
    def see(expid):
        with store.write() as conn:
            path = Path(f"/raw/{NIGHT}/{expid:08d}/desi-{expid:08d}.fits.fz")
            exposures.see(conn, "test", NIGHT, expid, path, "1:1", "a new file")

    see(1)
    see(5)
    add_exposure(3, "science")
    add_exposure(2, "zero")

    assert claimed(store) == [(2, "r0")]
    assert claimed(store, Policy(calibration_wait_s=0.0)) == [(3, "r0")]
    add_exposure(4, "science")
    add_exposure(1, "arc")
    assert claimed(store) == [(1, "r0"), (4, "r0")]
