"""Fibers that the calibration tree lists as bad."""

from __future__ import annotations

import numpy as np
import pytest

from qlstream.calibration.badfibers import flag_bad_fibers
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.masks import FiberMask


@pytest.fixture
def fibermap() -> Fibermap:
    rows = np.zeros(500, dtype=[("FIBER", "i4"), ("FIBERSTATUS", "i4"), ("OBJTYPE", "U3")])
    rows["FIBER"] = np.arange(1500, 2000)
    rows["FIBERSTATUS"][7] = FiberMask.STUCKPOSITIONER
    return Fibermap(rows, {"TILEID": 5})


def test_listed_fibers_get_the_bit_of_their_list_and_arm(fibermap):
    cards = {"BROKENFIBERS": (7, 1510), "BADCOLUMNFIBERS": (3,), "LOWTRANSMISSIONFIBERS": (), "GAINA": 1.5}

    flagged = flag_bad_fibers(fibermap, cards, "z3", 500)

    status = flagged.column("FIBERSTATUS")
    assert status[7] == FiberMask.STUCKPOSITIONER | FiberMask.BROKENFIBER
    assert status[10] == FiberMask.BROKENFIBER
    assert status[3] == FiberMask.BADAMPZ
    assert np.count_nonzero(status) == 3
    assert flagged.meta == fibermap.meta
    assert fibermap.column("FIBERSTATUS")[10] == 0  # the input is unchanged


def test_a_fibermap_without_status_gains_the_column(fibermap):
    bare = Fibermap(fibermap.rows[["FIBER"]].copy())
    assert flag_bad_fibers(bare, {"BROKENFIBERS": (4,)}, "b3", 500).column("FIBERSTATUS")[4] == FiberMask.BROKENFIBER
