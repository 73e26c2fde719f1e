from __future__ import annotations

import numpy as np
import pytest

from qlstream.datamodel.frame import Frame
from qlstream.datamodel.framebands import bands_of
from qlstream.datamodel.resolution import Resolution

NSPEC, NWAVE = 5, 300


def frame(**given):
    return Frame(
        wave=np.linspace(5700, 6000, NWAVE),
        flux=np.zeros((NSPEC, NWAVE)),
        ivar=np.zeros((NSPEC, NWAVE)),
        mask=np.zeros((NSPEC, NWAVE), np.uint32),
        fibers=np.arange(NSPEC, dtype=np.int32),
        **given,
    )


def test_bands_from_widths_are_the_matrix_of_these_widths():
    widths = np.random.default_rng(1).uniform(0.8, 1.4, (NSPEC, NWAVE))
    model = np.random.default_rng(2).uniform(0, 1e4, NWAVE)

    of = bands_of(frame(ysigma=widths, ndiag=31))

    for f in range(NSPEC):
        bands = of(f)
        assert bands.shape[0] < 31  # the outermost diagonals hold nothing
        exact = Resolution.from_widths(widths[f], 31).dot(model)
        np.testing.assert_allclose(Resolution(bands).dot(model), exact, rtol=1e-5)


def test_a_single_width_and_few_diagonals_do_no_harm():
    of = bands_of(frame(ysigma=np.full((NSPEC, NWAVE), 1.1), ndiag=5))

    np.testing.assert_allclose(of(2), Resolution.from_widths(np.full(NWAVE, 1.1), 5).data, rtol=1e-6)


def test_given_matrices_are_taken_as_they_are():
    given = np.random.default_rng(3).uniform(size=(NSPEC, 7, NWAVE))

    np.testing.assert_array_equal(bands_of(frame(resolution=given))(3), given[3])


def test_a_frame_without_line_spread_is_refused():
    with pytest.raises(ValueError, match="neither a RESOLUTION nor a YSIGMA"):
        bands_of(frame())
