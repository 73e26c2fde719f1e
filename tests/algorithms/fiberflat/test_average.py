"""One flat out of several of the same lamp, against the flat that they have in common."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from algorithms.fiberflat.average import average_fiberflat
from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.datamodel.masks import SpecMask

NSPEC, NWAVE, ERROR = 30, 400, 0.004


def flats_of(truth, n, rng):
    """`n` measurements of a true flat (nspec, nwave), each with errors of 0.4 %."""
    wave = 5800.0 + 0.8 * np.arange(truth.shape[1])
    return [
        FiberFlat(
            wave,
            truth + ERROR * rng.normal(size=truth.shape),
            np.full(truth.shape, ERROR**-2),
            np.zeros(truth.shape, np.uint32),
            np.full(wave.size, 1000.0 + 10 * k),
            np.arange(len(truth), dtype=np.int32),
            chi2pdf=1.0 + 0.1 * k,
            meta={"EXPID": k},
        )
        for k in range(n)
    ]


@pytest.fixture
def truth():
    rng = np.random.default_rng(1)
    return 1 + 0.1 * rng.normal(size=(NSPEC, 1)) + 0.02 * np.sin(np.arange(NWAVE) / 40 + rng.uniform(0, 6, (NSPEC, 1)))


@pytest.mark.parametrize("n", [1, 2, 9])
def test_the_average_is_the_truth_within_its_own_smaller_errors(truth, n):
    flat = average_fiberflat(flats_of(truth, n, np.random.default_rng(2)))

    pull = (flat.fiberflat - truth) * np.sqrt(flat.ivar)
    print(f"{n} flats: pull mean {pull.mean():+.4f}, rms {pull.std():.4f}; error {1 / np.sqrt(flat.ivar[0, 0]):.5f}")
    assert abs(pull.mean()) < 5 / np.sqrt(pull.size)
    # the variance of a median of 9 is 0.96 of that of many
    assert pull.std() == pytest.approx(1.0, abs=5 / np.sqrt(2 * pull.size) + (0.03 if n > 2 else 0.0))
    assert flat.ivar == pytest.approx(ERROR**-2 * n * (2 / np.pi if n > 2 else 1.0))


def test_what_one_flat_lacks_the_others_tell_and_one_wrong_flat_does_not_count(truth):
    flats = flats_of(truth, 5, np.random.default_rng(3))
    flats[0].mask[4, 100:200] = int(SpecMask.BADFIBERFLAT)
    flats[0].fiberflat[4, 100:200] = 1.0
    flats[1].fiberflat[7, 50] += 30.0  # a cosmic ray that nobody saw
    for flat in flats:
        flat.ivar[9, 300:310] = 0.0
        flat.mask[9, 300:305] |= int(SpecMask.LOWFLAT)
    flats[2].ivar[11, :] = 0.0

    made = average_fiberflat(flats)

    assert (np.abs(made.fiberflat - truth)[[4, 7, 11]] < 6 * ERROR).all()
    assert (made.mask[[4, 7, 11]] == 0).all()
    assert made.ivar[4, 150] == pytest.approx(0.8 * made.ivar[4, 250])
    assert (made.ivar[9, 300:310] == 0).all()
    assert (made.mask[9, 300:310] != 0).all()
    assert (made.mask[9, 300:305] & int(SpecMask.LOWFLAT) != 0).all()
    assert (made.fiberflat[9, 300:310] == 1).all()


def test_lamp_chi2_and_cards_are_of_all(truth):
    made = average_fiberflat(flats_of(truth, 3, np.random.default_rng(4)))

    assert made.meanspec == pytest.approx(1010.0)
    assert made.chi2pdf == pytest.approx(1.1)
    assert made.meta == {"EXPID": 0, "NFLATS": 3}


def test_flats_that_do_not_belong_together_are_refused(truth):
    one, two = flats_of(truth, 2, np.random.default_rng(5))

    with pytest.raises(ValueError, match="no flats given"):
        average_fiberflat([])
    with pytest.raises(ValueError, match="different wavelengths"):
        average_fiberflat([one, replace(two, wave=two.wave + 0.1)])
    with pytest.raises(ValueError, match="other fibers"):
        average_fiberflat([one, replace(two, fibers=two.fibers + 500)])
