import numpy as np

from algorithms.flexure.blends import APART, find_features


def features(wave, strength, kind="", most=10):
    wave = np.array(wave, float)
    kinds = np.array(list(kind) or ["a"] * len(wave))
    return find_features(wave, np.array(strength, float), kinds, np.ones(len(wave)), most)


def test_a_lone_line_is_a_feature_without_blur():
    found = features([100.0, 200.0], [1.0, 2.0])

    np.testing.assert_array_equal(found.center, [100.0, 200.0])
    np.testing.assert_array_equal(found.blur, [0.0, 0.0])
    np.testing.assert_array_equal(found.last - found.first, [1, 1])


def test_a_close_pair_is_one_feature_whose_center_is_blurred_by_the_ratio():
    same = features([100.0, 101.0], [3.0, 1.0])
    mixed = features([100.0, 101.0], [3.0, 1.0], kind="ab")

    np.testing.assert_allclose(same.center, [100.25])
    assert 0 < same.blur[0] < mixed.blur[0]


def test_half_resolved_lines_are_left_out_and_resolved_ones_fitted_beside():
    half = features([100.0, 100.0 + 0.9 * APART], [1.0, 1.0])
    resolved = features([100.0, 100.0 + 1.5 * APART], [1.0, 1.0])

    assert len(half) == 0
    assert len(resolved) == 2
    assert (resolved.left[0], resolved.first[0], resolved.last[0], resolved.right[0]) == (0, 0, 1, 2)


def test_a_faint_line_beside_a_bright_one_is_no_feature():
    np.testing.assert_array_equal(features([100.0, 104.0], [100.0, 1.0]).center, [100.0])


def test_only_the_strongest_are_taken_in_order_of_wavelength():
    found = features([100.0, 200.0, 300.0], [1.0, 3.0, 2.0], most=2)

    np.testing.assert_array_equal(found.center, [200.0, 300.0])
    np.testing.assert_array_equal(found.brightest(1).center, [200.0])


def test_no_line_is_no_feature():
    assert len(features([], [])) == 0
