"""Frames divided by the calibration vectors of their exposure."""

from __future__ import annotations

import numpy as np
import pytest

from algorithms.fluxcal.frame import apply_fluxcalib
from qlstream.datamodel.fluxcalib import FrameFluxCalib
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.qframe import CALIBRATED

WAVE = 5800 + 0.8 * np.arange(50)


@pytest.fixture
def frame(make_fibermap) -> Frame:
    shape = (3, 50)
    return Frame(
        WAVE, np.full(shape, 100.0), np.full(shape, 0.25), np.zeros(shape, np.uint32), np.arange(3, dtype=np.int32),
        fibermap=make_fibermap(["ELG"] * 3, EBV=np.full(3, 0.1)), meta={"CAMERA": "r0"},
    )  # fmt: skip


def calibration(ivar: float, **given) -> FrameFluxCalib:
    shape = (3, 50)
    fields = {"wave": WAVE, "value": np.full(shape, 20.0), "ivar": np.full(shape, ivar)}
    return FrameFluxCalib(**(fields | {"mask": np.zeros(shape, np.uint32)} | given))


def test_flux_and_its_error_are_those_of_a_quotient(frame):
    out = apply_fluxcalib(frame, calibration(ivar=4.0))

    np.testing.assert_allclose(out.flux, 5.0)
    # relative errors of 2 % of the counts and 2.5 % of the calibration add in square
    np.testing.assert_allclose(1 / np.sqrt(out.ivar) / out.flux, np.hypot(0.02, 0.025))
    assert out.bunit == CALIBRATED


def test_bins_without_calibration_have_no_information_and_say_so(frame):
    value = np.full((3, 50), 20.0)
    value[1, 7] = 0.0

    out = apply_fluxcalib(frame, calibration(4.0, value=value))

    assert (out.flux[1, 7], out.ivar[1, 7], out.mask[1, 7]) == (0.0, 0.0, SpecMask.LOWFLAT)
    assert (out.mask != 0).sum() == 1
    with pytest.raises(ValueError, match="compute it from this very frame"):
        apply_fluxcalib(frame, calibration(4.0, wave=WAVE + 1))


def test_the_corrections_of_each_fiber_stand_in_the_fibermap(frame):
    corrections = np.zeros(3, dtype=[("FLAT_TO_PSF_FLUX", "f8"), ("PSF_TO_FIBER_FLUX", "f8")])
    corrections["FLAT_TO_PSF_FLUX"], corrections["PSF_TO_FIBER_FLUX"] = [1.0, 1.1, 0.9], [0.7, 0.8, 0.6]

    out = apply_fluxcalib(frame, calibration(4.0, fibercorr=corrections))

    np.testing.assert_allclose(out.fibermap.column("FLAT_TO_PSF_FLUX"), [1.0, 1.1, 0.9], rtol=1e-6)
    np.testing.assert_allclose(out.fibermap.column("PSF_TO_FIBER_SPECFLUX"), [0.7, 0.8, 0.6], rtol=1e-6)
    assert out.fibermap.rows.dtype["PSF_TO_FIBER_SPECFLUX"] == np.dtype("f4")
    assert "PSF_TO_FIBER_SPECFLUX" not in frame.fibermap, "the input stays as it was"
    np.testing.assert_array_equal(out.fibermap.column("EBV"), frame.fibermap.column("EBV"))
