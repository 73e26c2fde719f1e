"""Which calibration serves an exposure, on a tree made for the test."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from qlstream.calibration.finder import find_calibration
from qlstream.calibration.served import MissingCalibration
from qlstream.calibration.tree import CalibrationTreeError
from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.datamodel.traces import XYTraceSet
from qlstream.io.fiberflat import write_fiberflat
from qlstream.io.fitsfile import HDU, write_fits
from qlstream.io.xytraceset import write_xytraceset

HEADER: dict[str, Any] = {
    "CAMERA": "r0",
    "NIGHT": 20260115,
    "MJD-OBS": 61056.25,
    "EXPID": 82,
    "SPECID": 4,
    "SPECGRPH": 0,
    "DETECTOR": "M1-53",
    "CCDCFG": "default_lbnl_20210128.cfg",
    "CCDTMING": "flatdark_lbnl_timing.txt",
    **{f"BIASSEC{a}": "[1:2,1:2]" for a in "ABCD"},
}
GAINS: dict[str, Any] = {f"GAIN{a}": 1.5 for a in "ABCD"}
VALID = {"DATE-OBS-BEGIN": 20250101, "DETECTOR": "M1-53", **GAINS}


@pytest.fixture
def tree(tmp_path: Path):
    """Write the versions of sm4-r (or of another unit) and return the root of the tree."""
    root = tmp_path / "calib"

    def write(path: str = "spec/sm4/sm4-r.yaml", top: str = "sm4-r", **versions: dict[str, Any]) -> Path:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump({top: versions}, sort_keys=False))
        return root

    return write


def traces(x0: float, mjd: float | None) -> XYTraceSet:
    coef = np.array([[x0, 1.0], [x0 + 7, 1.0]])
    return XYTraceSet(coef, np.array([[50.0, 40.0]] * 2), 5600.0, 7700.0, 100, meta={"MJD-OBS": mjd})


def flat(level: float, mjd: float | None) -> FiberFlat:
    ones = np.ones((2, 5))
    fibers = np.arange(2, dtype=np.int32)
    return FiberFlat(np.arange(5.0), level * ones, ones, np.zeros((2, 5), np.uint32), np.ones(5), fibers,
                     meta={"MJD-OBS": mjd})  # fmt: skip


def put_tonight(prod: Path, expid: int, mjd: float | None, level: float) -> None:
    folder = prod / "exposures" / "20260115" / f"{expid:08d}"
    write_xytraceset(folder / f"psf-r0-{expid:08d}.fits", traces(level, mjd))
    write_fiberflat(folder / f"qfiberflat-r0-{expid:08d}.fits", flat(level, mjd))


def why(calib: Path | None, kind: str = "BIAS", header: dict[str, Any] = HEADER, **options: Any) -> str:
    with pytest.raises(MissingCalibration) as caught:
        find_calibration(header, calib, **options).get(kind)
    return str(caught.value)


def test_the_entry_valid_for_the_date_serves(tree):
    root = tree(
        old={**VALID, "DATE-OBS-BEGIN": 20200101, "DATE-OBS-END": 20241231, "GAINA": 1.1},
        new={**VALID, "DATE-OBS-END": "None", "GAINA": [1.2, "measured on the bench"]},
        future={**VALID, "DATE-OBS-BEGIN": 20270101, "GAINA": 1.3},
    )
    assert find_calibration(HEADER, root).cards["GAINA"] == 1.2
    assert find_calibration(HEADER | {"NIGHT": 20241231}, root).cards["GAINA"] == 1.1
    assert find_calibration(HEADER | {"NIGHT": "20280101", "DETECTOR": "M1-53 "}, tree(f=VALID)).cards["GAINB"] == 1.5


@pytest.mark.parametrize("key", ["DETECTOR", "CCDCFG", "CCDTMING"])
def test_detector_and_readout_files_must_agree_where_the_entry_names_them(tree, key):
    root = tree(one={**VALID, key: HEADER[key], "GAINA": 1.1}, two={**VALID, key: "another", "GAINA": 1.2})
    assert find_calibration(HEADER, root).cards["GAINA"] == 1.1
    assert f"for {key} another, not M2" in why(tree(two={**VALID, key: "another"}), header=HEADER | {key: "M2"})


def test_two_valid_entries_are_a_mistake_of_the_tree(tree):
    root = tree(one=VALID, two=VALID)
    with pytest.raises(CalibrationTreeError, match=r"sm4-r.yaml, sm4-r: the entries one, two all match r0 on 20260115"):
        find_calibration(HEADER, root)


def test_no_valid_entry_leaves_everything_missing_with_the_reason(tree):
    root = tree(old={**VALID, "DATE-OBS-END": 20251231}, other={**VALID, "DETECTOR": "M9"})
    message = why(root, "PSF")
    assert message.startswith("no PSF for r0 on 20260115: no entry of ")
    assert "old: valid only until 20251231; other: for DETECTOR M9, not M1-53" in message


def test_the_newest_expired_entry_serves_if_allowed_and_says_so(tree, caplog):
    root = tree(
        a={**VALID, "DATE-OBS-END": 20250601, "GAINA": 1.1},
        b={**VALID, "DATE-OBS-END": 20251231, "GAINA": 1.2, "BIAS": "bias.fits"},
        c={**VALID, "DATE-OBS-END": 20260101, "DETECTOR": "M9"},
    )
    write_fits(root / "bias.fits", [HDU("BIAS", np.ones((4, 5), np.float32))])

    with caplog.at_level(logging.WARNING):
        calibration = find_calibration(HEADER, root, allow_expired=True)

    assert calibration.cards["GAINA"] == 1.2
    assert calibration.bias.shape == (4, 5)
    assert calibration.used[0].origin == "expired"
    assert "ended on 20251231" in caplog.text


def test_the_tree_goes_by_hardware_spectrograph_only_since_2019_12_11(tree):
    tree(v=VALID | {"DATE-OBS-BEGIN": 20191211})
    root = tree("spec/sp0/r0.yaml", "r0", v=VALID | {"DATE-OBS-BEGIN": 20190101, "GAINA": 1.9})
    assert find_calibration(HEADER | {"NIGHT": 20191211}, root).cards["GAINA"] == 1.5
    assert find_calibration(HEADER | {"NIGHT": 20191210}, root).cards["GAINA"] == 1.9


def test_simulated_detectors_have_a_tree_of_their_own_if_there_is_one(tree):
    simulated = VALID | {"DETECTOR": "SIM"}
    root = tree("spec/sp0/r0.yaml", "r0", v=simulated)
    assert find_calibration(HEADER | {"DETECTOR": "SIM"}, root).cards["GAINA"] == 1.5
    tree("sim/spec/sp0/r0.yaml", "r0", v=simulated | {"GAINA": 1.7})
    assert find_calibration(HEADER | {"DETECTOR": "SIM"}, root).cards["GAINA"] == 1.7


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({k: v for k, v in HEADER.items() if k != "SPECID"}, "no SPECID"),
        ({k: v for k, v in HEADER.items() if k != "DETECTOR"}, "no DETECTOR"),
        (HEADER | {"SPECID": 7}, "sm7-r.yaml"),
        (HEADER | {"SPECID": "seven"}, "SPECID = 'seven'"),
    ],
)
def test_what_the_header_lacks_is_the_reason(tree, header, expected):
    assert expected in why(tree(v=VALID), header=header)


def test_without_a_tree_everything_is_missing(tmp_path):
    assert why(None, "PSF") == "no PSF for r0 on 20260115: no calibration tree was given"
    assert "does not exist" in why(tmp_path / "absent")
    assert "has no FIBERFLAT" not in why(None, "FIBERFLAT")


WRONG = {
    "gain": ({"GAINA": -1.0}, r"sm4-r.v: GAINA = -1.0: expected a positive number"),
    "text": ({"SATURLEVB": "high"}, "SATURLEVB = 'high'"),
    "path": ({"PSF": 7}, "PSF = 7: expected a path"),
    "fibers": ({"BROKENFIBERS": "1,x"}, "BROKENFIBERS = '1,x'"),
    "date": ({"DATE-OBS-BEGIN": "2025-01-01"}, "DATE-OBS-BEGIN = '2025-01-01'; expected a night"),
}


@pytest.mark.parametrize(("values", "match"), WRONG.values(), ids=WRONG)
def test_mistakes_in_the_tree_name_file_entry_and_key(tree, values, match):
    with pytest.raises(CalibrationTreeError, match=match):
        find_calibration(HEADER, tree(v=VALID | values))


def test_all_mistakes_of_an_entry_are_named_at_once(tree):
    with pytest.raises(CalibrationTreeError, match=r"GAINA = 0: .*; DARK = None: "):
        find_calibration(HEADER, tree(v=VALID | {"GAINA": 0, "DARK": None}))


@pytest.mark.parametrize(
    ("text", "match"), [("a: [", "YAML"), ("sm4-b: {}", "no top key sm4-r"), ("sm4-r: [1]", "version")]
)
def test_files_that_are_no_tree(tree, text, match):
    root = tree(v=VALID)
    (root / "spec/sm4/sm4-r.yaml").write_text(text)
    with pytest.raises(CalibrationTreeError, match=match):
        find_calibration(HEADER, root)


def test_cards_hold_numbers_and_fiber_lists(tree):
    values = {"SATURLEVA": 65535, "CROSSTALKAB": "6.27e-06", "BROKENFIBERS": "36,51,132:134", "EXCLUDEFIBERS": 7}
    cards = find_calibration(HEADER, tree(v=VALID | values | {"SKYCORR": "spec/x.fits"})).cards
    assert cards["SATURLEVA"] == 65535.0
    assert cards["CROSSTALKAB"] == 6.27e-06
    assert cards["BROKENFIBERS"] == (36, 51, 132, 133)
    assert cards["EXCLUDEFIBERS"] == (7,)
    assert str(cards["SKYCORR"]).endswith("calib/spec/x.fits")


def test_a_gain_that_nobody_tells_stays_missing_and_is_reported(tree, caplog):
    entry = {k: v for k, v in VALID.items() if k not in ("GAINC", "GAIND")}
    with caplog.at_level(logging.WARNING):
        cards = find_calibration(HEADER | {"GAINC": 1.4}, tree(v=entry)).cards
    assert "GAIND" not in cards
    assert "r0: no GAIND in the header" in caplog.text


def test_a_file_that_the_tree_names_but_lacks(tree):
    assert "PIXFLAT: " in why(tree(v=VALID | {"PIXFLAT": "ccd/none.fits.gz"}), "PIXFLAT")
    assert "no such file" in why(tree(v=VALID | {"PIXFLAT": "ccd/none.fits.gz"}), "PIXFLAT")


def test_nightly_calibrations_win_over_the_tree(tree, tmp_path):
    root, prod = tree(v=VALID | {"BIAS": "bias.fits", "PSF": "psf.fits"}), tmp_path / "prod"
    write_fits(root / "bias.fits", [HDU("BIAS", np.zeros((4, 5), np.float32))])
    write_xytraceset(root / "psf.fits", traces(10, None))
    night = prod / "calibnight" / "20260115"
    write_fits(night / "biasnight-r0-20260115.fits.gz", [HDU("BIAS", np.ones((4, 5), np.float32))])
    write_fiberflat(night / "fiberflatnight-r0-20260115.fits", flat(0.5, None))
    write_xytraceset(night / "psfnight-r0-20260115.fits", traces(20, None))

    calibration = find_calibration(HEADER, root, prod)

    assert calibration.bias[0, 0] == 1
    assert calibration.fiberflat.fiberflat[0, 0] == 0.5
    assert calibration.traces.xcoef[0, 0] == 20
    assert {use.origin for use in calibration.used} == {"night"}


def test_the_latest_of_tonight_before_the_exposure_wins_over_all(tree, tmp_path):
    root, prod = tree(v=VALID | {"PSF": "psf.fits"}), tmp_path / "prod"
    write_xytraceset(root / "psf.fits", traces(10, None))
    put_tonight(prod, 90, 61056.20, 3.0)  # higher number, earlier: the time decides
    put_tonight(prod, 80, 61056.24, 4.0)
    put_tonight(prod, 81, 61056.25, 5.0)  # started at the same moment: not before
    put_tonight(prod, 99, 61056.30, 6.0)

    calibration = find_calibration(HEADER, root, prod)

    assert calibration.traces.xcoef[0, 0] == 4
    assert calibration.fiberflat.fiberflat[0, 0] == 4
    assert [(use.kind, use.origin, use.mjd) for use in calibration.used] == [
        ("TRACES", "tonight", 61056.24),
        ("FIBERFLAT", "tonight", 61056.24),
    ]
    assert find_calibration(HEADER, root, prod, tonight=False).traces.xcoef[0, 0] == 10
    assert find_calibration(HEADER, root, prod, flavor="zero").traces.xcoef[0, 0] == 10
    assert find_calibration(HEADER | {"MJD-OBS": 61056.1}, root, prod).traces.xcoef[0, 0] == 10


def test_traces_of_science_are_no_calibration(tree, tmp_path):
    prod = tmp_path / "prod"
    put_tonight(prod, 80, 61056.20, 3.0)
    of_science = prod / "exposures/20260115/00000081/psf-r0-00000081.fits"
    for flavor, level in (("science", 3), ("arc", 4)):
        given = traces(4.0, 61056.21)
        write_xytraceset(of_science, replace(given, meta={**given.meta, "FLAVOR": flavor}))
        assert find_calibration(HEADER, tree(v=VALID), prod).traces.xcoef[0, 0] == level


def test_a_flat_of_frames_serves_like_one_of_qframes(tree, tmp_path):
    prod = tmp_path / "prod"
    folder = prod / "exposures/20260115"
    put_tonight(prod, 80, 61056.20, 3.0)
    write_fiberflat(folder / "00000081/fiberflat-r0-00000081.fits.gz", flat(4.0, 61056.21))
    found = find_calibration(HEADER, tree(v=VALID), prod).fiberflat

    write_fiberflat(folder / "00000082/qfiberflat-r0-00000082.fits", flat(5.0, 61056.22))

    assert found.fiberflat[0, 0] == 4
    assert find_calibration(HEADER, tree(v=VALID), prod).fiberflat.fiberflat[0, 0] == 5


def test_products_of_tonight_that_cannot_be_read_are_passed_over(tree, tmp_path, caplog):
    prod = tmp_path / "prod"
    put_tonight(prod, 80, 61056.20, 3.0)
    put_tonight(prod, 81, None, 4.0)
    broken = prod / "exposures/20260115/00000082/psf-r0-00000082.fits"
    broken.parent.mkdir()
    broken.write_bytes(b"half a file")
    (broken.parent / "psf-r0-00000082_tmp7.fits").write_bytes(b"")

    with caplog.at_level(logging.WARNING):
        calibration = find_calibration(HEADER, tree(v=VALID), prod)

    assert calibration.traces.xcoef[0, 0] == 3
    assert "missing keyword MJD-OBS" in caplog.text
    assert "no readable FITS file" in caplog.text
    assert "_tmp7" not in caplog.text


def test_a_rewritten_product_of_tonight_is_seen_anew(tree, tmp_path):
    prod, root = tmp_path / "prod", tree(v=VALID)
    put_tonight(prod, 80, 61056.20, 3.0)
    assert find_calibration(HEADER, root, prod).traces.xcoef[0, 0] == 3
    put_tonight(prod, 80, 61056.30, 4.0)
    assert "TRACES" not in find_calibration(HEADER, root, prod)


def test_flagged_regions_of_this_exposure_are_bad_pixels(tree):
    root = tree(v=VALID | {"MASK": "mask.fits"})
    write_fits(root / "mask.fits", [HDU("MASK", np.full((20, 30), 2, np.int32))])
    csv = root / "ccd" / "ccd-region-mask.csv"
    csv.parent.mkdir()
    csv.write_text("NIGHT,EXPID,CAMERA,XMIN,XMAX,YMIN,YMAX\n20260115,82,r0,3,5,10,20\n20260115,83,r0,0,9,0,9\n")

    mask = find_calibration(HEADER, root).mask

    expected = np.full((20, 30), 2, np.uint16)
    expected[10:20, 3:5] |= 1
    np.testing.assert_array_equal(mask, expected)
    csv.write_text("NIGHT,EXPID,CAMERA,XMIN,XMAX,YMIN,YMAX\n20260115,82,r0,3,five,10,20\n")
    with pytest.raises(CalibrationTreeError, match="region-mask.csv"):
        find_calibration(HEADER, root)


def test_loading_is_lazy_and_noted_once(tree):
    root = tree(v=VALID | {"BIAS": "bias.fits", "PIXFLAT": "pixflat.fits"})
    (root / "bias.fits").write_bytes(b"broken, but nobody asks for it")
    write_fits(root / "pixflat.fits", [HDU("", np.ones((4, 5), np.float64))])

    calibration = find_calibration(HEADER, root)

    assert calibration.pixflat is calibration.pixflat
    assert calibration.pixflat.dtype == np.float32
    assert [use.kind for use in calibration.used] == ["PIXFLAT"]


def test_a_series_of_darks_overrides_the_tree_with_its_latest_pair(tree, tmp_path):
    root, series = tree(v=VALID | {"BIAS": "bias.fits", "DARK": "dark.fits"}), tmp_path / "series"
    rows = "FILENAME,DETECTOR,CCDCFG,CCDTMING,CCDTEMP\n"
    dates = {"dark": (20260101, 20260110, 20260112, 20260120), "bias": (20260101, 20260110, 20260120)}
    for kind, nights in dates.items():
        names = [f"{kind}_frames/{kind}-sm4-r0-{n}.fits.gz" for n in nights]
        for night, name in zip(nights, names, strict=True):
            write_fits(series / name, [HDU(kind.upper(), np.full((4, 5), night % 100, np.float32))])
        warm = f"{kind}-sm4-r0-20260114.fits.gz,M1-53,,,-120\n{kind}-sm4-b0-20260114.fits.gz,M1-53,,,-138\n"
        table = rows + "".join(f"{name},M1-53,any,any,-137.5\n" for name in names) + warm
        (series / f"{kind}_table.csv").write_text(table)

    calibration = find_calibration(HEADER | {"CCDTEMP": -138.0}, root, dark_dir=series)

    assert calibration.bias[0, 0] == 10
    assert calibration.dark(1.0)[0, 0] == 10
    assert [use.origin for use in calibration.used] == ["series", "series"]
    write_fits(root / "bias.fits", [HDU("BIAS", np.full((4, 5), 3.0, np.float32))])
    elsewhere = find_calibration(HEADER | {"CCDTEMP": -138.0}, root, dark_dir=series / "nowhere")
    assert elsewhere.bias[0, 0] == 3
    assert elsewhere.used[0].origin == "tree"
    (series / "bias_frames" / "bias-sm4-r0-20260110.fits.gz").unlink()
    assert find_calibration(HEADER | {"CCDTEMP": -138.0}, root, dark_dir=series).bias[0, 0] == 3
    (series / "bias_table.csv").write_text(rows + "x,M1-53,any,any,cold\n")
    with pytest.raises(CalibrationTreeError, match="bias_table.csv"):
        find_calibration(HEADER | {"CCDTEMP": -138.0}, root, dark_dir=series)
