from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from algorithms.fluxcal.stage import ApplyFluxCalibration
from qlstream.calibration.served import Calibration, MissingCalibration
from qlstream.datamodel.fluxcalib import FluxCalib
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.qframe import CALIBRATED
from qlstream.datamodel.sky import SkyModel


def response(wave, airmass=1.0, seeing=1.1):
    return (1.2 + 1e-4 * (wave - 6000)) * 10 ** (-0.4 * ((airmass - 1.0) * 0.13 + (seeing - 1.1) * 0.4))


@pytest.fixture
def fluxcalib():
    wave = np.arange(5500.0, 7000.0, 1.0)
    return FluxCalib(wave, response(wave), np.full(wave.size, 0.13), np.full(wave.size, 0.4), 1.0, 1.1)


@pytest.fixture
def qframe(spectrograph):
    spectrograph.gray[:], spectrograph.slope[:] = 1.0, 0.0
    truth = 3.0 + 0.002 * (spectrograph.wave - 6000)  # 1e-17 erg/s/cm2/Angstrom
    qframe = spectrograph.observe(truth * response(spectrograph.wave, 1.4, 1.5) * 900)
    return replace(qframe, sky=np.ones_like(qframe.flux)), truth


def context_with(make_context, fluxcalib, **header):
    return make_context(
        calibration=Calibration("r3", 20260114, {} if fluxcalib is None else {"FLUXCALIB": fluxcalib}),
        header={"EXPTIME": 900.0, **header},
    )


def test_calibrated_flux_is_the_truth_within_its_errors(qframe, fluxcalib, make_context):
    counts, truth = qframe

    out = ApplyFluxCalibration().run(counts, context_with(make_context, fluxcalib, AIRMASS=1.4, SEEING=1.5))

    z = (out.flux - truth) * np.sqrt(out.ivar)
    print(f"pull mean {z.mean():+.4f} rms {z.std():.4f}")
    assert abs(z.mean()) < 5 / np.sqrt(z.size)
    assert z.std() == pytest.approx(1.0, abs=5 / np.sqrt(2 * z.size))
    assert out.bunit == CALIBRATED
    assert out.meta["CALVALUE"] == pytest.approx(900 * response(out.meta["CALWAVE"], 1.4, 1.5), rel=1e-5)
    np.testing.assert_allclose(out.sky * counts.flux, out.flux * counts.sky, rtol=1e-5)


@pytest.mark.parametrize(
    ("header", "airmass", "seeing"),
    [
        ({"AIRMASS": 1.3, "SEEING": 0.9, "ETCSEENG": 2.0}, 1.3, 0.9),
        ({"AIRMASS": 1.3, "SEEING": None, "ETCSEENG": 1.4, "PMSEEING": 2.0}, 1.3, 1.4),
        ({"SEEING": -1.0, "PMSEEING": 1.7}, 1.0, 1.7),
        ({"SEEING": float("nan"), "AIRMASS": "unknown"}, 1.0, 1.1),
    ],
)
def test_seeing_and_airmass_fall_back(qframe, fluxcalib, make_context, header, airmass, seeing):
    out = ApplyFluxCalibration().run(qframe[0], context_with(make_context, fluxcalib, **header))

    assert (out.meta["CALAIRM"], out.meta["CALSEE"]) == (airmass, seeing)


def test_where_there_is_no_calibration_the_mask_says_so(qframe, fluxcalib, make_context):
    value = fluxcalib.value.copy()
    value[fluxcalib.wave > 6100] = 0

    out = ApplyFluxCalibration().run(qframe[0], context_with(make_context, replace(fluxcalib, value=value)))

    beyond = out.wave > 6101
    assert beyond.any()
    assert (out.mask[beyond] == SpecMask.NODATA).all()
    assert (out.flux[beyond] == 0).all()
    assert (out.ivar[beyond] == 0).all()
    assert (out.mask[out.wave < 6099] == 0).all()


def test_without_calibration_or_exposure_time_the_stage_is_skipped(qframe, fluxcalib, make_context):
    with pytest.raises(MissingCalibration, match="no FLUXCALIB"):
        ApplyFluxCalibration().run(qframe[0], context_with(make_context, None))
    with pytest.raises(MissingCalibration, match="EXPTIME"):
        ApplyFluxCalibration().run(qframe[0], context_with(make_context, fluxcalib, EXPTIME=0.0))


def test_a_frame_and_its_sky_are_calibrated_alike(framing, fluxcalib, make_context):
    truth = 3.0 + 0.002 * (framing.wave - 6000)
    frame = framing.observe(np.broadcast_to(truth * response(framing.wave, 1.4, 1.5) * 900, (60, framing.nwave)))
    sky = SkyModel(frame.wave, 2 * frame.flux, frame.ivar / 4, frame.mask, stat_ivar=frame.ivar / 4)

    out = ApplyFluxCalibration().run(
        replace(frame, sky=sky), context_with(make_context, fluxcalib, AIRMASS=1.4, SEEING=1.5)
    )

    z = (out.flux - truth) * np.sqrt(out.ivar)
    print(f"pull mean {z.mean():+.4f} rms {z.std():.4f}")
    assert isinstance(out, Frame)
    assert out.bunit == CALIBRATED
    assert abs(z.mean()) < 5 / np.sqrt(z.size)
    assert z.std() == pytest.approx(1.0, abs=5 / np.sqrt(2 * z.size))
    np.testing.assert_allclose(out.sky.flux, 2 * out.flux, rtol=1e-5)
    np.testing.assert_allclose(out.sky.ivar, out.ivar / 4, rtol=1e-5)
    np.testing.assert_allclose(out.per_bin().sky, out.sky.flux, rtol=1e-6)
