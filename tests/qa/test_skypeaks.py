import numpy as np
import pytest
from scipy.special import erf

from qa.skypeaks import Sky_Peaks
from qlstream.pipeline.result import QASeverity

LINES = {6302.09: 9000.0, 6365.54: 3000.0, 7277.5: 5000.0}


def spectra(make_qframe, make_fibermap, step, lines=LINES, continuum=20.0, sigma=2.0, noise=4.0):
    """Lines of known counts on a continuum of `continuum` per Angstrom, in bins of `step`."""
    rng = np.random.default_rng(1)
    wave = np.arange(5750.0, 7630.0, step) + 0.37 * step * np.arange(40)[:, None] / 40
    flux = continuum * step * np.ones_like(wave)
    for center, counts in lines.items():
        edges = [(wave + s * step / 2 - center) / sigma / np.sqrt(2) for s in (-1, 1)]
        flux += counts * 0.5 * (erf(edges[1]) - erf(edges[0]))
    fibermap = make_fibermap(["SKY"] * 8 + ["ELG"] * 32)
    flux += rng.normal(size=wave.shape) * noise
    ysigma = np.full(wave.shape, sigma / step, np.float32)
    return make_qframe(flux, noise**-2.0, wave, fibermap=fibermap, ysigma=ysigma)


@pytest.mark.parametrize("step", [0.55, 2.0])
def test_counts_per_line_and_second_without_the_continuum_whatever_the_bins(
    make_context, make_qframe, make_fibermap, step
):
    qframe = spectra(make_qframe, make_fibermap, step)
    metric = Sky_Peaks({"peaks": {"r": sorted(LINES)}})

    result = metric.run(qframe, make_context(header={"EXPTIME": 1000.0}))

    mean = np.mean(list(LINES.values())) / 1000
    print(f"{step} Angstrom bins: {result.metrics}")
    # window 8 sigma or 16 Angstrom, 29 bins of 4 electrons: 22 per line, in the mean of three lines 0.013 per second,
    # in the median over eight fibers 0.006; the continuum beside adds as much
    assert result.metrics["PEAKCOUNT"] == pytest.approx(mean, abs=0.04)
    np.testing.assert_allclose(result.vectors["PEAKCOUNT_LINE"], np.array(list(LINES.values())) / 1000, atol=0.1)
    assert result.per_fiber["PEAKCOUNT_FIB"].shape == (40,)
    assert result.severity == QASeverity.NORMAL


def test_a_line_at_the_edge_is_left_out_and_named(make_context, make_qframe, make_fibermap):
    qframe = spectra(make_qframe, make_fibermap, 2.0)

    result = Sky_Peaks({"peaks": {"r": [6302.09, 7615.0]}}).run(qframe, make_context())

    assert result.vectors["PEAKS"].tolist() == [6302.09]
    assert result.summary.endswith("left out at the edge: 7615")


def test_the_default_lines_are_the_brightest_of_the_table_in_vacuum(make_context, make_qframe, make_fibermap):
    qframe = spectra(make_qframe, make_fibermap, 2.0)

    result = Sky_Peaks().run(qframe, make_context())

    np.testing.assert_allclose(result.vectors["PEAKS"], [6302.05, 6365.54], atol=0.01)  # [O I] in vacuum


def test_a_line_with_missing_rows_is_made_up_by_the_others(make_context, make_qframe, make_fibermap):
    qframe = spectra(make_qframe, make_fibermap, 2.0)
    qframe.ivar[3, np.abs(qframe.wave[3] - 6302.09).argmin()] = 0  # the brightest of three
    qframe.ivar[4] = 0

    result = Sky_Peaks({"peaks": {"r": sorted(LINES)}}).run(qframe, make_context())

    fiber = result.per_fiber["PEAKCOUNT_FIB"]
    assert fiber[3] == pytest.approx(fiber[2], rel=0.02)
    assert np.flatnonzero(np.isnan(fiber)).tolist() == [4]
    assert result.metrics["NSKY_FIB"] == 7  # the fourth has no information at all


def test_a_closed_shutter_alarms(make_context, make_qframe, make_fibermap):
    qframe = spectra(make_qframe, make_fibermap, 2.0, lines={}, continuum=0.0)

    result = Sky_Peaks().run(qframe, make_context())

    assert {c.metric: c.severity for c in result.checks}["PEAKCOUNT"] == QASeverity.ALARM
