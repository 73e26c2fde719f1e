import numpy as np
import pytest

from qa.residual import Sky_Residual
from qa.sky import Sky_Continuum
from qlstream.datamodel.masks import FiberMask


def test_the_sky_continuum_is_the_level_between_the_lines_per_angstrom(make_context, make_qframe, make_fibermap):
    rng = np.random.default_rng(1)
    classes = ["SKY"] * 6 + ["ELG"] * 34
    status = np.zeros(40, int)
    status[5] = FiberMask.BADPOSITION
    qframe = make_qframe(np.zeros((40, 500)), 1 / 100, fibermap=make_fibermap(classes, FIBERSTATUS=status))
    level = 20.0  # electron/Angstrom
    flux = level * qframe.dwave + rng.normal(0, 1, qframe.flux.shape)
    flux[:, ::37] += 5000  # lines and cosmic rays
    flux[5] += 1e4  # an unusable sky fiber
    flux[6:] += 300  # targets

    result = Sky_Continuum().run(make_qframe(flux, 1 / 100, qframe.wave, fibermap=qframe.fibermap), make_context())

    assert result.metrics["NSKY_FIB"] == 5
    # error of a median of about 60 rows of 1 electron each 3.7 Angstrom wide, 5 fibers, 2 windows: 0.02
    assert result.metrics["SKYCONT"] == pytest.approx(level, abs=0.1)
    assert result.metrics["SKYCONT_RATE"] == pytest.approx(level / 1000, rel=0.01)
    assert np.isnan(result.per_fiber["SKYCONT_FIBER"][5:]).all()


def test_weak_lines_and_noise_together_do_not_raise_the_level(make_context, make_qframe, make_fibermap):
    """The median of noisy rows is drawn towards their mean, which the lines raise by 15 %; that of many fibers not."""
    rng = np.random.default_rng(7)
    wave = np.linspace(5760, 7620, 3000)
    shape = 100.0 * (1 + 2.0 * np.exp(-0.5 * ((np.arange(3000) % 50 - 25) / 1.5) ** 2))
    qframe = make_qframe(np.zeros((60, 3000)), 1.0, wave, fibermap=make_fibermap(["SKY"] * 40 + ["ELG"] * 20))
    flux = shape * qframe.dwave + rng.normal(size=(60, 3000)) * 12.0

    result = Sky_Continuum().run(make_qframe(flux, 1 / 144, wave, fibermap=qframe.fibermap), make_context())

    of_one_fiber = np.median((flux / qframe.dwave)[0])
    print(f"level {result.metrics['SKYCONT']:.3f}, true median {np.median(shape):.3f}, of one fiber {of_one_fiber:.3f}")
    assert result.metrics["SKYCONT"] == pytest.approx(np.median(shape), rel=0.01)
    assert of_one_fiber > 1.02 * np.median(shape)


def test_other_windows_can_be_given(make_context, make_qframe, make_fibermap):
    wave = np.linspace(5760, 7620, 1000)
    flux = np.where(wave < 6500, 10.0, 30.0) * np.gradient(wave) * np.ones((40, 1))
    qframe = make_qframe(flux, 1.0, wave, fibermap=make_fibermap(["SKY"] * 40))

    result = Sky_Continuum({"windows": {"r": [[7000, 7200]]}}).run(qframe, make_context())

    assert result.metrics["SKYCONT"] == pytest.approx(30)


