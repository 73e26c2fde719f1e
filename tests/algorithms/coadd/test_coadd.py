"""Coadds against what their inputs imply."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from algorithms.coadd.cameras import coadd_cameras
from algorithms.coadd.exposures import coadd, coadd_on_grid
from algorithms.coadd.resample import (
    linear_grid,
    log_grid,
    resample_spectra,
    spectroperf_coadd,
    spectroperf_resample,
)
from qlstream.datamodel.masks import FiberMask, SpecMask
from qlstream.datamodel.resolution import Resolution
from qlstream.datamodel.spectra import Band, Spectra

Array = NDArray[np.float64]
RNG = np.random.default_rng(20)
WAVE = 5760.0 + 0.8 * np.arange(160)


def truth(wave: Array) -> Array:
    return 5 + np.sin(wave / 7) + 40 * np.exp(-0.5 * ((wave - 5812.3) / 0.9) ** 2)


def observed(nspec: int, targets: list[int], ivar: Array | float = 4.0, wave: Array = WAVE, sigma: float = 0.8) -> Band:
    """Spectra of one truth through Gaussian resolutions that differ from exposure to exposure."""
    shape = (nspec, wave.size)
    inverse = np.broadcast_to(np.asarray(ivar, dtype=float), shape).copy()
    flux, resolution = np.zeros(shape), np.zeros((nspec, 11, wave.size))
    for k in range(nspec):
        matrix = Resolution.from_widths(np.full(wave.size, sigma * (1 + 0.1 * k)), 11)
        resolution[k] = matrix.data
        flux[k] = matrix @ truth(wave) + RNG.normal(size=wave.size) / np.sqrt(inverse[k])
    return Band(wave, flux, inverse, np.zeros(shape, np.uint32), resolution)


def spectra(targets: list[int], status: list[int] | None = None, **bands: Band) -> Spectra:
    dtype = [("TARGETID", "i8"), ("NIGHT", "i4"), ("EXPID", "i4"), ("EXPTIME", "f4"), ("FIBERSTATUS", "i4"),
             ("FIBER", "i4"), ("MJD", "f8"), ("DELTA_X", "f4")]  # fmt: skip
    rows = np.zeros(len(targets), dtype=dtype)
    rows["TARGETID"], rows["EXPID"], rows["EXPTIME"] = targets, np.arange(len(targets)), 900.0
    rows["NIGHT"] = 20260114 + np.arange(len(targets)) % 2
    rows["MJD"], rows["DELTA_X"] = 61000.0 + np.arange(len(targets)), 0.01
    rows["FIBERSTATUS"] = status if status is not None else 0
    return Spectra(bands, rows)


def inside(values: Array, margin: int = 12) -> Array:
    return values[..., margin:-margin]


def test_a_coadd_is_as_deep_as_its_exposures_and_its_resolution_predicts_it() -> None:
    targets = [1] * 4 + [2] * 2
    out = coadd(spectra(targets, r=observed(6, targets, ivar=np.linspace(1, 6, 6)[:, None])))
    band = out.bands["r"]
    np.testing.assert_allclose(band.ivar[0], np.linspace(1, 6, 6)[:4].sum())
    pulls = []
    for k in range(2):
        expected = band.resolution_of(k) @ truth(WAVE)
        pulls.append(inside((band.flux[k] - expected) * np.sqrt(band.ivar[k])))
    pull = np.concatenate(pulls)
    print(f"coadd pull mean {pull.mean():+.3f} std {pull.std():.3f} n {pull.size}")
    error = 1 / np.sqrt(pull.size)
    assert abs(pull.mean()) < 4 * error
    assert abs(pull.std() - 1) < 4 * error
    assert out.fibermap["COADD_NUMEXP"].tolist() == [4, 2]
    assert out.fibermap["COADD_NUMNIGHT"].tolist() == [2, 2]
    np.testing.assert_allclose(out.fibermap["COADD_EXPTIME"], [3600, 1800])
    np.testing.assert_allclose(out.fibermap["RMS_DELTA_X"], 0.01, rtol=1e-5)
    assert out.exp_fibermap is not None
    assert len(out.exp_fibermap) == 6


def test_masked_bins_and_bad_exposures_take_no_part() -> None:
    band = observed(3, [1, 1, 1])
    band.flux[0, 50], band.mask[0, 50] = 1e6, SpecMask.SOMEBADPIX
    band.flux[2] = -1e6
    band.mask[:, 60] = SpecMask.BADSKY | SpecMask.COSMIC
    band.mask[0, 60] = SpecMask.BADSKY
    out = coadd(spectra([1, 1, 1], [0, 0, int(FiberMask.BROKENFIBER)], r=band), cosmics_nsig=0).bands["r"]
    assert abs(out.flux[0] - truth(WAVE)).max() < 20
    assert out.ivar[0, 50] == pytest.approx(4.0)
    assert out.ivar[0, 60] == 0
    assert out.mask[0, 60] == SpecMask.BADSKY, "the bits that all have"
    assert (out.mask[0, :50] == 0).all()


def test_a_target_with_bad_exposures_only_is_kept_and_says_so() -> None:
    bad = int(FiberMask.BROKENFIBER)
    out = coadd(spectra([1, 1], [bad, bad | 1], r=observed(2, [1, 1])))
    assert out.fibermap["COADD_FIBERSTATUS"].tolist() == [bad | 1], "the bits of any"
    assert out.fibermap["COADD_NUMEXP"].tolist() == [0]
    assert out.fibermap["COADD_EXPTIME"].tolist() == [0]
    assert out.fibermap["FIRSTNIGHT"].tolist() == [20260114]
    assert out.exp_fibermap is not None
    assert not out.exp_fibermap["IN_COADD_R"].any()
    band = out.bands["r"]
    assert (band.ivar == 0).all(), "there to look at, not to be measured"
    assert abs(inside(band.flux[0] - truth(WAVE))[abs(WAVE - 5812.3)[12:-12] > 8]).max() < 2


def test_cosmic_rays_of_one_exposure_are_found_and_lines_are_not() -> None:
    band = observed(4, [1] * 4)
    hits = [(0, 20), (1, 77), (2, 78), (3, 130)]
    for row, column in hits:
        band.flux[row, column] += 12.0  # 24 sigma
    out = coadd(spectra([1] * 4, r=band), cosmics_nsig=4).bands["r"]
    lost = out.ivar[0] < 15.9
    assert all(lost[column] for _, column in hits)
    assert lost.sum() <= 3 * len(hits), "each hit with the bin on either side, and no line"
    expected = Resolution(out.resolution[0]) @ truth(WAVE)  # type: ignore[index]
    assert abs(inside((out.flux[0] - expected) * np.sqrt(out.ivar[0]))).max() < 5


def test_arms_on_one_grid_are_stitched() -> None:
    left, right = WAVE[:100], WAVE[80:]
    b, r = observed(2, [1, 2], wave=left), observed(2, [1, 2], wave=right)
    out = coadd_cameras(spectra([1, 2], b=b, r=r))
    band = out.bands["br"]
    np.testing.assert_allclose(band.wave, WAVE)
    np.testing.assert_allclose(band.ivar[:, :80], 4.0)
    np.testing.assert_allclose(band.ivar[:, 80:100], 8.0)
    # a stitched row reaches over the end of an arm's own matrix: away from both ends the sums are 1
    expected = band.resolution_of(0) @ truth(WAVE)
    good = np.r_[12:74, 106:148]
    assert abs(((band.flux[0] - expected) * np.sqrt(band.ivar[0]))[good]).max() < 5


def test_arms_off_the_grid_are_refused() -> None:
    b, r = observed(1, [1], wave=WAVE[:100]), observed(1, [1], wave=WAVE[80:] + 0.3)
    with pytest.raises(ValueError, match=r"misses that of b .* by 0\.3"):
        coadd_cameras(spectra([1], b=b, r=r))


@pytest.mark.parametrize("wave", [linear_grid(5770, 5880, 1.1), log_grid(5770, 5880, 7e-5)])
def test_quick_resampling_keeps_flux_and_information(wave: Array) -> None:
    out = resample_spectra(spectra([1, 2], r=observed(2, [1, 2])), wave).bands["r"]
    smooth = Resolution.from_widths(np.full(WAVE.size, 0.8), 11) @ truth(WAVE)
    # a bin of 1.1 Angstrom averages a line of 0.9 Angstrom sigma: compare beside the line
    beside = inside(abs(wave - 5812.3) > 8, 3)
    pull = inside((out.flux[0] - np.interp(wave, WAVE, smooth)) * np.sqrt(out.ivar[0]), 3)[beside]
    assert abs(pull).max() < 5
    total = 4.0 / 0.8 * np.gradient(wave)
    np.testing.assert_allclose(inside(out.ivar[0], 3), inside(total, 3), rtol=0.02)


def test_spectroperfect_resampling_is_uncorrelated_and_reconvolves_the_truth() -> None:
    nspec = 40
    targets = list(range(nspec))
    band = observed(1, [0], ivar=1.0, sigma=1.1)
    matrix = Resolution(band.resolution[0])  # type: ignore[index]
    model = matrix @ truth(WAVE)
    flux = model + RNG.normal(size=(nspec, WAVE.size))
    many = Band(
        WAVE,
        flux,
        np.ones_like(flux),
        np.zeros(flux.shape, np.uint32),
        np.repeat(band.resolution, nspec, axis=0),  # type: ignore[arg-type]
    )
    wave = linear_grid(5765, 5880, 1.0)
    out = spectroperf_resample(spectra(targets, r=many), wave).bands["r"]
    pull = np.stack(
        [inside((out.flux[k] - out.resolution_of(k) @ truth(wave)) * np.sqrt(out.ivar[k]), 15) for k in range(nspec)]
    )
    # the line is 0.9 Angstrom wide: linear interpolation of the 1 Angstrom grid bends its top by some percent
    beside = inside(abs(wave - 5812.3) > 8, 15)
    pull = pull[:, beside]
    correlation = float((pull[:, 1:] * pull[:, :-1]).mean())
    print(f"pull mean {pull.mean():+.3f} std {pull.std():.3f} lag 1 {correlation:+.3f} n {pull.size}")
    error = 1 / np.sqrt(pull.size)
    assert abs(pull.std() - 1) < 5 * error
    assert abs(correlation) < 5 * error
    sums = out.resolution_of(0).dot(np.ones(wave.size))
    np.testing.assert_allclose(inside(sums, 15), 1.0, atol=2e-3)


def test_a_fit_to_all_exposures_leaves_out_what_a_coadd_leaves_out() -> None:
    """A bad exposure, a cosmic ray, and a target without any good one."""
    targets, broken = [1, 1, 1, 1, 2], int(FiberMask.BROKENFIBER)
    band = observed(5, targets)
    band.flux[3] = -1e4
    band.flux[1, 70] += 200.0
    wave = linear_grid(5765, 5880, 0.8)

    out = coadd_on_grid(spectra(targets, [0, 0, 0, broken, broken], r=band), wave)

    found = out.bands["r"]
    beside = inside(abs(wave - 5812.3) > 8, 15)
    pull = inside((found.flux[0] - found.resolution_of(0) @ truth(wave)) * np.sqrt(found.ivar[0]), 15)[beside]
    print(f"pull mean {pull.mean():+.2f} std {pull.std():.2f} n {pull.size}")
    assert abs(pull).max() < 5
    assert inside(found.ivar[0], 15).max() < 12.5, "three exposures of 4"
    assert (found.ivar[1] == 0).all()
    assert np.isfinite(found.flux).all()
    assert out.fibermap["COADD_NUMEXP"].tolist() == [3, 0]


def test_one_fit_to_all_exposures_is_as_deep_as_all() -> None:
    targets = [1, 1, 1]
    wave = linear_grid(5765, 5880, 0.8)
    one = spectroperf_resample(spectra([1], r=observed(1, [1])), wave).bands["r"]
    all_three = spectroperf_coadd(spectra(targets, r=observed(3, targets)), wave).bands["r"]
    assert len(all_three.flux) == 1
    ratio = inside(all_three.ivar[0], 15) / inside(one.ivar[0], 15)
    assert np.median(ratio) == pytest.approx(3.0, rel=0.1), "their resolutions differ by 10 and 20 %"


def test_nothing_cannot_be_coadded() -> None:
    with pytest.raises(ValueError, match="no spectra"):
        coadd(spectra([], b=observed(0, [])))
