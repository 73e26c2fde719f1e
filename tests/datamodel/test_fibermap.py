"""What a fibermap tells about its fibers."""

from __future__ import annotations

import numpy as np
import pytest

from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.fibermaptable import COLUMNS, columns_of, desiname, survey_of
from qlstream.datamodel.masks import FiberMask
from qlstream.datamodel.positions import position_status


def test_columns_of_early_surveys_come_before_the_main_ones():
    assert columns_of("main") is COLUMNS
    for survey, own in (("sv1", 4), ("SV3", 4), ("cmx", 1)):
        names = columns_of(survey).names
        at = names.index("DESI_TARGET")
        assert all(survey.upper() in name for name in names[at - own : at])
        assert "SCND_TARGET" not in names
        assert len(names) == len(COLUMNS.names) - 1 + own
        assert survey_of(names) == survey.lower()
    assert survey_of(COLUMNS.names) == "main"


def test_names_of_targets_are_cut_and_not_rounded():
    names = desiname([10.1, 170.23999, 0.00004, np.nan], [-0.00009, 5.12349, 89.99999, 1.0])

    assert list(names) == ["DESI J010.1000-00.0000", "DESI J170.2399+05.1234", "DESI J000.0000+89.9999", ""]


def test_classes_are_found_by_the_bits_of_any_survey(make_fibermap):
    main = make_fibermap(["LRG", "STAR", "SKY", "ELG"])
    validation = make_fibermap(["", "", "SKY", ""], SV1_DESI_TARGET=[1, 1 << 33, 0, 2])
    commissioning = make_fibermap(["", "", "SKY", ""], CMX_TARGET=[1 << 10, 2, 1 << 10, 1 << 11])

    for fibermap in (main, validation, commissioning):
        assert list(fibermap.is_class("LRG")) == [True, False, False, False]
        assert list(fibermap.is_class("STAR")) == [False, True, False, False]
        assert list(fibermap.is_class("ELG")) == [False, False, False, True]


def test_flags_are_added_and_nothing_is_changed(make_fibermap):
    fibermap = make_fibermap(["LRG", "SKY"], FIBERSTATUS=np.array([2, 0], "i4"))

    flagged = fibermap.flagged([4, 512])

    assert list(flagged.column("FIBERSTATUS")) == [6, 512]
    assert list(fibermap.column("FIBERSTATUS")) == [2, 0]
    bare = Fibermap(np.array([(3,)], dtype=[("FIBER", "i4")]))
    assert list(bare.flagged([512]).column("FIBERSTATUS")) == [512]


def test_lamps_need_no_file():
    lamps = Fibermap.of_lamps([80, 81], nspec=40)

    assert list(lamps.fiber) == [80, 81]
    assert list(lamps.column("PETAL_LOC")) == [2, 2]
    assert not lamps.is_sky.any()
    assert lamps.is_usable("flat").all()


@pytest.mark.parametrize(
    ("x", "dx", "expected"),
    [
        (10.0, 0.0299, 0), (10.0, 0.0301, FiberMask.POORPOSITION), (10.0, 0.0999, FiberMask.POORPOSITION),
        (10.0, -0.1001, FiberMask.BADPOSITION), (10.0, np.nan, FiberMask.BADPOSITION),
        (0.0, 0.0, FiberMask.MISSINGPOSITION), (0.0, np.nan, FiberMask.MISSINGPOSITION),
        (np.nan, np.nan, FiberMask.MISSINGPOSITION | FiberMask.BADPOSITION),
    ],
)  # fmt: skip
def test_limits_of_positions(x, dx, expected):
    y = np.array([x if x == 0 else -3.0])

    assert position_status(np.array([x]), y, np.array([dx]), np.zeros(1))[0] == int(expected)
