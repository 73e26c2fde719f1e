from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from algorithms.preproc.overscan import measure_overscan
from algorithms.preproc.overscanrows import measure_overscan_rows


@pytest.fixture
def with_columns(observe: Any) -> Any:
    """A zero exposure of which the columns of amplifier A hold a pattern [ADU] that its overscan columns know not."""
    observed = observe("zero", 0.0)
    amp = observed.raw.amps[0]
    pattern = 12.0 + 3.0 * np.sin(np.arange(amp.datasec.shape[1]) / 12.0)
    pix = observed.raw.pix.astype(np.int32)
    for section in (amp.datasec, amp.orsec):
        pix[section.slices] += np.rint(pattern).astype(np.int32)
    return replace(observed, raw=replace(observed.raw, pix=pix)), amp, pattern


@pytest.mark.parametrize("smooth", [False, True])
def test_the_columns_of_an_amplifier_lose_what_its_overscan_rows_hold(with_columns: Any, smooth: bool) -> None:
    observed, amp, pattern = with_columns

    without, image = (observed.preprocess(use_overscan_row=use, use_savgol=smooth, cosmics=False) for use in (0, 1))

    gain = observed.model.detector.gain["A"]
    window = amp.ccdsec.slices
    before, after = (i.pix[window].mean(axis=0) for i in (without, image))
    noise = np.hypot(observed.model.detector.readnoise["A"], gain * 12**-0.5)
    scatter = noise / np.sqrt(len(image.pix) / 2)  # of a column of data
    level = noise / np.sqrt(8)  # of a column of overscan rows, of which there are 8
    print(
        f"columns: {before.mean():.2f} +- {before.std():.2f} e before, {after.mean():.2f} +- {after.std():.2f} e after"
    )
    assert before.mean() == pytest.approx(gain * pattern.mean(), abs=0.5)
    if smooth:
        assert abs(after.mean()) < 5 * level / np.sqrt(pattern.size)
        assert after.std() < np.hypot(scatter, level)  # smoothing leaves less than a column alone would
        assert image.meta["RMETHA"] == "SAVGOL"
        pull = observed.pull(image)
        rounding = gain * 12**-0.5 / noise  # of the pattern, which smoothing does not follow
        assert pull.std() == pytest.approx(np.hypot(1, rounding), abs=0.02)  # errors of the levels are in the variance
    else:
        assert abs(np.median(after)) < 1.5  # a sine's median is its mean to a part of its amplitude
        assert after.std() == pytest.approx(before.std(), rel=0.01)
        assert image.meta["RMETHA"] == "AVERAGE"
    assert without.meta["RMETHA"] == "NONE"


def test_the_calibration_can_ask_for_it_and_the_plan_can_refuse(observe: Any) -> None:
    asked = observe("zero", 0.0, cards={"USE_ORSEC": True, "SAVGOL": True})

    assert asked.preprocess(cosmics=False).meta["RMETHB"] == "SAVGOL"
    assert asked.preprocess(cosmics=False, use_overscan_row=False).meta["RMETHB"] == "NONE"
    assert asked.preprocess(cosmics=False, use_savgol=False).meta["RMETHB"] == "AVERAGE"


def test_where_rows_are_treated_one_by_one_the_corner_gives_their_level(observe: Any) -> None:
    observed = observe("zero", 0.0)
    raw, amp, bias = observed.raw.pix.astype(np.int32), observed.raw.amps[0], observed.model.detector.bias
    half = amp.orsec.y1
    raw[100:half, : raw.shape[1] // 2] += 30  # the level steps, and stays so to the overscan rows

    overscan = measure_overscan(raw, bias, amp)
    columns, _ = measure_overscan_rows(raw, bias, amp, overscan, smooth=False)

    assert overscan.method == "PER_ROW"
    assert np.abs(columns).max() < 0.3


def test_without_overscan_rows_one_is_told(observe: Any, caplog: pytest.LogCaptureFixture) -> None:
    observed = observe("zero", 0.0)
    bare = tuple(replace(amp, orsec=None) for amp in observed.raw.amps)

    image = replace(observed, raw=replace(observed.raw, amps=bare)).preprocess(use_overscan_row=True, cosmics=False)

    assert image.meta["RMETHA"] == "NONE"
    assert "no ORSEC" in caplog.text
    amp = replace(observed.raw.amps[0], orsec=replace(observed.raw.amps[0].orsec, x1=50))
    with pytest.raises(ValueError, match="ORSECA .* must have the columns of DATASECA"):
        measure_overscan_rows(observed.raw.pix, None, amp, measure_overscan(observed.raw.pix, None, amp), smooth=True)
