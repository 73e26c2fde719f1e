"""The spectra of a tile and their redshifts, from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from algorithms.coadd.exposures import coadd
from qlstream.datamodel.spectra import Band, Spectra
from qlstream.io.fitsfile import HDU, write_fits
from qlstream.io.paths import findfile
from qlstream.io.spectra import write_spectra
from qlstream.io.tilespectra import list_tile_exposures, read_tile_spectra

TILE, NIGHT = 100, 20260114
COLUMNS = [("TARGETID", "i8"), ("FIBER", "i4"), ("NIGHT", "i4"), ("EXPID", "i4"), ("PETAL_LOC", "i2")]
REDSHIFT = [("TARGETID", "i8"), ("Z", "f8"), ("ZERR", "f8"), ("ZWARN", "i8"), ("SPECTYPE", "S6"), ("DELTACHI2", "f8")]


def petal_spectra(petal: int) -> Spectra:
    """Three targets in two exposures; the flux of a row is its target's number."""
    rows = np.zeros(6, COLUMNS)
    rows["FIBER"] = 500 * petal + np.tile(np.arange(3), 2)
    rows["TARGETID"] = 10_000 + rows["FIBER"]
    rows["EXPID"], rows["NIGHT"], rows["PETAL_LOC"] = np.repeat([5, 6], 3), NIGHT, petal
    flux = np.repeat(rows["TARGETID"][:, None].astype(float), 8, axis=1)
    wave = 3600 + 0.8 * np.arange(8)
    return Spectra({"b": Band(wave, flux, np.ones_like(flux), np.zeros(flux.shape, np.uint32))}, rows)


@pytest.fixture
def production(tmp_path: Path) -> Path:
    """Spectra, coadds and redshifts of petals 0 and 3, the latter in reversed order and without target 11502."""
    for night in (NIGHT - 1, NIGHT):
        for petal in (0, 3):
            where = {"spectrograph": petal, "tile": TILE, "night": night, "specprod_dir": tmp_path}
            spectra = petal_spectra(petal)
            for kind, data in (("spectra_tile", spectra), ("coadd_tile", coadd(spectra))):
                path = Path(findfile(kind, **where))
                path.parent.mkdir(parents=True, exist_ok=True)
                write_spectra(path, data)
            ids = spectra.target_ids()[::-1]
            table = np.zeros(len(ids), REDSHIFT)
            table["TARGETID"], table["Z"] = ids, ids / 1e4
            write_fits(findfile("redrock_tile", **where), [HDU("REDSHIFTS", table[ids != 11502])])
    return tmp_path


def test_all_petals_come_with_a_redshift_for_every_row(production):
    spectra, redshifts = read_tile_spectra(TILE, specprod_dir=production)

    assert len(spectra) == len(redshifts) == 12
    np.testing.assert_array_equal(spectra.fibermap["TARGETID"], redshifts["TARGETID"])
    measured = redshifts["TARGETID"] != 11502
    np.testing.assert_allclose(redshifts["Z"][measured], redshifts["TARGETID"][measured] / 1e4)
    assert np.isnan(redshifts["Z"][~measured]).all()
    assert redshifts["ZWARN"].tolist() == [0 if m else 512 for m in measured]
    np.testing.assert_allclose(spectra.bands["b"].flux[:, 0], spectra.fibermap["TARGETID"])


def test_options_choose_coadds_targets_fibers_and_petals(production):
    coadds = read_tile_spectra(TILE, NIGHT, coadd=True, redrock=False, specprod_dir=production)
    by_target, z = read_tile_spectra(TILE, NIGHT, targets=[10_001, 11_500], specprod_dir=production)
    by_fiber, _ = read_tile_spectra(TILE, NIGHT, fibers=[1501], coadd=True, specprod_dir=production)
    petal = read_tile_spectra(TILE, NIGHT, spectrographs=[3], redrock=False, specprod_dir=production)

    assert coadds.fibermap["TARGETID"].tolist() == [10_000, 10_001, 10_002, 11_500, 11_501, 11_502]
    assert coadds.exp_fibermap is not None
    assert len(coadds.exp_fibermap) == 12
    assert by_target.fibermap["TARGETID"].tolist() == [10_001, 10_001, 11_500, 11_500]
    np.testing.assert_allclose(z["Z"], [1.0001, 1.0001, 1.15, 1.15])
    assert by_fiber.fibermap["TARGETID"].tolist() == [11_501]
    assert set(petal.fibermap["PETAL_LOC"].tolist()) == {3}


def test_the_newest_night_is_read_unless_one_is_given(production):
    later = Path(findfile("spectra_tile", spectrograph=1, tile=TILE, night=NIGHT + 5, specprod_dir=production))
    later.parent.mkdir(parents=True)
    write_spectra(later, petal_spectra(1))

    newest = read_tile_spectra(TILE, redrock=False, specprod_dir=production)
    given = read_tile_spectra(TILE, NIGHT, redrock=False, specprod_dir=production)

    assert set(newest.fibermap["PETAL_LOC"].tolist()) == {1}
    assert set(given.fibermap["PETAL_LOC"].tolist()) == {0, 3}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"tileid": 7}, FileNotFoundError, "tile 7"),
        ({"tileid": TILE, "night": 20200101}, FileNotFoundError, "no spectra of tile 100"),
        ({"tileid": TILE, "group": "perexp"}, FileNotFoundError, "perexp"),
        ({"tileid": TILE, "targets": [1]}, LookupError, "none of its spectra"),
    ],
)
def test_what_is_not_there_is_said(production, options, error, words):
    with pytest.raises(error, match=words):
        read_tile_spectra(specprod_dir=production, **options)


def test_spectra_without_redshifts_say_how_to_read_them_alone(production):
    for path in production.glob("tiles/cumulative/*/*/redrock-*"):
        path.unlink()

    with pytest.raises(FileNotFoundError, match="redrock=False"):
        read_tile_spectra(TILE, specprod_dir=production)


def test_exposures_of_a_tile_are_found_by_their_calibrated_frames(tmp_path):
    for night, expid, tile in ((NIGHT, 5, TILE), (NIGHT, 6, 7), (NIGHT + 1, 8, TILE)):
        path = Path(findfile("cframe", night=night, expid=expid, camera="b0", specprod_dir=tmp_path))
        path.parent.mkdir(parents=True)
        write_fits(path, [HDU("FLUX", np.zeros((1, 2), np.float32), {"TILEID": tile})])
    (tmp_path / "exposures" / str(NIGHT) / "00000009").mkdir()

    assert list_tile_exposures(TILE, specprod_dir=tmp_path) == [(TILE, NIGHT, 5), (TILE, NIGHT + 1, 8)]
    assert list_tile_exposures(through=NIGHT, specprod_dir=tmp_path) == [(TILE, NIGHT, 5), (7, NIGHT, 6)]
