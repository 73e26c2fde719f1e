"""Exposures of a target that differ: by throughput, by a cosmic ray, by the target itself."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from algorithms.coadd.cosmics import mask_cosmics
from algorithms.coadd.exposures import coadd
from algorithms.coadd.norms import exposure_norms, measured_factors
from algorithms.coadd.rows import Rows
from qlstream.datamodel.masks import FiberMask, SpecMask
from qlstream.datamodel.spectra import Band, Spectra

Array = NDArray[np.float64]
WAVES = {"b": 3600 + 0.8 * np.arange(1200), "r": 5760 + 0.8 * np.arange(1000)}
NEXP = 4


def light(wave: Array) -> Array:
    return 4 + np.sin(wave / 90) + 15 * np.exp(-0.5 * ((wave - 4100.0) / 3) ** 2)


def observed(level: float, factors: Array, ntarget: int = 20, seed: int = 3) -> Spectra:
    """`ntarget` targets in four exposures of these throughputs, (4,) or (ntarget, 4), with unit noise."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(ntarget * NEXP, [("TARGETID", "i8"), ("EXPID", "i4"), ("FIBERSTATUS", "i4")])
    rows["TARGETID"], rows["EXPID"] = np.tile(np.arange(ntarget), NEXP), np.repeat(np.arange(NEXP), ntarget)
    scale = np.broadcast_to(factors, (ntarget, NEXP)).T.ravel()[:, None]
    bands = {}
    for name, wave in WAVES.items():
        flux = level * light(wave) * scale + rng.normal(size=(len(rows), wave.size))
        bands[name] = Band(wave, flux, np.ones(flux.shape), np.zeros(flux.shape, np.uint32))
    return Spectra(bands, rows)


def pulls(spectra: Spectra, level: float) -> Array:
    """Of coadds against the truth times the level that each coadd has."""
    found = []
    for band in spectra.bands.values():
        truth = level * light(band.wave)
        own = (band.ivar * band.flux * truth).sum(axis=1) / (band.ivar * truth**2).sum(axis=1)
        found.append((band.flux - own[:, None] * truth) * np.sqrt(band.ivar))
    return np.concatenate([f.ravel() for f in found])


@pytest.mark.parametrize("level", [0.2, 1.0, 10.0])
def test_factors_are_found_within_their_errors_and_without_bias(level: float) -> None:
    """From S/N 0.8 to 40 a bin. Noise in c^2 would make all of them too large at the low end."""
    throughput = np.array([1.0, 0.9, 1.1, 1.0])
    spectra = observed(level, throughput, ntarget=60)
    rows = Rows.of(spectra.fibermap["TARGETID"])
    ones = np.ones(len(spectra), dtype=bool)
    norms = exposure_norms(spectra.bands, rows, {"b": ones, "r": ones})
    assert not norms.variable.any(), "a tenth up and down with equal weights leaves the coadd as it is"
    assert np.isfinite(norms.sigma).all()
    truth = np.repeat(1 / throughput, 60)
    measured = exposure_factor(spectra, rows, ones)
    pull = (measured - truth) / norms.sigma
    print(f"level {level}: bias {np.mean(measured / truth - 1):+.5f} pull mean {pull.mean():+.2f} std {pull.std():.2f}")
    assert abs(np.mean(measured / truth - 1)) < 4 * np.mean(norms.sigma) / np.sqrt(60) + 1e-4
    assert pull.std() == pytest.approx(1.0, abs=0.25), "the mean of four shares a quarter of the noise"


def exposure_factor(spectra: Spectra, rows: Rows, used: NDArray[np.bool_]) -> Array:
    """The factors as measured, whether they matter or not."""
    parts = {t: [(b.flux[rows[t]], b.ivar[rows[t]]) for b in spectra.bands.values()] for t in range(len(rows))}
    out = np.empty(len(spectra))
    for t in range(len(rows)):
        out[rows[t]] = measured_factors(parts[t], NEXP)[0]
    return out


