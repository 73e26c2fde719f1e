"""Targets: a fibermap whose fluxes are those of the spectra."""

import numpy as np
import pytest

from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.fibermaptable import COLUMNS
from qlstream.datamodel.masks import FiberMask
from qlstream.simulate import templates
from qlstream.simulate.targets import assign_targets
from qlstream.simulate.throughput import build_fibers, fiber_fraction


@pytest.mark.parametrize(
    ("kind", "classes"), [("science-dark", ("ELG", "LRG", "QSO")), ("science-bright", ("BGS", "MWS"))]
)
def test_each_spectrograph_has_its_sky_fibers_standards_and_targets(mini, make_exposure, kind, classes):
    targets = assign_targets(mini, make_exposure(kind), seed=1)

    for spectrograph in mini.spectrographs:
        rows = Fibermap(targets.rows[targets.rows["PETAL_LOC"] == spectrograph])
        assert rows.is_sky.sum() >= 5
        assert rows.is_class("STAR").sum() >= 3
        assert all(rows.is_class(name).any() for name in classes)
        assert len(rows) == mini.nspec
        np.testing.assert_array_equal(rows.fiber, spectrograph * mini.nspec + np.arange(mini.nspec))


def test_fluxes_of_the_fibermap_are_what_integrates_from_the_spectra(mini, make_exposure):
    targets = assign_targets(mini, make_exposure("science-dark"), seed=1)
    fibers = np.flatnonzero(targets.scale > 0)[:60]

    spectra = targets.spectra(fibers, templates.BAND_WAVE)

    for fiber, spectrum in zip(fibers, spectra, strict=True):
        fluxes = templates.band_flux(spectrum)
        for band in "GRZ":
            assert targets.rows[f"FLUX_{band}"][fiber] == pytest.approx(fluxes[band], rel=1e-4)


def test_ab_magnitudes_follow_their_definition():
    flat_in_frequency = 3631e-23 * 2.99792458e18 / templates.BAND_WAVE**2 * 1e17 * 10 ** (-0.4 * 20.0)

    fluxes = templates.band_flux(flat_in_frequency)

    for value in fluxes.values():
        assert 22.5 - 2.5 * np.log10(value) == pytest.approx(20.0, abs=1e-3)


def test_sky_and_unassigned_fibers_have_no_flux_and_broken_ones_no_light(mini, make_exposure):
    targets = assign_targets(mini, make_exposure("science-dark"), seed=1)
    rows = targets.rows

    dark = (rows["OBJTYPE"] == b"SKY") | (rows["OBJTYPE"] == b"BAD")
    assert np.all(targets.scale[dark] == 0)
    assert np.all(rows["FLUX_R"][dark] == 0)
    broken = (rows["FIBERSTATUS"] & int(FiberMask.BROKENFIBER)) != 0
    assert broken.sum() == len(mini.spectrographs)
    assert build_fibers(mini, 4, 1).transmission[broken[rows["PETAL_LOC"] == 4]].max() == 0
    unassigned = (rows["FIBERSTATUS"] & int(FiberMask.UNASSIGNED)) != 0
    assert np.all(unassigned == (rows["OBJTYPE"] == b"BAD"))


def test_columns_are_those_of_the_data_model():
    assert len(COLUMNS.names) == 71
    assert COLUMNS.names[:6] == ("TARGETID", "PETAL_LOC", "DEVICE_LOC", "LOCATION", "FIBER", "FIBERSTATUS")


def test_the_same_tile_has_the_same_targets(mini, make_exposure):
    first, second = (assign_targets(mini, make_exposure("science-dark", expid=e), seed=1) for e in (9, 10))

    np.testing.assert_array_equal(first.rows["TARGETID"], second.rows["TARGETID"])
    np.testing.assert_array_equal(first.redshift, second.redshift)
    assert np.any(first.rows["DELTA_X"] != second.rows["DELTA_X"])


def test_a_fiber_catches_less_in_bad_seeing_beside_the_target_and_of_galaxies(mini):
    good = fiber_fraction(mini, 1.0, 0.0)

    assert 0.6 < good < 0.9
    assert fiber_fraction(mini, 1.5, 0.0) < good
    assert fiber_fraction(mini, 1.0, 0.5) < good
    assert fiber_fraction(mini, 1.0, 0.0, 1.0) < 0.6 * good
