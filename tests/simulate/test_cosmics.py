"""Cosmic rays: as many as the arm says, with the charge that silicon gives."""

import numpy as np
import pytest
from scipy.ndimage import label

from qlstream.instrument import load_instrument
from qlstream.simulate.cosmics import READOUT_EXPOSURE, draw_cosmics


@pytest.mark.parametrize("arm", ["b", "r"])
def test_hits_come_at_the_rate_of_the_arm(arm):
    arm = load_instrument("desi").arm(arm)
    exptime = 600.0

    image = draw_cosmics(arm, exptime, np.random.default_rng(1))

    _, found = label(image > 20.0, structure=np.ones((3, 3)))
    expected = arm.cosmic_rate * (exptime + READOUT_EXPOSURE) / 60.0
    # Poisson scatter, and about 2 % of the tracks touch another or fall apart at their thin ends
    assert found == pytest.approx(expected, abs=4 * np.sqrt(expected) + 0.05 * expected)


def test_charge_of_a_track_is_eighty_pairs_per_micron():
    arm = load_instrument("mini").arm("r")
    rng = np.random.default_rng(3)

    totals = [draw_cosmics(arm, 60.0, rng).sum() for _ in range(300)]

    per_hit = np.median(totals) / (arm.cosmic_rate * 1.5)
    straight_through = 80.0 * arm.thickness
    # isotropic muons go through 1/cos = 2 times the thickness in the mean; a third of the hits are shorter
    assert 0.8 * straight_through < per_hit < 2.2 * straight_through


def test_a_thin_ccd_collects_less():
    mini = load_instrument("mini")

    thin, thick = (draw_cosmics(mini.arm(a), 20000.0, np.random.default_rng(3)).sum() for a in "br")

    assert thin < 0.2 * thick


def test_tracks_are_longer_than_a_spot_and_narrower():
    arm = load_instrument("desi").arm("r")

    image = draw_cosmics(arm, 300.0, np.random.default_rng(4))

    labels, found = label(image > 20.0, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    assert found > 100
    assert np.median(sizes) > 10
    assert sizes.max() > 100
