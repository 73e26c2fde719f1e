"""Faults: read strictly, and each changes exactly what it says."""

import numpy as np
import pytest

from qlstream.simulate.exposure import simulate_camera
from qlstream.simulate.faults import KINDS, as_observed, parse_fault
from qlstream.simulate.schedule import Exposure


def test_a_fault_tells_kind_camera_part_and_exposure(mini):
    fault = parse_fault("noisy-amp:R0:b@11", mini)

    assert str(fault) == "noisy-amp:r0:b@11"
    assert (fault.kind, fault.camera, fault.part, fault.expid) == ("noisy-amp", "r0", "b", 11)
    assert parse_fault("mispositioned:r1:3,7-9", mini).fibers == (3, 7, 8, 9)
    assert parse_fault("dead-lamp:Ne@3", mini).part == "Ne"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("on-fire", "noisy-amp"),
        ("noisy-amp:q7", "b0 to z9"),
        ("noisy-amp:r0:E", "A, B, C or D"),
        ("lamp-off:r0:A", "whole camera"),
        ("mispositioned:r0:40", "0 to 39"),
        ("mispositioned:r0:x", "3,7-9"),
        ("swapped-amps:r0:AA", "two amplifiers"),
        ("swapped-amps:r0:A", "two amplifiers"),
        ("dead-lamp:Na", "Ar, Cd, Hg"),
        ("clouds:r0", "whole exposure"),
        ("dead-fibers:r0:50", "0 to 39"),
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


def test_pickup_moves_whole_rows_of_one_amplifier(simulated):
    good, bad = simulated("zero"), simulated("zero", "r0", "pickup:r0:C")

    difference = bad.raw.pix.astype(int) - good.raw.pix
    rows = {}
    for amp in good.raw.amps:
        of_data, of_overscan = difference[amp.datasec.slices], difference[amp.biassec.slices]
        assert np.ptp(of_data, axis=1).max() == np.ptp(of_overscan, axis=1).max() == 0
        np.testing.assert_array_equal(of_data[:, 0], of_overscan[:, 0])
        rows[amp.name] = of_data[:, 0]
    assert not rows["A"].any()
    assert rows["C"].std() == pytest.approx(6.0, rel=5 / np.sqrt(2 * len(rows["C"])))


def test_swapped_amplifiers_deliver_each_other_s_pixels_from_their_own_corner(simulated):
    good, bad = simulated("flat"), simulated("flat", "r0", "swapped-amps:r0:AB")

    amps = {amp.name: amp for amp in good.raw.amps}
    for here, there in (("A", "B"), ("B", "A"), ("C", "C"), ("D", "D")):
        for section in ("datasec", "biassec", "orsec"):
            came = bad.raw.pix[getattr(amps[here], section).slices]
            was = good.raw.pix[getattr(amps[there], section).slices]
            np.testing.assert_array_equal(came, was[:, ::-1] if here != there else was)


def test_a_readout_that_never_happened_is_one_number(simulated):
    assert np.ptp(simulated("science-dark", "r0", "no-readout:r0").raw.pix) == 0


def test_a_light_leak_brightens_a_dark_more_to_one_side(simulated):
    good, bad = simulated("dark"), simulated("dark", "r0", "light-leak:r0")

    gain = 1.55
    for amp, electrons in (("A", 90.0), ("B", 150.0)):  # 0.2 to 0.6 electrons a second, over 300 s
        section = next(a for a in good.raw.amps if a.name == amp).datasec.slices
        extra = np.median(bad.raw.pix[section]) - np.median(good.raw.pix[section])
        assert extra * gain == pytest.approx(electrons, rel=0.1)


def test_a_storm_of_cosmic_rays(simulated):
    good, bad = simulated("dark").truth, simulated("dark", "r0", "cosmic-storm:r0").truth

    assert np.count_nonzero(bad.cosmics) > 10 * np.count_nonzero(good.cosmics)
    np.testing.assert_array_equal(good.image, bad.image)


