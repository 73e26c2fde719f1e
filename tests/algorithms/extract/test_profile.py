"""Profile extraction against the light that was painted row by row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.extract.aperture import sum_apertures
from algorithms.extract.boxcar import BoxcarExtract
from algorithms.extract.crossprofile import CrossProfiles, cross_profiles
from algorithms.extract.optimal import fit_profiles
from algorithms.extract.profile import ProfileExtract
from qlstream.calibration.served import Calibration, MissingCalibration
from qlstream.datamodel.frame import PER_ANGSTROM
from qlstream.datamodel.image import Image
from qlstream.datamodel.masks import CCDMask, SpecMask
from qlstream.instrument import load_instrument
from qlstream.simulate.optics import build_optics


@pytest.fixture(scope="module")
def psf():
    return build_optics(load_instrument("mini"), "r1", seed=3).psf


@pytest.fixture(scope="module")
def profiles(psf):
    return cross_profiles(psf, 500)


def fitted(exposed, profiles, **params):
    x, _, inside = exposed.geometry
    return fit_profiles(exposed.pix, exposed.ivar, exposed.mask, x, profiles, inside, **params)


def test_profiles_are_those_of_the_psf(psf, profiles):
    tailed = replace(psf, coef={**psf.coef, "TAILAMP": np.full((40, 1), 2e-3)})
    for given_psf, table in ((psf, profiles), (tailed, cross_profiles(tailed, 500))):
        for fiber, k in ((3, 6), (22, 21)):
            row = np.array([k * 499 / 32])  # a tabulated one
            wave, x = float(psf.traces.wave_vs_y(row)[fiber, 0]), float(psf.traces.x_vs_y(row)[fiber, 0])
            spot = given_psf.spot(fiber, wave)
            near = np.arange(17) + spot[1].start - x
            points = np.arange(table.table.shape[2]) / 32 - 9
            expected = np.interp(near, points, table.table[fiber, k])

            np.testing.assert_allclose(spot[2].sum(axis=0), expected, atol=1e-4)


@pytest.mark.parametrize("flux", [0.0, 30.0, 1e4])
def test_flux_is_the_light_within_the_errors_of_its_ivar(expose, profiles, flux):
    exposed = expose(flux)

    found, ivar, mask = fitted(exposed, profiles)

    pull = (found - exposed.rows) * np.sqrt(ivar)
    print(f"flux {flux}: mean {pull.mean():+.4f}, width {pull.std():.4f}, n {pull.size}")
    assert (mask == 0).all()
    assert abs(pull.mean()) < 5 / np.sqrt(pull.size)
    assert pull.std() == pytest.approx(1, abs=5 / np.sqrt(2 * pull.size))


def test_faint_fibers_have_the_signal_to_noise_that_their_profile_allows(expose, profiles):
    """Readout noise r in each pixel: a sum over w pixels has variance w r^2, the fit r^2 / sum P^2."""
    exposed = expose(5.0)
    x, xsig, inside = exposed.geometry

    found, ivar, _ = fitted(exposed, profiles)

    _, boxed, _ = sum_apertures(exposed.pix, exposed.ivar, exposed.mask, x, xsig, inside, 3.5)
    gain = np.sqrt(np.median(ivar) / np.median(boxed))
    print(f"S/N over that of the boxcar: {gain:.3f}")
    assert gain > 1.25  # sqrt(7 / 3.75) less what five electrons of light add
    assert np.std(found) < 0.8 / np.sqrt(np.median(boxed))


def test_the_light_of_neighbours_is_not_counted_twice(expose, profiles):
    """Every second fiber 1000 times as bright: 0.1 % of its light would be as much as the faint one's."""
    light = np.where(np.arange(40) % 2 == 0, 1e5, 100.0)[:, None]
    exposed = expose(light)

    found, ivar, _ = fitted(exposed, profiles)

    pull = ((found - exposed.rows) * np.sqrt(ivar))[1::2]
    print(f"faint neighbours: mean {pull.mean():+.4f}, width {pull.std():.4f}")
    assert abs(pull.mean()) < 5 / np.sqrt(pull.size)
    assert pull.std() == pytest.approx(1, abs=5 / np.sqrt(2 * pull.size))


