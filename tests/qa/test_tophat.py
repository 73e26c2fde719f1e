import numpy as np
import pytest

from qa.tophat import TopHat_Calib, TopHat_Raw
from qlstream.datamodel.qframe import CALIBRATED
from qlstream.numeric.medians import row_medians


def test_integral_and_medians_of_a_known_spectrum(make_context, make_qframe):
    wave = np.arange(5700.0, 7700.0, 2.0)
    density = 5.0 + 0.001 * (wave - 6700.0)
    ivar = np.full((40, wave.size), 1 / 16)
    ivar[:, 400:420] = 0  # rows without information do not darken the fiber

    result = TopHat_Raw().run(make_qframe(np.tile(2.0 * density, (40, 1)), ivar, wave), make_context())

    integral = 5.0 * 1800.0  # 5800 to 7600 Angstrom, about the middle of the slope
    assert result.metrics["INTEG_RAW_FLUX"] == pytest.approx(integral, rel=2e-3)
    median = np.median(density[(wave >= 5800) & (wave < 7600) & (ivar[0] > 0)])
    assert result.metrics["MEDIAN_RAW_FLUX"] == pytest.approx(median, rel=1e-3)
    # twice as many electrons in a bin of 2 Angstrom with an error of 4
    assert result.metrics["MEDIAN_RAW_SNR"] == pytest.approx(2 * median / 4 / np.sqrt(2), rel=1e-3)


def test_calibrated_flux_is_a_density_already(make_context, make_qframe):
    wave = np.arange(5700.0, 7700.0, 2.0)
    qframe = make_qframe(np.full((40, wave.size), 3.0), 1.0, wave, bunit=CALIBRATED)

    result = TopHat_Calib().run(qframe, make_context())

    assert result.metrics["INTEG_CALIB_FLUX"] == pytest.approx(3.0 * 1800.0, rel=2e-3)
    assert result.metrics["MEDIAN_CALIB_FLUX"] == pytest.approx(3.0)
    with pytest.raises(ValueError, match="TopHat_Raw needs electron"):
        TopHat_Raw().run(qframe, make_context())


def test_medians_of_rows_leave_out_what_does_not_count():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(20, 101)).astype(np.float32)
    counts = rng.uniform(size=values.shape) < 0.6
    counts[3] = False
    counts[4] = np.arange(101) == 50

    medians = row_medians(values, counts)

    for i in range(20):
        here = np.sort(values[i, counts[i]])
        if not here.size:
            assert np.isnan(medians[i])
            continue
        assert medians[i] in here[[(here.size - 1) // 2, here.size // 2]]
