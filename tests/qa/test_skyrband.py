import numpy as np
import pytest

from qa.fiberlight import aperture_fraction
from qa.skyrband import Sky_Rband
from qlstream.calibration.served import Calibration
from qlstream.datamodel.fluxcalib import FluxCalib
from qlstream.datamodel.qframe import CALIBRATED
from qlstream.instrument import load_instrument
from qlstream.pipeline.result import QASeverity

INSTRUMENT = load_instrument("mini")
AREA = np.pi * (INSTRUMENT.fiber_diameter / 2) ** 2  # 1.81 arcsec^2


def run(make_context, make_qframe, make_fibermap, magnitude, camera="r3", seeing=1.2, airmass=1.5, params=None):
    """A sky of this AB magnitude per square arcsecond, as the calibration of a point source makes of it."""
    low, high = INSTRUMENT.arm(camera).wave_science
    wave = np.linspace(low - 80, high + 80, 600) * np.ones((40, 1))
    density = 0.10885 / wave**2 * 10 ** (-0.4 * magnitude) / 1e-17 * AREA
    density = density / aperture_fraction(INSTRUMENT.fiber_diameter, seeing) * 10 ** (0.4 * 0.2 * airmass)
    grid = np.arange(3000.0, 10500.0, 10.0)
    flat = np.ones_like(grid)
    parts = {"FLUXCALIB": FluxCalib(grid, flat, 0.2 * flat, 0 * flat)}
    context = make_context(
        camera=camera,
        calibration=Calibration(camera, 20260114, parts),
        header={"EXPTIME": 900.0, "SEEING": seeing, "AIRMASS": airmass},
    )
    qframe = make_qframe(
        np.zeros(wave.shape), 1.0, wave, fibermap=make_fibermap(["SKY"] * 6 + ["ELG"] * 34),
        sky=density.astype(np.float32), bunit=CALIBRATED,
    )  # fmt: skip
    return Sky_Rband(params).run(qframe, context)


@pytest.mark.parametrize(("seeing", "airmass"), [(0.8, 1.0), (1.6, 2.0)])
def test_the_sky_has_its_magnitude_whatever_the_calibration_made_up_for(
    make_context, make_qframe, make_fibermap, seeing, airmass
):
    result = run(make_context, make_qframe, make_fibermap, 20.8, seeing=seeing, airmass=airmass)

    assert result.metrics["SKYRBAND"] == pytest.approx(20.8, abs=0.002)
    assert result.metrics["SKY_MAG_R"] == result.metrics["SKYRBAND"]
    np.testing.assert_allclose(result.per_fiber["SKYRBAND_FIB"][:6], 20.8, atol=0.002)
    assert np.isnan(result.per_fiber["SKYRBAND_FIB"][6:]).all()
    assert result.severity == QASeverity.NORMAL


@pytest.mark.parametrize(("camera", "key"), [("b3", "SKY_MAG_G"), ("z3", "SKY_MAG_Z")])
def test_other_arms_tell_their_own_band(make_context, make_qframe, make_fibermap, camera, key):
    result = run(make_context, make_qframe, make_fibermap, 19.3, camera)

    assert list(result.metrics) == [key]
    assert result.metrics[key] == pytest.approx(19.3, abs=0.002)


def test_a_given_acceptance_is_used(make_context, make_qframe, make_fibermap):
    of_seeing = float(aperture_fraction(INSTRUMENT.fiber_diameter, 1.2))

    result = run(make_context, make_qframe, make_fibermap, 20.8, params={"acceptance": 0.5 * of_seeing})

    assert result.metrics["SKYRBAND"] == pytest.approx(20.8 + 2.5 * np.log10(2), abs=0.002)


def test_a_moonlit_sky_alarms_in_a_dark_program(make_context, make_qframe, make_fibermap):
    result = run(make_context, make_qframe, make_fibermap, 18.5)

    assert result.severity == QASeverity.ALARM


def test_spectra_without_calibration_or_sky_are_refused(make_context, make_qframe):
    with pytest.raises(ValueError, match="Sky_Rband needs"):
        Sky_Rband().run(make_qframe(np.ones((4, 50)), 1.0), make_context())
    with pytest.raises(ValueError, match="no sky model"):
        Sky_Rband().run(make_qframe(np.ones((4, 50)), 1.0, bunit=CALIBRATED), make_context())
