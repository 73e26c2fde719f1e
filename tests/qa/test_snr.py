import numpy as np
import pytest

from qa.snr import Calculate_SNR, fit_snr, snr_model


def test_the_fit_returns_the_snr_at_the_fiducial_magnitude():
    rng = np.random.default_rng(1)
    truth = (0.125, 0.94)
    ratios = []
    for _ in range(40):
        flux = 10 ** (0.4 * (22.5 - rng.uniform(19.5, 24, 150)))
        snr = snr_model(truth, flux) * (1 + 0.1 * rng.normal(size=150)) + 0.02 * rng.normal(size=150)
        fit = fit_snr(flux, snr, np.full(150, 0.02), intrinsic=0.1)
        ratios.append(float(snr_model(fit, 1.585) / snr_model(truth, 1.585)))

    ratios = np.array(ratios)
    print(f"fitted/true S/N at magnitude 22: {ratios.mean():.4f} +- {ratios.std():.4f}")
    assert ratios.mean() == pytest.approx(1, abs=0.01)
    assert ratios.std() < 0.03  # 10 % scatter, 150 targets of which a third constrain this magnitude


def test_a_single_outlier_does_not_carry_the_fit_away():
    flux = 10 ** (0.4 * (22.5 - np.linspace(19.5, 24, 60)))
    truth = (0.125, 0.94)
    snr = snr_model(truth, flux)
    snr[10] = 80.0

    fit = fit_snr(flux, snr, np.full(60, 0.02), intrinsic=0.1)

    assert snr_model(fit, 1.585) == pytest.approx(snr_model(truth, 1.585), rel=0.03)


def test_snr_per_class_is_in_fixed_order_and_absent_classes_are_none(make_context, make_qframe, make_fibermap):
    rng = np.random.default_rng(2)
    classes = ["SKY"] * 4 + ["ELG"] * 20 + ["LRG"] * 14 + ["STAR"] * 2
    flux_r = 10 ** (0.4 * (22.5 - rng.uniform(20, 23.5, 40)))
    flux_r[4] = 0.0  # no photometry: must not become 1e9 nanomaggies
    electrons = 30 * flux_r[:, None] * np.ones((1, 2000))
    variance = electrons + 100
    measured = electrons + rng.normal(size=electrons.shape) * np.sqrt(variance)
    fibermap = make_fibermap(classes, FLUX_R=flux_r)

    result = Calculate_SNR().run(make_qframe(measured, 1 / variance, fibermap=fibermap), make_context())

    expected = 30 * 1.585 / np.sqrt(30 * 1.585 + 100)
    fitted = result.per_class["FIDSNR_TGT"]
    print(f"S/N at 22: {fitted}, all {result.metrics['FIDSNR']:.3f}, expected {expected:.3f}")
    assert list(fitted) == ["ELG", "LRG", "QSO", "BGS", "MWS", "STAR"]
    assert fitted["QSO"] is None
    assert fitted["STAR"] is None
    assert fitted["ELG"] == pytest.approx(expected, rel=0.03)
    assert result.metrics["FIDSNR"] == pytest.approx(expected, rel=0.03)
    assert result.per_fiber["MEDIAN_SNR"].shape == (40,)


def test_targets_that_miss_their_fibers_are_counted(make_context, make_qframe, make_fibermap):
    rng = np.random.default_rng(3)
    flux_r = 10 ** (0.4 * (22.5 - rng.uniform(19.5, 22.5, 40)))
    electrons = 30 * flux_r[:, None] * np.ones((1, 2000))
    electrons[[3, 8, 20, 30, 31]] *= 0.2
    variance = electrons + 100
    measured = electrons + rng.normal(size=electrons.shape) * np.sqrt(variance)
    fibermap = make_fibermap(["ELG"] * 40, FLUX_R=flux_r)

    result = Calculate_SNR().run(make_qframe(measured, 1 / variance, fibermap=fibermap), make_context())

    assert result.metrics["LOST_FRACTION"] == pytest.approx(5 / 40)
    assert {c.metric: c.severity.name for c in result.checks}["LOST_FRACTION"] == "WARNING"
