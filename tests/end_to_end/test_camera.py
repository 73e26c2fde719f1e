"""One camera in its surroundings: what is known to be bad is no news, a series of darks serves, a fibermap is made."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qlstream.calibration.served import CalibrationUse
from qlstream.configs import config_path
from qlstream.datamodel.masks import CCDMask, FiberMask
from qlstream.engine.camera import CameraRequest, Reduced, reduce_camera
from qlstream.instrument import load_instrument
from qlstream.io.raw import read_raw
from qlstream.pipeline.context import Buffers
from qlstream.pipeline.plan import load_plans
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.result import QASeverity
from qlstream.simulate.faults import parse_fault
from qlstream.simulate.night import simulate_night

NIGHT, CAMERA = 20260115, "r0"
FLAT, SCIENCE = 1, 2
DEAD = (11, 27)


class Notes:
    """Notes which calibrations serve, and nothing else."""

    def __init__(self) -> None:
        self.used: dict[str, CalibrationUse] = {}

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None

    def calibration_used(self, use: CalibrationUse) -> None:
        self.used[use.kind] = use


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flat and a science exposure as from a telescope, with a noisy amplifier A and two dead fibers."""
    out = tmp_path_factory.mktemp("night")
    mini = load_instrument("mini")
    texts = (f"noisy-amp:{CAMERA}:A", f"dead-fibers:{CAMERA}:{','.join(map(str, DEAD))}")
    faults = [parse_fault(text, mini) for text in texts]
    simulate_night(mini, NIGHT, out, (CAMERA,), faults=faults, kinds=("flat", "science-dark"), fiberassign=True)
    return out


@pytest.fixture
def reduce(night: Path, tmp_path: Path) -> Callable[..., Reduced]:
    redux = tmp_path / "redux"

    def run(expid: int, reporter: Notes | None = None, **given: Any) -> Reduced:
        raw = night / "raw" / str(NIGHT) / f"{expid:08d}" / f"desi-{expid:08d}.fits.fz"
        request = CameraRequest(raw, CAMERA, redux, night / "calib", **given)
        ranges = Ranges.load(config_path("qa", "quicklook"))
        return reduce_camera(request, load_plans(), ranges, reporter or Notes(), Buffers())

    return run


def judged(reduced: Reduced, metric: str) -> dict[str, QASeverity]:
    """Element -> verdict of a metric."""
    checks = (check for _, result in reduced.outcome.judged for check in result.checks)
    return {check.element: check.severity for check in checks if check.metric == metric}


def summary(reduced: Reduced, name: str) -> str:
    return next(result.summary for _, result in reduced.outcome.judged if result.name == name)


def status(reduced: Reduced) -> np.ndarray:
    return reduced.context.fibermap.column("FIBERSTATUS")


def test_an_amplifier_known_to_be_bad_is_masked_and_not_judged(reduce):
    news, known = reduce(FLAT), reduce(FLAT, badamps="r0A,z3D")

    assert judged(news, "NOISE_AMP")["A"] == QASeverity.ALARM
    assert "A" not in judged(known, "NOISE_AMP")
    assert set(judged(known, "NOISE_AMP")) == {"B", "C", "D"}
    image = known.outcome.outputs["Preproc"]
    amp = next(readout.amp for readout in image.readouts if readout.name == "A").ccdsec.slices
    outside = np.ones(image.pix.shape, dtype=bool)
    outside[amp] = False
    assert (image.mask[amp] & int(CCDMask.BADAMP)).all()
    assert not (image.mask[outside] & int(CCDMask.BADAMP)).any()
    on_a = (status(known) & int(FiberMask.BADAMPR)) != 0
    assert on_a[:20].all()  # both halves of the CCD have 20 fibers, and traces next to the border wander over it
    assert not on_a[22:].any()
    assert not (status(news) & int(FiberMask.BADAMPR)).any()


