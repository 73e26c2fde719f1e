from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from algorithms.preproc.overscan import OverscanRules, measure_overscan, pixel_noise
from algorithms.preproc.trail import Trail
from qlstream.datamodel.amplifier import Section


def test_level_and_noise_are_recovered_within_their_errors(make_readout: Callable[..., Any]) -> None:
    readout = make_readout(level=1970.3, readnoise=4.0, gain=1.5)
    raw = readout.expose()

    found = [measure_overscan(raw.pix, None, amp) for amp in readout.amps]

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

    found = measure_overscan(raw.pix, None, readout.amps[0])

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

    found = measure_overscan(readout.expose(spoil).pix, None, amp)

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

    found = measure_overscan(raw.pix, bias, amp)

    assert found.noise == pytest.approx(np.sqrt((4.0 / 1.5) ** 2 + 1 / 12 + 2.0**2), rel=0.05)


def test_an_amplifier_that_reads_nothing_has_no_noise(make_readout: Callable[..., Any]) -> None:
    readout = make_readout(names="A", readnoise=0.0)

    assert measure_overscan(readout.expose().pix, None, readout.amps[0]).noise == 0


def test_structure_along_rows_and_columns_is_no_noise() -> None:
    y, x = np.mgrid[0:300, 0:200]
    image = (np.random.default_rng(2).normal(0, 0.7, y.shape) + 3 * np.sin(x) + 2 * np.cos(y)).astype(np.float32)

    assert pixel_noise(image, Section(0, 200, 0, 300)) == pytest.approx(0.7, rel=0.05)


@pytest.mark.parametrize(("per_row", "step", "method"), [(True, 0.0, "PER_ROW"), (False, 40.0, "AVERAGE")])
def test_rows_are_treated_one_by_one_as_told(
    make_readout: Callable[..., Any], per_row: bool, step: float, method: str
) -> None:
    readout = make_readout(names="A")

    def jump(raw: Any) -> None:
        raw[60:] += step

    found = measure_overscan(readout.expose(jump).pix, None, readout.amps[0], OverscanRules(per_row=per_row))

    assert found.method == method
    assert (np.ptp(found.subtract) == 0) == (method == "AVERAGE")


def test_another_overscan_overrides_the_own_and_gives_one_level(make_readout: Callable[..., Any]) -> None:
    readout = make_readout(names="A")
    amp = readout.amps[0]
    own = amp.biassec

    def spoil(raw: Any) -> None:
        raw[own.slices] += 100.0 * (np.arange(100)[:, None] > 50)
        raw[own.y0 : own.y1, own.x0 + 16 : own.x1] -= 100.0 * (np.arange(100)[:, None] > 50)

    raw = readout.expose(spoil).pix
    good = Section(own.x0 + 16, own.x1, 10, 80)

    found = measure_overscan(raw, None, amp, section=good)

    assert measure_overscan(raw, None, amp).method == "PER_ROW"
    assert found.method == "AVERAGE"
    assert found.subtract.shape == (100,)
    assert np.ptp(found.subtract) == 0
    assert found.subtract[0] == pytest.approx(1970, abs=5 * 2.7 / np.sqrt(70 * 16))
    with pytest.raises(ValueError, match=r"GOODBIASSECA \[100:200,1:900\] leaves the raw image \(100, "):
        measure_overscan(raw, None, amp, section=Section(99, 200, 0, 900))


def test_rows_beside_a_bright_deposit_get_the_level_of_their_neighbours(make_readout: Callable[..., Any]) -> None:
    readout = make_readout(names="A")
    amp = readout.amps[0]

    def deposit(raw: Any) -> None:
        raw[50:55, amp.datasec.x1 - 40 : amp.datasec.x1 - 30] = 60000.0
        raw[50:55, amp.biassec.x0 : amp.biassec.x1] += 30.0  # what it leaves in the overscan

    raw = readout.expose(deposit).pix

    found = measure_overscan(raw, None, amp, OverscanRules(per_row=True))
    blind = measure_overscan(raw, None, amp, OverscanRules(per_row=True, deposit=1e6))

    error = 5 * 2.7 / np.sqrt(32)
    assert abs(found.subtract - 1970.0).max() < error
    assert blind.subtract[51] == pytest.approx(2000, abs=error)
    assert found.step < 2 < blind.step  # so that the deposit does not make the amplifier look unstable
    assert found.noise == pytest.approx(np.hypot(4.0 / 1.5, 12**-0.5), rel=5 / np.sqrt(2 * 3200) + 0.01)


def test_a_row_without_a_value_gets_that_of_its_neighbours(make_readout: Callable[..., Any]) -> None:
    readout = make_readout(names="A")
    bias = np.zeros(readout.expose().pix.shape, np.float32)
    bias[40, readout.amps[0].biassec.x0 :] = np.nan

    found = measure_overscan(readout.expose().pix, bias, readout.amps[0], OverscanRules(per_row=True))

    assert abs(found.subtract - 1970.0).max() < 5 * 2.7 / np.sqrt(32)
    assert np.isfinite(found.noise)


@pytest.mark.parametrize("data_noise", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("overscan_noise", [0.0, 1.0, 30.0])
def test_the_noise_is_a_number_whatever_the_bias_image_does(
    make_readout: Callable[..., Any], data_noise: float, overscan_noise: float
) -> None:
    readout = make_readout(names="A")
    raw, amp = readout.expose(), readout.amps[0]
    rng = np.random.default_rng(7)
    bias = np.zeros(raw.pix.shape, np.float32)
    bias[amp.datasec.slices] = rng.normal(0, data_noise, amp.datasec.shape)
    bias[amp.biassec.slices] = rng.normal(0, overscan_noise, amp.biassec.shape)

    noise = measure_overscan(raw.pix, bias, amp).noise

    # the noise of the overscan and of the difference are each known to 1.3 % and 2 %, which counts where they cancel
    error = 0.02 * (4.0 / 1.5) ** 2 + 0.05 * overscan_noise**2
    assert noise > 0
    assert noise**2 == pytest.approx((4.0 / 1.5) ** 2 + 1 / 12 + data_noise**2, abs=3 * error)


@pytest.mark.parametrize("name", ["A", "B"])
def test_what_the_data_take_from_the_overscan_is_given_back(make_readout: Callable[..., Any], name: str) -> None:
    readout = make_readout(names="AB")
    amp = readout.amps["AB".index(name)]
    trail = Trail(0.01, 6.0)

    def illuminate(raw: Any) -> None:
        charge = np.zeros((100, 132))
        charge[30:60, 60:100] = 3000.0
        d = np.arange(132)
        k = trail.amplitude * d / trail.width * np.exp(-d / trail.width)
        seen = charge - np.stack([np.convolve(row, k)[:132] for row in charge])
        columns = slice(amp.datasec.x0, amp.biassec.x1) if name == "A" else slice(amp.biassec.x0, amp.datasec.x1)
        raw[:100, columns] += seen if name == "A" else seen[:, ::-1]

    raw = readout.expose(illuminate).pix

    blind = measure_overscan(raw, None, amp, OverscanRules(per_row=True))
    found = measure_overscan(raw, None, amp, OverscanRules(per_row=True), trail=trail)

    assert blind.subtract[35:55].mean() < 1970 - 5
    assert abs(found.subtract[35:55].mean() - 1970) < 5 * 2.7 / np.sqrt(32 * 20)
