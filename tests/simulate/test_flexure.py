"""Flexure: smooth, tenths of a pixel, and nearly the same in arcs and the flats beside them."""

import numpy as np

from qlstream.simulate.flexure import draw_flexure
from qlstream.simulate.optics import build_optics
from qlstream.simulate.schedule import plan_night


def test_traces_of_an_exposure_are_those_of_the_calibration_plus_the_field(mini):
    optics = build_optics(mini, "r0", seed=2)
    flexure = draw_flexure("r0", plan_night(20260115, 2)[8], seed=2)

    wave, dx, dy = flexure.shifts(optics)
    moved = flexure.applied_to(optics).traces

    np.testing.assert_allclose(moved.x_vs_wave(wave) - optics.traces.x_vs_wave(wave), dx, atol=1e-4)
    np.testing.assert_allclose(moved.y_vs_wave(wave) - optics.traces.y_vs_wave(wave), dy, atol=1e-4)
    assert 0.01 < np.abs(dx).max() < 1.5


def test_flats_lie_where_the_arcs_before_them_do(mini):
    optics = build_optics(mini, "r0", seed=2)
    plan = plan_night(20260115, 2)
    arc = [e for e in plan if e.kind == "arc"][-1]

    for seed in range(5):
        _, dx, dy = draw_flexure("r0", arc, seed).shifts(optics)
        for flat in (e for e in plan if e.kind == "flat"):
            _, flat_dx, flat_dy = draw_flexure("r0", flat, seed).shifts(optics)
            assert np.abs(flat_dx - dx).max() < 0.02
            assert np.abs(flat_dy - dy).max() < 0.02  # 0.01 Angstrom on desi, at the worst of the CCD's corners
            assert np.sqrt(np.mean((flat_dy - dy) ** 2)) < 0.01


def test_science_exposures_move_against_each_other(mini):
    optics = build_optics(mini, "z0", seed=2)
    science = [e for e in plan_night(20260115, 2) if e.flavor == "science"]

    means = [draw_flexure("z0", e, seed=2).shifts(optics)[2].mean() for e in science]

    assert np.ptp(means) > 0.02


def test_a_night_drifts_without_a_jump_at_midnight(mini):
    optics = build_optics(mini, "r0", seed=2)
    plan = plan_night(20260115, 2)

    for seed in range(5):
        means = [draw_flexure("r0", e, seed).shifts(optics)[1].mean() for e in plan]
        assert np.ptp(means) < 0.5  # 0.02 pixel per hour rms, and 0.05 pixel rms with the pointing