def test_masked_pixels_cost_information_and_no_bias(expose, profiles):
    exposed = expose(2000.0)
    rng = np.random.default_rng(4)
    lost = rng.random(exposed.pix.shape) < 0.05
    exposed.mask[lost] |= int(CCDMask.BAD)
    exposed.pix[lost] = 1e6

    found, ivar, mask = fitted(exposed, profiles)

    there = ivar > 0
    pull = ((found - exposed.rows) * np.sqrt(ivar))[there]
    some = (mask & int(SpecMask.SOMEBADPIX)) > 0
    print(
        f"mean {pull.mean():+.4f}, width {pull.std():.4f}; given up {1 - there.mean():.4f}, half lost {some.mean():.4f}"
    )
    assert there.mean() > 0.99
    assert abs(pull.mean()) < 5 / np.sqrt(pull.size)
    assert 0.9 < pull.std() < 1.0  # the profile is right here, but `profile_error` of what is missing is granted
    assert np.median(ivar[some & there]) < 0.6 * np.median(ivar)


def test_cosmic_rays_that_nobody_flagged_are_found_and_leave_the_flux_alone(expose, profiles):
    exposed = expose(500.0)
    x, _, _ = exposed.geometry
    clean, _, _ = fitted(exposed, profiles)
    rng = np.random.default_rng(2)
    fibers, rows = rng.integers(0, 40, 200), rng.integers(5, 495, 200)
    columns = np.rint(x[fibers, rows]).astype(int) + rng.integers(-3, 4, 200)
    exposed.pix[rows, columns] += rng.uniform(300, 5000, 200).astype(np.float32)

    found, ivar, _ = fitted(exposed, profiles)
    kept, _, _ = fitted(exposed, profiles, nsig=1e6)

    change = ((found - exposed.rows) * np.sqrt(ivar))[fibers, rows]
    harm = ((kept - exposed.rows) * np.sqrt(ivar))[fibers, rows]
    print(f"hit rows: pull mean {change.mean():+.2f}, rms {change.std():.2f}; without rejection rms {harm.std():.1f}")
    assert harm.std() > 5
    assert abs(change.mean()) < 0.5
    assert change.std() < 1.5
    apart = np.setdiff1d(np.arange(500), rows)
    np.testing.assert_array_equal(found[:, apart], clean[:, apart])


def test_a_ray_through_the_core_of_a_fiber_is_told_in_its_mask(expose, profiles):
    exposed = expose(500.0)
    core = int(np.rint(exposed.geometry[0][6, 250]))
    exposed.pix[250, core - 1 : core + 2] += 1e4

    found, ivar, mask = fitted(exposed, profiles)

    assert mask[6, 250] == int(SpecMask.COSMIC | SpecMask.SOMEBADPIX)
    assert abs(found[6, 250] - 500) * np.sqrt(ivar[6, 250]) < 4
    assert ivar[6, 250] < 0.3 * np.median(ivar)


def test_bright_lines_of_a_slightly_wrong_profile_are_no_cosmic_rays(expose, psf):
    exposed = expose(np.where(np.arange(500) % 50 == 20, 1e6, 100.0))
    wider = replace(psf, coef={**psf.coef, "GHSIGX": 1.02 * psf.coef["GHSIGX"]})

    found, _, mask = fitted(exposed, cross_profiles(wider, 500))

    assert (mask[:, 20::50] == 0).all()
    assert np.median(found[:, 20::50]) == pytest.approx(1e6, rel=0.01)


def test_rows_without_good_pixels_and_saturated_ones_are_given_up_and_say_so(expose, profiles):
    exposed = expose(100.0)
    x, _, inside = exposed.geometry
    inside[7] = 100, 400
    exposed.ivar[200] = 0.0
    exposed.mask[300, int(np.rint(x[5, 300]))] |= int(CCDMask.SATURATED)

    flux, ivar, mask = fit_profiles(exposed.pix, exposed.ivar, exposed.mask, x, profiles, inside)

    lit = np.arange(40) != 7
    assert (mask[lit, 200] == int(SpecMask.ALLBADPIX | SpecMask.SOMEBADPIX)).all()
    assert mask[5, 300] & int(SpecMask.SATURATED | SpecMask.ALLBADPIX) == int(SpecMask.SATURATED | SpecMask.ALLBADPIX)
    assert (mask[7, :100] == int(SpecMask.NODATA)).all()
    assert (ivar[(mask & int(SpecMask.ALLBADPIX | SpecMask.NODATA)) > 0] == 0).all()
    assert np.isfinite(flux).all()
    assert ivar[4, 300] > 0


