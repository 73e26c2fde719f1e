"""Fibermaps from fiberassign and coordinates files, against what the simulator knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qlstream.datamodel.masks import FiberMask
from qlstream.instrument import load_instrument
from qlstream.io.assemble import NoFiberAssign, assemble_beside, assemble_fibermap, is_outdated, provide_fibermap
from qlstream.io.companions import find_companions
from qlstream.io.errors import BadFile
from qlstream.io.fibermap import read_fibermap, write_fibermap
from qlstream.io.fitsfile import HDU, FitsFile, write_fits
from qlstream.simulate.assignment import write_companions
from qlstream.simulate.faults import parse_fault
from qlstream.simulate.headers import exposure_header
from qlstream.simulate.schedule import Exposure
from qlstream.simulate.targets import assign_targets, fibermap_of

NIGHT, EXPID, TILE = 20260115, 12, 1012
EXPOSURE = Exposure("science-dark", NIGHT, EXPID, tileid=TILE, tilera=187.3, tiledec=42.0)
MINI = load_instrument("mini").model_copy(update={"spectrographs": (2, 3)})
BAD_FAULT = parse_fault("mispositioned:r3:5,9", MINI)
FROM_TREE = int(FiberMask.LOWTRANSMISSION)  # neither fiberassign nor the platemaker knows these


@pytest.fixture
def exposure(tmp_path: Path) -> Path:
    """The folder of a science exposure, as it comes from a telescope; only the headers of the raw file matter."""
    return _bring(tmp_path, EXPOSURE)


@pytest.fixture
def truth():
    targets = assign_targets(MINI, EXPOSURE, 1, [BAD_FAULT])
    return fibermap_of(targets, MINI, EXPOSURE, exposure_header(EXPOSURE, MINI, ("r3",)))


def _bring(root: Path, exposure: Exposure, **cards: Any) -> Path:
    folder = root / "raw" / str(NIGHT) / f"{exposure.expid:08d}"
    folder.mkdir(parents=True)
    header = exposure_header(exposure, MINI, ("r3",)) | cards
    header = {key: value for key, value in header.items() if value is not None}
    write_fits(folder / f"desi-{exposure.expid:08d}.fits.fz", [HDU("", None), HDU("SPEC", np.arange(10), header)])
    if exposure.flavor == "science":
        write_companions(folder, assign_targets(MINI, exposure, 1, [BAD_FAULT]), MINI, exposure, seed=1)
    return folder


def _raw(folder: Path) -> Path:
    return folder / f"desi-{folder.name}.fits.fz"


def _rewrite(path: Path, hdu: str, change) -> None:
    """Replace a table of a file by what `change` makes of its rows."""
    with FitsFile(path) as fits:
        hdus = [HDU("", None, fits.header(0))]
        for name in fits.names[1:]:
            rows = fits.table(name)
            hdus.append(HDU(name, change(rows) if name == hdu else rows, fits.header(name)))
    write_fits(path, hdus)


def _renamed(rows, names: dict[str, str]):
    out = rows.copy()
    out.dtype.names = tuple(names.get(name, name) for name in rows.dtype.names)
    return out


def _without(rows, *names: str):
    return rows[[name for name in rows.dtype.names if name not in names]].copy()


def _companion(folder: Path, kind: str) -> Path:
    return next(folder.glob(f"{kind}-*"))


def test_the_assembled_fibermap_is_what_was_simulated(exposure, truth, tmp_path):
    fibermap = assemble_fibermap(NIGHT, EXPID, rawdata_dir=tmp_path / "raw", specprod_dir=tmp_path / "redux")

    expected = truth.select(fibermap.fiber)
    assert list(fibermap.fiber) == sorted(truth.fiber)
    assert fibermap.rows.dtype == truth.rows.dtype
    for name in fibermap.rows.dtype.names:
        if name != "FIBERSTATUS":
            np.testing.assert_array_equal(fibermap.rows[name], expected.rows[name], err_msg=name)
    np.testing.assert_array_equal(fibermap.rows["FIBERSTATUS"], expected.rows["FIBERSTATUS"] & ~FROM_TREE)
    poor = (fibermap.rows["FIBERSTATUS"] & int(FiberMask.POORPOSITION)) != 0
    assert list(fibermap.fiber[poor]) == [3 * MINI.nspec + 5, 3 * MINI.nspec + 9]  # 1.2 arcsec are 85 micron
    assert fibermap.meta["COORDFIL"] == f"coordinates-{EXPID:08d}.fits"
    assert fibermap.meta["GUIDEFIL"] == "MISSING"
    assert (fibermap.meta["FAPRGRM"], fibermap.meta["TILEID"], fibermap.meta["EXPID"]) == ("dark", TILE, EXPID)


def test_it_survives_the_disk(exposure, tmp_path):
    fibermap = assemble_beside(_raw(exposure))

    write_fibermap(tmp_path / "fibermap.fits", fibermap)

    again = read_fibermap(tmp_path / "fibermap.fits")
    assert {key: again.meta[key] for key in fibermap.meta} == fibermap.meta
    for name in fibermap.rows.dtype.names:
        values = fibermap.rows[name]
        values = np.char.decode(values) if values.dtype.kind == "S" else values
        np.testing.assert_array_equal(again.rows[name], values, err_msg=name)


def test_rows_are_matched_by_location_whatever_their_order(exposure):
    before = assemble_beside(_raw(exposure))
    rng = np.random.default_rng(3)

    for kind, hdu in (("fiberassign", "FIBERASSIGN"), ("coordinates", "DATA")):
        _rewrite(_companion(exposure, kind), hdu, lambda rows: rng.permutation(rows))

    np.testing.assert_array_equal(assemble_beside(_raw(exposure)).rows, before.rows)


@pytest.mark.parametrize(("micron", "bit"), [(29, 0), (31, 1024), (100, 1024), (101, 512), (np.nan, 512)])
def test_the_offset_of_a_fiber_decides_its_bits(exposure, micron, bit):
    def move(rows):
        rows["FIBER_DX"][7], rows["FIBER_DY"][7] = 0.6e-3 * micron, 0.8e-3 * micron
        return rows

    _rewrite(_companion(exposure, "coordinates"), "DATA", move)

    rows = assemble_beside(_raw(exposure)).rows
    with FitsFile(_companion(exposure, "coordinates")) as fits:
        where = fits.table("DATA")[7]
    row = rows[rows["LOCATION"] == 1000 * where["PETAL_LOC"] + where["DEVICE_LOC"]]
    assert row["FIBERSTATUS"][0] & 0xF00 == bit & 0xF00
    assert row["FIBERSTATUS"][0] & 1024 == bit & 1024


def test_a_fiber_that_was_not_measured_has_no_position(exposure):
    def lose(rows):
        rows["FIBER_X"][3] = rows["FIBER_Y"][3] = rows["FIBER_DX"][3] = rows["FIBER_DY"][3] = 0.0
        return rows[:-1]

    with FitsFile(_companion(exposure, "coordinates")) as fits:
        lost = [1000 * row["PETAL_LOC"] + row["DEVICE_LOC"] for row in fits.table("DATA")[[3, -1]]]
    _rewrite(_companion(exposure, "coordinates"), "DATA", lose)

    rows = assemble_beside(_raw(exposure)).rows
    missing = (rows["FIBERSTATUS"] & int(FiberMask.MISSINGPOSITION)) != 0
    assert sorted(rows["LOCATION"][missing]) == sorted(lost)


def test_without_coordinates_the_exposure_goes_on_and_says_why(exposure, caplog):
    _companion(exposure, "coordinates").unlink()

    fibermap = assemble_beside(_raw(exposure))

    assert fibermap.meta["COORDFIL"] == "MISSING"
    assert fibermap.meta["COORDWHY"] == f"no coordinates-{EXPID:08d}.fits"
    assert np.isnan(fibermap.rows["DELTA_X"]).all()
    assert not (fibermap.rows["FIBERSTATUS"] & 0x700).any()
    assert "positions of the fibers unknown" in caplog.text
    assert fibermap.is_sky.any()


def test_unreadable_coordinates_count_as_none(exposure):
    path = _companion(exposure, "coordinates")
    path.write_bytes(path.read_bytes()[:3000])

    assert str(path) in assemble_beside(_raw(exposure)).meta["COORDWHY"]


def test_a_later_part_of_a_split_exposure_stands_where_its_first_part_did(exposure, tmp_path):
    later = replace(EXPOSURE, expid=EXPID + 1)
    folder = _bring(tmp_path, later, VISITIDS=f"{EXPID},{EXPID + 1}")
    _rewrite(
        _companion(folder, "coordinates"),
        "DATA",
        lambda rows: _without(rows, *(n for n in rows.dtype.names if n.startswith(("FIBER_", "FPA_", "DX", "DY")))),
    )

    fibermap = assemble_beside(_raw(folder))

    assert fibermap.meta["COORDFIL"] == f"coordinates-{EXPID:08d}.fits"
    np.testing.assert_array_equal(fibermap.rows["FIBER_X"], assemble_beside(_raw(exposure)).rows["FIBER_X"])


def test_older_coordinates_have_columns_by_move(exposure):
    before = assemble_beside(_raw(exposure)).rows
    final = ["FIBER_X", "FIBER_Y", "FIBER_DX", "FIBER_DY", "FIBER_OFFSET", "FIBER_RA", "FIBER_DEC"]
    _rewrite(_companion(exposure, "coordinates"), "DATA", lambda rows: _without(rows, *final))

    rows = assemble_beside(_raw(exposure)).rows

    for name in ("FIBER_X", "FIBER_Y", "DELTA_X", "DELTA_Y", "FIBERSTATUS", "NUM_ITER"):
        np.testing.assert_array_equal(rows[name], before[name], err_msg=name)
    for axis in ("RA", "DEC"):  # from offset and plate scale: good to 2 % of an offset of at most 1.2 arcsec
        error = (rows[f"FIBER_{axis}"] - before[f"FIBER_{axis}"]) * 3600.0
        on_target = before["FIBERASSIGN_X"] != 0
        assert np.nanmax(np.abs(error[on_target])) < 0.04


def test_positions_before_the_last_move_do_not_stand_for_those_after_it(exposure):
    final = ["FIBER_X", "FIBER_Y", "FIBER_DX", "FIBER_DY", "DX_1", "DY_1"]
    _rewrite(_companion(exposure, "coordinates"), "DATA", lambda rows: _without(rows, *final))

    assert "of the last move (1)" in assemble_beside(_raw(exposure)).meta["COORDWHY"]


def test_an_early_fiberassign_file_gives_the_same(exposure):
    before = assemble_beside(_raw(exposure)).rows
    path = _companion(exposure, "fiberassign")
    photometry = [n for n in before.dtype.names if n.startswith(("FLUX_", "FIBERFLUX", "GAIA")) or n == "DESI_TARGET"]
    with FitsFile(path) as fits:
        rows, cards = fits.table("FIBERASSIGN"), fits.header(0)
    targets = rows[rows["TARGETID"] > 0][["TARGETID", *photometry]].copy()
    early = _renamed(
        _without(rows, "LOCATION", "OBJTYPE", "PLATE_RA", "PLATE_DEC", "DESINAME", *photometry),
        {"FIBERASSIGN_X": "DESIGN_X", "FIBERASSIGN_Y": "DESIGN_Y", "LAMBDA_REF": "LAMBDAREF"},
    )
    path.unlink()
    plain = path.with_suffix("")
    hdus = [HDU("FIBERASSIGN", early, cards), HDU("TARGETS", np.random.default_rng(1).permutation(targets))]
    write_fits(plain, [HDU("", None, cards), *hdus])

    rows = assemble_beside(_raw(exposure)).rows

    for name in before.dtype.names:
        np.testing.assert_array_equal(rows[name], before[name], err_msg=name)


def test_survey_validation_has_its_own_target_columns(exposure):
    _rewrite(
        _companion(exposure, "fiberassign"),
        "FIBERASSIGN",
        lambda rows: _renamed(rows, {"DESI_TARGET": "SV3_DESI_TARGET", "SCND_TARGET": "SV3_SCND_TARGET"}),
    )

    fibermap = assemble_beside(_raw(exposure))

    names = fibermap.rows.dtype.names
    assert "SCND_TARGET" not in names
    at = names.index("DESI_TARGET")
    assert names[at - 4 : at] == ("SV3_DESI_TARGET", "SV3_BGS_TARGET", "SV3_MWS_TARGET", "SV3_SCND_TARGET")
    assert fibermap.is_class("LRG").any()


def test_bad_amplifiers_and_bad_fibers_are_flagged(exposure, tmp_path):
    listed = tmp_path / "redux" / "calibnight" / str(NIGHT) / f"badfibers-{NIGHT}.csv"
    listed.parent.mkdir(parents=True)
    listed.write_text(f"FIBER,FIBERSTATUS\n{3 * MINI.nspec + 1},{1 << 16}\n{3 * MINI.nspec + 1},4096\n")
    roots = {"rawdata_dir": tmp_path / "raw", "specprod_dir": tmp_path / "redux"}

    rows = assemble_fibermap(NIGHT, EXPID, badamps="b3A,z3D", **roots).rows

    petal, half = rows["PETAL_LOC"] == 3, rows["FIBER"] % MINI.nspec < MINI.nspec // 2
    for bit, where in ((FiberMask.BADAMPB, petal & half), (FiberMask.BADAMPZ, petal & ~half)):
        np.testing.assert_array_equal((rows["FIBERSTATUS"] & int(bit)) != 0, where)
    bad = rows["FIBERSTATUS"][rows["FIBER"] == 3 * MINI.nspec + 1][0]
    assert bad & 0x11000 == 0x11000
    with pytest.raises(ValueError, match="q3A"):
        assemble_fibermap(NIGHT, EXPID, badamps="q3A", **roots)


def test_a_corrected_fiberassign_file_takes_the_place_of_the_first_one(exposure, tmp_path, caplog):
    tiles = tmp_path / "tiles" / f"{TILE // 1000:03d}"
    tiles.mkdir(parents=True)
    path = _companion(exposure, "fiberassign")
    corrected = tiles / path.name
    corrected.write_bytes(path.read_bytes())
    _rewrite(corrected, "FIBERASSIGN", lambda rows: _with(rows, EBV=0.5))
    roots = {"rawdata_dir": tmp_path / "raw", "specprod_dir": tmp_path / "redux", "tiles_dir": tmp_path / "tiles"}

    assert (assemble_fibermap(NIGHT, EXPID, **roots).rows["EBV"] == 0.5).all()
    assert not (assemble_fibermap(NIGHT, EXPID, allow_svn_override=False, **roots).rows["EBV"] == 0.5).any()
    _rewrite(corrected, "FIBERASSIGN", lambda rows: _with(rows, TARGET_RA=1.0))
    assert not (assemble_fibermap(NIGHT, EXPID, **roots).rows["EBV"] == 0.5).any()
    assert "they differ in TARGET_RA" in caplog.text


def _with(rows, **values):
    for name, value in values.items():
        rows[name] = value
    return rows


def test_what_is_missing_is_named(exposure, tmp_path):
    calibration = _bring(tmp_path, Exposure("flat", NIGHT, 5, exptime=120.0))
    other = _bring(tmp_path, replace(EXPOSURE, expid=14), TILEID=7)
    _companion(other, "fiberassign").rename(other / "fiberassign-000007.fits.gz")

    with pytest.raises(NoFiberAssign, match="no TILEID .OBSTYPE FLAT"):
        assemble_beside(_raw(calibration))
    with pytest.raises(BadFile, match="another tile .TILEID = 1012.; expected 7"):
        assemble_beside(_raw(other))
    _companion(exposure, "fiberassign").unlink()
    with pytest.raises(NoFiberAssign, match=r"no fiberassign-001012\.fits"):
        assemble_beside(_raw(exposure))
    with pytest.raises(FileNotFoundError, match="no exposure"):
        assemble_fibermap(NIGHT, 99, rawdata_dir=tmp_path / "raw")


def test_a_fibermap_is_made_once_and_made_anew_when_its_sources_change(exposure, tmp_path):
    production = tmp_path / "redux" / "preproc" / f"fibermap-{EXPID:08d}.fits"
    coordinates = _companion(exposure, "coordinates")
    content = coordinates.read_bytes()
    coordinates.unlink()

    assert provide_fibermap(_raw(exposure), production) == production
    made = production.read_bytes()
    provide_fibermap(_raw(exposure), production)
    assert production.read_bytes() == made
    coordinates.write_bytes(content)
    assert is_outdated(production, find_companions(exposure, EXPID))
    provide_fibermap(_raw(exposure), production)
    assert read_fibermap(production).meta["COORDFIL"] == coordinates.name
    write_fibermap(production, replace(read_fibermap(production), meta={}))  # someone else's
    assert not is_outdated(production, find_companions(exposure, EXPID))
