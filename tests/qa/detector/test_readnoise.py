import numpy as np
import pytest
from pydantic import ValidationError

from qa.overscan import measure_pixels
from qa.readnoise import Get_RMS
from qlstream.calibration.served import Calibration
from qlstream.datamodel.amplifier import Amp, Section
from qlstream.pipeline.result import QASeverity

NPIX = 100 * 40  # overscan pixels of an amplifier


@pytest.fixture
def judge(make_context, image_of):
    def run(raw=None, amps=None, cards=None, **params):
        context = make_context(
            flavor="dark", program="", calibration=Calibration("r3", 20260114, {}, cards or {}),
            earlier={} if raw is None else {"Initialize": raw},
        )  # fmt: skip
        return Get_RMS(params).run(image_of(amps=amps), context)

    return run


def severities(result):
    return {(c.metric, c.element): c.severity.name for c in result.checks if c.severity}


def overscan(noise, nrow=400, ncolumn=64, seed=1, rows=0.0, columns=0.0, level=0.0):
    """(raw, amp): digitised Gaussian noise [ADU] on levels that scatter from row to row and column to column."""
    rng = np.random.default_rng(seed)
    block = 1970 + level + noise * rng.normal(size=(nrow, ncolumn))
    block += rows * rng.normal(size=(nrow, 1)) + columns * rng.normal(size=ncolumn)
    section = Section(0, ncolumn, 0, nrow)
    return np.rint(block).astype(np.uint16), Amp("A", section, section, section)


@pytest.mark.parametrize("noise", [1.5, 1.87, 5.0])
@pytest.mark.parametrize("rows", [0.0, 3.0])
@pytest.mark.parametrize("level", [0.0, 0.5])
def test_the_scatter_is_that_of_noise_and_digitisation_whatever_level_and_rows_do(noise, rows, level):
    truth = np.sqrt(noise**2 + 1 / 12)
    found = [measure_pixels(*overscan(noise, seed=seed, rows=rows, level=level)) for seed in range(10)]

    scatter = np.mean([pixels.scatter for pixels in found]) / truth
    widths = np.mean([pixels.width(95.45) for pixels in found]) / truth
    print(f"noise {noise} ADU, rows {rows}, level {level}: scatter {scatter:.4f}, width {widths:.4f}")
    # a percentile range has 0.55 of the efficiency of the standard deviation; digits of 2/3 sigma cost 1.5 %
    assert scatter == pytest.approx(1, abs=5 / np.sqrt(2 * 0.55 * 10 * 400 * 64) + 0.015)
    assert widths == pytest.approx(4, rel=0.025)


def test_a_pattern_of_columns_is_found_beyond_the_noise():
    found = [measure_pixels(*overscan(2.0, seed=s, columns=1.0)).columns for s in range(8)]
    none = [measure_pixels(*overscan(2.0, seed=s)).columns for s in range(8)]

    assert np.mean(found) == pytest.approx(1.0, abs=5 * 1.17 / np.sqrt(2 * 8 * 64))  # a MAD of 64 columns, 8 times
    assert np.mean(none) < 0.1  # the mean of 400 pixels has an error of 0.1


def test_only_the_noisy_amplifier_alarms(judge, raw_of):
    result = judge(raw_of(noise={"B": 8.0}), amps={"B": {"readnoise": 12.0}})

    assert severities(result) == {("NOISE_AMP", "B"): "ALARM"}
    assert list(result.per_amp["NOISE_AMP"]) == ["A", "B", "C", "D"]


