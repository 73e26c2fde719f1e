"""Faults: read strictly, and each changes exactly what it says."""

import numpy as np
import pytest

from qlstream.simulate.faults import KINDS, parse_fault
from qlstream.simulate.schedule import Exposure


def test_a_fault_tells_kind_camera_part_and_exposure(mini):
    fault = parse_fault("noisy-amp:R0:b@11", mini)

    assert str(fault) == "noisy-amp:r0:b@11"
    assert (fault.kind, fault.camera, fault.part, fault.expid) == ("noisy-amp", "r0", "b", 11)
    assert parse_fault("mispositioned:r1:3,7-9", mini).fibers == (3, 7, 8, 9)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("on-fire", "noisy-amp"),
        ("noisy-amp:q7", "b0 to z9"),
        ("noisy-amp:r0:E", "A, B, C or D"),
        ("lamp-off:r0:A", "whole camera"),
        ("mispositioned:r0:40", "0 to 39"),
        ("mispositioned:r0:x", "3,7-9"),
        ("truncated:r0:", "KIND"),
        ("truncated@yesterday", "KIND"),
    ],
)
def test_a_wrong_fault_is_refused_with_what_is_allowed(mini, text, says):
    with pytest.raises(ValueError, match=says):
        parse_fault(text, mini)


def test_an_unknown_fault_is_answered_with_the_whole_list(mini):
    with pytest.raises(ValueError, match="unknown fault") as error:
        parse_fault("on-fire", mini)

    assert all(kind in str(error.value) for kind in KINDS)


def test_a_fault_hits_only_where_it_makes_sense(mini):
    lamp_off = parse_fault("lamp-off@4", mini)

    assert lamp_off.hits(Exposure("flat", expid=4), "r0")
    assert not lamp_off.hits(Exposure("flat", expid=5), "r0")
    assert not lamp_off.hits(Exposure("dark", expid=4), "r0")


def test_a_noisy_amplifier_is_noisy_alone(simulated):
    good, bad = simulated("science-dark"), simulated("science-dark", "r0", "noisy-amp:r0:B")

    for amp in good.raw.amps:
        before, after = (s.raw.pix[amp.biassec.slices].astype(float) for s in (good, bad))
        if amp.name == "B":
            assert after.std() == pytest.approx(6.0 * before.std(), rel=0.05)
        else:
            np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(good.truth.image, bad.truth.image)
    assert bad.truth.faults == ("noisy-amp:r0:B",)


def test_a_dead_amplifier_shows_its_level_and_nothing_else(simulated):
    good, bad = simulated("flat"), simulated("flat", "r0", "dead-amp:r0:C")

    for amp in good.raw.amps:
        before, after = (s.raw.pix[amp.datasec.slices].astype(float) for s in (good, bad))
        if amp.name == "C":
            assert after.std() < 5 < before.std()
        else:
            np.testing.assert_array_equal(before, after)


def test_a_bias_jump_is_a_step_half_way(simulated):
    good, bad = simulated("dark"), simulated("dark", "r0", "bias-jump:r0:A")

    difference = bad.raw.pix.astype(int) - good.raw.pix

    assert set(np.unique(difference)) <= {0, 39, 40, 41}
    ny, nx = difference.shape
    assert np.all(difference[: ny // 4] == 0)
    assert np.all(difference[:, nx // 2 :] == 0)
    assert np.all(difference[ny // 4 : ny // 2, : nx // 2] > 38)


def test_a_warm_ccd_tells_so_and_has_more_dark_current(simulated):
    good, bad = simulated("dark"), simulated("dark", "r0", "warm-ccd:r0")

    assert bad.raw.header["CCDTEMP"] == pytest.approx(good.raw.header["CCDTEMP"] + 20.0)
    amp = good.raw.amps[0]
    extra = np.median(bad.raw.pix[amp.datasec.slices]) - np.median(good.raw.pix[amp.datasec.slices])
    assert extra * 1.55 == pytest.approx(4.0 / 3600 * 300 * 49, rel=0.4)


@pytest.mark.parametrize("kind", ["arc", "flat"])
def test_a_lamp_that_is_off_gives_no_light(simulated, kind):
    assert simulated(kind).truth.image.max() > 1000
    assert simulated(kind, "r0", "lamp-off").truth.image.max() == 0


def test_out_of_focus_spots_are_wider_and_hold_the_same_light(simulated):
    good, bad = simulated("arc").truth, simulated("arc", "r0", "out-of-focus:r0").truth

    wave = np.array([6700.0])
    ratio = bad.traces.xsig_vs_wave(wave) / good.traces.xsig_vs_wave(wave)
    np.testing.assert_allclose(ratio, 1.5, rtol=1e-3)
    assert bad.image.sum() == pytest.approx(good.image.sum(), rel=2e-3)  # wide spots near the edge leave the CCD


def test_mispositioned_fibers_lose_their_targets_in_every_arm_but_keep_their_sky(simulated):
    for camera in ("r0", "z0"):
        good, bad = (s.truth for s in (simulated("science-dark", camera), _misplaced(simulated, camera)))
        ratio = bad.target.sum(axis=1)[5:15] / np.maximum(good.target.sum(axis=1)[5:15], 1e-9)
        lit = good.target.sum(axis=1)[5:15] > 0
        assert np.all(ratio[lit] < 0.5)
        np.testing.assert_array_equal(good.target[15:], bad.target[15:])
        np.testing.assert_array_equal(good.sky, bad.sky)


def _misplaced(simulated, camera):
    return simulated("science-dark", camera, "mispositioned:r0:5-14")


def test_moonlight_brightens_the_sky_and_the_header_says_where_the_moon_is(simulated):
    good, bad = simulated("science-dark", "b0"), simulated("science-dark", "b0", "moonlit")

    assert np.median(bad.truth.sky) > 4 * np.median(good.truth.sky)
    np.testing.assert_array_equal(good.truth.target, bad.truth.target)
    assert bad.raw.primary["MOONSEP"] < 20 < good.raw.primary["MOONSEP"]
