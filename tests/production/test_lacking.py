"""Cameras for which the calibration tree has no PSF start from a flat and an arc of the night."""

from __future__ import annotations

from pathlib import Path

import pytest

from qlstream.instrument import load_instrument
from qlstream.io.psf import read_psf
from qlstream.pipeline.filestep import StepFiles
from qlstream.production.execute import gather
from qlstream.production.graph import build_graph
from qlstream.production.night import lacking_calibrations, raw_exposures
from qlstream.production.plan import OfflinePlan
from qlstream.settings import Settings
from qlstream.simulate.night import simulate_night

NIGHT = 20260115


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A night of one camera; its calibration tree as simulated, and one without PSF beside it."""
    folder = tmp_path_factory.mktemp("night")
    simulate_night(load_instrument("mini"), NIGHT, folder, ("r0",), kinds=("arc", "flat"))
    return folder


def without_psf(folder: Path) -> None:
    (cards,) = (folder / "calib" / "spec").glob("sm*/*.yaml")
    rows = cards.read_text().splitlines()
    cards.write_text("\n".join(row for row in rows if not row.strip().startswith("PSF:")) + "\n")


def test_a_night_without_any_psf_gets_its_own(folder: Path) -> None:
    exposures, _ = raw_exposures(folder / "raw", folder / "redux", NIGHT)
    assert lacking_calibrations(exposures, folder / "calib", True) == frozenset()
    without_psf(folder)
    lacking = lacking_calibrations(exposures, folder / "calib", True)
    assert lacking == {("r0", "PSF")}
    assert lacking_calibrations(exposures, None, True) == lacking

    settings = Settings.model_validate({n: folder / n for n in ("raw", "calib", "redux")})
    plan = OfflinePlan.load()
    kinds = ["preproc", "psfboot", "psf", "psfnight"]
    graph = build_graph(exposures, load_instrument("mini"), folder / "redux", kinds, lacking)
    for task in graph.values():
        for _, path in task.outputs:
            path.parent.mkdir(parents=True, exist_ok=True)
        around = {"camera": task.camera, "calib": settings.calib, "redux": settings.redux}
        plan.step(task.kind, task.arm, around).run(StepFiles(gather(task, settings), dict(task.outputs)))

    psf = read_psf(graph["psfnight_r0_20260115"].output("psf"))
    assert psf.meta["CAMERA"] == "r0"
    assert psf.meta["B00NSPOT"] > 100


def test_an_exposure_that_cannot_be_read_lacks_nothing_here(folder: Path, tmp_path: Path) -> None:
    exposures, _ = raw_exposures(folder / "raw", folder / "redux", NIGHT)
    broken = tmp_path / "desi-1.fits.fz"
    broken.write_bytes(b"no FITS file")
    (first, *_) = exposures
    lost = type(first)(NIGHT, 1, "arc", ("r0",), broken)
    assert lacking_calibrations([lost], folder / "calib", True) == frozenset(), "its first task tells what is wrong"
