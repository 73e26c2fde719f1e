"""The tables of a coadd: what is counted, averaged and kept."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from algorithms.coadd.norms import Norms
from algorithms.coadd.rows import Rows
from algorithms.coadd.tables import coadd_fibermap
from qlstream.datamodel.masks import FiberMask

BROKEN = int(FiberMask.BROKENFIBER)
COLUMNS = [
    ("TARGETID", "i8"), ("FIBER", "i4"), ("FIBERSTATUS", "i4"), ("DESI_TARGET", "i8"), ("TILEID", "i4"),
    ("NIGHT", "i4"), ("EXPID", "i4"), ("MJD", "f8"), ("EXPTIME", "f4"), ("PETAL_LOC", "i2"), ("LOCATION", "i8"),
    ("FIBER_X", "f8"), ("FIBER_Y", "f8"), ("FIBER_RA", "f8"), ("FIBER_DEC", "f8"), ("DELTA_X", "f8"), ("EBV", "f4"),
]  # fmt: skip


@pytest.fixture
def rows() -> NDArray:
    """Target 7 in three exposures of three nights, target 9 in one."""
    table = np.zeros(4, COLUMNS)
    table["TARGETID"], table["EXPID"] = [7, 7, 7, 9], [1, 2, 3, 1]
    table["NIGHT"], table["MJD"] = [20260114, 20260115, 20260116, 20260114], [61054.5, 61055.5, 61056.5, 61054.5]
    table["TILEID"], table["EXPTIME"], table["EBV"] = 100, 900.0, 0.02
    table["FIBER"], table["PETAL_LOC"], table["LOCATION"] = [40, 40, 40, 41], 0, [10, 10, 10, 11]
    table["FIBER_X"], table["DELTA_X"] = [1.0, 2.0, 3.0, 50.0], [0.01, -0.01, 0.01, 0.03]
    table["FIBER_DEC"] = 60.0
    return table


ALL = np.ones(4, dtype=bool)


def tables_of(table, used, norms=None):
    rows = Rows.of(table["TARGETID"])
    return coadd_fibermap(table, rows, used, norms or Norms.none(len(table), len(rows)))


def test_columns_and_types_are_those_of_the_data_model(rows):
    fibermap, exposures = tables_of(rows, {"b": ALL, "r": ALL})

    types = {name: fibermap.dtype[name].str[1:] for name in fibermap.dtype.names}
    expected = {
        "COADD_FIBERSTATUS": "i4", "COADD_NUMEXP": "i2", "COADD_NUMNIGHT": "i2", "COADD_NUMTILE": "i2",
        "COADD_EXPTIME": "f4", "MEAN_DELTA_X": "f4", "RMS_DELTA_X": "f4", "MEAN_FIBER_X": "f4", "MEAN_FIBER_Y": "f4",
        "MEAN_FIBER_RA": "f8", "MEAN_FIBER_DEC": "f8", "STD_FIBER_RA": "f4", "STD_FIBER_DEC": "f4", "MIN_MJD": "f8",
        "MEAN_MJD": "f8", "MAX_MJD": "f8", "FIRSTNIGHT": "i4", "LASTNIGHT": "i4",
    }  # fmt: skip
    assert {name: types.get(name) for name in expected} == expected
    assert not {"NIGHT", "EXPID", "MJD", "FIBERSTATUS", "FIBER_X", "DELTA_X", "EXPTIME"} & types.keys()
    assert exposures.dtype.names[-4:] == ("IN_COADD_B", "IN_COADD_R", "COADD_NORM", "SIGMA_COADD_NORM")
    assert exposures.dtype["COADD_NORM"] == np.float32
    np.testing.assert_allclose(fibermap["MEAN_FIBER_X"], [2, 50])
    np.testing.assert_allclose(fibermap["RMS_DELTA_X"], [0.01, 0.03])
    np.testing.assert_allclose(fibermap["EBV"], 0.02, rtol=1e-6)


def test_what_belongs_to_a_fiber_stays_with_targets_of_a_single_tile_only(rows):
    tile, _ = tables_of(rows, {"b": ALL})
    rows["TILEID"][1] = 101
    sky, _ = tables_of(rows, {"b": ALL})

    only = {"TILEID", "FIBER", "PETAL_LOC", "LOCATION", "MEAN_FIBER_X", "MEAN_FIBER_Y"}
    assert only <= set(tile.dtype.names)
    assert not only & set(sky.dtype.names)
    assert sky["COADD_NUMTILE"].tolist() == [2, 1]


def test_exposures_that_were_left_out_do_not_count(rows):
    used = np.array([True, True, False, True])
    rows["FIBERSTATUS"] = [BROKEN >> 1, 0, BROKEN, 0]

    fibermap, exposures = tables_of(rows, {"b": used})

    assert fibermap["COADD_NUMEXP"].tolist() == [2, 1]
    assert fibermap["LASTNIGHT"].tolist() == [20260115, 20260114]
    np.testing.assert_allclose(fibermap["MAX_MJD"], [61055.5, 61054.5])
    np.testing.assert_allclose(fibermap["MEAN_MJD"], [61055.0, 61054.5])
    np.testing.assert_allclose(fibermap["MEAN_FIBER_X"], [1.5, 50])
    assert exposures["IN_COADD_B"].tolist() == used.tolist()


@pytest.mark.parametrize(
    ("status", "expected"),
    [([1, 3, 1], 1), ([BROKEN, BROKEN | 1, BROKEN], BROKEN | 1), ([int(FiberMask.BADAMPB)] * 3, FiberMask.BADAMPB)],
)
def test_the_status_has_the_bits_of_all_or_of_any_bad_one(rows, status, expected):
    rows["FIBERSTATUS"][:3] = status

    fibermap, _ = tables_of(rows, {"b": ALL, "r": ALL})

    assert fibermap["COADD_FIBERSTATUS"][0] == expected


def test_bits_of_targets_are_united(rows):
    rows["DESI_TARGET"] = [1, 2, 1 << 60, 4]

    assert tables_of(rows, {"b": ALL})[0]["DESI_TARGET"].tolist() == [3 | 1 << 60, 4]


def test_positions_are_averaged_on_the_sky(rows):
    arcsec = 1 / 3600
    rows["FIBER_RA"][:3] = [360 - 2 * arcsec, 0.0, 2 * arcsec]

    fibermap, _ = tables_of(rows, {"b": ALL})

    distance = (fibermap["MEAN_FIBER_RA"][0] + 180) % 360 - 180
    assert distance == pytest.approx(0, abs=1e-9)
    # 2 arcsec of right ascension at declination 60 are 1 on the sky
    assert fibermap["STD_FIBER_RA"][0] == pytest.approx(np.sqrt(2 / 3), rel=1e-4)
    assert fibermap["STD_FIBER_RA"][1] == 0
