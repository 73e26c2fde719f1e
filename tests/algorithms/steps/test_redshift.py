"""The redshift step, with a program in redrock's place."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from algorithms.steps.redshift import TEMPLATES, RedshiftStep
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.spectra import Band, Spectra
from qlstream.io.redshifts import read_redshifts
from qlstream.io.spectra import write_spectra
from qlstream.pipeline.filestep import StepFiles

PROGRAM = """#!{python}
import sys
import fitsio, numpy as np
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
open({told!r}, "w").write(" ".join(sys.argv[1:]))
if "{fails}":
    sys.exit("no template fits")
targets = fitsio.read(given["-i"], ext="FIBERMAP")["TARGETID"]
kinds = [("TARGETID", "i8"), ("Z", "f8"), ("ZERR", "f8"), ("ZWARN", "i8"), ("SPECTYPE", "S6"), ("DELTACHI2", "f8")]
table = np.zeros(len(targets), kinds)
table["TARGETID"], table["Z"] = targets, 0.5
with fitsio.FITS(given["-o"], "rw") as out:
    out.write(table, extname="REDSHIFTS")
"""


@pytest.fixture
def coadd(tmp_path: Path) -> Path:
    rows = np.zeros(3, [("TARGETID", "i8")])
    rows["TARGETID"] = [11, 12, 13]
    flux = np.ones((3, 20))
    band = Band(3600 + 0.8 * np.arange(20), flux, flux, np.zeros(flux.shape, np.uint32))
    write_spectra(tmp_path / "coadd.fits", Spectra({"b": band}, rows))
    return tmp_path / "coadd.fits"


def program(folder: Path, fails: str = "") -> Path:
    path = folder / "rrdesi"
    path.write_text(PROGRAM.format(python=sys.executable, told=str(folder / "told"), fails=fails))
    path.chmod(0o755)
    return path


def test_redshifts_are_measured_by_the_program_and_read_back(coadd: Path, tmp_path: Path) -> None:
    step = RedshiftStep({"program": str(program(tmp_path)), "templates": tmp_path, "processes": 2, "targets": 3})
    step.run(StepFiles({"coadd": (coadd,)}, {"redrock": tmp_path / "redrock.fits"}))

    assert read_redshifts(tmp_path / "redrock.fits")["TARGETID"].tolist() == [11, 12, 13]
    told = (tmp_path / "told").read_text()
    assert f"-i {coadd}" in told
    assert f"--mp 2 -t {tmp_path} -n 3" in told


def test_a_program_that_fails_is_told_in_its_own_words_and_leaves_no_file(coadd: Path, tmp_path: Path) -> None:
    step = RedshiftStep({"program": str(program(tmp_path, "yes")), "templates": tmp_path})
    with pytest.raises(RuntimeError, match="status 1: no template fits"):
        step.run(StepFiles({"coadd": (coadd,)}, {"redrock": tmp_path / "redrock.fits"}))
    assert not list(tmp_path.glob("redrock*"))


def test_without_program_or_templates_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TEMPLATES, raising=False)
    assert "qlstream[redshift]" in RedshiftStep.unavailable(RedshiftStep.Params(program="no-such-program"))
    there = RedshiftStep.Params(program=str(program(tmp_path)))
    assert f"set {TEMPLATES}" in RedshiftStep.unavailable(there)
    assert RedshiftStep.unavailable(RedshiftStep.Params(program=there.program, templates=tmp_path)) == ""
    missing = RedshiftStep.Params(program=there.program, templates=tmp_path / "nowhere")
    assert "nowhere" in RedshiftStep.unavailable(missing)
    with pytest.raises(MissingCalibration, match="templates"):
        RedshiftStep(there).run(StepFiles({}, {"redrock": tmp_path / "redrock.fits"}))
