"""Zero points and throughput of a known instrument."""

from __future__ import annotations

import numpy as np
import pytest

from algorithms.fluxcal.zeropoint import calibration_cards, throughput, zero_point
from qlstream.datamodel.fluxcalib import FrameFluxCalib
from qlstream.instrument import load_instrument
from qlstream.simulate.throughput import build_throughput, fiber_fraction

WAVE = np.linspace(5900.0, 7500.0, 81)
AREA = 86500.0


def test_a_source_at_the_zero_point_gives_one_electron_a_second() -> None:
    """3631 Jy are AB 0: as photons per second, cm2 and Angstrom that is 3631e-23 / (h lambda)."""
    efficiency = 0.25
    photons = 3631e-23 / (6.62607015e-27 * WAVE)  # of AB 0
    expected = 2.5 * np.log10(efficiency * AREA * photons)
    flux = 3631e-23 * 2.99792458e18 / WAVE**2  # erg/s/cm2/Angstrom
    rate = efficiency * AREA * photons / (flux / 1e-17)
    np.testing.assert_allclose(zero_point(WAVE, rate), expected, atol=2e-4)  # 48.6 is 3631 Jy to 0.1 millimag
    np.testing.assert_allclose(throughput(WAVE, rate, AREA, 1.0), efficiency, rtol=1e-6)
    np.testing.assert_allclose(throughput(WAVE, rate * 0.6, AREA, 0.6), efficiency, rtol=1e-6)


def test_there_is_no_zero_point_where_nothing_is_detected() -> None:
    assert np.isnan(zero_point([5000.0, 6000.0], [0.0, -1.0])).all()


def test_cards_are_those_of_the_simulated_spectrograph() -> None:
    instrument = load_instrument("mini")
    through = build_throughput(instrument, "r0", 1)
    exptime, seeing = 900.0, 1.1
    caught = float(fiber_fraction(instrument, seeing, 0.0))
    value = np.tile(through.electrons(WAVE) * exptime * caught, (4, 1))
    value[3] = 0.0  # a dead fiber
    ivar = np.where(value > 0, 1.0, 0.0)
    calib = FrameFluxCalib(WAVE, value, ivar, np.zeros(value.shape, np.uint32))
    cards = calibration_cards(calib, exptime, instrument.mirror_area, seeing, instrument.fiber_diameter)
    middle = WAVE[WAVE.size // 2]
    print(cards)
    assert cards["CALWAVE"] == middle
    assert cards["CALTHRU"] == pytest.approx(through.of_arm(middle), rel=5e-3)
    assert cards["CALZP"] == pytest.approx(float(zero_point(middle, value[0, WAVE.size // 2] / exptime)), abs=0.005)
    assert calibration_cards(calib, 0.0, 1.0, seeing, 1.5) == {}
