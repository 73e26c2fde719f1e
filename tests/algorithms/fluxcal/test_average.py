"""The average calibration of many exposures under a known atmosphere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from algorithms.fluxcal.average import Conditions, average_fluxcalib, mean_vector
from algorithms.steps.fluxaverage import AverageFluxCalibStep
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.fluxcalib import FluxCalib, FrameFluxCalib
from qlstream.io.errors import BadFile
from qlstream.io.fluxcalib import read_average_fluxcalib, write_fluxcalib
from qlstream.pipeline.filestep import StepFiles
from qlstream.simulate.throughput import atmosphere

Array = NDArray[np.float64]

WAVE = 5800.0 + 4.0 * np.arange(450)
N, NOISE = 60, 0.02


def truth() -> FluxCalib:
    """Electrons per second at airmass 1.2 and 1.1 arcsec; red light suffers less from seeing."""
    return FluxCalib(
        wave=WAVE,
        value=30.0 * (1 + 1e-4 * (WAVE - 6500)) * atmosphere(WAVE, 1.2),
        airmass_term=-2.5 * np.log10(atmosphere(WAVE, 1.0)),
        seeing_term=0.6 - 1e-4 * (WAVE - 6500),
        airmass=1.2,
        seeing=1.1,
    )


def exposures(transparent: bool, seed: int = 3) -> tuple[Array, Conditions]:
    rng = np.random.default_rng(seed)
    airmass, seeing = rng.uniform(1.0, 2.0, N), rng.uniform(0.8, 1.8, N)
    exptime, clouds = rng.uniform(300, 1200, N), rng.uniform(0.4, 1.0, N)
    ideal = np.stack(
        [truth().at(WAVE, x, s) * t * c for x, s, t, c in zip(airmass, seeing, exptime, clouds, strict=True)]
    )
    vectors = ideal * (1 + rng.normal(0, NOISE, ideal.shape))
    return vectors, Conditions(exptime, airmass, seeing, clouds if transparent else np.full(N, np.nan))


def test_value_and_terms_are_those_of_the_atmosphere_within_their_noise() -> None:
    """A slope has the error 1.086 sigma / (rms of its condition sqrt N), here 0.010 mag; 450 bins are within 4.5."""
    vectors, conditions = exposures(transparent=True)
    average = average_fluxcalib(WAVE, vectors, conditions)
    expected = truth().at(WAVE, average.airmass, average.seeing)
    for name, found, true, condition in (
        ("airmass", average.airmass_term, truth().airmass_term, conditions.airmass),
        ("seeing", average.seeing_term, truth().seeing_term, conditions.seeing),
    ):
        sigma = 1.086 * NOISE / (condition.std() * np.sqrt(N))
        pull = (found - true) / sigma
        print(f"{name}: error {np.std(found - true):.4f} mag, expected {sigma:.4f}, mean pull {pull.mean():+.2f}")
        assert np.std(pull) == pytest.approx(1, abs=0.2)
        assert np.abs(pull).max() < 4.5
    error = average.value / expected - 1
    print(f"value: error {100 * error.std():.2f} %")
    assert error.std() < 2 * NOISE / np.sqrt(N)
    assert abs(error.mean()) < 0.002
    assert average.meta["NEXP"] == N


def test_without_transparencies_terms_tell_colour_alone() -> None:
    vectors, conditions = exposures(transparent=False)
    average = average_fluxcalib(WAVE, vectors, conditions)
    true = truth().airmass_term - np.median(truth().airmass_term)
    print(f"airmass term less truth {np.abs(average.airmass_term - true).max():.3f} mag")
    np.testing.assert_allclose(average.airmass_term, true, atol=0.06)
    shape = average.value / truth().at(WAVE, average.airmass, average.seeing)
    np.testing.assert_allclose(shape / np.median(shape), 1.0, atol=0.03)


def test_a_cloud_that_transparency_missed_does_not_count() -> None:
    vectors, conditions = exposures(transparent=True)
    vectors[5] *= 0.3
    average = average_fluxcalib(WAVE, vectors, conditions)
    assert average.meta["NEXP"] == N - 1
    clean = average_fluxcalib(WAVE, *exposures(transparent=True))
    np.testing.assert_allclose(average.airmass_term, clean.airmass_term, atol=0.02)


def test_terms_that_conditions_do_not_tell_are_zero() -> None:
    vectors, conditions = exposures(transparent=True)
    same = replace(conditions, airmass=np.full(N, 1.3))
    assert (average_fluxcalib(WAVE, vectors, same).airmass_term == 0).all()
    assert (average_fluxcalib(WAVE, vectors, conditions, with_seeing=False).seeing_term == 0).all()
    one = Conditions(
        *(np.array([getattr(conditions, name)[0]]) for name in ("exptime", "airmass", "seeing", "transparency"))
    )
    single = average_fluxcalib(WAVE, vectors[:1], one)
    assert (single.airmass_term == 0).all()
    np.testing.assert_allclose(single.value, vectors[0] / one.exptime / one.transparency)


def test_exposures_without_conditions_do_not_count_and_bins_without_data_are_zero() -> None:
    vectors, conditions = exposures(transparent=True)
    conditions.airmass[3], conditions.seeing[4], conditions.exptime[5] = 0.5, np.nan, 0.0
    vectors[:, :7] = np.nan
    average = average_fluxcalib(WAVE, vectors, conditions)
    assert average.meta["NEXP"] == N - 3
    assert (average.value[:7] == 0).all()
    assert np.isfinite(average.airmass_term).all()
    conditions.airmass[:] = 0.0
    with pytest.raises(MissingCalibration, match="AIRMASS of at least 1"):
        average_fluxcalib(WAVE, vectors, conditions)


def product(vector: Array, **meta: object) -> FrameFluxCalib:
    """Five fibers: one dead, one that lost its star, one beside it, two good ones."""
    point = np.array([1.0, 0.0, 1.25, 1.0, 1.0])
    table = np.zeros(5, dtype=[("FLAT_TO_PSF_FLUX", "f8"), ("PSF_TO_FIBER_FLUX", "f8")])
    table["FLAT_TO_PSF_FLUX"] = point
    value = vector / np.where(point > 0, point, 1.0)[:, None]
    ivar = np.where((point > 0)[:, None], np.ones_like(value), 0.0)
    ivar[0] = 0.0
    value[0] = 0.0
    cards = {"CAMERA": "r0", "NIGHT": 20260115, "EXPID": 7, "CALAVG": 0.0, **meta}
    return FrameFluxCalib(WAVE, value, ivar, np.zeros(value.shape, np.uint32), fibercorr=table, meta=cards)


def test_the_vector_of_an_exposure_is_that_of_its_good_fibers_on_their_stars() -> None:
    vector = truth().value
    np.testing.assert_allclose(mean_vector(product(vector)), vector)


def test_the_step_makes_a_file_that_a_calibration_tree_may_hold(tmp_path: Path) -> None:
    vectors, conditions = exposures(transparent=True)
    paths = []
    for n, vector in enumerate(vectors[:12]):
        cards = {"EXPTIME": conditions.exptime[n], "AIRMASS": conditions.airmass[n], "SEEING": conditions.seeing[n],
                 "TRANSPAR": conditions.transparency[n]}  # fmt: skip
        paths.append(tmp_path / f"fluxcalib-{n}.fits")
        write_fluxcalib(paths[-1], product(vector, **cards))
    own = tmp_path / "made-from-an-average.fits"
    write_fluxcalib(own, product(vectors[0] * 9, EXPTIME=1.0, AIRMASS=1.0, SEEING=1.0, TRANSPAR=1.0, CALAVG=0.7))
    out = tmp_path / "average.fits"
    AverageFluxCalibStep().run(StepFiles({"fluxcalibs": (*paths, own)}, {"fluxcalib": out}))
    average = read_average_fluxcalib(out)
    assert (average.meta["NEXP"], average.meta["FSTNIGHT"], average.meta["CAMERA"]) == (12, 20260115, "r0")
    expected = truth().at(WAVE, average.airmass, average.seeing)
    np.testing.assert_allclose(average.value / expected, 1.0, atol=6 * NOISE / np.sqrt(12))
    with pytest.raises(BadFile, match="made from stars"):
        AverageFluxCalibStep().run(StepFiles({"fluxcalibs": (own,)}, {"fluxcalib": out}))
    short = product(vectors[0])
    write_fluxcalib(own, FrameFluxCalib(WAVE + 1, short.value, short.ivar, short.mask, meta=short.meta))
    with pytest.raises(BadFile, match="as in the others"):
        AverageFluxCalibStep().run(StepFiles({"fluxcalibs": (paths[0], own)}, {"fluxcalib": out}))


@pytest.mark.parametrize("transparent", [True, False])
def test_an_exposure_with_few_good_bins_does_not_take_those_of_the_others(transparent: bool) -> None:
    vectors, conditions = exposures(transparent)
    vectors[3], vectors[4, 100:], vectors[:, :7] = np.nan, np.nan, np.nan
    average = average_fluxcalib(WAVE, vectors, conditions)
    assert average.meta["NEXP"] == N - 2
    assert (average.value[7:] > 0).all()
    assert (average.value[:7] == 0).all()
    with pytest.raises(MissingCalibration, match="good bins"):
        average_fluxcalib(WAVE, np.full_like(vectors, np.nan), conditions)
    half = np.arange(WAVE.size) < WAVE.size // 2
    vectors[::2, half], vectors[1::2, ~half] = np.nan, np.nan
    with pytest.raises(MissingCalibration, match="no bin"):
        average_fluxcalib(WAVE, vectors, conditions)
