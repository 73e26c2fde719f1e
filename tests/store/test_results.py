"""What a camera finds is stored at once, by the current attempt only, and read back as it was."""

import os

import numpy as np
import pytest
from sqlalchemy import func, select

from qlstream.calibration.served import CalibrationUse
from qlstream.pipeline.result import Check, QAResult, QASeverity
from qlstream.pipeline.runner import Cost
from qlstream.store import jobs, query
from qlstream.store.events import events_after
from qlstream.store.jobs import Policy, StaleAttempt, claim_next
from qlstream.store.results import JobRecord
from qlstream.store.schema import qa
from qlstream.store.vectors import sweep_vectors

NIGHT = 20260115
COST = Cost(1.5, 1.25, 300.0)


@pytest.fixture
def record(store, add_exposure):
    add_exposure(7)
    return JobRecord(store, claim_next(store, "test", Policy()), "worker-1")


def a_result(severity=QASeverity.ALARM, name="Get_RMS", noise=9.0):
    return QAResult(
        name,
        metrics={"NOISE": noise, "EMPTY": float("nan")},
        per_amp={"NOISE_AMP": {"A": 3.0, "B": noise}},
        per_fiber={"XWSIGMA": np.array([1.0, np.nan, 2.0], np.float32)},
        vectors={"WAVE": np.arange(4.0)},
        checks=(
            Check("NOISE_AMP", "A", QASeverity.NORMAL, 3.0, (0, 5), (0, 6), "electron", "v1", "fine"),
            Check("NOISE_AMP", "B", severity, noise, (0, 5), (0, 6), "electron", "v1", "too noisy"),
        ),
        units={"NOISE": "electron"},
        summary="amplifier B is noisy",
    )


def test_a_camera_is_read_back_as_it_was_told(store, record, tmp_path):
    product = tmp_path / "exposures" / "qframe.fits"
    product.parent.mkdir()
    product.write_bytes(b"x" * 100)

    record.stage_started("Preproc")
    record.stage_done("Preproc", COST)
    record.qa_result("Preproc", a_result(), COST)
    record.calibration_used(CalibrationUse("PSF", tmp_path / "psf.fits", "tonight", 0.05))
    record.stage_started("Flexure")
    record.stage_skipped("Flexure", "no PSF for r0 on 20260115")
    record.product("qframe", product)

    assert [(s["stage"], s["state"], s["wall_s"]) for s in query.stage_costs(store, NIGHT, 7)] == [
        ("Preproc", "done", 1.5),
        ("Flexure", "skipped", None),
    ]
    (row,) = query.qa_of(store, NIGHT, 7, "r0")
    assert row["metrics"] == {"NOISE": 9.0, "EMPTY": None}
    assert row["per_amp"] == {"NOISE_AMP": {"A": 3.0, "B": 9.0}}
    arrays = query.vectors(store, row["vectors"])
    np.testing.assert_array_equal(arrays["per_fiber"]["XWSIGMA"], [1.0, np.nan, 2.0])
    np.testing.assert_array_equal(arrays["vectors"]["WAVE"], np.arange(4.0))
    (check,) = query.checks_worse_than(store, NIGHT, QASeverity.WARNING)
    assert (check["metric"], check["element"], check["camera"], check["why"]) == ("NOISE_AMP", "B", "r0", "too noisy")
    (made,) = query.products_of(store, NIGHT, 7)
    assert (made["kind"], made["path"], made["bytes"]) == ("qframe", "exposures/qframe.fits", 100)
    (used,) = query.calibrations_of(store, NIGHT, 7)
    assert (used["kind"], used["origin"], used["mjd"]) == ("PSF", "tonight", 0.05)
    kinds = [e.kind for e in events_after(store, 0) if e.source == "worker-1"]
    assert kinds == [
        "stage.started",
        "stage.done",
        "qa.result",
        "verdict.changed",
        "calibration.used",
        "stage.started",
        "stage.skipped",
    ]


def test_the_verdict_changes_only_with_the_worst_severity(store, record):
    for severity in (QASeverity.NORMAL, QASeverity.WARNING, QASeverity.NORMAL, QASeverity.ALARM):
        record.qa_result("Preproc", a_result(severity, name=f"Metric_{severity}_{len(events_after(store, 0))}"), COST)

    verdicts = [e.payload["severity"] for e in events_after(store, 0) if e.kind == "verdict.changed"]
    assert verdicts == [0, 20, 30]
    assert query.exposure(store, NIGHT, 7)["severity"] == 30