def test_residuals_of_right_errors_have_unit_noise_and_chi2(make_context, make_qframe, make_fibermap):
    rng = np.random.default_rng(2)
    nsky, ny = 10, 1000
    sky = np.full((40, ny), 50.0)
    sky[:, ::20] = 2000.0
    variance = sky + 9
    residual = rng.normal(size=sky.shape) * np.sqrt(variance)
    ivar = 1 / variance
    ivar[:, 100:120], residual[:, 100:120] = 0.0, np.nan
    fibermap = make_fibermap(["SKY"] * nsky + ["ELG"] * 30)
    qframe = make_qframe(residual, ivar, fibermap=fibermap, sky=sky.astype(np.float32))

    result = Sky_Residual().run(qframe, make_context())

    n = nsky * 980
    print({k: round(v, 4) for k, v in result.metrics.items()})
    assert result.metrics["RESIDNOISE"] == pytest.approx(1, abs=5 * 1.17 / np.sqrt(2 * n))
    assert result.metrics["SKYCHI2"] == pytest.approx(1, abs=5 * np.sqrt(2 / n))
    assert result.metrics["SKYCHI2_LINES"] == pytest.approx(1, abs=5 * np.sqrt(2 / (nsky * 49)))
    assert result.metrics["SKYCHI2_CONT"] == pytest.approx(1, abs=5 * np.sqrt(2 / n))
    assert result.metrics["NBAD_PCHI"] == 0
    assert result.severity == 0
    bundles = result.vectors["SKYCHI2_BUNDLE"]  # ten fibers each
    assert bundles.shape == (1,)
    # central 95 % of residuals with sigma 7.7 (and 45 in the twentieth part that is lines)
    assert -result.metrics["RESID_LOW"] == pytest.approx(result.metrics["RESID_HIGH"], rel=0.1)
    assert 15 < result.metrics["RESID_HIGH"] < 22


def test_residuals_along_wavelength_are_medians_and_weighted_means_of_the_sky_fibers(
    make_context, make_qframe, make_fibermap
):
    rng = np.random.default_rng(5)
    wave = np.linspace(5760, 7620, 600) + 0.5 * np.arange(40)[:, None]
    residual = np.where(np.abs(wave - 6500) < 20, 4.0, 0.0) + 0.5 * rng.normal(size=wave.shape)
    fibermap = make_fibermap(["SKY"] * 20 + ["ELG"] * 20)
    qframe = make_qframe(residual, 4.0, wave, fibermap=fibermap, sky=np.ones(wave.shape, np.float32))

    result = Sky_Residual().run(qframe, make_context())

    at, median, mean = (result.vectors[k] for k in ("WAVELENGTH", "MED_RESID_WAVE", "WAVG_RES_WAVE"))
    inside, outside = np.abs(at - 6500) < 15, np.abs(at - 6500) > 30
    error = 0.5 / np.sqrt(20)  # of a mean; a median's is a quarter larger
    for values in (median, mean):
        assert values[inside].mean() == pytest.approx(4, abs=5 * 1.25 * error / np.sqrt(inside.sum()))
        good = outside & np.isfinite(values)
        assert values[good].mean() == pytest.approx(0, abs=5 * 1.25 * error / np.sqrt(good.sum()))
    assert result.vectors["SKYFIBERID"].tolist() == list(range(20))
    assert np.isnan(result.per_fiber["MED_RESID_FIBER"][20:]).all()


def test_without_bright_lines_there_is_nothing_to_say_of_them(make_context, make_qframe, make_fibermap):
    residual = np.random.default_rng(6).normal(size=(40, 300))
    qframe = make_qframe(residual, 1.0, fibermap=make_fibermap(["SKY"] * 40), sky=np.ones((40, 300), np.float32))

    result = Sky_Residual().run(qframe, make_context())

    assert "SKYCHI2_LINES" not in result.metrics
    assert "SKYCHI2_CONT" in result.metrics


def test_one_badly_subtracted_fiber_is_found(make_context, make_qframe, make_fibermap):
    rng = np.random.default_rng(3)
    residual = rng.normal(size=(40, 500)) * 5
    residual[7] += 3.0
    fibermap = make_fibermap(["SKY"] * 10 + ["ELG"] * 30)
    qframe = make_qframe(residual, 1 / 25, fibermap=fibermap, sky=np.ones((40, 500), np.float32))

    result = Sky_Residual().run(qframe, make_context())

    assert result.metrics["NBAD_PCHI"] == 1
    assert np.nanargmax(result.per_fiber["SKYCHI2_FIB"]) == 7
