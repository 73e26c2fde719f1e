import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from qa.cosmics import Count_Cosmics, count_groups
from qlstream.datamodel.masks import CCDMask

COSMIC = int(CCDMask.COSMIC)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    density=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_groups_are_those_of_a_labelling_with_eight_neighbours(shape, density, seed):
    rng = np.random.default_rng(seed)
    flagged = rng.uniform(size=shape) < density
    mask = (flagged * COSMIC + rng.integers(0, 2, shape) * int(CCDMask.SATURATED)).astype(np.uint16)

    assert count_groups(mask, COSMIC) == label(flagged, np.ones((3, 3)))[1]


def test_spirals_and_combs_are_one_group():
    comb = np.zeros((40, 41), np.uint16)
    comb[:, ::2] = COSMIC  # teeth that only the last row joins
    assert count_groups(comb, COSMIC) == 21
    comb[-1] = COSMIC
    assert count_groups(comb, COSMIC) == 1


def test_many_groups_do_not_overflow():
    mask = np.zeros((400, 400), np.uint16)
    mask[::2, ::2] = COSMIC

    assert count_groups(mask, COSMIC) == 200 * 200


@pytest.mark.parametrize(("header", "minutes"), [({"EXPTIME": 90.0}, 2.0), ({"EXPTIME": 90.0, "DIGITIME": 120.0}, 2.5)])
def test_the_rate_is_tracks_of_the_amplifier_per_minute_of_exposure_and_half_the_readout(
    make_context, image_of, header, minutes
):
    mask = np.zeros((200, 240), np.uint16)
    for k in range(12):  # a track and a lone pixel in C; a track across A and B
        mask[155 - k, 5 + k] = COSMIC
    mask[190, 50] = COSMIC
    mask[10, 115:125] = COSMIC
    mask[40:60, 200:220] = CCDMask.SATURATED

    result = Count_Cosmics().run(image_of(mask=mask), make_context(header=header))

    rate = result.per_amp["COSMICS_RATE"]
    assert rate == {"A": 1 / minutes, "B": 1 / minutes, "C": 2 / minutes, "D": 0}


def test_the_rate_of_a_simulated_dark_is_that_of_the_tracks_in_it(look_at):
    rate = look_at("dark", "z0")["Count_Cosmics"].per_amp["COSMICS_RATE"]

    minutes = (300 + 56.45 / 2) / 60
    expected = 3.0 * (300 + 30) / (300 + 56.45 / 2)  # of mini's z arm, and its half readout
    total = sum(rate.values())
    print(f"{total:.2f}/min, drawn from {expected:.2f}/min")
    # Poisson, and tracks that amplifiers share or that are too faint to be found
    assert total == pytest.approx(expected, abs=3 * np.sqrt(expected / minutes) + 0.1 * expected)
