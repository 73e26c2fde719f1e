import numpy as np
import pytest

from algorithms.extract.aperture import sum_apertures
from qlstream.datamodel.masks import CCDMask, SpecMask

HALF = 3.5


def in_aperture(exposed):
    """Noiseless flux of the very same aperture."""
    good = np.ones_like(exposed.ivar)
    return sum_apertures(exposed.clean, good, np.zeros_like(exposed.mask), *exposed.geometry, HALF)[0]


def pulls(exposed, **params):
    flux, ivar, mask = sum_apertures(exposed.pix, exposed.ivar, exposed.mask, *exposed.geometry, HALF, **params)
    return (flux - in_aperture(exposed)) * np.sqrt(ivar), ivar, mask


def scratch(exposed, share, rng):
    """Mask tracks three pixels wide, and put charge there that must not be used."""
    ny, nx = exposed.mask.shape
    for _ in range(int(share * ny * nx / 30)):
        length, angle = 10, rng.uniform(0, np.pi)
        y = (rng.integers(ny) + np.arange(length) * np.sin(angle)).astype(int)
        x = (rng.integers(nx) + np.arange(length) * np.cos(angle)).astype(int)
        for across in (-1, 0, 1):
            on = (y < ny) & (x + across < nx) & (x + across >= 0)
            exposed.mask[y[on], (x + across)[on]] |= int(CCDMask.COSMIC)
    exposed.pix[exposed.mask > 0] += 2000.0


@pytest.mark.parametrize("flux", [0.0, 50.0, 1e4])
def test_flux_has_the_scatter_that_its_ivar_says(expose, flux):
    pull, ivar, mask = pulls(expose(flux))

    print(f"flux {flux}: pull mean {pull.mean():+.4f}, std {pull.std():.4f}")
    assert (mask == 0).all()
    assert (ivar > 0).all()
    assert abs(pull.mean()) < 5 / np.sqrt(pull.size)
    assert pull.std() == pytest.approx(1.0, abs=5 / np.sqrt(2 * pull.size))


def test_edge_pixels_count_by_the_fraction_covered():
    pix = np.ones((4, 30), np.float32)
    x = np.array([[10.0, 10.25, 10.5, 14.9]])

    flux, ivar, _ = sum_apertures(
        pix, pix, np.zeros(pix.shape, np.uint16), x, np.ones((1, 2)), np.array([[0, 4]]), half_width=2.5
    )

    np.testing.assert_allclose(flux[0], 5.0, rtol=1e-6)
    np.testing.assert_allclose(
        1 / ivar[0], [5.0, 4 + 0.75**2 + 0.25**2, 4 + 2 * 0.5**2, 4 + 0.9**2 + 0.1**2], rtol=1e-5
    )


@pytest.mark.parametrize("flux", [50.0, 1e4])
def test_masked_pixels_are_filled_in_without_bias_and_cost_what_the_ivar_says(expose, flux):
    rng = np.random.default_rng(8)
    exposed = expose(flux * (1 + 0.5 * np.sin(np.arange(500) / 9.0)))
    scratch(exposed, 0.02, rng)

    pull, ivar, mask = pulls(exposed)

    touched = mask > 0
    filled = pull[touched & (ivar > 0)]
    lost = np.mean(ivar == 0)
    print(f"flux {flux}: touched {touched.mean():.3f}, lost {lost:.4f}, pull {filled.mean():+.3f} {filled.std():.3f}")
    assert ((mask & int(SpecMask.COSMIC)) > 0)[touched].all()
    assert touched.mean() > 0.03
    assert lost < 0.2 * touched.mean()
    assert abs(filled.mean()) < 0.1  # neighbours' light in the wings is all that is left
    assert filled.std() == pytest.approx(1.0, abs=0.07)
    assert np.median(ivar[touched & (ivar > 0)]) < 0.95 * np.median(ivar[~touched])


def test_the_peak_of_a_bright_line_is_filled_in_from_its_own_row(expose):
    row = np.arange(500)
    flux = 100.0 + 2e4 * np.exp(-0.5 * ((row % 20) / 1.1) ** 2)
    exposed = expose(flux)
    x = exposed.geometry[0]
    for f in range(0, 40, 2):
        for row in range(200, 500, 20):
            exposed.mask[row, round(x[f, row])] = int(CCDMask.COSMIC)

    pull, _, mask = pulls(exposed)

    filled = pull[(mask > 0)]
    assert filled.size == 20 * 15
    assert abs(filled.mean()) < 0.4
    assert filled.std() < 1.3


def test_a_row_without_good_pixels_is_given_up(expose):
    exposed = expose(500.0)
    exposed.mask[100] = int(CCDMask.BAD)
    exposed.ivar[101] = 0.0

    _, ivar, mask = pulls(exposed)

    assert (ivar[:, 100:102] == 0).all()
    assert (mask[:, 100:102] == int(SpecMask.ALLBADPIX)).all()
    assert (ivar[:, 102:] > 0).all()


def test_saturated_rows_say_so_and_are_not_used(expose):
    exposed = expose(500.0)
    exposed.mask[50, round(exposed.geometry[0][7, 50])] = int(CCDMask.SATURATED)

    _, ivar, mask = pulls(exposed)

    assert mask[7, 50] & int(SpecMask.SATURATED)
    assert ivar[7, 50] == 0
    assert (ivar[[6, 8], 50] > 0).all()


def test_windows_beyond_the_ccd_and_rows_beyond_the_trace_are_bounded(expose):
    exposed = expose(500.0)
    x, xsig, inside = exposed.geometry
    x = x.copy()
    x[0], x[1], x[2] = 1.2, -20.0, 399.4
    inside = inside.copy()
    inside[5] = 10, 490

    flux, ivar, mask = sum_apertures(exposed.pix, exposed.ivar, exposed.mask, x, xsig, inside, HALF)

    assert np.isfinite(flux).all()
    assert (ivar[0] > 0).all()  # half of the profile is still on the CCD
    assert (ivar[1] == 0).all()
    assert (mask[5, :10] == int(SpecMask.NODATA)).all()
    assert (ivar[5, :10] == 0).all()
    assert (ivar[5, 10:490] > 0).all()


def test_the_fringe_of_a_cosmic_ray_beside_flagged_pixels_is_left_out(expose):
    exposed = expose(100.0)
    x = exposed.geometry[0]
    for f in range(40):
        column = round(x[f, 300])
        exposed.mask[300, column - 2] = int(CCDMask.COSMIC)
        exposed.pix[300, column - 1] += 400.0  # not flagged

    pull, ivar, _ = pulls(exposed)

    assert (ivar[:, 300] > 0).all()
    assert np.abs(pull[:, 300]).max() < 5


def test_wrong_shapes_are_named(expose):
    exposed = expose(1.0)
    x, xsig, inside = exposed.geometry
    with pytest.raises(ValueError, match=r"x \(40, 400\)"):
        sum_apertures(exposed.pix, exposed.ivar, exposed.mask, x[:, :400], xsig, inside, HALF)
    with pytest.raises(ValueError, match="half_width 30"):
        sum_apertures(exposed.pix, exposed.ivar, exposed.mask, x, xsig, inside, 30.0)
