"""The standard stars of a petal: which are taken, and whether their models have the true flux."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from speclite import filters

from algorithms.fluxcal.choose import StarCuts, choose_stars
from algorithms.stars.fit import Choice, _combined, fit_stars, star_fibers
from algorithms.stars.match import MatchLimits
from algorithms.stars.photometry import GAIA, NORTH, SOUTH, photometry_of
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.resolution import Resolution
from qlstream.datamodel.stars import StarTemplates
from qlstream.numeric.deconvolution import spread
from qlstream.numeric.dust import transmission
from qlstream.simulate import templates as shapes

Array = NDArray[np.float64]

FINE = np.arange(3450.0, 8000.0, 0.5)
WAVE = 3600.0 + 2.0 * np.arange(1050)
BANDS = Resolution.from_widths(np.full(WAVE.size, 0.9), 11).data
# fiber: class, temperature, r magnitude, reddening, electrons per flux
SKY, FAINT, NO_PHOTOMETRY, BROKEN = 3, 4, 5, 6
STARS = {0: (5900.0, 17.0, 0.0), 1: (6550.0, 17.5, 0.15), 2: (7100.0, 16.5, 0.4)}


def templates() -> StarTemplates:
    temperature = np.arange(5400.0, 7900.0, 100.0)
    flux = np.stack([shapes.star(FINE, t) for t in temperature])
    n = len(temperature)
    return StarTemplates(FINE, (flux / flux.mean(axis=1, keepdims=True)).astype(np.float32), temperature,
                         np.full(n, 4.0), np.full(n, -1.5))  # fmt: skip


def true_flux(temperature: float, magnitude: float, ebv: float) -> tuple[Array, dict[str, float]]:
    """Spectrum [1e-17 erg/s/cm2/Angstrom] at FINE, and its fluxes [nanomaggy]."""
    flux = shapes.star(FINE, temperature) * transmission(FINE, ebv)
    magnitudes = {}
    for band in ("g", "r"):
        curve = filters.load_filter(f"decam2014-{band}")
        padded, wave = curve.pad_spectrum(1e-17 * flux, FINE, method="edge")
        magnitudes[band.upper()] = curve.get_ab_magnitude(padded, wave)
    return flux * 10 ** (0.4 * (magnitudes["R"] - magnitude)), {
        band: 10 ** (0.4 * (22.5 - m + magnitudes["R"] - magnitude)) for band, m in magnitudes.items()
    }


@pytest.fixture(scope="module")
def petal() -> Frame:
    rng = np.random.default_rng(6)
    columns: list[tuple[str, Any]] = [
        ("FIBER", "i4"), ("TARGETID", "i8"), ("OBJTYPE", "U3"), ("DESI_TARGET", "i8"), ("FIBERSTATUS", "i4"),
        ("FLUX_G", "f4"), ("FLUX_R", "f4"), ("EBV", "f4"),
    ]  # fmt: skip
    rows = np.zeros(7, dtype=columns)
    rows["FIBER"], rows["TARGETID"], rows["OBJTYPE"] = 500 + np.arange(7), 39000 + np.arange(7), "TGT"
    rows["DESI_TARGET"] = np.int64(1) << 33
    rows["OBJTYPE"][SKY], rows["DESI_TARGET"][SKY] = "SKY", np.int64(1) << 32
    flux, ivar = np.zeros((7, WAVE.size)), np.zeros((7, WAVE.size))
    response = 80.0 * (1 + 0.4 * np.sin(WAVE / 900.0))
    for fiber in range(7):
        temperature, magnitude, ebv = STARS.get(fiber, (6200.0, 17.0, 0.05))
        if fiber == FAINT:
            magnitude = 24.0
        truth, fluxes = true_flux(temperature, magnitude, ebv)
        rows["EBV"][fiber], rows["FLUX_G"][fiber], rows["FLUX_R"][fiber] = ebv, fluxes["G"], fluxes["R"]
        electrons = response * np.interp(WAVE, FINE, truth) * (fiber != SKY)
        seen = spread(BANDS, electrons)
        variance = np.maximum(seen, 0) + 60.0
        flux[fiber], ivar[fiber] = seen + rng.normal(size=seen.size) * np.sqrt(variance), 1 / variance
    rows["FLUX_R"][NO_PHOTOMETRY] = 0.0
    rows["FIBERSTATUS"][BROKEN] = 1 << 16
    return Frame(
        WAVE, flux, ivar, np.zeros(flux.shape, np.uint32), rows["FIBER"], np.repeat(BANDS[None], 7, axis=0),
        fibermap=Fibermap(rows), meta={"CAMERA": "b1", "EXPID": 9, "NIGHT": 20260115},
    )  # fmt: skip


@pytest.fixture(scope="module")
def fitted(petal: Frame) -> Any:
    return fit_stars([petal], templates(), MatchLimits())


def test_stars_have_target_bits_photometry_light_and_whole_fibers(petal: Frame, fitted: Any) -> None:
    assert petal.fibermap is not None
    fibers, photometry = star_fibers(petal.fibermap)
    assert fibers.tolist() == [0, 1, 2, FAINT]
    assert photometry is SOUTH
    assert fitted.fibers.tolist() == [500, 501, 502], "the faint one has no S/N"
    assert fitted.metadata["TARGETID"].tolist() == [39000, 39001, 39002]


def test_models_have_the_true_flux_behind_dust_and_all(fitted: Any) -> None:
    """Photometry is exact here, so what is left is the temperature: 20 K are 2 % at 3700 Angstrom, 0.3 % in r."""
    inside = (FINE > 3700) & (FINE < 7900)
    for k, given in enumerate(STARS.values()):
        ratio = fitted.flux[k][inside] / true_flux(*given)[0][inside]
        print(f"{given}: T {fitted.metadata['TEFF'][k]:.0f}, model/truth {ratio.mean():.4f}, "
              f"{ratio.min():.4f} to {ratio.max():.4f}")  # fmt: skip
        assert fitted.metadata["TEFF"][k] == pytest.approx(given[0], abs=120)
        assert np.median(ratio[(FINE[inside] > 5600) & (FINE[inside] < 7200)]) == pytest.approx(1, abs=0.01)
        assert abs(ratio - 1).max() < 0.06


def test_colours_of_data_and_model_agree_once_dust_is_taken_off(fitted: Any) -> None:
    difference = fitted.metadata["DATA_G-R"] - fitted.metadata["MODEL_G-R"]
    print("data - model g-r", difference.round(4))
    assert abs(difference).max() < 0.015, "0.4 of E(B-V) redden g-r by 0.4 mag; 50 K of the temperature, by 0.01"


def test_a_star_of_the_wrong_colour_finds_its_model_and_is_rejected(petal: Frame) -> None:
    """Its photometry is a neighbour's: 0.35 mag too red. The lines know, so it does not calibrate."""
    assert petal.fibermap is not None
    flux = petal.fibermap.column("FLUX_G").copy()
    flux[1] *= 10 ** (-0.4 * 0.35)
    frame = replace(petal, fibermap=petal.fibermap.with_columns(FLUX_G=flux))
    fitted = fit_stars([frame], templates(), MatchLimits())
    difference = fitted.metadata["DATA_G-R"] - fitted.metadata["MODEL_G-R"]
    print("data - model g-r", difference.round(3))
    assert difference[1] == pytest.approx(0.35, abs=0.03)
    which, index, _ = choose_stars(frame, fitted, StarCuts())
    assert which.tolist() == [0, 2]
    assert index.tolist() == [0, 2]