def test_widths_of_the_overscan_are_two_four_and_six_sigma(judge, raw_of):
    result = judge(raw_of(noise={"A": 2.0, "B": 3.0, "C": 4.0, "D": 5.0}))

    for amp, noise in {"A": 2.0, "B": 3.0, "C": 4.0, "D": 5.0}.items():
        sigma = 1.5 * np.sqrt(noise**2 + 1 / 12)  # gain 1.5
        assert result.per_amp["NOISE_OVERSCAN_AMP"][amp] == pytest.approx(sigma, rel=5 / np.sqrt(2 * NPIX * 0.55))
        for key, width in (("DIFF1SIG", 2), ("DIFF2SIG", 4), ("DIFF3SIG", 6)):
            assert result.per_amp[key][amp] == pytest.approx(width * sigma, rel=0.08)
        assert result.per_amp["NOISE_TAILS"][amp] == pytest.approx(1, abs=0.06)
    assert result.units["DIFF1SIG"] == "electron"


def test_a_flickering_amplifier_betrays_itself_by_its_tails(judge, raw_of):
    rng = np.random.default_rng(2)
    flicker = np.where(rng.uniform(size=(200, 320)) < 0.12, 15.0, 0.0)
    flicker[100:] = flicker[:, 160:] = 0  # only A and its overscan

    result = judge(raw_of(add=flicker))

    assert severities(result) == {("NOISE_TAILS", "A"): "ALARM"}


def test_percentiles_are_those_asked_for(judge, raw_of):
    usual = judge(raw_of())
    asked = judge(raw_of(), PERCENTILES=(50.0, 95.4, 99.7))

    ratio = asked.per_amp["DIFF1SIG"]["A"] / usual.per_amp["DIFF1SIG"]["A"]
    assert ratio == pytest.approx(1.349 / 2, rel=0.05)
    assert asked.per_amp["NOISE_TAILS"]["A"] == pytest.approx(1, abs=0.08)
    with pytest.raises(ValidationError):
        Get_RMS({"PERCENTILES": (50.0, 95.4, 100.0)})


def test_a_bad_overscan_is_passed_over_for_the_one_that_the_calibration_names(judge, raw_of):
    raw = raw_of(noise=2.0)
    raw.pix[:100, 120:140] = 4000  # half of A's overscan columns glow

    bad, good = judge(raw), judge(raw, cards={"GOODBIASSECA": "[141:160,1:100]"})

    assert bad.per_amp["DIFF1SIG"]["A"] > 100
    assert good.per_amp["DIFF1SIG"]["A"] == pytest.approx(good.per_amp["DIFF1SIG"]["B"], rel=0.08)


def test_pixels_far_below_are_counted(judge, raw_of):
    result = judge(raw_of(), amps={"C": {"low_outliers": 1e6 * 6 / NPIX}})

    assert result.per_amp["DATA5SIG"] == {"A": 0, "B": 0, "C": 6, "D": 0}
    assert severities(result) == {("LOW5SIG_AMP", "C"): "WARNING"}


@pytest.mark.parametrize(("measured", "severity"), [(3.0, None), (2.6, "WARNING"), (3.8, "WARNING"), (6.2, "ALARM")])
def test_an_expected_read_noise_is_compared_with_the_measured_one(judge, measured, severity):
    result = judge(amps={"A": {"readnoise": measured}}, cards={f"RDNOISE{a}": 3.0 for a in "ABCD"})

    assert result.per_amp["READNOISE_RATIO"]["A"] == pytest.approx(measured / 3.0)
    assert severities(result).get(("READNOISE_RATIO", "A")) == severity
    assert "READNOISE_RATIO" not in judge().per_amp


def test_pickup_in_rows_is_judged(judge):
    result = judge(amps={"D": {"row_pattern": 2.5}, "A": {"row_pattern": 1.2}})

    assert severities(result) == {("BIAS_PATNOISE", "D"): "ALARM", ("BIAS_PATNOISE", "A"): "WARNING"}


def test_an_amplifier_without_overscan_values_is_unknown_and_spoils_no_other(judge):
    nothing = dict.fromkeys(("readnoise", "row_pattern", "low_outliers", "overscan"), np.nan)

    result = judge(amps={"B": nothing})

    assert {c.element for c in result.checks if c.severity == QASeverity.UNKNOWN} == {"B"}
    assert {c.severity for c in result.checks if c.element != "B"} == {QASeverity.NORMAL}
