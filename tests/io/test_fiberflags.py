"""Lists of fibers to be flagged."""

from __future__ import annotations

import pytest

from qlstream.io.errors import BadFile
from qlstream.io.fiberflags import read_badfibers, read_flagged_fibers


def test_bad_fibers_of_a_night(tmp_path):
    path = tmp_path / "badfibers-20260115.csv"
    path.write_text("# from the last flats\nFIBER,FIBERSTATUS\n1503,262144\n7, 4\n7,4096\n")

    assert read_badfibers(path) == {1503: 262144, 7: 4100}


ECSV = """# %ECSV 1.0
# ---
# delimiter: ','
# datatype:
# - {name: EXPID, datatype: int64}
EXPID,TILEID,NIGHT,FIBERS,FIBERSTATUS_BITNAME,COMMENTS
12,1012,20260115,"3,7-9",BRIGHTNEIGHBOR,a star nearby
12,1012,20260115,9,BADFIBER|VARIABLETHRU,"loose, again"
13,1012,20260115,1,BADFIBER,
"""


def test_flagged_fibers_of_an_exposure(tmp_path):
    path = tmp_path / "flagged_fibers.ecsv"
    path.write_text(ECSV)

    assert read_flagged_fibers(path, 12) == {3: 2048, 7: 2048, 8: 2048, 9: 2048 | 65536 | 16384}
    assert read_flagged_fibers(path, 14) == {}
    path.write_text('EXPID FIBERS FIBERSTATUS_BITNAME COMMENTS\n12 "3, 4" BADFIBER "two words"\n')
    assert read_flagged_fibers(path, 12) == {3: 65536, 4: 65536}


@pytest.mark.parametrize("row", ["12,3,NOSUCHBIT", "12,3-x,BADFIBER", "twelve,3,BADFIBER", "12,3"])
def test_a_row_that_makes_no_sense_is_named(tmp_path, row):
    path = tmp_path / "flagged_fibers.ecsv"
    path.write_text(f"EXPID,FIBERS,FIBERSTATUS_BITNAME\n{row}\n")

    with pytest.raises(BadFile, match="row 1"):
        read_flagged_fibers(path, 12)
