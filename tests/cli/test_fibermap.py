"""`qlstream fibermap`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from qlstream.cli.main import cli
from qlstream.datamodel.masks import FiberMask
from qlstream.instrument import load_instrument
from qlstream.io.fibermap import read_fibermap
from qlstream.io.fitsfile import HDU, FitsFile, write_fits
from qlstream.simulate.assignment import write_companions
from qlstream.simulate.headers import exposure_header
from qlstream.simulate.schedule import Exposure
from qlstream.simulate.targets import assign_targets

NIGHT, EXPID = 20260115, 12


def run(*args: object) -> tuple[int, str]:
    result = CliRunner(env={"FIBER_ASSIGN_DIR": ""}).invoke(cli, ["fibermap", *map(str, args)])
    return result.exit_code, result.output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of an exposure as from a telescope; only the headers of the raw file matter."""
    mini = load_instrument("mini")
    exposure = Exposure("science-dark", NIGHT, EXPID, tileid=1012)
    folder = tmp_path / "raw" / str(NIGHT) / f"{EXPID:08d}"
    folder.mkdir(parents=True)
    header = exposure_header(exposure, mini, ("r3",))
    write_fits(folder / f"desi-{EXPID:08d}.fits.fz", [HDU("", None), HDU("SPEC", np.arange(10), header)])
    write_companions(folder, assign_targets(mini, exposure, 1), mini, exposure, seed=1)
    return folder


def test_a_fibermap_is_put_together_in_the_production(folder, tmp_path):
    given = ("assemble", "-n", NIGHT, "-e", EXPID, "--raw", tmp_path / "raw", "--redux", tmp_path / "redux")

    status, out = run(*given, "--badamps", "b7D; z8A")

    made = tmp_path / "redux" / "preproc" / str(NIGHT) / f"{EXPID:08d}" / f"fibermap-{EXPID:08d}.fits"
    assert status == 0, out
    assert "400 fibers:" in out
    assert "BADAMPB 20, BADAMPZ 20" in out
    assert f"positions: coordinates-{EXPID:08d}.fits" in out
    assert f"wrote {made}" in out
    flagged = read_fibermap(made).column("FIBERSTATUS") & int(FiberMask.BADAMPZ)
    assert list(np.flatnonzero(flagged)) == list(range(320, 340))
    status, out = run(*given)
    assert status == 1
    assert "give --overwrite" in out
    assert run(*given, "--overwrite")[0] == 0


def test_what_is_missing_or_wrong_is_said(folder, tmp_path):
    given = ("assemble", "-n", NIGHT, "-e", EXPID, "--raw", tmp_path / "raw", "-o", tmp_path / "fibermap.fits")

    assert "'b77' in 'b77' is no amplifier" in run(*given, "--badamps", "b77")[1]
    next(folder.glob("coordinates-*")).unlink()
    status, out = run(*given)
    assert status == 0
    assert f"positions: unknown (no coordinates-{EXPID:08d}.fits)" in out
    next(folder.glob("fiberassign-*")).unlink()
    status, out = run(*given, "--overwrite")
    assert status == 1
    assert "no fiberassign-001012.fits(.gz)" in out
    status, out = run("assemble", "-n", NIGHT, "-e", 99, "--raw", tmp_path / "raw", "-o", tmp_path / "x.fits")
    assert status == 1
    assert "no exposure" in out


def test_files_are_compared(folder, tmp_path):
    first = next(folder.glob("fiberassign-*"))
    second = tmp_path / first.name
    shutil.copy(first, second)

    assert run("compare", first, second) == (0, "no differences in what observing depends on\n")
    with FitsFile(first) as fits:
        rows = fits.table("FIBERASSIGN")
    rows["FLUX_R"] += 1
    write_fits(second, [HDU("", None), HDU("FIBERASSIGN", rows)])
    assert run("compare", first, second)[0] == 0
    assert run("compare", first, second, "--all") == (1, "1 column differs: FLUX_R\n")
    write_fits(second, [HDU("", None)])
    status, out = run("compare", first, second)
    assert status == 1
    assert "missing HDU" in out
