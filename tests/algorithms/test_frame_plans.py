"""The plans that work with frames, on a simulated camera."""

from __future__ import annotations

import numpy as np
import pytest

from qlstream.configs import config_path
from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.qframe import CALIBRATED
from qlstream.io.fiberflat import read_fiberflat
from qlstream.io.frame import read_frame
from qlstream.io.sky import read_sky
from qlstream.pipeline.plan import FLAVORS, load_plans
from qlstream.pipeline.result import QASeverity

ARC, FLAT, SCIENCE = 3, 4, 5


@pytest.fixture(scope="module")
def reduced(one_camera_night, reduce_r0, tmp_path_factory):
    """Flavor -> what became of it, for an arc, a flat and a science exposure, in that order."""
    plans, redux = load_plans(config_path("plans", "quicklook-frames")), tmp_path_factory.mktemp("frames")
    done = [reduce_r0(one_camera_night, redux, expid, plans=plans) for expid in (ARC, FLAT, SCIENCE)]
    return {one.context.flavor: one for one in done}


def test_there_is_a_plan_for_every_flavor():
    assert tuple(load_plans(config_path("plans", "quicklook-frames"))) == FLAVORS


def test_a_flat_becomes_a_fiber_flat_that_the_science_exposure_is_divided_by(reduced):
    flat, science = reduced["flat"], reduced["science"]

    written = read_fiberflat(flat.written["fiberflat"])
    divided = science.context.earlier["ApplyFiberFlat_QL"]
    extracted = science.context.earlier["BoxcarExtract"]
    good = (divided.ivar > 0) & (extracted.ivar > 0)
    assert isinstance(flat.context.earlier["ComputeFiberflat_QL"], FiberFlat)
    assert science.context.calibration.fiberflat.meta["EXPID"] == FLAT
    np.testing.assert_allclose((divided.flux * written.fiberflat)[good], extracted.flux[good], rtol=1e-3)


def test_science_frames_are_sky_subtracted_and_calibrated_and_written(reduced):
    science = reduced["science"]

    cframe, sky = read_frame(science.written["cframe"]), read_sky(science.written["sky"])
    assert not science.outcome.skipped
    assert cframe.bunit == CALIBRATED
    assert cframe.ysigma is not None
    assert sky.flux.shape == cframe.flux.shape
    subtracted = science.context.earlier["SkySub_QL"]
    flattened = science.context.earlier["ApplyFiberFlat_QL"]
    assert isinstance(subtracted, Frame)
    assert subtracted.meta["NSKY"] == 5
    there = subtracted.ivar > 0
    np.testing.assert_allclose((subtracted.flux + subtracted.sky.flux)[there], flattened.flux[there], rtol=1e-9)


def test_a_healthy_camera_raises_no_alarm(reduced):
    for flavor, one in reduced.items():
        alarms = [c.why for _, result in one.outcome.judged for c in result.checks if c.severity == QASeverity.ALARM]
        assert not alarms, flavor
