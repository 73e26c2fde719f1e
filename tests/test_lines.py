"""The line tables: real wavelengths, in order, and what stands alone."""

import numpy as np
import pytest

from qlstream.lines import LINE, arc_lines, is_isolated, sky_lines


@pytest.mark.parametrize(
    ("table", "name", "vacuum"),
    [
        (arc_lines, "Hg", 5462.268),
        (arc_lines, "Cd", 6440.249),
        (arc_lines, "Ne", 7034.352),
        (arc_lines, "Kr", 5571.836),
        (arc_lines, "Ar", 9125.471),
        (arc_lines, "Xe", 8821.832),
        (sky_lines, "[OI]", 5578.887),
        (sky_lines, "[OI]", 6302.046),
        (sky_lines, "NaI", 5891.583),
    ],
)
def test_well_known_lines_are_listed_at_their_vacuum_wavelengths(table, name, vacuum):
    lines = table()

    mine = lines[lines["name"] == name]

    assert np.abs(mine["wave"] - vacuum).min() < 0.002


@pytest.mark.parametrize("table", [arc_lines, sky_lines])
def test_tables_are_ordered_and_positive(table):
    lines = table()

    assert np.all(np.diff(lines["wave"]) > 0)
    assert np.all(lines["strength"] > 0)


def test_a_line_with_a_strong_near_neighbour_is_not_isolated():
    lines = np.array([(5000.0, "X", 100.0), (5001.0, "X", 50.0), (5100.0, "X", 1.0), (5103.0, "X", 0.01)], dtype=LINE)

    np.testing.assert_array_equal(is_isolated(lines, separation=4.0, contamination=0.03), [False, False, True, False])
