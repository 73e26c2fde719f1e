from pathlib import Path

from click.testing import CliRunner

from qlstream.cli.main import cli
from qlstream.pipeline.result import Check, QAResult, QASeverity
from qlstream.pipeline.runner import Cost
from qlstream.store import exposures, jobs, tasks
from qlstream.store.database import Store
from qlstream.store.exposures import Facts
from qlstream.store.jobs import Policy
from qlstream.store.results import JobRecord
from qlstream.store.tasks import NewTask

NIGHT = 20260115


def store_night(redux: Path) -> None:
    """An exposure with a camera that is normal, one that alarms, one that failed, and one that is missing."""
    path = redux / "desi-00000009.fits.fz"
    facts = Facts("science", "SCIENCE", 61056.2, ("b0", "r0", "z0"), ("b1",), "dark", 80616, 900.0)
    with Store.open(None, redux) as store:
        with store.write() as conn:
            exposures.see(conn, "test", NIGHT, 9, path, "1", "a new file")
            exposures.open_for_processing(conn, "test", NIGHT, 9, path, facts, "abc", "1")
        for severity in (QASeverity.NORMAL, QASeverity.ALARM, None):
            job = jobs.claim_next(store, "test", Policy())
            assert job is not None
            if severity is None:
                jobs.close(store, "test", job.id, job.attempt, "failed", "worker hung: killed after 300 s")
                continue
            check = Check("NOISE_AMP", "C", severity, 9.0, why="NOISE_AMP of C = 9, above the normal 4.1")
            result = QAResult("Get_RMS", {"NOISE": 9.0}, checks=(check,))
            JobRecord(store, job, "test").qa_result("Preproc", result, Cost(0.1, 0.1, 100.0))
            jobs.close(store, "test", job.id, job.attempt, "done")


def test_status_prints_the_night_with_shapes_and_letters_and_the_worst_news(tmp_path):
    store_night(tmp_path)

    result = CliRunner().invoke(cli, ["status", "--redux", str(tmp_path)])

    assert result.exit_code == 0
    row = next(line for line in result.output.splitlines() if line.lstrip().startswith("9 "))
    assert row.split() == ["9", "science", "dark", "900", "s", "done", "●N", "■A", "✕F", "✕M"]
    assert "9 z0: failed: worker hung: killed after 300 s" in result.output
    assert "■A 9 r0: NOISE_AMP of C = 9, above the normal 4.1" in result.output


def test_status_of_a_night_that_is_not_there_names_those_that_are(tmp_path):
    store_night(tmp_path)

    result = CliRunner().invoke(cli, ["status", "--redux", str(tmp_path), "20260116"])

    assert result.exit_code == 1
    assert "nothing of 20260116" in result.output
    assert "it holds 20260115" in result.output


def test_costs_of_an_exposure_are_printed_stage_by_stage(tmp_path):
    store_night(tmp_path)
    with Store.open(None, tmp_path) as store:
        assert jobs.reopen(store, "test", NIGHT, 9, "b0") == 1
        job = jobs.claim_next(store, "test", Policy())
        assert job is not None
        record = JobRecord(store, job, "test")
        record.stage_started("Preproc")
        record.stage_done("Preproc", Cost(1.25, 0.75, 512.0))
        record.stage_skipped("Flexure", "no PSF")
        jobs.close(store, "test", job.id, job.attempt, "done", "", 2.5, 600.0)

    result = CliRunner().invoke(cli, ["status", "--redux", str(tmp_path), "--costs", "9"])

    rows = [line.split() for line in result.output.splitlines() if " b0 " in line]
    assert rows[0] == ["b0", "Preproc", "1.250", "0.750", "512"]
    assert rows[1] == ["b0", "Flexure", "skipped"]
    assert rows[2][:3] == ["b0", "in", "all"]
    assert rows[2][-2:] == ["2.500", "600"]


def test_offline_tasks_are_shown_by_kind_and_state_also_without_any_quicklook(tmp_path):
    with Store.open(None, tmp_path) as store:
        tasks.put(store, "test", [NewTask(f"sky_{c}_9", "sky", 0, NIGHT, 9, c) for c in ("b0", "r0")])
        failed = tasks.claim(store, "test")
        assert failed is not None
        with store.write() as conn:
            tasks.close(conn, "test", failed, tasks.FAILED, "no fibermap")

    result = CliRunner().invoke(cli, ["status", "--redux", str(tmp_path)])

    assert result.exit_code == 0, result.output
    assert f"offline reduction of {NIGHT}" in result.output
    rows = [line.split() for line in result.output.splitlines()]
    assert ["task", "ready", "failed"] in rows
    assert ["sky", "1", "1"] in rows
    assert "sky_b0_9: failed: no fibermap" in result.output
