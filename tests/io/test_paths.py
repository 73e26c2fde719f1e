"""The path table, checked against the examples of the data model."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from qlstream.io.listing import files_by_camera, list_exposures, list_nights
from qlstream.io.paths import findfile, known_filetypes
from qlstream.io.pathtable import TEMPLATES
from qlstream.io.roots import shorten_filename, specprod_root

ROOTS = {
    "DESI_SPECTRO_DATA": "/raw",
    "DESI_SPECTRO_REDUX": "/redux",
    "SPECPROD": "prod",
    "DESI_SPECTRO_CALIB": "/cal",
    "FIBER_ASSIGN_DIR": "/fa",
    "DESI_COMPRESSION": "GZ",
}
N, E, CAM = 20200101, 5, "r3"
EXP = {"night": N, "expid": E}
CAMEXP = {**EXP, "camera": CAM}
CAMN = {"night": N, "camera": CAM}
TILE = {"tile": 100, "night": N, "spectrograph": 3}
PIX = {"healpix": 1234, "survey": "main", "faprogram": "DARK"}
EXPOSURES = "/redux/prod/exposures/20200101/00000005"
PREPROC = "/redux/prod/preproc/20200101/00000005"
NIGHTLY = "/redux/prod/calibnight/20200101"
QAEXP = "/redux/prod/QA/exposures/20200101/00000005"
HPX = "/redux/prod/healpix/main/dark/12/1234"
TILEDIR = "/redux/prod/tiles/cumulative/100/20200101"

# type, inputs, path: every row of spec paths-and-names §2
TABLE: list[tuple[str, dict, str]] = [
    ("raw", EXP, "/raw/20200101/00000005/desi-00000005.fits.fz"),
    ("desi", EXP, "/raw/20200101/00000005/desi-00000005.fits.fz"),
    ("coordinates", EXP, "/raw/20200101/00000005/coordinates-00000005.fits"),
    ("fiberassign", {**EXP, "tile": 1234}, "/raw/20200101/00000005/fiberassign-001234.fits.gz"),
    ("etc", EXP, "/raw/20200101/00000005/etc-00000005.json"),
    ("fiberassignsvn", {"tile": 1234}, "/fa/001/fiberassign-001234.fits.gz"),
    ("ccd_region_mask", {}, "/cal/ccd/ccd-region-mask.csv"),
    ("flagged_fibers", {}, "/cal/ccd/flagged_fibers.ecsv"),
    ("fibermap", EXP, f"{PREPROC}/fibermap-00000005.fits"),
    ("preproc", CAMEXP, f"{PREPROC}/preproc-r3-00000005.fits.gz"),
    ("preproc_for_cte", CAMEXP, f"{PREPROC}/ctepreproc-r3-00000005.fits.gz"),
    ("preproc_for_dark", CAMEXP, "/redux/prod/dark_preproc/20200101/00000005/dark_preproc-r3-00000005.fits"),
    ("tilepix", {**EXP, "tile": 100}, f"{PREPROC}/tilepix-100.json"),
    *[
        (kind, CAMEXP, f"{EXPOSURES}/{kind}-r3-00000005.fits.gz")
        for kind in ["frame", "sframe", "cframe", "fframe", "sky", "fluxcalib", "calib", "fiberflat", "fiberflatexp"]
    ],
    *[
        (kind, CAMEXP, f"{EXPOSURES}/{kind}-r3-00000005.fits")
        for kind in ["skycorr", "psf", "qframe", "psfboot", "qsky", "qfframe", "qsframe", "qcframe", "qfiberflat"]
    ],
    ("fitpsf", CAMEXP, f"{EXPOSURES}/fit-psf-r3-00000005.fits"),
    ("stdstars", {**EXP, "spectrograph": 3}, f"{EXPOSURES}/stdstars-3-00000005.fits.gz"),
    ("calibstars", EXP, f"{EXPOSURES}/calibstars-00000005.csv"),
    ("exposureqa", EXP, f"{EXPOSURES}/exposure-qa-00000005.fits"),
    ("psfnight", CAMN, f"{NIGHTLY}/psfnight-r3-20200101.fits"),
    ("fiberflatnight", CAMN, f"{NIGHTLY}/fiberflatnight-r3-20200101.fits"),
    ("biasnight", CAMN, f"{NIGHTLY}/biasnight-r3-20200101.fits.gz"),
    ("darknight", CAMN, f"{NIGHTLY}/darknight-r3-20200101.fits.gz"),
    ("badcolumns", CAMN, f"{NIGHTLY}/badcolumns-r3-20200101.csv"),
    ("badfibers", {"night": N}, f"{NIGHTLY}/badfibers-20200101.csv"),
    ("ctecorrnight", {"night": N}, f"{NIGHTLY}/ctecorr-20200101.yaml"),
    ("ctecorr", {"night": N}, f"{NIGHTLY}/ctecorr-20200101.yaml"),
    ("spectra", TILE, f"{TILEDIR}/spectra-3-100-thru20200101.fits.gz"),
    ("coadd", TILE, f"{TILEDIR}/coadd-3-100-thru20200101.fits"),
    ("redrock_tile", TILE, f"{TILEDIR}/redrock-3-100-thru20200101.fits"),
    ("rrdetails", TILE, f"{TILEDIR}/rrdetails-3-100-thru20200101.h5"),
    *[
        (kind, TILE, f"{TILEDIR}/{kind}-3-100-thru20200101.fits")
        for kind in ("rrmodel", "qso_mgii", "qso_qn", "emline")
    ],
    (
        "coadd",
        {**TILE, "groupname": "pernight"},
        "/redux/prod/tiles/pernight/100/20200101/coadd-3-100-20200101.fits",
    ),
    (
        "coadd",
        {**TILE, "expid": E, "groupname": "perexp"},
        "/redux/prod/tiles/perexp/100/00000005/coadd-3-100-exp00000005.fits",
    ),
    (
        "coadd_single",
        {**TILE, "expid": E},
        "/redux/prod/tiles/perexp/100/00000005/coadd-3-100-exp00000005.fits",
    ),
    (
        "coadd",
        {**TILE, "groupname": "1x_depth", "subgroup": "4"},
        "/redux/prod/tiles/1x_depth/100/4/coadd-3-100-1x_depth-4.fits",
    ),
    ("zmtl", TILE, f"{TILEDIR}/zmtl-3-100-thru20200101.fits"),
    ("tileqa", {"tile": 100, "night": N}, f"{TILEDIR}/tile-qa-100-thru20200101.fits"),
    ("tileqapng", {"tile": 100, "night": N}, f"{TILEDIR}/tile-qa-100-thru20200101.png"),
    ("spectra", PIX, f"{HPX}/spectra-main-dark-1234.fits.gz"),
    ("coadd_pix", PIX, f"{HPX}/coadd-main-dark-1234.fits"),
    ("redrock_hp", PIX, f"{HPX}/redrock-main-dark-1234.fits"),
    ("rrdetails", PIX, f"{HPX}/rrdetails-main-dark-1234.h5"),
    ("emline", PIX, f"{HPX}/emline-main-dark-1234.fits"),
    ("hpixexp", PIX, f"{HPX}/hpixexp-main-dark-1234.csv"),
    ("pixexp", PIX, f"{HPX}/pixexp-main-dark-1234.csv"),
    (
        "coadd",
        {"groupname": 1234, "survey": "main", "faprogram": "dark"},
        f"{HPX}/coadd-main-dark-1234.fits",
    ),
    (
        "coadd",
        {**PIX, "healpix": 50000, "groupname": "uniqpix"},
        "/redux/prod/spectra/main/dark/500/50000/coadd-main-dark-50000.fits",
    ),
    ("hpix2upix", PIX, "/redux/prod/spectra/main/dark/hpix2upix-main-dark.fits"),
    ("hpix2upix_json", PIX, "/redux/prod/spectra/main/dark/hpix2upix-main-dark.json"),
    ("upix_ntargets", PIX, "/redux/prod/spectra/main/dark/uniqpix-main-dark.fits"),
    ("exposure_table", {"night": N}, "/redux/prod/exposure_tables/202001/exposure_table_20200101.csv"),
    ("exptable", {"night": N}, "/redux/prod/exposure_tables/202001/exposure_table_20200101.csv"),
    ("override", {"night": N}, "/redux/prod/exposure_tables/202001/override_20200101.yaml"),
    ("proctable", {"night": N}, "/redux/prod/processing_tables/processing_table_prod-20200101.csv"),
    ("unproctable", {"night": N}, "/redux/prod/processing_tables/unprocessed_table_prod-20200101.csv"),
    ("exposures", {}, "/redux/prod/exposures-prod.fits"),
    ("exposures_csv", {}, "/redux/prod/exposures-prod.csv"),
    ("tiles", {}, "/redux/prod/tiles-prod.fits"),
    ("tiles_csv", {}, "/redux/prod/tiles-prod.csv"),
    ("zcatalog", {}, "/redux/prod/zcatalog-prod.fits"),
    ("zpix", {**PIX, "version": "v1"}, "/redux/prod/zcatalog/v1/zpix-main-dark.fits"),
    ("zcat_pix", {**PIX, "version": "v2"}, "/redux/prod/zcatalog/v2/main/zpix-main-dark.fits"),
    (
        "ztile",
        {"survey": "main", "faprogram": "dark", "version": "v1"},
        "/redux/prod/zcatalog/v1/ztile-main-dark-cumulative.fits",
    ),
    ("zall_pix", {"version": "v1"}, "/redux/prod/zcatalog/v1/zall-pix-prod.fits"),
    ("zall_tile", {"version": "v2"}, "/redux/prod/zcatalog/v2/zall/zall-tilecumulative-prod.fits"),
    ("expinfo", {"night": N}, "/redux/prod/run/dashboard/expjsons/expinfo_prod_20200101.json"),
    ("zinfo", {"night": N}, "/redux/prod/run/dashboard/zjsons/zinfo_prod_20200101.json"),
    ("qa_data", CAMEXP, f"{QAEXP}/qa-r3-00000005.yaml"),
    ("qa_data_exp", EXP, f"{QAEXP}/qa-00000005.yaml"),
    ("qa_calib", CAMEXP, "/redux/prod/QA/calib2d/20200101/qa-r3-00000005.yaml"),
    ("qa_calib_exp", EXP, "/redux/prod/QA/calib2d/20200101/qa-00000005.yaml"),
    ("qa_calib_html", {}, "/redux/prod/QA/calib2d/qa-calib2d.html"),
    ("qa_calib_exp_html", EXP, "/redux/prod/QA/calib2d/20200101/qa-00000005.html"),
    ("qa_exposures_html", {}, "/redux/prod/QA/exposures/qa-exposures.html"),
    ("qa_exposure_html", EXP, f"{QAEXP}/qa-00000005.html"),
    ("qa_toplevel_html", {}, "/redux/prod/QA/qa-toplevel.html"),
    ("qa_bootcalib", CAMN, "/redux/prod/QA/calib2d/psf/20200101/qa-psfboot-r3.pdf"),
    ("qa_flat_fig", CAMEXP, "/redux/prod/QA/calib2d/20200101/qa-flat-r3-00000005.png"),
    *[(f"qa_{k}_fig", CAMEXP, f"{QAEXP}/qa-{k}-r3-00000005.png") for k in ("sky", "skychi", "s2n", "flux")],
    ("qa_ztruth", {"night": N}, "/redux/prod/QA/exposures/20200101/qa-ztruth-20200101.yaml"),
    ("qa_ztruth_fig", {"night": N}, "/redux/prod/QA/exposures/20200101/qa-ztruth-20200101.png"),
    ("ql_file", CAMEXP, f"{EXPOSURES}/ql-qlfile-r3-00000005.json"),
    ("ql_file", {**CAMEXP, "word": "getbias"}, f"{EXPOSURES}/ql-getbias-r3-00000005.json"),
    ("ql_fig", {**CAMEXP, "word": "skysub"}, f"{EXPOSURES}/ql-skysub-r3-00000005.png"),
    ("ql_mergedQA_file", CAMEXP, f"{EXPOSURES}/ql-mergedQA-r3-00000005.json"),
    ("ql_exposure_plots", EXP, f"{EXPOSURES}/ql-plots-00000005.pdf"),
]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DESI_ROOT", "DESI_ROOT_READONLY", "DESI_CCD_CALIBRATION_DATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ROOTS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("filetype", "inputs", "expected"), TABLE, ids=[f"{i}-{row[0]}" for i, row in enumerate(TABLE)]
)
def test_every_row_of_the_path_table(filetype, inputs, expected):
    assert findfile(filetype, **inputs) == expected


def test_every_template_of_the_table_is_checked_by_an_example():
    checked = {path for _, _, path in TABLE}
    kinds = {os.path.basename(path).split("-")[0].split("_")[0].split(".")[0] for path in checked}
    missing = {
        t for t in TEMPLATES.values() if t.rsplit("/", 1)[1].split("-")[0].split("_")[0].split(".")[0] not in kinds
    }
    assert missing == set()


@pytest.mark.parametrize(("compression", "suffix"), [("NONE", ""), ("gz", ".gz"), ("GZIP", ".gz")])
def test_compression_by_environment(monkeypatch, compression, suffix):
    monkeypatch.setenv("DESI_COMPRESSION", compression)
    assert findfile("frame", **CAMEXP) == f"{EXPOSURES}/frame-r3-00000005.fits{suffix}"


def test_an_unknown_compression_is_refused(monkeypatch):
    monkeypatch.setenv("DESI_COMPRESSION", "ZIP")
    with pytest.raises(KeyError, match="NONE, GZ or GZIP"):
        findfile("frame", **CAMEXP)


def test_numbers_may_be_text_and_the_camera_upper_case():
    assert findfile("qframe", night="20200101", expid="5", camera="R3") == f"{EXPOSURES}/qframe-r3-00000005.fits"


def test_the_spectrograph_follows_from_the_camera():
    assert findfile("stdstars", night=N, expid=E, camera="b7").endswith("stdstars-7-00000005.fits.gz")


def test_an_output_folder_keeps_the_name_and_needs_no_environment(monkeypatch):
    for name in ROOTS:
        monkeypatch.delenv(name, raising=False)
    assert findfile("psf", **CAMEXP, outdir="/here//there/") == "/here/there/psf-r3-00000005.fits"


def test_given_roots_win_over_the_environment_and_paths_are_normalised():
    assert findfile("raw", **EXP, rawdata_dir="/other//raw/") == "/other/raw/20200101/00000005/desi-00000005.fits.fz"
    assert findfile("psf", **CAMEXP, specprod_dir="/p").startswith("/p/exposures/")
    assert findfile("qa_toplevel_html", qaprod_dir="/qa") == "/qa/qa-toplevel.html"


def test_a_production_name_with_a_slash_is_a_path(monkeypatch):
    monkeypatch.setenv("SPECPROD", "/elsewhere/mine")
    assert findfile("tiles") == "/elsewhere/mine/tiles-mine.fits"


def test_desi_root_stands_in_for_the_other_roots(monkeypatch):
    for name in ("DESI_SPECTRO_DATA", "DESI_SPECTRO_REDUX", "DESI_SPECTRO_CALIB"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("DESI_ROOT", "/desi")
    assert findfile("raw", **EXP).startswith("/desi/spectro/data/")
    assert specprod_root() == "/desi/spectro/redux/prod"
    assert findfile("ccd_region_mask") == "/desi/spectro/desi_spectro_calib/trunk/ccd/ccd-region-mask.csv"


def test_a_missing_root_names_what_to_set(monkeypatch):
    monkeypatch.delenv("DESI_SPECTRO_DATA")
    with pytest.raises(KeyError, match="rawdata_dir, or set DESI_SPECTRO_DATA"):
        findfile("raw", **EXP)


def test_an_unknown_type_lists_the_known_ones():
    with pytest.raises(ValueError, match="qframe"):
        findfile("nonsense")
    assert "spectra" in known_filetypes()


def test_all_missing_inputs_are_named_at_once():
    with pytest.raises(ValueError, match="night, expid, camera"):
        findfile("qframe")
    with pytest.raises(ValueError, match="subgroup"):
        findfile("coadd", tile=1, spectrograph=0, groupname="1x_depth")


@pytest.mark.parametrize("camera", ["b", "x3", "r33", "3", "r-"])
def test_a_wrong_camera_is_refused(camera):
    with pytest.raises(ValueError, match="camera"):
        findfile("qframe", night=N, expid=E, camera=camera)


def test_tile_and_pixel_together_are_refused():
    with pytest.raises(ValueError, match="contradict"):
        findfile("coadd", **TILE, healpix=3)


def test_logs_lie_in_a_folder_of_their_own():
    assert findfile("spectra", **TILE, logfile=True) == f"{TILEDIR}/logs/spectra-3-100-thru20200101.log"
    assert findfile("coadd_pix", **PIX, logfile=True) == f"{HPX}/logs/coadd-main-dark-1234.log"
    with pytest.raises(ValueError, match="no log"):
        findfile("qframe", **CAMEXP, logfile=True)


def test_reading_finds_either_form_and_writing_avoids_both(tmp_path: Path):
    plain = Path(findfile("sky", **CAMEXP, specprod_dir=tmp_path)).with_suffix("")
    plain.parent.mkdir(parents=True)
    assert findfile("sky", **CAMEXP, specprod_dir=tmp_path, return_exists=True) == (f"{plain}.gz", False)

    plain.write_bytes(b"")

    assert findfile("sky", **CAMEXP, specprod_dir=tmp_path, readonly=True, return_exists=True) == (str(plain), True)
    with pytest.raises(OSError, match="beside"):
        findfile("sky", **CAMEXP, specprod_dir=tmp_path)


def test_the_read_only_mirror_serves_readers_only(monkeypatch, tmp_path: Path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    monkeypatch.setenv("DESI_ROOT", "/desi")
    monkeypatch.setenv("DESI_ROOT_READONLY", str(mirror))
    monkeypatch.setenv("DESI_SPECTRO_REDUX", "/desi/spectro/redux")
    assert findfile("psf", **CAMEXP, readonly=True).startswith(f"{mirror}/spectro/redux/prod/")
    assert findfile("psf", **CAMEXP).startswith("/desi/spectro/redux/prod/")


@pytest.mark.parametrize(
    ("path", "short"),
    [
        ("/cal/spec/sm1/psf.fits", "SPCALIB/spec/sm1/psf.fits"),
        ("/redux/prod/exposures/x", "SPECPROD/exposures/x"),
        ("/somewhere/else", "/somewhere/else"),
        (None, "None"),
    ],
)
def test_short_names_for_headers(path, short):
    assert shorten_filename(path) == short


def test_listing_by_camera_passes_over_unfinished_files(tmp_path: Path):
    folder = tmp_path / "exposures" / "20200101" / "00000005"
    folder.mkdir(parents=True)
    for name in ("sky-b0-00000005.fits", "sky-b0-00000005_tmp7.fits", "psf-b0-00000005.fits"):
        (folder / name).write_bytes(b"")
    with gzip.open(folder / "sky-r1-00000005.fits.gz", "wb"):
        pass
    (tmp_path / "exposures" / "20200101" / "123").mkdir()
    (tmp_path / "exposures" / "notanight").mkdir()

    assert {c: p.name for c, p in files_by_camera("sky", N, E, tmp_path).items()} == {
        "b0": "sky-b0-00000005.fits",
        "r1": "sky-r1-00000005.fits.gz",
    }
    assert list_exposures(N, specprod_dir=tmp_path) == [5]
    assert list_nights(tmp_path) == [20200101]
