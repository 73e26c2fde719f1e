"""The widths of an arc serve the exposures that come after it."""

from __future__ import annotations

import numpy as np
import pytest

from qlstream.configs import config_path
from qlstream.engine.camera import CameraRequest, reduce_camera
from qlstream.instrument import load_instrument
from qlstream.io.qframe import read_qframe
from qlstream.io.xytraceset import read_xytraceset
from qlstream.pipeline.context import Buffers
from qlstream.pipeline.plan import load_plans
from qlstream.pipeline.ranges import Ranges
from qlstream.simulate.exposure import simulate_camera
from qlstream.simulate.faults import parse_fault
from qlstream.simulate.night import simulate_night
from qlstream.simulate.schedule import plan_night

NIGHT, CAMERA, WIDER = 20260115, "r1", 1.1
KINDS = ("arc", "science-dark", "science-dark")


class Uses:
    """A reporter that notes which calibrations served."""

    def __init__(self):
        self.used = []

    def calibration_used(self, use):
        self.used.append(use)

    def __getattr__(self, name):
        return lambda *anything: None


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """raw and calib of exposures whose lines are all a tenth wider than the calibration PSF's."""
    out = tmp_path_factory.mktemp("wide")
    instrument = load_instrument("mini")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qlstream.simulate.exposure.DEFOCUS", WIDER)
        simulate_night(instrument, NIGHT, out, [CAMERA], faults=[parse_fault("out-of-focus", instrument)], kinds=KINDS)
    return out


def reduce(night, redux, expid):
    reporter = Uses()
    raw = night / f"raw/{NIGHT}/{expid:08d}/desi-{expid:08d}.fits.fz"
    ranges = Ranges.load(config_path("qa", "quicklook"))
    reduced = reduce_camera(
        CameraRequest(raw, CAMERA, redux, night / "calib"), load_plans(), ranges, reporter, Buffers()
    )
    return reduced, reporter.used


def true_widths(expid, wave):
    """(nspec, n) widths [pixel] that the simulation used, but for the focus."""
    exposure = plan_night(NIGHT, 1, KINDS)[expid - 1]
    return WIDER * simulate_camera(load_instrument("mini"), CAMERA, exposure).truth.traces.ysig_vs_wave(wave)


def test_science_takes_the_widths_of_the_arc_before_it_and_says_which(night, tmp_path):
    wave = np.linspace(5900.0, 7500.0, 20)

    reduced = {expid: reduce(night, tmp_path, expid) for expid in (1, 2, 3)}

    alone, _ = reduce(night, tmp_path / "without-arc", 2)
    for expid in (1, 2, 3):
        outcome, truth = reduced[expid][0], true_widths(expid, wave)
        traces = read_xytraceset(outcome.written["psf"])
        error = traces.ysig_vs_wave(wave) / truth - 1
        qframe = read_qframe(outcome.written["qframe"])
        rows = np.array([np.interp(wave, w, s) for w, s in zip(qframe.wave, qframe.ysigma, strict=True)])
        print(f"exposure {expid}: bias {error.mean():+.4f}, rms {error.std():.4f}, qframe {(rows / truth).mean():.4f}")
        assert abs(error.mean()) < 0.01
        assert np.abs(error).max() < 0.06
        np.testing.assert_allclose(rows, traces.ysig_vs_wave(wave), rtol=2e-3)
        assert traces.meta["YSIGEXP"] == 1
    wrong = np.median(alone.outcome.outputs["Extract_QP"].ysigma) / np.median(rows)
    assert wrong == pytest.approx(1 / WIDER, abs=0.01)  # what the calibration alone would have told

    served = [next(use for use in reduced[expid][1] if use.kind == "TRACES") for expid in (2, 3)]
    assert [use.origin for use in served] == ["tonight", "tonight"]
    assert served[0].path == reduced[1][0].written["psf"]
    checks = {name: result for _, result in reduced[1][0].outcome.judged for name in [result.name]}
    assert checks["Check_Resolution"].metrics["YSIGMA_RATIO"] == pytest.approx(WIDER, rel=0.01)
    assert checks["Check_Resolution"].metrics["CHECKARC"] >= 38


def test_an_arc_without_light_leaves_the_widths_before_it(tmp_path):
    instrument = load_instrument("mini")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qlstream.simulate.exposure.DEFOCUS", WIDER)
        faults = [parse_fault("out-of-focus", instrument), parse_fault("lamp-off@2", instrument)]
        simulate_night(instrument, NIGHT, tmp_path, [CAMERA], faults=faults, kinds=("arc", "arc", "science-dark"))

    reduced = {expid: reduce(tmp_path, tmp_path / "redux", expid)[0] for expid in (1, 2, 3)}

    wave = np.linspace(5900.0, 7500.0, 20)
    widths = [read_xytraceset(reduced[expid].written["psf"]).ysig_vs_wave(wave) for expid in (1, 2, 3)]
    np.testing.assert_allclose(widths[1], widths[0], rtol=1e-3)
    np.testing.assert_allclose(widths[2], widths[0], rtol=5e-3)
    alarms = {c.metric for _, r in reduced[2].outcome.judged for c in r.checks if c.severity.name == "ALARM"}
    assert {"CHECKARC_FRACTION", "LAMP_LEVEL"} <= alarms
