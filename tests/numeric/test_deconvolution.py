from __future__ import annotations

import numpy as np
import pytest

from qlstream.datamodel.resolution import Resolution
from qlstream.numeric.deconvolution import ComponentEquations, NormalEquations, spread

NWAVE, NDIAG = 200, 11


@pytest.fixture
def fibers():
    """Resolution matrices of twelve fibers, a spectrum with lines, throughputs."""
    rng = np.random.default_rng(3)
    sigma = 0.9 + 0.1 * rng.uniform(size=(12, 1)) + 0.1 * np.linspace(0, 1, NWAVE)
    resolutions = [Resolution.from_widths(s, NDIAG) for s in sigma]
    model = 100 + 20 * np.sin(np.arange(NWAVE) / 15)
    model[[30, 31, 90, 150]] += [3000, 1000, 20000, 500]
    return rng, resolutions, model, 1 + 0.05 * rng.normal(size=12)


def observed(fibers):
    rng, resolutions, model, scale = fibers
    expected = [a * r.dot(model) for a, r in zip(scale, resolutions, strict=True)]
    data = [e + np.sqrt(e) * rng.normal(size=NWAVE) for e in expected]
    return data, [1 / e for e in expected]


def gathered(fibers, data, weight):
    normal = NormalEquations(NDIAG, NWAVE)
    for resolution, scale, d, w in zip(fibers[1], fibers[3], data, weight, strict=True):
        normal.add(resolution.data, scale, d, w)
    return normal.solve()


def test_spreading_is_the_product_with_the_matrix(fibers):
    resolution, model = fibers[1][0], fibers[2]

    np.testing.assert_allclose(spread(resolution.data, model), resolution.dense() @ model, rtol=1e-12)


def test_solution_and_error_are_those_of_the_dense_system(fibers):
    data, weight = observed(fibers)

    common = gathered(fibers, data, weight)

    a = sum(s * s * r.dense().T @ (w[:, None] * r.dense())
            for r, s, w in zip(fibers[1], fibers[3], weight, strict=True))  # fmt: skip
    b = sum(s * r.dense().T @ (w * d) for r, s, w, d in zip(fibers[1], fibers[3], weight, data, strict=True))
    matrix = fibers[1][5].dense()
    np.testing.assert_allclose(common.seen_through(fibers[1][5].data), matrix @ np.linalg.solve(a, b), rtol=1e-6)
    dense = np.diag(matrix @ np.linalg.inv(a) @ matrix.T)
    np.testing.assert_allclose(common.variance_through(fibers[1][5].data), dense, rtol=1e-5)


def test_what_a_fiber_sees_is_the_truth_within_the_stated_error(fibers):
    pulls = []
    for _ in range(20):
        common = gathered(fibers, *observed(fibers))
        bands = fibers[1][7].data
        pulls.append(
            (common.seen_through(bands) - fibers[1][7].dot(fibers[2])) / np.sqrt(common.variance_through(bands))
        )
    z = np.concatenate(pulls)
    print(f"pull mean {z.mean():+.3f} rms {z.std():.3f}")
    # about a third of the 4000 values are independent
    assert abs(z.mean()) < 5 / np.sqrt(1300)
    assert z.std() == pytest.approx(1.0, abs=5 / np.sqrt(2 * 1300))


def test_bins_that_no_data_determine_say_so_and_spoil_no_others(fibers):
    data, weight = observed(fibers)
    for d, w in zip(data, weight, strict=True):
        w[100:130] = 0
        d[110] = np.nan

    common = gathered(fibers, data, weight)

    variance = common.variance_through(fibers[1][0].data)
    far = np.r_[0:95, 135:NWAVE]
    assert np.isinf(variance[106:124]).all()
    assert np.isfinite(variance[far]).all()
    assert np.isfinite(common.model).all()
    pull = (common.seen_through(fibers[1][0].data) - fibers[1][0].dot(fibers[2]))[far] / np.sqrt(variance[far])
    assert np.abs(pull).max() < 5


def test_the_unit_matrix_gives_the_weighted_mean(fibers):
    data, weight = observed(fibers)
    normal = NormalEquations(1, NWAVE)
    for d, w in zip(data, weight, strict=True):
        normal.add(np.ones((1, NWAVE)), 1.0, d, w)

    common = normal.solve()

    np.testing.assert_allclose(common.model, np.average(data, axis=0, weights=weight), rtol=1e-8)
    np.testing.assert_allclose(common.variance_through(np.ones((1, NWAVE))), 1 / np.sum(weight, axis=0), rtol=1e-8)


def test_data_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="here are 11 diagonals of 200 bins"):
        NormalEquations(NDIAG, NWAVE).add(np.ones((9, NWAVE)), 1.0, np.ones(NWAVE), np.ones(NWAVE))


def test_several_spectra_and_their_error_are_those_of_the_dense_system(fibers):
    rng, resolutions, model, _ = fibers
    shares = np.column_stack([np.ones(12), rng.uniform(-1, 1, (12, 2))])
    spectra = np.stack([model, 0.05 * model, 10 + rng.normal(size=NWAVE)])
    expected = [r.dot(p @ spectra) for p, r in zip(shares, resolutions, strict=True)]
    data = [e + np.sqrt(e) * rng.normal(size=NWAVE) for e in expected]
    weight = [1 / e for e in expected]
    equations = ComponentEquations(NDIAG, NWAVE, 3)
    for r, p, d, w in zip(resolutions, shares, data, weight, strict=True):
        equations.add(r.data, p, d, w)

    common = equations.solve()

    a, b = np.zeros((3 * NWAVE, 3 * NWAVE)), np.zeros(3 * NWAVE)
    for r, p, d, w in zip(resolutions, shares, data, weight, strict=True):
        whole = np.kron(p, r.dense())
        a += whole.T @ (w[:, None] * whole)
        b += whole.T @ (w * d)
    # as in the solution, a millionth on the diagonal of the second and third: their sharpest waves are not determined
    a[NWAVE:, NWAVE:] += 1e-6 * np.diag(np.diag(a)[NWAVE:])
    for share in ([1.0, 0.5, -0.3], [1.0, 0.0, 0.0]):
        matrix = np.kron(share, resolutions[5].dense())
        seen = common.seen_through(resolutions[5].data, np.array(share))
        np.testing.assert_allclose(seen, matrix @ np.linalg.solve(a, b), rtol=1e-5)
        dense = np.diag(matrix @ np.linalg.inv(a) @ matrix.T)
        np.testing.assert_allclose(common.variance_through(resolutions[5].data, np.array(share)), dense, rtol=1e-4)


def test_bins_that_no_fiber_tells_are_not_known_in_any_of_several_spectra(fibers):
    rng, resolutions, model, _ = fibers
    equations = ComponentEquations(NDIAG, NWAVE, 2)
    for r in resolutions:
        w = np.full(NWAVE, 1.0)
        w[80:120] = 0.0
        equations.add(r.data, np.array([1.0, rng.uniform(-1, 1)]), r.dot(model), w)

    variance = equations.solve().variance_through(resolutions[0].data, np.array([1.0, 0.2]))

    assert np.isinf(variance[90:110]).all()
    assert np.isfinite(variance[:70]).all()