def test_results_of_a_stale_attempt_are_refused(store, record, tmp_path):
    record.qa_result("Preproc", a_result(), COST)
    jobs.release_orphans(store, "engine")
    claim_next(store, "test", Policy())
    before = len(events_after(store, 0))
    product = tmp_path / "late.fits"
    product.write_bytes(b"late")

    assert not record.is_current()
    for late in (
        lambda: record.stage_started("Preproc"),
        lambda: record.stage_done("Preproc", COST),
        lambda: record.stage_skipped("Preproc", "late"),
        lambda: record.qa_result("Preproc", a_result(), COST),
        lambda: record.calibration_used(CalibrationUse("PSF", tmp_path)),
        lambda: record.product("qframe", product),
    ):
        with pytest.raises(StaleAttempt):
            late()

    assert len(events_after(store, 0)) == before
    assert query.qa_of(store, NIGHT, 7) == []  # the new attempt began with a clean set of rows


def test_a_second_attempt_leaves_one_set_of_rows(store, record):
    record.stage_started("Preproc")
    record.qa_result("Preproc", a_result(), COST)
    jobs.retry(store, "test", record.job.id, record.job.attempt, "killed")
    second = JobRecord(store, claim_next(store, "test", Policy()), "worker-2")
    second.stage_started("Preproc")
    second.qa_result("Preproc", a_result(noise=4.0, severity=QASeverity.NORMAL), COST)
    jobs.close(store, "test", second.job.id, second.job.attempt, "done")

    with store.read() as conn:
        assert conn.execute(select(func.count()).select_from(qa)).scalar_one() == 1
    assert query.qa_of(store, NIGHT, 7)[0]["metrics"]["NOISE"] == 4.0
    assert query.exposure(store, NIGHT, 7)["severity"] == 0
    assert len(query.stage_costs(store, NIGHT, 7)) == 1


def test_files_without_a_row_are_swept_when_they_are_old(store, record):
    record.qa_result("Preproc", a_result(), COST)
    wanted = store.redux / query.qa_of(store, NIGHT, 7)[0]["vectors"]
    orphan, young = wanted.with_name("Get_RMS-v1-a9.npz"), wanted.with_name("Get_RMS-v1-a8.npz")
    for path in (orphan, young):
        path.write_bytes(b"left by a killed worker")
    for path in (orphan, wanted):
        os.utime(path, (1, 1))

    assert sweep_vectors(store) == 1
    assert wanted.exists()
    assert young.exists()
    assert not orphan.exists()


def test_nights_and_history_tell_what_was_stored(store, add_exposure):
    for expid, night, flavor in ((1, 20260114, "science"), (2, NIGHT, "science"), (3, NIGHT, "dark")):
        add_exposure(expid, flavor, mjd=float(expid), night=night)
    while (job := claim_next(store, "test", Policy())) is not None:
        JobRecord(store, job, "worker-1").qa_result("Preproc", a_result(noise=float(job.expid)), COST)
        jobs.close(store, "test", job.id, job.attempt, "done")

    newest, older = query.nights(store)
    assert (newest["night"], newest["exposures"], newest["done"], newest["failed"]) == (NIGHT, 2, 2, 0)
    assert (older["night"], older["severity"]) == (20260114, 30)
    assert [row["expid"] for row in query.exposures_of(store, NIGHT)] == [2, 3]
    assert [r["value"] for r in query.history(store, "Get_RMS", "NOISE", "r0")] == [1.0, 2.0, 3.0]
    assert [r["value"]["B"] for r in query.history(store, "Get_RMS", "NOISE_AMP", "r0", limit=2)] == [2.0, 3.0]
    assert [r["expid"] for r in query.history(store, "Get_RMS", "NOISE", "r0", flavor="dark")] == [3]


def test_a_night_without_exposures_reads_as_empty(store):
    assert query.nights(store) == query.exposures_of(store, NIGHT) == query.jobs_of(store, NIGHT) == []
    assert query.exposure(store, NIGHT, 7) is None
