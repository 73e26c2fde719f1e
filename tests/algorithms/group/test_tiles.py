"""Exposures of tiles grouped to files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.group.tiles import TileExposure, tile_groups
from qlstream.io.paths import findfile

EXPOSURES = [
    TileExposure(7, 20260115, 14),
    TileExposure(7, 20260114, 12),
    TileExposure(7, 20260114, 11),
    TileExposure(9, 20260114, 13),
    TileExposure(-1, 20260114, 10),
]


@pytest.mark.parametrize(
    ("group", "expected", "name"),
    [
        ("cumulative", [[11, 12, 14], [13]], "coadd-3-7-thru20260115.fits"),
        ("pernight", [[11, 12], [14], [13]], "coadd-3-7-20260114.fits"),
        ("perexp", [[11], [12], [14], [13]], "coadd-3-7-exp00000011.fits"),
    ],
)
def test_groups_hold_their_exposures_in_order_and_are_named_by_the_last(group, expected, name, tmp_path):
    groups = tile_groups(EXPOSURES, group)

    assert [[e.expid for e in g.exposures] for g in groups] == expected
    path = findfile("coadd_tile", spectrograph=3, specprod_dir=tmp_path, **groups[0].where)
    assert Path(path).name == name


def test_a_group_through_a_night_knows_nothing_of_later_ones():
    (first, second) = tile_groups(EXPOSURES, "cumulative", through=20260114)

    assert [e.expid for e in first.exposures] == [11, 12]
    assert first.cards() == {"SPGRP": "cumulative", "SPGRPVAL": 20260114, "NIGHT": 20260114, "TILEID": 7}
    assert second.tileid == 9
    assert tile_groups(EXPOSURES, "perexp")[1].cards()["SPGRPVAL"] == 12


@settings(max_examples=50)
@given(
    st.lists(st.builds(TileExposure, st.integers(-1, 3), st.integers(20260101, 20260104), st.integers(1, 9))),
    st.sampled_from(["cumulative", "pernight", "perexp"]),
)
def test_every_exposure_of_a_tile_is_in_exactly_one_group(exposures, group):
    members = [e for g in tile_groups(exposures, group) for e in g.exposures]

    assert sorted(members) == sorted({e for e in exposures if e.tileid > 0})


def test_an_unknown_group_is_refused():
    with pytest.raises(ValueError, match="pernight"):
        tile_groups(EXPOSURES, "weekly")  # type: ignore[arg-type]