def test_a_night_without_light_or_without_a_fibermap_has_no_stars(petal: Frame) -> None:
    with pytest.raises(MissingCalibration, match="S/N above"):
        fit_stars([petal], templates(), MatchLimits(), Choice(min_snr=1e6))
    bare = Frame(petal.wave, petal.flux, petal.ivar, petal.mask, petal.fibers, petal.resolution, meta=petal.meta)
    with pytest.raises(MissingCalibration, match="fibermap"):
        fit_stars([bare], templates(), MatchLimits())


def test_the_best_stars_are_kept_if_there_are_too_many(petal: Frame) -> None:
    assert fit_stars([petal], templates(), MatchLimits(), Choice(max_stars=1)).fibers.tolist() == [502]


def test_stars_without_survey_magnitudes_are_calibrated_by_gaia(petal: Frame) -> None:
    """The magnitudes are those of the true spectra, so the models have their flux again, whatever set it."""
    assert petal.fibermap is not None
    magnitudes = {band: np.zeros(7, dtype="f4") for band in GAIA.filters}
    for fiber, given in STARS.items():
        for band in GAIA.filters:
            flux = 1e-17 * true_flux(*given)[0]
            magnitudes[band][fiber] = GAIA.of(FINE, flux, band) - GAIA.vega[band]  # type: ignore[index]
    columns = {f"GAIA_PHOT_{band}_MEAN_MAG": values for band, values in magnitudes.items()}
    bare = petal.fibermap.with_columns(FLUX_G=np.zeros(7, "f4"), FLUX_R=np.zeros(7, "f4"), **columns)
    assert photometry_of(bare, np.ones(7, dtype=bool)) is GAIA
    fitted = fit_stars([replace(petal, fibermap=bare)], templates(), MatchLimits())
    assert fitted.fibers.tolist() == [500, 501, 502]
    assert {"DATA_GAIA-BP-RP", "MODEL_GAIA-BP-RP"} <= set(fitted.metadata.dtype.names)
    inside = (FINE > 5600) & (FINE < 7200)
    for k, given in enumerate(STARS.values()):
        ratio = np.median(fitted.flux[k][inside] / true_flux(*given)[0][inside])
        print(f"{given}: {ratio:.4f}")
        assert ratio == pytest.approx(1, abs=0.02)


