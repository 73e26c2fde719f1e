import numpy as np
import pytest

from qa.fibers import CountSpectralBins
from qlstream.datamodel.masks import FiberMask
from qlstream.pipeline.result import QASeverity


def test_dark_fibers_are_counted_and_named_but_broken_ones_are_not_missed(make_context, make_qframe, make_fibermap):
    rng = np.random.default_rng(1)
    flux = rng.normal(50.0, 8.0, (40, 500))
    flux[[4, 5, 6, 30]] = rng.normal(0.0, 3.0, (4, 500))
    status = np.zeros(40, int)
    status[30] = FiberMask.BROKENFIBER
    fibermap = make_fibermap(["ELG"] * 40, FIBERSTATUS=status)

    result = CountSpectralBins().run(make_qframe(flux, 1 / 64, fibermap=fibermap), make_context())

    assert result.metrics["NGOODFIB"] == 36
    assert result.metrics["NMISSINGFIB"] == 3
    assert result.metrics["NKNOWNBROKEN"] == 1
    assert "FIBER 4, 5, 6" in result.summary
    assert np.flatnonzero(result.per_fiber["GOOD_FIBERS"] == 0).tolist() == [4, 5, 6, 30]
    assert result.severity == QASeverity.WARNING


def test_the_flux_level_is_the_mean_count_of_the_median_fiber(make_context, make_qframe):
    flux = np.full((40, 300), 1.0) * np.linspace(80, 120, 40)[:, None]

    result = CountSpectralBins().run(make_qframe(flux, 1 / 100), make_context())

    assert result.metrics["FLUXLEVEL"] == pytest.approx(100.0)
    assert result.metrics["MASKEDROWS"] == 0


def test_a_lamp_that_was_off_is_an_alarm_and_rows_without_information_do_not_count(make_context, make_qframe):
    rng = np.random.default_rng(2)
    ivar = np.full((40, 500), 1 / 9)
    ivar[:, :50] = 0
    qframe = make_qframe(np.where(ivar > 0, rng.normal(0, 3, (40, 500)), 1e9), ivar)

    result = CountSpectralBins().run(qframe, make_context(flavor="flat", program=""))

    checks = {c.metric: c.severity for c in result.checks}
    assert checks["FLUXLEVEL"] == checks["GOODFIB_FRACTION"] == QASeverity.ALARM
    assert result.metrics["MASKEDROWS"] == pytest.approx(0.1)


def test_a_camera_without_any_information_gives_no_nan_verdict_but_an_alarm(make_context, make_qframe):
    result = CountSpectralBins().run(make_qframe(np.zeros((40, 100)), 0.0), make_context(flavor="flat", program=""))

    assert result.metrics["GOODFIB_FRACTION"] == 0
    assert result.severity == QASeverity.ALARM


def test_fibers_that_are_known_to_be_broken_can_be_tolerated_by_number(make_context, make_qframe):
    flux = np.full((40, 200), 50.0)
    flux[[4, 5]] = 0.0

    result = CountSpectralBins({"N_KNOWN_BROKEN_FIBERS": 2}).run(make_qframe(flux, 1 / 64), make_context())

    assert result.metrics["NGOODFIB"] == 38
    assert result.metrics["GOODFIB_FRACTION"] == 1


def test_the_wings_of_bright_neighbours_do_not_light_a_broken_fiber(make_context, make_qframe):
    flux = np.full((40, 300), 20000.0)
    flux[[7, 8]] = 25.0  # a thousandth of the light, at high significance

    result = CountSpectralBins().run(make_qframe(flux, 1 / 400), make_context(flavor="flat", program=""))

    assert result.metrics["NGOODFIB"] == 38
    assert np.flatnonzero(result.per_fiber["GOOD_FIBERS"] == 0).tolist() == [7, 8]