@settings(max_examples=25, deadline=None)
@given(
    flux=st.lists(st.floats(-100, 1e5), min_size=4, max_size=4),
    shift=st.floats(-0.5, 0.5),
    scale=st.floats(0.01, 100),
    lost=st.lists(st.integers(0, 51), max_size=6),
)
def test_a_row_made_of_profiles_gives_back_their_fluxes_however_it_is_scaled(flux, shift, scale, lost):
    dx = np.arange(2 * 9 * 32 + 1) / 32 - 9
    table = np.exp(-0.5 * (dx / 1.2) ** 2) / (1.2 * np.sqrt(2 * np.pi))
    profiles = CrossProfiles(np.tile(table.astype(np.float32), (4, 2, 1)), 8)
    x = np.repeat(11.0 + shift + 6.0 * np.arange(4)[:, None], 3, axis=1)
    inside = np.tile(np.array([0, 3]), (4, 1))
    away = np.arange(52) - x[:, :1]
    row = sum(f * np.interp(d, dx, profiles.table[0, 0]) for f, d in zip(flux, away, strict=True))
    pix = np.repeat(row[None], 3, axis=0).astype(np.float32)
    ivar = np.full(pix.shape, 0.1, np.float32)
    ivar[:, lost] = 0.0

    one, weight, mask = fit_profiles(pix, ivar, np.zeros(pix.shape, np.uint16), x, profiles, inside)
    two, other, _ = fit_profiles(
        (scale * pix).astype(np.float32), (ivar / scale**2).astype(np.float32), np.zeros(pix.shape, np.uint16),
        x, profiles, inside,
    )  # fmt: skip

    there = weight > 0
    assert (there == (mask & int(SpecMask.ALLBADPIX) == 0)).all()
    tolerance = 1e-3 * max(1.0, np.abs(flux).max())  # float32 pixels, and a hole in the core amplifies their rounding
    assert (np.abs(one - np.array(flux)[:, None])[there] < tolerance).all()
    np.testing.assert_allclose(two[there], scale * one[there], atol=scale * tolerance)
    np.testing.assert_allclose(other[there] * scale**2, weight[there], rtol=1e-2)


def test_the_stage_makes_a_frame_as_the_boxcar_does(expose, psf, make_context, make_fibermap):
    exposed = expose(300.0)
    image = Image(exposed.pix, exposed.ivar, exposed.mask, "r1", meta={"EXPID": 82}, traces=exposed.traces)
    calibration = Calibration("r1", 20260114, {"PSF": psf})
    context = make_context(camera="r1", calibration=calibration, fibermap=make_fibermap(["ELG"] * 40, first_fiber=40))
    grid = {"Wavelength": (5800.0, 7600.0, 5.0)}

    frame = ProfileExtract({**grid, "Specmin": 8, "Nspec": 4}).run(image, context)
    box = BoxcarExtract({**grid, "Specmin": 8, "Nspec": 4}).run(image, context)

    assert frame.fibers.tolist() == frame.fibermap.fiber.tolist() == [48, 49, 50, 51]
    assert frame.bunit == PER_ANGSTROM
    np.testing.assert_array_equal(frame.ysigma, box.ysigma)
    assert np.median(frame.flux / box.flux) == pytest.approx(1, abs=0.02)
    assert np.median(frame.ivar / box.ivar) > 1.0


def test_it_needs_a_psf_of_this_instrument(expose, psf, make_context):
    exposed = expose(1.0)
    image = Image(exposed.pix, exposed.ivar, exposed.mask, "r1")

    with pytest.raises(MissingCalibration, match="no PSF for r1"):
        ProfileExtract().run(image, make_context(camera="r1", calibration=Calibration("r1", 20260114, {})))
    few = Calibration("r1", 20260114, {"PSF": psf.select(slice(0, 3))})
    with pytest.raises(ValueError, match="3 traces for 40 fibers of mini"):
        ProfileExtract().run(image, make_context(camera="r1", calibration=few))