def test_a_dim_lamp_gives_two_fifths_of_its_light(simulated):
    for kind in ("arc", "flat"):
        good, bad = simulated(kind).truth, simulated(kind, "r0", "dim-lamp:r0").truth
        np.testing.assert_allclose(bad.sky, 0.4 * good.sky, atol=1e-9)


def test_a_dead_lamp_takes_its_lines_and_leaves_the_others(simulated):
    good, bad = simulated("arc").truth, simulated("arc", "r0", "dead-lamp:Ne").truth

    fiber = int(np.argmax(good.sky.sum(axis=1)))
    neon, krypton = (np.argmin(np.abs(good.wave[fiber] - wave)) for wave in (6404.02, 7589.50))
    assert bad.sky[fiber, neon] < 1e-3 * good.sky[fiber, neon]
    assert bad.sky[fiber, krypton] == pytest.approx(good.sky[fiber, krypton], rel=1e-3)


def test_a_closed_shutter_leaves_a_science_exposure_dark(simulated):
    assert simulated("science-dark", "r0", "closed-shutter:r0").truth.image.max() == 0


def test_shifted_traces_lie_elsewhere_and_the_truth_says_so(simulated):
    good, bad = simulated("arc").truth, simulated("arc", "r0", "shifted-traces:r0").truth

    for axis in ("dx", "dy"):
        np.testing.assert_allclose(getattr(bad, axis) - getattr(good, axis), 2.5, atol=1e-9)
    wave = np.array([6700.0])
    np.testing.assert_allclose(bad.traces.x_vs_wave(wave) - good.traces.x_vs_wave(wave), 2.5, atol=1e-3)


@pytest.mark.parametrize(("kind", "left"), [("dead-fibers", 0.0), ("dim-fibers", 1 / 3)])
def test_fibers_that_lose_light_lose_it_in_every_arm_and_flavor(simulated, kind, left):
    for flavor, camera in (("flat", "r0"), ("science-dark", "b0"), ("arc", "z0")):
        good, bad = simulated(flavor, camera).truth, simulated(flavor, camera, f"{kind}:r0:3,7-9").truth
        hit = np.isin(np.arange(len(good.sky)), [3, 7, 8, 9])
        for axis in ("flux", "fiberflat", "throughput"):
            np.testing.assert_allclose(getattr(bad, axis)[hit], left * getattr(good, axis)[hit], rtol=1e-12)
            np.testing.assert_array_equal(getattr(bad, axis)[~hit], getattr(good, axis)[~hit])


def test_clouds_dim_the_targets_and_not_the_sky(simulated):
    good, bad = simulated("science-dark"), simulated("science-dark", "r0", "clouds")

    np.testing.assert_allclose(bad.truth.target, 0.15 * good.truth.target, rtol=1e-3)
    np.testing.assert_array_equal(good.truth.sky, bad.truth.sky)
    assert bad.raw.primary["TRANSPAR"] == pytest.approx(0.15 * good.raw.primary["TRANSPAR"], abs=1e-4)


def test_a_shutter_that_closes_early_is_told_by_exptime_but_not_by_reqtime(simulated):
    good, bad = simulated("science-dark"), simulated("science-dark", "r0", "short-exposure")

    assert bad.raw.primary["REQTIME"] == good.raw.primary["REQTIME"] == 900
    assert bad.raw.header["EXPTIME"] == pytest.approx(45.0, abs=0.1)
    np.testing.assert_allclose(bad.truth.sky, 0.05 * good.truth.sky, rtol=1e-6)


def test_what_happens_to_a_whole_exposure_happens_once(mini, make_exposure):
    exposure, fault = make_exposure("science-dark"), parse_fault("short-exposure@7", mini)

    observed = as_observed(exposure, [fault])

    assert (observed.exptime, observed.reqtime) == (45.0, 900.0)
    assert as_observed(make_exposure("zero"), [fault]).exptime == 0.0
    assert simulate_camera(mini, "r0", exposure, 3, [fault]).raw.header["EXPTIME"] == pytest.approx(45.0, abs=0.1)
