"""The PSF fit against spots whose truth is known; PSFs put together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from algorithms.extract.spectroperfect.spots import make_spots
from algorithms.extract.spectroperfect.system import project
from algorithms.psffit.arclines import ArcLines, choose_lines
from algorithms.psffit.combine import mean_psf, merge_psf
from algorithms.psffit.fit import FITTED, TOO_FEW, FitLimits, FittedPSF, fit_psf
from algorithms.psffit.tails import with_tail
from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.datamodel.traces import XYTraceSet
from qlstream.lines import LINE

Array = NDArray[np.float64]

NY, NX, NSPEC = 900, 90, 10
BUNDLES = np.array([0, 5, 10])
LINES = np.sort(np.concatenate([np.linspace(6010.0, 6470.0, 22), [6101.5, 6300.2]]))


def make_psf() -> GaussHermitePSF:
    """Two bundles of five fibers, 0.55 Angstrom a row, Hermite terms and widths that vary."""
    index = np.arange(NSPEC)
    xcoef, ycoef = np.zeros((NSPEC, 4)), np.zeros((NSPEC, 4))
    xcoef[:, 0] = 12 + 7.3 * index + 8 * (index >= 5)
    xcoef[:, 1], xcoef[:, 2] = 1.2, -0.4 + 0.02 * index
    ycoef[:, 0], ycoef[:, 1], ycoef[:, 2] = NY / 2 + 0.2 * index, 0.5 * NY / 0.99, 3.0
    widths = {"GHSIGX": np.zeros((NSPEC, 3)), "GHSIGY": np.zeros((NSPEC, 3)), "GH-0-0": np.zeros((NSPEC, 3))}
    widths["GHSIGX"][:] = (1.04, 0.03, -0.01)
    widths["GHSIGY"][:] = (1.12, -0.05, 0.01)
    widths["GHSIGX"][:, 0] += 0.003 * index
    widths["GH-0-0"][:, 0] = 1.0
    for name, value in (("GH-4-0", -0.012), ("GH-0-4", 0.015), ("GH-3-0", 0.006), ("GH-1-1", 0.02)):
        widths[name] = np.zeros((NSPEC, 3))
        widths[name][:, :2] = (value, 0.2 * value)
    traces = XYTraceSet(xcoef, ycoef, 6000.0, 6490.0, NY, widths["GHSIGX"], widths["GHSIGY"])
    return GaussHermitePSF(traces, widths, 6000.0, 6490.0, ghdegx=4, ghdegy=4, hsizex=8, hsizey=6)


def start_from(truth: GaussHermitePSF) -> GaussHermitePSF:
    """Gaussians of other widths, half a pixel beside."""
    shift = np.full((NSPEC, 3), 0.4)
    traces = truth.traces.shifted(shift, -shift, np.array([6000.0, 6240.0, 6490.0]))
    zero = np.zeros((NSPEC, 1))
    coef = {"GHSIGX": zero + 1.12, "GHSIGY": zero + 1.03, "GH-0-0": zero + 1.0}
    traces = replace(traces, xsigcoef=coef["GHSIGX"], ysigcoef=coef["GHSIGY"])
    return replace(truth, traces=traces, coef=coef, ghdegx=0, ghdegy=0)


@pytest.fixture(scope="module")
def truth() -> GaussHermitePSF:
    return make_psf()


Exposed = tuple[NDArray[np.float32], NDArray[np.float32]]


def expose(truth: GaussHermitePSF, wave: Array, electrons: Array, seed: int) -> tuple[Array, Array]:
    """(image, variance) of an arc with photon and read noise; `electrons` (nline,)."""
    image = np.zeros((NY, NX))
    for first, last in ((0, 5), (5, 10)):
        spots = make_spots(truth, first, last, wave)
        project(spots.image, spots.row, spots.column, np.broadcast_to(electrons[:, None], spots.row.shape), image)
    image += 2.0  # light that is no line
    variance = image + 9.0
    return image + np.random.default_rng(seed).normal(size=image.shape) * np.sqrt(variance), variance


@pytest.fixture(scope="module")
def arc(truth: GaussHermitePSF) -> Exposed:
    noisy, variance = expose(truth, LINES, np.full(LINES.size, 2e4), 5)
    rng = np.random.default_rng(5)
    ivar = 1 / variance
    hits = rng.integers(0, noisy.size, 60)
    noisy.ravel()[hits], ivar.ravel()[hits] = 5e4, 0.0  # cosmic rays that preprocessing found
    return noisy.astype(np.float32), ivar.astype(np.float32)


@pytest.fixture(scope="module")
def fitted(truth: GaussHermitePSF, arc: Exposed) -> FittedPSF:
    return fit_psf(*arc, start_from(truth), ArcLines.single(LINES), BUNDLES, FitLimits(gh_degree=4))


def rms(value: Array) -> float:
    return float(np.sqrt(np.mean(value**2)))


def test_traces_and_widths_are_found(truth: GaussHermitePSF, fitted: FittedPSF) -> None:
    """A spot of 2e4 electrons places itself to 1.1 / sqrt(2e4) = 0.008 pixel; 22 of them fix each trace to 0.003."""
    wave = np.linspace(6020, 6460, 40)
    for name, found, true, limit in (
        ("x", fitted.psf.traces.x_vs_wave(wave), truth.traces.x_vs_wave(wave), 0.004),
        ("y", fitted.psf.traces.y_vs_wave(wave), truth.traces.y_vs_wave(wave), 0.004),
        ("sigma x", fitted.psf.parameter("GHSIGX", wave), truth.parameter("GHSIGX", wave), 0.005),
        ("sigma y", fitted.psf.parameter("GHSIGY", wave), truth.parameter("GHSIGY", wave), 0.005),
    ):
        rms = np.sqrt(((found - true) ** 2).mean())
        print(f"{name}: rms {rms:.4f}, worst {abs(found - true).max():.4f} pixel")
        assert rms < limit


def test_the_shape_is_found_and_describes_the_data(truth: GaussHermitePSF, fitted: FittedPSF) -> None:
    wave = np.linspace(6020, 6460, 9)
    here = replace(fitted.psf, traces=truth.traces)
    difference = make_spots(here, 0, NSPEC, wave).image - make_spots(truth, 0, NSPEC, wave).image
    # a pixel of the peak holds 13 % of a spot; its error from 110 spots of a bundle is 0.13 % of that
    assert abs(difference).max() < 0.002
    for name, factorial in (("GH-4-0", 24), ("GH-0-4", 24), ("GH-3-0", 6), ("GH-1-1", 1)):
        # one spot measures a coefficient to 1 / sqrt(2e4 i! j!) = 0.007; a field of 4 parameters from 110 spots has
        # errors of up to 0.0026 at its corners, of which 4 are allowed
        limit = 0.0104 / np.sqrt(factorial)
        assert fitted.psf.parameter(name, wave) == pytest.approx(truth.parameter(name, wave), abs=limit)
    assert fitted.rchi2 == pytest.approx([1.0, 1.0], abs=0.06), "20 000 pixels, many of them under two spots"
    assert fitted.status.tolist() == [FITTED, FITTED]


def test_a_bundle_without_light_keeps_what_it_had(truth: GaussHermitePSF) -> None:
    image = np.zeros((NY, NX), np.float32)
    start = start_from(truth)
    dark = np.full((NY, NX), 0.1, np.float32)
    out = fit_psf(image, dark, start, ArcLines.single(LINES), BUNDLES, FitLimits())
    assert out.status.tolist() == [TOO_FEW, TOO_FEW]
    np.testing.assert_allclose(out.psf.traces.xcoef, start.traces.xcoef)


def test_faint_lines_do_not_scatter_traces_that_were_right(truth: GaussHermitePSF) -> None:
    """All spectra moved by 0.3 pixel. A spot of 600 electrons places itself to 0.06 pixel: 24 of them would scatter the
    four terms of each trace by 0.024, and those of five fibers the 18 common terms by 0.023; both were right."""
    noisy, variance = expose(truth, LINES, np.full(LINES.size, 600.0), 6)
    wave = np.array([6000.0, 6240.0, 6490.0])
    start = replace(truth, traces=truth.traces.shifted(np.full((NSPEC, 3), 0.3), np.full((NSPEC, 3), -0.3), wave))
    pixels = noisy.astype(np.float32), (1 / variance).astype(np.float32)
    out = fit_psf(*pixels, start, ArcLines.single(LINES), BUNDLES, FitLimits())
    wave = np.linspace(6020, 6460, 40)
    for found, true in (
        (out.psf.traces.x_vs_wave(wave), truth.traces.x_vs_wave(wave)),
        (out.psf.traces.y_vs_wave(wave), truth.traces.y_vs_wave(wave)),
    ):
        print(f"rms {rms(found - true):.4f} pixel")
        assert rms(found - true) < 0.018


def test_traces_that_were_wrong_one_by_one_are_followed(truth: GaussHermitePSF, arc: Exposed) -> None:
    """Fibers 0.05 pixel off by themselves; 24 spots of 2e4 electrons fix each to 0.003."""
    rng = np.random.default_rng(8)
    wave = np.array([6000.0, 6240.0, 6490.0])
    offset = [rng.normal(0, 0.05, (NSPEC, 1)) + np.zeros((NSPEC, 3)) for _ in "xy"]
    start = replace(truth, traces=truth.traces.shifted(*offset, wave))
    out = fit_psf(*arc, start, ArcLines.single(LINES), BUNDLES, FitLimits(gh_degree=4))
    wave = np.linspace(6020, 6460, 40)
    assert rms(out.psf.traces.x_vs_wave(wave) - truth.traces.x_vs_wave(wave)) < 0.004
    assert rms(out.psf.traces.y_vs_wave(wave) - truth.traces.y_vs_wave(wave)) < 0.004


def test_weights_from_the_counts_themselves_bias_faint_lines_and_those_of_the_model_do_not(
    truth: GaussHermitePSF,
) -> None:
    """A pixel that fluctuates low says by its counts that it is precise: the wings of faint spots seem fainter."""
    noisy, _ = expose(truth, LINES, np.full(LINES.size, 300.0), 9)
    of_counts = (1.0 / (9.0 + np.maximum(noisy, 0.0))).astype(np.float32)
    wave, widths = np.linspace(6020, 6460, 40), {}
    for name, noise in (("counts", None), ("model", np.full((NY, NX), 9.0, np.float32))):
        out = fit_psf(
            noisy.astype(np.float32),
            of_counts,
            truth,
            ArcLines.single(LINES),
            BUNDLES,
            FitLimits(gh_degree=2, min_snr=8),
            noise,
        )
        ratio = np.array([out.psf.parameter(n, wave) / truth.parameter(n, wave) - 1 for n in ("GHSIGX", "GHSIGY")])
        widths[name] = abs(ratio.mean(axis=(1, 2))).max()
    print(f"error of the widths: {widths}")
    # 240 spots of 300 electrons under a noise of 11 a pixel: S/N 15 each, so 0.7 / 15 / sqrt(240) = 0.3 % for the mean
    assert widths["model"] < 0.01
    assert widths["counts"] > 2 * widths["model"]


def test_an_error_of_the_psf_that_is_granted_counts_in_chi2(truth: GaussHermitePSF) -> None:
    """Gaussians cannot describe bright spots with Hermite terms: some percent are left, unless so much is granted."""
    noisy, variance = expose(truth, LINES, np.full(LINES.size, 1e5), 4)
    pixels = noisy.astype(np.float32), (1 / variance).astype(np.float32)
    found = {}
    for granted in (0.0, 0.03):
        limits = FitLimits(gh_degree=2, psf_error=granted)
        found[granted] = fit_psf(*pixels, start_from(truth), ArcLines.single(LINES), BUNDLES, limits)
        print(f"psf_error {granted}: rchi2 {found[granted].rchi2}")
    assert (found[0.0].rchi2 > 1.5).all()
    assert (found[0.03].rchi2 < 0.75 * found[0.0].rchi2).all()


def test_faint_companions_do_not_pull_a_line(truth: GaussHermitePSF) -> None:
    """A companion of 5 % stands 0.8 Angstrom beside every other line: by itself it would pull it by 0.07 pixel."""
    companions = LINES[::2] + 0.8
    wave = np.concatenate([LINES, companions])
    strength = np.concatenate([np.full(LINES.size, 100.0), np.full(companions.size, 5.0)])
    table = np.array([(w, "Ne", s) for w, s in zip(wave, strength, strict=True)], dtype=LINE)
    table.sort(order="wave")
    noisy, variance = expose(truth, wave, 200.0 * strength, 7)
    lines = choose_lines(table, truth, NY, 60, 4.0, 0.06)
    assert lines.held == pytest.approx(companions[np.isin(LINES[::2], lines.wave)])
    pixels = noisy.astype(np.float32), (1 / variance).astype(np.float32)
    out = fit_psf(*pixels, truth, lines, BUNDLES, FitLimits(gh_degree=4))
    wave = np.linspace(6020, 6460, 40)
    assert rms(out.psf.traces.y_vs_wave(wave) - truth.traces.y_vs_wave(wave)) < 0.004
    assert rms(out.psf.parameter("GHSIGY", wave) / truth.parameter("GHSIGY", wave) - 1) < 0.005


@pytest.mark.parametrize(("amplitude", "index"), [(0.01, 1.0), (0.005, 2.0), (0.0, 1.0)])
def test_the_amplitude_of_tails_is_found_within_its_error(
    truth: GaussHermitePSF, amplitude: float, index: float
) -> None:
    """Though tails reach into the next bundle, and the shape of the core is fitted with them."""
    one = np.ones((NSPEC, 1))
    tailed = replace(truth, coef={**with_tail(truth, index).coef, "TAILAMP": amplitude * one})
    noisy, variance = expose(tailed, LINES, np.full(LINES.size, 2e4), 5)
    pixels = noisy.astype(np.float32), (1 / variance).astype(np.float32)

    limits = FitLimits(gh_degree=4, tail_index=index)
    out = fit_psf(*pixels, start_from(truth), ArcLines.single(LINES), BUNDLES, limits)

    for tail in out.tails:
        assert tail is not None
        print(f"{tail.amplitude:.5f} +- {tail.error:.5f}, pull {(tail.amplitude - amplitude) / tail.error:+.1f}")
        assert tail.error < 3e-4
        assert tail.amplitude == pytest.approx(amplitude, abs=3.5 * tail.error)
    wave = np.linspace(6020, 6460, 9)
    here = replace(out.psf, traces=tailed.traces)
    difference = make_spots(here, 0, NSPEC, wave).image - make_spots(tailed, 0, NSPEC, wave).image
    assert abs(difference).max() < 0.003
    assert out.rchi2 == pytest.approx([1.0, 1.0], abs=0.06)


def test_a_line_list_of_another_range_is_refused(truth: GaussHermitePSF) -> None:
    table = np.array([(3650.0, "Hg", 100.0)], dtype=LINE)
    with pytest.raises(ValueError, match="none of the lines lies in the range of the PSF"):
        choose_lines(table, truth, NY, 60, 4.0, 0.05)


def test_the_mean_leaves_out_bundles_that_were_fitted_badly(truth: GaussHermitePSF) -> None:
    good = [truth, replace(truth, coef={**truth.coef, "GHSIGX": truth.coef["GHSIGX"] + 0.02})]
    bad = replace(truth, coef={**truth.coef, "GHSIGX": truth.coef["GHSIGX"] + 5.0})
    rchi2 = np.array([[1.0, 1.0], [1.1, 1.0], [9.0, np.nan]])
    out = mean_psf([*good, bad], rchi2, BUNDLES)
    np.testing.assert_allclose(out.coef["GHSIGX"], truth.coef["GHSIGX"] + [0.01, 0.01, 0.01], atol=1e-9)


def test_the_mean_of_psfs_on_other_domains_is_taken_at_the_same_wavelengths(truth: GaussHermitePSF) -> None:
    from qlstream.numeric import legendre

    narrower = (6010.0, 6480.0)
    coef = {n: legendre.on_domain(c, (truth.wavemin, truth.wavemax), narrower) for n, c in truth.coef.items()}
    other = replace(truth, coef=coef, wavemin=narrower[0], wavemax=narrower[1])
    out = mean_psf([truth, other], np.ones((2, 2)), BUNDLES)
    wave = np.linspace(6020, 6460, 7)
    np.testing.assert_allclose(out.parameter("GHSIGY", wave), truth.parameter("GHSIGY", wave), rtol=1e-9)


def test_the_mean_is_taken_over_what_all_psfs_cover(truth: GaussHermitePSF) -> None:
    """Domains that overlap only in part, of the parameters and of the traces alike."""
    from qlstream.numeric import legendre

    old, new = (truth.wavemin, truth.wavemax), (6010.0, 6500.0)
    coef = {n: legendre.on_domain(c, old, new) for n, c in truth.coef.items()}
    traces = replace(
        truth.traces,
        wavemin=new[0],
        wavemax=new[1],
        xcoef=legendre.on_domain(truth.traces.xcoef, old, new) + np.eye(1, 4) * 0.2,
        ycoef=legendre.on_domain(truth.traces.ycoef, old, new),
        xsigcoef=coef["GHSIGX"],
        ysigcoef=coef["GHSIGY"],
    )
    other = replace(truth, traces=traces, coef=coef, wavemin=new[0], wavemax=new[1])
    out = mean_psf([truth, other], np.ones((2, 2)), BUNDLES)
    assert (out.wavemin, out.wavemax) == (out.traces.wavemin, out.traces.wavemax) == (6010.0, 6490.0)
    wave = np.linspace(6020, 6460, 7)
    np.testing.assert_allclose(out.traces.x_vs_wave(wave), truth.traces.x_vs_wave(wave) + 0.1, atol=1e-9)
    np.testing.assert_allclose(out.traces.xsig_vs_wave(wave), truth.traces.xsig_vs_wave(wave), rtol=1e-9)


@pytest.mark.parametrize(
    ("rchi2", "chosen"),
    [((1.0, np.nan, np.nan), 0), ((np.nan, 1.2, 9.0), 1), ((np.nan, np.nan, np.nan), 0)],
)
def test_where_one_fit_or_none_is_good_it_is_taken_as_it_is(
    truth: GaussHermitePSF, rchi2: tuple[float, ...], chosen: int
) -> None:
    psfs = [replace(truth, coef={**truth.coef, "GHSIGX": truth.coef["GHSIGX"] + 0.1 * n}) for n in range(3)]
    both = np.array([[1.0, c] for c in rchi2])
    out = mean_psf(psfs, both, BUNDLES)
    np.testing.assert_allclose(out.coef["GHSIGX"][:5], truth.coef["GHSIGX"][:5] + 0.1, atol=1e-12)
    np.testing.assert_allclose(out.coef["GHSIGX"][5:], psfs[chosen].coef["GHSIGX"][5:], atol=1e-12)
    assert out.meta["EXPID"] == 0


def test_a_merge_takes_the_fibers_of_each_part(truth: GaussHermitePSF) -> None:
    other = replace(truth, coef={**truth.coef, "GHSIGX": truth.coef["GHSIGX"] + 1.0})
    second = np.arange(NSPEC) >= 5
    out = merge_psf([(truth, ~second), (other, second)])
    np.testing.assert_allclose(
        out.coef["GHSIGX"] - truth.coef["GHSIGX"], np.where(second, 1.0, 0.0)[:, None] + [0, 0, 0]
    )


def test_psfs_of_other_form_are_not_combined(truth: GaussHermitePSF) -> None:
    fewer = replace(truth, coef={k: v for k, v in truth.coef.items() if k != "GH-1-1"})
    with pytest.raises(ValueError, match="differ in their fibers or parameters"):
        mean_psf([truth, fewer], np.ones((2, 2)), BUNDLES)