def test_a_variable_object_is_normalized_where_an_exposure_is_masked() -> None:
    """Half as bright in one exposure, which has no data in a third of b: the coadd would have a step there."""
    spectra = observed(3.0, np.array([1.0, 1.0, 1.0, 0.5]))
    faint = spectra.fibermap["EXPID"] == 3
    spectra.bands["b"].mask[np.flatnonzero(faint)[:, None], np.arange(400)] = SpecMask.SOMEBADPIX
    plain, normed = coadd(spectra, normalize=False), coadd(spectra)
    before, after = pulls(plain, 3.0), pulls(normed, 3.0)
    print(f"pulls without factors {before.std():.3f}, with {after.std():.3f} (n {after.size})")
    assert before.std() > 1.2
    assert after.std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * after.size))
    exposures = normed.exp_fibermap
    assert exposures is not None
    ratio = exposures["COADD_NORM"][exposures["EXPID"] == 3] / exposures["COADD_NORM"][exposures["EXPID"] == 0]
    np.testing.assert_allclose(ratio, 2.0, rtol=0.05)
    assert (exposures["SIGMA_COADD_NORM"] < 0.02).all()
    assert (normed.fibermap["COADD_FIBERSTATUS"] == FiberMask.VARIABLE).all()
    assert (plain.fibermap["COADD_FIBERSTATUS"] == 0).all()


def test_constant_objects_and_blank_sky_are_left_as_they_are() -> None:
    for level in (0.0, 0.02, 3.0):
        spectra = observed(level, np.ones(NEXP))
        out = coadd(spectra, cosmics_nsig=0)
        assert out.exp_fibermap is not None
        assert (out.exp_fibermap["COADD_NORM"] == 1).all()
        assert (out.fibermap["COADD_FIBERSTATUS"] == 0).all()
        np.testing.assert_allclose(out.bands["b"].ivar, NEXP)
    unknown = coadd(observed(0.0, np.ones(NEXP))).exp_fibermap
    assert unknown is not None
    assert np.isnan(unknown["SIGMA_COADD_NORM"]).mean() > 0.9, "blank sky tells no factor"


def test_an_exposure_without_the_target_takes_no_part() -> None:
    out = coadd(observed(3.0, np.array([1.0, 0.01, 1.0, 1.0])))
    exposures = out.exp_fibermap
    assert exposures is not None
    lost = exposures["EXPID"] == 1
    assert not exposures["IN_COADD_B"][lost].any()
    assert exposures["IN_COADD_B"][~lost].all()
    assert (out.fibermap["COADD_NUMEXP"] == 3).all()
    assert pulls(out, 3.0).std() == pytest.approx(1.0, abs=0.02)
    assert np.median(out.bands["b"].flux / (3.0 * light(WAVES["b"]))) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("factors", [np.ones(NEXP), np.array([1.0, 0.6, 1.4, 0.8])])
def test_cosmic_rays_are_found_in_constant_and_in_variable_objects(factors: Array) -> None:
    spectra = observed(3.0, factors, ntarget=12)
    band = spectra.bands["b"]
    rng = np.random.default_rng(8)
    hits = list(zip(rng.permutation(len(spectra))[:12], rng.permutation(np.arange(50, 1150, 20))[:12], strict=True))
    for row, column in hits:
        band.flux[row, column : column + 2] += (25.0, 12.0)  # light in two bins
    rows = Rows.of(spectra.fibermap["TARGETID"])
    found = mask_cosmics(band, rows, np.ones(len(spectra), dtype=bool), 4.0).mask > 0
    for row, column in hits:
        assert found[row, column : column + 2].all()
        found[row, column - 1 : column + 3] = False
    print(f"{len(hits)} hits found; {found.sum()} other bins of {found.size} masked")
    # of 14400 steps 6e-5 exceed 4 sigma of noise, and each has two bins; variable objects have limits of their own
    assert found.sum() <= 12


def test_two_exposures_cannot_tell_which_one_is_hit() -> None:
    spectra = observed(3.0, np.ones(NEXP))
    pair = spectra[spectra.fibermap["EXPID"] < 2]
    pair.bands["b"].flux[0, 100] += 100
    out = mask_cosmics(pair.bands["b"], Rows.of(pair.fibermap["TARGETID"]), np.ones(len(pair), dtype=bool), 4.0)
    assert (out.mask == 0).all()


@pytest.mark.parametrize("dark", [0.0, 0.01, -0.02])
def test_of_two_exposures_the_one_without_light_is_left_out(dark: float) -> None:
    rng, truth = np.random.default_rng(5), light(WAVES["b"])
    flux = 3.0 * truth * np.array([[1.0], [dark]]) + rng.normal(size=(2, truth.size))
    rows = np.zeros(2, [("TARGETID", "i8"), ("FIBERSTATUS", "i4")])
    one = coadd(Spectra({"b": Band(WAVES["b"], flux, np.ones(flux.shape), np.zeros(flux.shape, np.uint32))}, rows))
    assert one.exp_fibermap is not None
    assert one.exp_fibermap["IN_COADD_B"].tolist() == [True, False]
    np.testing.assert_allclose(one.bands["b"].flux[0], flux[0])
