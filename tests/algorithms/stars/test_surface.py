"""A quadratic surface through the points of a grid."""

from __future__ import annotations

from itertools import product

import numpy as np

from algorithms.stars.surface import surface_around

NODES = np.array(list(product((5000.0, 5250.0, 5500.0, 6000.0), (3.5, 4.0, 4.5), (-2.0, -1.0))))


def quadratic(at: np.ndarray) -> np.ndarray:
    t, g, z = ((at - (5300.0, 4.0, -1.5)) / (300.0, 0.5, 0.5)).T
    return 3 + t - 0.5 * g + 0.2 * z + 0.3 * t**2 - 0.1 * g**2 + 0.2 * t * g + 0.1 * g * z


def test_what_is_quadratic_is_met_exactly_with_its_slopes() -> None:
    surface = surface_around(NODES, 8)  # 5250, 4.0, -2.0
    assert (surface.low == (5000, 3.5, -2)).all()
    assert (surface.high == (5500, 4.5, -1)).all()
    at = np.array([5310.0, 4.21, -1.3])
    values = quadratic(NODES[surface.members])
    np.testing.assert_allclose(surface.mixture(at) @ values, quadratic(at[None])[0], rtol=1e-10)
    for axis, step in enumerate((1.0, 1e-3, 1e-3)):
        two = np.stack([at, at])
        two[:, axis] += -step, step
        numeric = np.diff(quadratic(two))[0] / (2 * step)
        np.testing.assert_allclose(surface.slopes(at)[axis] @ values, numeric, rtol=1e-6)


def test_weights_sum_to_one_on_grids_with_holes_and_single_values_too() -> None:
    for nodes in (NODES, np.delete(NODES, [0, 9, 13], axis=0), NODES[NODES[:, 1] == 4.0], NODES[4:5]):
        surface = surface_around(nodes, len(nodes) // 2)
        at = 0.3 * surface.low + 0.7 * surface.high
        assert np.isclose(surface.mixture(at).sum(), 1.0)
        np.testing.assert_allclose(surface.slopes(at).sum(axis=1), 0.0, atol=1e-12)


def test_at_the_end_of_an_axis_the_surface_lies_inside() -> None:
    surface = surface_around(NODES, 0)
    assert surface.low[0] == 5000
    assert surface.high[0] == 5500
