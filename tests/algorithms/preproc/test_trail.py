from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from algorithms.preproc.trail import Trail, untrail


@pytest.mark.parametrize("forward", [True, False])
def test_a_row_gets_back_exactly_what_the_trail_took(forward: bool) -> None:
    trail = Trail(0.02, 7.0)
    true = np.random.default_rng(0).poisson(1000, 500).astype(float)
    d = np.arange(500)
    kernel = trail.amplitude * d / trail.width * np.exp(-d / trail.width)  # the definition, by a plain convolution
    seen = (true - np.convolve(true, kernel)[:500]).astype(np.float32)
    row = seen.copy() if forward else seen[::-1].copy()

    untrail(row, *trail.recursion, forward, 0.0, 0.0)

    np.testing.assert_allclose(row if forward else row[::-1], true, atol=1e-3)


TRAILS = {"A": (0.005, 13.0), "D": (0.01, 5.0)}  # twenty times what real amplifiers have


def test_simulated_trails_are_corrected_down_to_the_noise(observe: Any) -> None:
    observed = observe("flat", 120.0, trail=TRAILS)

    image, spoiled = observed.preprocess(), observed.preprocess(nodarktrail=True)

    for amp in observed.raw.amps:
        window = amp.ccdsec.slices
        good = (image.mask[window] == 0) & (observed.truth.cosmics[window] < 0.05)
        off, before = (float(np.mean((i.pix[window] - observed.truth.image[window])[good])) for i in (image, spoiled))
        error = np.sqrt(np.mean(1 / image.ivar[window][good]) / good.sum())
        # beside the pixels' noise the level counts: 250 rows x 32 columns of overscan, whose levels drift by 0.05 ADU
        level = np.hypot(4.0 / np.sqrt(250 * 32), 0.08 / np.sqrt(250))
        print(f"{amp.name}: {before:+.2f} e before, {off:+.3f} +- {np.hypot(error, level):.3f} e after")
        assert abs(off) < 5 * np.hypot(error, level)
        if amp.name in TRAILS:
            assert before < -3.0
    pull = observed.pull(image, most=100.0)  # between the fibers, where little light hides no error
    assert pull.std() == pytest.approx(1, abs=0.03)
    assert image.meta["PPTRAIL"] == "done"
    assert spoiled.meta["PPTRAIL"] == "left out: not wanted"


def test_half_a_trail_in_the_calibration_is_an_error(observe: Any) -> None:
    with pytest.raises(ValueError, match="DARKTRAILAMPA = 0.01, DARKTRAILWIDTHA = None; expected a fraction and a"):
        observe("zero", 0.0, cards={"DARKTRAILAMPA": 0.01}).preprocess()
