from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from algorithms.preproc.overscan import measure_overscan, pixel_noise
from qlstream.datamodel.amplifier import Section


def test_level_and_noise_are_recovered_within_their_errors(make_readout: Callable[..., Any]) -> None:
    readout = make_readout(level=1970.3, readnoise=4.0, gain=1.5)
    raw = readout.expose()

    found = [measure_overscan(raw.pix, None, amp, 2.0) for amp in readout.amps]

    noise = np.hypot(4.0 / 1.5, 12**-0.5)  # digitisation included
    n = 100 * 32
    for one in found:
        assert one.method == "AVERAGE"
        assert one.level == pytest.approx(1970.3, abs=5 * 1.25 * noise / np.sqrt(n))  # a median: 25 % above a mean's
        assert one.noise == pytest.approx(noise, abs=5 * noise / np.sqrt(2 * n))
        assert one.row_pattern < 0.3 * noise
        assert one.low_outliers == 0


def test_a_step_of_the_level_is_followed_row_by_row(make_readout: Callable[..., Any]) -> None:
    readout = make_readout(names="A")

    def jump(raw: Any) -> None:
        raw[60:] += 40.0

    raw = readout.expose(jump)

    found = measure_overscan(raw.pix, None, readout.amps[0], 2.0)

    noise = np.hypot(4.0 / 1.5, 12**-0.5)
    truth = 1970.0 + 40.0 * (np.arange(100) >= 60)
    error = found.subtract - truth
    print(f"row levels: bias {error.mean():.3f}, rms {error.std():.3f} ADU; a row alone has {noise / 32**0.5:.3f}")
    assert found.method == "PER_ROW"
    assert found.step > 5
    assert error.std() < 0.7 * noise / np.sqrt(32)  # rows help each other, the step stays sharp
    assert abs(error).max() < 5 * noise / np.sqrt(32)
    assert found.noise == pytest.approx(noise, rel=5 / np.sqrt(2 * 3200) + 0.01)


def test_outliers_do_not_move_level_and_noise_and_low_ones_are_counted(make_readout: Callable[..., Any]) -> None:
    readout = make_readout(names="A")
    amp = readout.amps[0]

    def spoil(raw: Any) -> None:
        raw[10:20, amp.biassec.x0] = 30000.0
        raw[30:34, amp.biassec.x0 + 3] = 1900.0

    found = measure_overscan(readout.expose(spoil).pix, None, amp, 2.0)

    noise = np.hypot(4.0 / 1.5, 12**-0.5)
    assert found.level == pytest.approx(1970.0, abs=0.3)
    assert found.noise == pytest.approx(noise, rel=5 / np.sqrt(2 * 3200))
    assert found.low_outliers == pytest.approx(1e6 * 4 / 3200)


def test_noise_of_the_bias_image_counts_as_it_is_in_the_data(make_readout: Callable[..., Any]) -> None:
    readout = make_readout(names="A")
    raw, amp = readout.expose(), readout.amps[0]
    rng = np.random.default_rng(5)
    bias = np.zeros(raw.pix.shape, np.float32)
    bias[amp.datasec.slices] = rng.normal(0, 2.0, amp.datasec.shape) + 5 * np.sin(np.arange(100))  # noise, and columns
    bias[amp.biassec.slices] = rng.normal(0, 1.0, amp.biassec.shape)

    found = measure_overscan(raw.pix, bias, amp, 2.0)

    assert found.noise == pytest.approx(np.sqrt((4.0 / 1.5) ** 2 + 1 / 12 + 2.0**2), rel=0.05)


def test_an_amplifier_that_reads_nothing_has_no_noise(make_readout: Callable[..., Any]) -> None:
    readout = make_readout(names="A", readnoise=0.0)

    assert measure_overscan(readout.expose().pix, None, readout.amps[0], 2.0).noise == 0


def test_structure_along_rows_and_columns_is_no_noise() -> None:
    y, x = np.mgrid[0:300, 0:200]
    image = (np.random.default_rng(2).normal(0, 0.7, y.shape) + 3 * np.sin(x) + 2 * np.cos(y)).astype(np.float32)

    assert pixel_noise(image, Section(0, 200, 0, 300)) == pytest.approx(0.7, rel=0.05)
