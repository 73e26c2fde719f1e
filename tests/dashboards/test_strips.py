"""The geometry of values against ranges."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboards.queries import read_details
from dashboards.status import Status
from dashboards.strips import amp_tiles, bands_of, position, strips_of

finite = st.floats(-1e3, 1e3)


@st.composite
def ranges(draw):
    w0, n0, n1, w1 = sorted(draw(st.lists(finite, min_size=4, max_size=4)))
    open_left, open_right = draw(st.booleans()), draw(st.booleans())
    return (None if open_left else n0, None if open_right else n1), (
        None if open_left else w0,
        None if open_right else w1,
    )


@settings(deadline=None)
@given(ranges(), finite)
def test_a_value_lies_in_the_band_that_its_verdict_has(both, value):
    normal, warn = both
    bands = bands_of(normal, warn)

    u = position(value, normal, warn)

    assert 0 <= u <= 1
    inside = (normal[0] is None or value >= normal[0]) and (normal[1] is None or value <= normal[1])
    warned = (warn[0] is None or value >= warn[0]) and (warn[1] is None or value <= warn[1])
    small = 1e-9
    if inside:
        assert bands.normal[0] - small <= u <= bands.normal[1] + small
    elif warned:
        assert bands.warn[0] - small <= u <= bands.warn[1] + small


@settings(deadline=None)
@given(ranges(), st.lists(finite, min_size=2, max_size=2, unique=True))
def test_a_larger_value_never_lies_further_left(both, values):
    low, high = sorted(values)

    assert position(low, *both) <= position(high, *both) + 1e-9


def test_strips_show_every_judged_value_and_mark_the_bad_ones(night, synthetic):
    details = read_details(night, synthetic.NIGHT, 1005)

    groups = strips_of(details, sorted(details))

    noise = next(strip for strip in groups["CCD"] if strip.metric == "NOISE_AMP")
    assert noise.count == 4 * len(details)
    assert noise.status is Status.ALARM
    assert [(mark.camera, mark.label) for mark in noise.marks] == [("z1", "z1 C")]
    assert noise.ticks.count("M") == noise.count - 1
    assert groups["CCD"][0] is noise  # worst first


def test_amplifiers_lie_as_on_the_ccd(night, synthetic):
    tiles = amp_tiles(read_details(night, synthetic.NIGHT, 1005), "NOISE_AMP")

    names = [[amp for amp, _, _ in row] for row in tiles["z1"].rows]

    assert names == [["C", "D"], ["A", "B"]]
    assert np.isclose(tiles["z1"].rows[0][0][1], 9.3)
    assert tiles["z1"].rows[0][0][2] is Status.ALARM
