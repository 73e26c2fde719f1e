"""Fibers and amplifiers that are known to be bad."""

from __future__ import annotations

import numpy as np
import pytest

from qlstream.calibration.badfibers import flag_bad_amps, flag_bad_fibers, flag_listed
from qlstream.datamodel.amplifier import Amp, Section
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.masks import FiberMask
from qlstream.datamodel.traces import XYTraceSet


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


def test_lists_of_another_spectrograph_are_mistakes_where_numbers_are_absolute(fibermap, caplog):
    cards = {"NEARCHARGETRAPFIBERS": (1503, 4, 703), "VARIABLETHRUFIBERS": (1505,), "BROKENFIBERS": (708,)}

    status = flag_bad_fibers(fibermap, cards, "z3", 500).column("FIBERSTATUS")

    assert list(np.flatnonzero(status & FiberMask.NEARCHARGETRAP)) == [3, 4]
    assert list(np.flatnonzero(status & FiberMask.VARIABLETHRU)) == [5]
    assert list(np.flatnonzero(status & FiberMask.BROKENFIBER)) == [208]  # compared modulo 500
    assert "NEARCHARGETRAPFIBERS of z3: FIBER [703]" in caplog.text


def test_listed_bits_are_added(fibermap):
    status = flag_listed(fibermap, {1507: 4, 3: 512, 1999: 1 << 30}).column("FIBERSTATUS")

    assert status[7] == FiberMask.STUCKPOSITIONER | FiberMask.BROKENFIBER
    assert status[499] == 1 << 30
    assert np.count_nonzero(status) == 2


def amps() -> list[Amp]:
    sections = {"A": (0, 2000, 0, 2000), "B": (2000, 4000, 0, 2000), "C": (0, 2000, 2000, 4000)}
    return [Amp(name, Section(*s), Section(*s), Section(*s)) for name, s in sections.items()]


def traces_at(x: np.ndarray) -> XYTraceSet:
    """Straight traces over 4000 rows."""
    y = np.tile([1999.5, 1999.5], (len(x), 1))
    return XYTraceSet(x[:, None].astype(float), y, 3600.0, 5800.0, 4000)


def test_fibers_over_a_bad_amplifier_are_found_by_their_traces(fibermap):
    x = np.linspace(100.0, 3900.0, 500)

    status = flag_bad_amps(fibermap, "A", "b3", 500, amps(), traces_at(x)).column("FIBERSTATUS")

    np.testing.assert_array_equal((status & FiberMask.BADAMPB) != 0, x < 1999.5)
    assert not (flag_bad_amps(fibermap, "D", "b3", 500, amps(), traces_at(x)).column("FIBERSTATUS") & 0x1C00000).any()


def test_a_corner_of_a_bad_amplifier_does_no_harm(fibermap):
    y = np.tile([1999.5, 1999.5], (500, 1))
    much, little = (  # they lean over 400 columns, and the lowest 12 % and 8 % of their rows are on amplifier A
        XYTraceSet(np.tile([x, 200.0], (500, 1)), y, 3600.0, 5800.0, 4000) for x in (2151.5, 2167.5)
    )

    assert flag_bad_amps(fibermap, "A", "r3", 500, amps(), much).is_on_bad_amp("r").all()
    assert not flag_bad_amps(fibermap, "A", "r3", 500, amps(), little).is_on_bad_amp("r").any()


@pytest.mark.parametrize(("letters", "expected"), [("A", (True, False)), ("D", (False, True)), ("CB", (True, True))])
def test_without_traces_half_of_the_fibers_count(fibermap, letters, expected):
    bad = flag_bad_amps(fibermap, letters, "z3", 500).is_on_bad_amp("z")

    assert (bad[0], bad[-1]) == expected
    assert bad[:250].all() == expected[0]
    assert bad[250:].all() == expected[1]