def test_sky_is_taken_elsewhere_than_from_a_bad_amplifier(reduce):
    known = reduce(SCIENCE, badamps="r0B")

    fibermap = known.context.fibermap
    usable = fibermap.is_sky & fibermap.is_usable("sky", "r")
    assert 0 < usable.sum() < fibermap.is_sky.sum()
    assert not usable[22:].any()
    subtracted = known.outcome.outputs["SkySub_QP"]
    assert subtracted.meta["NSKY"] + subtracted.meta["NSKYREJ"] == usable.sum()
    assert not subtracted.ivar[22:].any()


def test_bad_fibers_of_the_night_are_not_told_as_news(reduce, tmp_path):
    news = reduce(FLAT)
    listed = tmp_path / "redux" / "calibnight" / str(NIGHT) / f"badfibers-{NIGHT}.csv"
    listed.parent.mkdir(parents=True)
    listed.write_text("FIBER,FIBERSTATUS\n" + "".join(f"{fiber},{int(FiberMask.BADFIBER)}\n" for fiber in DEAD))

    known = reduce(FLAT)

    assert "of 39 expected fibers" in summary(news, "CountSpectralBins")  # one fiber is broken, as the tree knows
    assert "of 37 expected fibers" in summary(known, "CountSpectralBins")
    assert (status(known)[list(DEAD)] & int(FiberMask.BADFIBER)).all()
    assert (status(news) & int(FiberMask.BROKENFIBER)).any()  # though a flat has no fibermap


def test_fibers_flagged_for_one_exposure_are_not_used_for_its_sky(night, reduce):
    before = reduce(SCIENCE).context.fibermap
    sky = before.fiber[before.is_sky & before.is_usable("sky", "r")]
    path = night / "calib" / "ccd" / "flagged_fibers.ecsv"
    path.write_text(f"EXPID,FIBERS,FIBERSTATUS_BITNAME\n{SCIENCE},{sky[0]},BRIGHTNEIGHBOR\n")
    try:
        after, other = reduce(SCIENCE).context.fibermap, reduce(FLAT).context.fibermap
    finally:
        path.unlink()

    assert list(after.fiber[after.is_sky & after.is_usable("sky", "r")]) == list(sky[1:])
    assert not (other.column("FIBERSTATUS") & int(FiberMask.BRIGHTNEIGHBOR)).any()


def test_the_fibermap_that_was_put_together_is_kept(reduce, tmp_path):
    reduced = reduce(SCIENCE)

    kept = tmp_path / "redux" / "preproc" / str(NIGHT) / f"{SCIENCE:08d}" / f"fibermap-{SCIENCE:08d}.fits"
    assert kept.exists()
    assert reduced.context.program == "dark"
    assert not (kept.parent / "fibermap-00000001.fits").exists()
    kept.unlink()
    reduce(SCIENCE, products=False)
    assert not kept.exists()


def test_a_series_of_darks_serves_in_place_of_the_trees(night, reduce, tmp_path):
    series, tables = tmp_path / "series", {}
    series.mkdir()
    for kind in ("bias", "dark"):
        (source,) = (night / "calib" / "ccd").glob(f"{kind}-*")
        unit = source.name.split("-")[1]  # sm4
        name = f"{kind}-{unit}-r-20260101.fits.gz"
        shutil.copy(source, series / name)
        tables[kind] = f"FILENAME,DETECTOR,CCDCFG,CCDTMING,CCDTEMP\n{name},QL-R-{unit[2:]:0>2},{{}},{{}},{{}}\n"
    header = read_raw(night / "raw" / str(NIGHT) / "00000001" / "desi-00000001.fits.fz", CAMERA).header
    for kind, text in tables.items():
        (series / f"{kind}_table.csv").write_text(text.format(*(header[k] for k in ("CCDCFG", "CCDTMING", "CCDTEMP"))))
    notes, before = Notes(), Notes()

    reduce(FLAT, before)
    reduce(FLAT, notes, dark=series)

    assert before.used["DARK"].origin == before.used["BIAS"].origin == "tree"
    assert notes.used["DARK"].origin == notes.used["BIAS"].origin == "series"
    assert notes.used["DARK"].path.parent == series
    assert notes.used["PIXFLAT"].origin == "tree"
