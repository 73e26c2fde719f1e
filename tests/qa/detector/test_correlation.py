import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa.correlation import Pixel_Correlation, correlate
from qlstream.datamodel.masks import CCDMask


def noise(shape, kernel, seed=1):
    """White noise smeared by a kernel (rows, columns) that reaches up and to the right."""
    rng = np.random.default_rng(seed)
    ky, kx = kernel.shape
    white = rng.normal(size=(shape[0] + ky - 1, shape[1] + kx - 1))
    return sum(
        kernel[i, j] * white[i : i + shape[0], j : j + shape[1]] for i in range(ky) for j in range(kx)
    ).astype(np.float32)  # fmt: skip


def expected(kernel, i, j):
    ky, kx = kernel.shape
    shifted = np.zeros((ky + 4, kx + 4))
    shifted[i : i + ky, j : j + kx] = kernel
    return float((shifted[:ky, :kx] * kernel).sum() / (kernel**2).sum())


@pytest.mark.parametrize("sample", [4_000, 50_000, 10**7])
def test_correlations_are_those_of_the_noise_that_was_smeared(sample):
    kernel = np.array([[1.0, 0.2, 0.1], [0.3, 0.0, 0.0]])
    pix = 3.0 * noise((500, 400), kernel) + 7.0

    corr = correlate(pix, np.zeros(pix.shape, np.uint16), sample, seed=1)

    truth = np.array([[expected(kernel, i, j) for j in range(4)] for i in range(4)])
    pulls = (corr - truth).ravel()[1:] * np.sqrt(min(sample, 500 * 400))
    print(f"{sample}: rms pull {pulls.std():.2f}")
    assert corr[0, 0] == pytest.approx(1)
    assert np.abs(pulls).max() < 5.5  # smeared noise repeats itself, so errors are a little larger than 1/sqrt(n)


def test_cosmic_rays_and_masked_pixels_do_not_correlate_anything():
    pix = noise((200, 300), np.ones((1, 1)))
    mask = np.zeros(pix.shape, np.uint16)
    pix[50:60] += 1000.0  # a satellite that nobody masked
    mask[100:150, :150] = CCDMask.HOT
    pix[100:150, :150] += 3.0

    corr = correlate(pix, mask, 10**6, seed=1)

    assert np.abs(corr.ravel()[1:]).max() < 5 / np.sqrt(40_000)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.01, 1000), level=st.floats(-1000, 1000))
def test_correlations_know_neither_gain_nor_level(scale, level):
    pix = noise((40, 50), np.array([[1.0, 0.5]]))
    mask = np.zeros(pix.shape, np.uint16)

    # float32 pixels: the level costs digits of the noise
    tolerance = 1e-3 + 1e-5 * abs(level) / scale
    np.testing.assert_allclose(
        correlate((scale * pix + level).astype("f4"), mask, 10**4, 1), correlate(pix, mask, 10**4, 1), atol=tolerance
    )


def test_the_same_pixels_are_looked_at_each_time():
    pix = noise((300, 300), np.ones((1, 1)))
    mask = np.zeros(pix.shape, np.uint16)

    np.testing.assert_array_equal(correlate(pix, mask, 5000, 7), correlate(pix, mask, 5000, 7))
    assert not np.array_equal(correlate(pix, mask, 5000, 7), correlate(pix, mask, 5000, 8))


def test_only_the_amplifier_whose_pixels_are_not_independent_is_told(make_context, image_of):
    pix = 3.0 * noise((200, 240), np.ones((1, 1)))
    pix[100:, 120:] = 3.0 * noise((100, 120), np.array([[1.0, 0.08]]))

    result = Pixel_Correlation().run(image_of(pix), make_context(flavor="zero", program=""))

    largest = result.per_amp["CORR_MAX_AMP"]
    assert largest["D"] == pytest.approx(0.08 / 1.0064, abs=4.5 / np.sqrt(12_000))
    assert abs(result.vectors["CORR_D"][0, 1]) == largest["D"]
    assert {c.element: c.severity.name for c in result.checks if c.severity > 20 or c.element == "D"} == {
        "D": "WARNING"
    }
    assert "(D)" in result.summary


def test_light_would_correlate_so_other_flavors_give_nothing(make_context, image_of):
    result = Pixel_Correlation().run(image_of(), make_context(flavor="flat", program=""))

    assert (result.per_amp, result.checks) == ({}, ())


def test_an_image_without_scatter_or_pixels_has_no_correlation(make_context, image_of):
    mask = np.zeros((200, 240), np.uint16)
    mask[:100] = CCDMask.BADAMP

    result = Pixel_Correlation().run(image_of(mask=mask), make_context(flavor="zero", program=""))

    assert all(np.isnan(value) for value in result.per_amp["CORR_MAX_AMP"].values())
    assert {c.severity.name for c in result.checks} == {"UNKNOWN"}
