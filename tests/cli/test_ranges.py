"""Learning ranges from a store of past nights, by the command."""

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from qlstream.cli.main import cli
from qlstream.configs import config_path
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.result import QAResult
from qlstream.pipeline.runner import Cost
from qlstream.store import exposures, jobs
from qlstream.store.database import Store
from qlstream.store.exposures import Facts
from qlstream.store.jobs import Policy
from qlstream.store.results import JobRecord

NIGHTS = (20260110, 20260111, 20260112, 20260113)
NOISE = {"A": 3.0, "B": 2.6, "C": 3.4, "D": 2.9}  # of r0; 0.2 more in r1


@pytest.fixture(scope="module")
def redux(tmp_path_factory):
    """Four nights of 8 darks of r0 and r1, judged by the shipped ranges."""
    folder = tmp_path_factory.mktemp("redux")
    rng = np.random.default_rng(1)
    shipped = Ranges.load(config_path("qa", "quicklook"))
    with Store.open(None, folder) as store:
        for night in NIGHTS:
            for expid in range(1, 9):
                path = Path(f"/raw/{night}/desi-{expid:08d}.fits.fz")
                facts = Facts("dark", "DARK", 61000 + expid / 100, ("r0", "r1"), (), "", None, 300.0)
                with store.write() as conn:
                    exposures.see(conn, "test", night, expid, path, "1", "new")
                    exposures.open_for_processing(conn, "test", night, expid, path, facts, "content", "1")
        while (job := jobs.claim_next(store, "test", Policy())) is not None:
            more = 0.2 if job.camera == "r1" else 0.0
            noise = {amp: value + more + 0.02 * rng.normal() for amp, value in NOISE.items()}
            where = {"instrument": "desi", "camera": job.camera, "arm": "r", "flavor": "dark", "program": ""}
            result = QAResult("Get_RMS", {"CCDTEMP": -137.5}, per_amp={"NOISE_AMP": noise}).graded(shipped, where)
            JobRecord(store, job, "test").qa_result("Preproc", result, Cost(0.1, 0.1, 1.0))
            jobs.close(store, "test", job.id, job.attempt, "done")
    return folder


def run(*args):
    result = CliRunner().invoke(cli, ["ranges", *map(str, args)])
    return result.exit_code, result.output


def test_what_was_learned_judges_the_next_night_and_no_stored_one(redux, tmp_path):
    out = tmp_path / "ranges-20260114.yaml"

    status, text = run("learn", "--redux", redux, "--out", out)

    assert status == 0, text
    assert re.search(r"NOISE_AMP +8", text)  # 2 cameras, 4 amplifiers
    assert "valid from 20260114 on" in text
    there = Ranges.load(config_path("qa", "quicklook"), tmp_path).on(20260114)
    where = {"instrument": "desi", "arm": "r", "flavor": "dark", "program": ""}
    for camera, more in (("r0", 0.0), ("r1", 0.2)):
        for amp, value in NOISE.items():
            rule = there.find("NOISE_AMP", {**where, "camera": camera, "amp": amp})
            assert rule.learned.n == 32
            # the error of the median of 32 values that scatter by 0.02
            assert rule.learned.median == pytest.approx(value + more, abs=5 * 1.25 * 0.02 / np.sqrt(32))
            assert rule.normal == pytest.approx((rule.learned.median - 0.3, rule.learned.median + 0.3))  # its floor
    provenance = there.learned.provenance
    assert (provenance.nights, provenance.exposures) == (NIGHTS, 32)
    assert provenance.around == there.written_version


def test_a_night_may_not_be_judged_by_what_it_taught(redux, tmp_path):
    out = tmp_path / "r.yaml"

    status, text = run("learn", "--redux", redux, "--out", out, "--valid-from", 20260113)
    assert status == 1
    assert "which they must not judge; take 20260114 or later" in text

    status, text = run(
        "learn", "--redux", redux, "--out", out, "--nights", "20260101-20260112", "--valid-from", 20260113
    )
    assert status == 0
    assert "a replay would be judged by these ranges" in text


def test_too_few_exposures_or_nights_are_told(redux, tmp_path):
    few = run("learn", "--redux", redux, "--out", tmp_path / "r.yaml", "--minimum", 50)
    one = run("learn", "--redux", redux, "--out", tmp_path / "r.yaml", "--nights", "20260112", "--minimum", 5)
    none = run("learn", "--redux", redux, "--out", tmp_path / "r.yaml", "--nights", "20250101-20250131")

    for status, text in (few, one):
        assert status == 1
        assert "nothing learned; give more --nights" in text
    assert none[0] == 1
    assert "holds 20260110 to 20260113" in none[1]
    assert not (tmp_path / "r.yaml").exists()


def test_ranges_that_judged_are_not_replaced_by_accident(redux, tmp_path):
    out = tmp_path / "r.yaml"
    assert run("learn", "--redux", redux, "--out", out)[0] == 0
    before = out.read_text()

    status, text = run("learn", "--redux", redux, "--out", out)
    assert (status, out.read_text()) == (1, before)
    assert "nights have been judged by it" in text

    assert run("learn", "--redux", redux, "--out", out, "--overwrite")[0] == 0


@pytest.mark.parametrize("nights", ["2026", "20260101-", "20261301", "today"])
def test_nights_that_are_none_are_refused(redux, nights):
    assert run("learn", "--redux", redux, "--nights", nights)[0] == 2


def test_show_and_list_tell_what_judges_and_why(redux, tmp_path):
    folder = redux / "qlstream" / "ranges"
    assert "no learned ranges yet" in run("list", "--redux", redux)[1]
    assert run("learn", "--redux", redux)[0] == 0

    listed = run("list", "--redux", redux)[1]
    before = run("show", "NOISE_AMP", "--camera", "r0", "--redux", redux, "--night", 20260113, "--flavor", "dark")[1]
    after = run("show", "NOISE_AMP", "--camera", "r0", "--redux", redux, "--night", 20260114, "--flavor", "dark")[1]

    assert re.search(r"20260114 +4: 20260110 to 20260113 +32 +10", listed), listed  # 8 noises, 2 temperatures
    assert str(folder) in listed.replace("\n", "")
    assert re.search(r"dark +1.7 to 4.1 +1.4 to 4.8 +written", before), before
    for amp in "ABCD":
        assert re.search(rf"dark +{amp} .* learned: 32 exposures, median [23]\.", after), after
    assert re.search(r"dark +others +1.7 to 4.1 +1.4 to 4.8 +written", after), after
    (folder / "ranges-20260114.yaml").unlink()


def test_show_says_why_a_metric_is_not_judged_and_knows_what_was_meant(redux):
    assert "CHECKHDUS is not judged: it counts" in run("show", "CHECKHDUS", "--camera", "r0", "--redux", redux)[1]
    status, text = run("show", "NOISE_AMPS", "--camera", "r0", "--redux", redux)
    assert status == 1
    assert "did you mean NOISE_AMP?" in text


def test_show_needs_no_production(monkeypatch):
    for name in ("DESI_SPECTRO_REDUX", "SPECPROD", "QL_SPEC_REDUX"):
        monkeypatch.delenv(name, raising=False)

    status, text = run("show", "FLATPIXELS", "--camera", "b0")

    assert status == 0
    assert "0 to 0.5" in text