def test_gaia_magnitudes_are_vegas_and_the_surveys_depend_on_the_hemisphere(petal: Frame) -> None:
    """BP - RP of the Sun is 0.82 mag (Casagrande & VandenBerg 2018), that of a black body of its temperature nearly."""
    wave = np.arange(3300.0, 10600.0, 2.0)
    sun = 1e-3 * (wave / 5000) ** -5.0 / np.expm1(1.4387769e8 / (wave * 5772.0))
    blue, red = (GAIA.of(wave, sun, band) - GAIA.vega[band] for band in ("BP", "RP"))  # type: ignore[index]
    print(f"BP - RP of the Sun {blue - red:.3f}")
    assert blue - red == pytest.approx(0.82, abs=0.1)
    assert petal.fibermap is not None
    north = petal.fibermap.with_columns(PHOTSYS=np.full(7, b"N"))
    assert photometry_of(north, np.ones(7, dtype=bool)) is NORTH


def test_weights_of_the_templates_give_the_model(petal: Frame) -> None:
    """COEFF belongs to the templates as they are in their file, whatever their level."""
    given = templates()
    uneven = replace(given, flux=(given.flux * np.linspace(1, 9, len(given))[:, None]).astype(np.float32))
    plain, scaled = (fit_stars([petal], grid, MatchLimits()) for grid in (given, uneven))
    np.testing.assert_allclose(scaled.flux, plain.flux, rtol=1e-4)
    made = [
        c @ uneven.flux * transmission(FINE, ebv) for c, (_, _, ebv) in zip(scaled.coef, STARS.values(), strict=True)
    ]
    ratio = np.array(made) / scaled.flux
    near = np.abs(scaled.metadata["REDSHIFT"])[:, None] * FINE < 1.0  # coefficients are those at rest
    spread_of = (ratio / np.median(ratio, axis=1, keepdims=True) - 1)[near]
    assert np.abs(spread_of).max() < 0.02


def test_a_bin_that_one_exposure_lacks_makes_no_step_in_a_star(petal: Frame) -> None:
    """Clouds take 80 % of the second exposure, a bad column a stretch of the first; both have the noise of the sky."""
    rng, true = np.random.default_rng(2), 1000.0 + WAVE - WAVE[0]
    sigma, shape = 5.0, petal.flux.shape
    one = replace(petal, flux=true + sigma * rng.normal(size=shape), ivar=np.full(shape, sigma**-2))
    two = replace(one, flux=0.2 * true + sigma * rng.normal(size=shape))
    mask = petal.mask.copy()
    mask[:, 500:520] = 1
    star = _combined([replace(one, mask=mask), two], 0)
    pull = (star.flux - true) * np.sqrt(star.ivar)
    assert np.abs(pull[500:520]).max() < 4.5
    assert np.std(pull) == pytest.approx(1, abs=0.1)
    assert star.ivar[0] == pytest.approx((1 + 0.2**2) / sigma**2, rel=0.01)
    assert star.ivar[510] == pytest.approx(0.2**2 / sigma**2, rel=0.01)


def test_frames_of_other_fibers_are_refused(petal: Frame) -> None:
    with pytest.raises(ValueError, match="different fibers"):
        fit_stars([petal, replace(petal, fibers=petal.fibers + 1, fibermap=None)], templates(), MatchLimits())
