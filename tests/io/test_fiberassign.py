"""Comparing tables of assignments, and reading odd ones."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table

from qlstream.io.errors import BadFile
from qlstream.io.fiberassign import OPERATIONS, compare_fiberassign, read_fiberassign
from qlstream.io.fitsfile import HDU, write_fits


@pytest.fixture
def rows():
    types = [
        (name, "i8" if name in ("TARGETID", "LOCATION", "PETAL_LOC", "DEVICE_LOC") else "f8") for name in OPERATIONS
    ]
    rows = np.zeros(6, dtype=[*types, ("FIBER", "i4"), ("OBJTYPE", "S3"), ("EBV", "f4")])
    rows["LOCATION"] = [3001, 3007, 3002, 1, 9, 4]
    rows["TARGETID"] = [11, 12, -13, 14, 15, 16]
    rows["FIBER"], rows["OBJTYPE"] = np.arange(6), b"TGT"
    rows["PMRA"] = [0.0, 1.0, np.nan, 2.0, np.nan, 3.0]
    return rows


def changed(rows, column, value, row=1):
    other = rows.copy()
    other[column][row] = value
    return other


def test_equal_tables_do_not_differ_whatever_the_order_and_though_nan_is_nan(rows):
    shuffled = rows[[4, 2, 0, 5, 1, 3]]

    assert compare_fiberassign(rows, shuffled) == []
    assert compare_fiberassign(rows, shuffled, compare_all=True) == []


def test_only_what_observing_depends_on_counts_unless_all_is_compared(rows):
    other = changed(changed(rows, "EBV", 0.3), "OBJTYPE", b"SKY")

    assert compare_fiberassign(rows, other) == []
    assert compare_fiberassign(rows, other, compare_all=True) == ["OBJTYPE", "EBV"]
    assert compare_fiberassign(rows, changed(rows, "TARGET_RA", 1e-9)) == ["TARGET_RA"]
    assert compare_fiberassign(rows, changed(rows, "PMRA", np.nan)) == ["PMRA"]


def test_targets_must_agree_but_names_of_no_target_need_not(rows):
    assert compare_fiberassign(rows, changed(rows, "TARGETID", -99, row=2)) == []
    assert compare_fiberassign(rows, changed(rows, "TARGETID", -99, row=1)) == ["TARGETID"]


def test_other_locations_and_columns_differ(rows):
    assert compare_fiberassign(rows, rows[:-1]) == ["LOCATION"]
    names = [name for name in rows.dtype.names if name != "EBV"]
    assert compare_fiberassign(rows, rows[names], compare_all=True) == ["EBV"]
    assert compare_fiberassign(rows[names], rows, compare_all=True) == ["EBV"]
    with pytest.raises(KeyError, match="PMRA"):
        compare_fiberassign(rows, rows[[name for name in rows.dtype.names if name != "PMRA"]])


def test_tables_of_astropy_are_taken_too(rows):
    masked = Table(rows, masked=True)
    masked["PMRA"].mask = np.isnan(rows["PMRA"])

    assert compare_fiberassign(Table(rows), masked, compare_all=True) == []


def test_a_file_without_assignments_says_what_it_lacks(tmp_path, rows):
    path = tmp_path / "fiberassign-000001.fits"
    write_fits(path, [HDU("", None), HDU("FIBERASSIGN", rows[["FIBER", "OBJTYPE"]].copy())])
    with pytest.raises(BadFile, match="no column TARGETID, LOCATION"):
        read_fiberassign(path)
    write_fits(path, [HDU("", None), HDU("TARGETS", rows)])
    with pytest.raises(BadFile, match="missing HDU"):
        read_fiberassign(path)
    write_fits(path, [HDU("", None), HDU("FIBERASSIGN", changed(rows, "FIBER", 0))])
    with pytest.raises(BadFile, match=r"more than one row for FIBER \[0\]"):
        read_fiberassign(path)


def test_rows_without_a_fiber_are_left_out(tmp_path, rows):
    write_fits(tmp_path / "fa.fits", [HDU("", None), HDU("FIBERASSIGN", changed(rows, "FIBER", -1))])

    assert list(read_fiberassign(tmp_path / "fa.fits").rows["FIBER"]) == [0, 2, 3, 4, 5]


def test_types_of_assignment_stand_for_types_of_object(tmp_path, rows):
    given = np.zeros(4, dtype=[("FIBER", "i4"), ("TARGETID", "i8"), ("LOCATION", "i8"), ("FA_TYPE", "u1")])
    given["FIBER"], given["FA_TYPE"] = np.arange(4), [1, 3, 4, 0]
    write_fits(tmp_path / "fa.fits", [HDU("", None), HDU("FIBERASSIGN", given)])

    assert list(read_fiberassign(tmp_path / "fa.fits").rows["OBJTYPE"]) == ["TGT", "TGT", "SKY", "BAD"]
