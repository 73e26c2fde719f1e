import numpy as np
import pytest

from algorithms.expected import ExpectedRows, expected_rows
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


def test_the_median_snr_is_what_truth_and_unit_noise_imply_although_the_variance_follows_the_noise(make_qframe):
    rng = np.random.default_rng(5)
    nspec, ny = 60, 2000
    sky = 40.0 * (1 + 8 * (np.arange(ny) % 50 == 0)) * np.ones((nspec, 1))
    target = np.linspace(2, 15, nspec)[:, None] * np.linspace(0.4, 1.6, ny)
    counts = rng.poisson(sky + target)
    flux = counts + rng.normal(0, np.sqrt(60.0), counts.shape) - sky
    qframe = make_qframe(flux, 1 / (np.maximum(counts, 0) + 60.0), sky=sky.astype(np.float32))

    expected = expected_rows(qframe)
    measured = expected.median_snr()

    known = (a.astype(np.float32) for a in (flux, target, sky + 60.0))
    implied = ExpectedRows(*known, np.ones(nspec, "f4")).scaled_snr(np.ones(nspec))
    excess = (measured - implied).mean()
    print(f"S/N less truth: {excess:+.4f}; S/N {implied.mean():.3f}")
    assert abs(excess) < 5 / np.sqrt(ny * nspec)  # the signal is a mean of all rows
    assert np.median(expected.background / (sky + 60)) == pytest.approx(1, abs=0.01)


def test_a_target_that_is_dimmed_has_the_snr_of_a_faint_one(make_qframe):
    ny = 1500
    background = np.full((2, ny), 100.0, np.float32)
    signal = np.stack([np.full(ny, 400.0), np.full(ny, 20.0)]).astype(np.float32)

    snr = ExpectedRows(signal, signal, background, np.ones(2, "f4")).scaled_snr(np.array([0.05, 1.0]))

    np.testing.assert_allclose(snr, 20 / np.sqrt(120), rtol=1e-4)


def test_rows_that_lost_pixels_do_not_spoil_the_noise_of_their_neighbours(make_qframe):
    rng = np.random.default_rng(6)
    variance = np.full((10, 1000), 100.0)
    variance[:, ::97] = 1e6
    qframe = make_qframe(rng.normal(size=variance.shape) * 10, 1 / variance, sky=np.full((10, 1000), 30, np.float32))

    background = expected_rows(qframe).background

    good = variance == 100
    assert np.median(background[good]) == pytest.approx(100, rel=0.02)
    assert background[good].max() < 150


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
    assert fitted["ELG"] == pytest.approx(expected, rel=0.03)
    assert fitted["STAR"] == pytest.approx(expected, rel=0.1)  # two of them: no fit, but their median
    assert result.per_class["FIDSNR_ERROR_TGT"]["ELG"] < 0.03 * expected
    np.testing.assert_array_equal(result.vectors["ELG_FIBERID"], np.arange(4, 24)[flux_r[4:24] > 0])
    assert np.isnan(result.per_fiber["SNR_RESID"][:5]).all()  # sky, and the one without photometry: in fiber order
    a, b = result.vectors["FITCOEFF_TGT"][0]
    assert 1000 * a == pytest.approx(30, rel=0.15)  # electrons per nanomaggy
    assert 1000 * b == pytest.approx(100, rel=0.15)
    assert result.metrics["FIDSNR"] == pytest.approx(expected, rel=0.03)
    assert result.per_fiber["MEDIAN_SNR"].shape == (40,)


def test_a_bright_program_is_not_extrapolated(make_context, make_qframe, make_fibermap):
    rng = np.random.default_rng(4)
    flux_r = 10 ** (0.4 * (22.5 - rng.uniform(16, 18, 40)))  # four to six magnitudes above the fiducial
    electrons = 30 * flux_r[:, None] * np.ones((1, 2000))
    measured = electrons + rng.normal(size=electrons.shape) * np.sqrt(electrons + 200)
    fibermap = make_fibermap(["MWS"] * 40, FLUX_R=flux_r)
    qframe = make_qframe(measured, 1 / (electrons + 200), fibermap=fibermap, sky=np.full((40, 2000), 120, np.float32))

    result = Calculate_SNR().run(qframe, make_context(program="bright"))

    expected = 30 * 1.585 / np.sqrt(30 * 1.585 + 200)
    print(f"S/N at 22: {result.per_class['FIDSNR_TGT']['MWS']:.3f}, expected {expected:.3f}")
    assert result.per_class["FIDSNR_TGT"]["MWS"] == pytest.approx(expected, rel=0.03)
