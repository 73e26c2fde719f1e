"""What a user sees, and what is kept, when a camera cannot go all the way (the failure table of the design)."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import fitsio
import numpy as np
import pytest
import yaml

from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.fibermap import Fibermap
from qlstream.engine.camera import Superseded
from qlstream.io.errors import BadFile
from qlstream.io.fibermap import read_fibermap, write_fibermap
from qlstream.io.raw import read_raw
from qlstream.pipeline.algorithm import PipelineAlg
from qlstream.pipeline.plan import Step, load_plans
from qlstream.pipeline.result import QASeverity
from qlstream.pipeline.runner import StageFailed
from qlstream.simulate.damage import damage
from qlstream.simulate.faults import Fault

FLAVORS = {1: "zero", 2: "dark", 3: "arc", 4: "flat", 5: "science"}
ALL = tuple(FLAVORS)
SCIENCE = 5


@pytest.fixture
def night(one_camera_night, tmp_path):
    """A copy that may be spoiled."""
    return Path(shutil.copytree(one_camera_night, tmp_path / "night"))


def raw_path(night: Path, expid: int) -> Path:
    return night / "raw" / "20260115" / f"{expid:08d}" / f"desi-{expid:08d}.fits.fz"


def merged_qa(redux: Path, expid: int) -> dict:
    path = redux / "exposures" / "20260115" / f"{expid:08d}" / f"ql-mergedQA-r0-{expid:08d}.json"
    return json.loads(path.read_text())


def leave_out(night: Path, *kinds: str) -> None:
    """Take these entries out of the calibration tree."""
    path = next((night / "calib").glob("spec/sm*/sm*-r.yaml"))
    tree = yaml.safe_load(path.read_text())
    for versions in tree.values():
        for entry in versions.values():
            for key in [k for k in entry if k in kinds]:
                del entry[key]
    path.write_text(yaml.safe_dump(tree))


def rewrite_card(path: Path, hdu: str, keyword: str, text: str) -> None:
    """Replace the value of a card by `text`, as it stands; blank text takes the card away."""
    with fitsio.FITS(str(path)) as fits:
        place = fits[hdu].get_offsets()
    content = bytearray(path.read_bytes())
    for at in range(place["header_start"], place["data_start"], 80):
        if content[at : at + 8].decode().strip() == keyword:
            card = f"{keyword:8s}= {text:>20s}" if text else ""
            content[at : at + 80] = card.ljust(80).encode()
            path.write_bytes(content)
            return
    raise AssertionError(f"{hdu} of {path} has no {keyword}")


# missing calibration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expid", ALL, ids=FLAVORS.values())
@pytest.mark.parametrize(
    ("kind", "card"), [("BIAS", "PPBIAS"), ("DARK", "PPDARK"), ("PIXFLAT", "PPFLAT"), ("MASK", "PPMASK")]
)
def test_preprocessing_goes_on_without_an_optional_image_and_says_so(night, tmp_path, reduce_r0, expid, kind, card):
    leave_out(night, kind)

    reduced = reduce_r0(night, tmp_path / "redux", expid)

    told = reduced.outcome.outputs["Preproc"].meta.get(card)
    if kind == "DARK" and expid == 1:  # nobody needs one
        assert told is None
    else:
        assert re.match(f"left out: no {kind} for r0 on 20260115: .*has no {kind}", told)
    assert not reduced.outcome.skipped
    assert {result.name for _, result in reduced.outcome.judged} >= {"Bias_From_Overscan", "Get_RMS", "Count_Pixels"}


@pytest.mark.parametrize("expid", ALL, ids=FLAVORS.values())
@pytest.mark.parametrize("kind", ["PSF", "FIBERFLAT", "FLUXCALIB", "GAIN", "tree", "fibermap"])
def test_stages_without_their_calibration_are_skipped_with_the_reason_and_the_rest_is_kept(
    night, tmp_path, reduce_r0, expid, kind
):
    given = {}
    if kind == "GAIN":
        leave_out(night, *(f"GAIN{amp}" for amp in "ABCD"))
    elif kind == "tree":
        given["calib"] = None
    elif kind == "fibermap":
        for path in (night / "raw").rglob("fibermap-*.fits"):
            path.unlink()
    else:
        leave_out(night, kind)

    reduced = reduce_r0(night, tmp_path / "redux", expid, **given)

    plan = [step.stage.name for step in load_plans()[FLAVORS[expid]].steps]
    first, why = {
        "PSF": ("Flexure", "no PSF for r0 on 20260115"),
        "FIBERFLAT": ("ApplyFiberFlat_QP", "no FIBERFLAT for r0 on 20260115"),
        "FLUXCALIB": ("ApplyFluxCalibration", "no FLUXCALIB for r0 on 20260115"),
        "GAIN": ("Preproc", "no gain for amplifier A of r0"),
        "tree": ("Preproc", "no gain for amplifier A of r0"),
        "fibermap": ("SkySub_QP", "no fibermap"),
    }[kind]
    lost = plan[plan.index(first) :] if first in plan else []
    kept = plan[: plan.index(first)] if first in plan else plan
    assert set(kept) <= set(reduced.outcome.outputs)
    if lost:
        assert lost[0] in reduced.outcome.skipped
    for stage, reason in reduced.outcome.skipped.items():
        assert stage in lost
        assert why in reason, stage  # also those that only need what the first one would have made
        assert len(reason) < 400
    merged = merged_qa(tmp_path / "redux", expid)
    assert merged["STATE"] == "done"
    for stage in kept:
        assert merged["STAGES"][stage]["STATE"] == "done"
    for stage, reason in reduced.outcome.skipped.items():
        assert merged["STAGES"][stage] == {
            "STATE": "skipped", "REASON": reason, "QA": {}, "PARAMS": merged["STAGES"][stage]["PARAMS"],
        }  # fmt: skip
    judged = {check for step in load_plans()[FLAVORS[expid]].steps for check in step.checks if step.stage.name in kept}
    assert {check.name for check in judged} <= {name for s in merged["STAGES"].values() for name in s["QA"]}


def test_metrics_without_a_fibermap_are_unknown_with_the_reason(night, tmp_path, reduce_r0):
    (raw_path(night, SCIENCE).parent / "fibermap-00000005.fits").unlink()

    reduced = reduce_r0(night, tmp_path / "redux", SCIENCE)

    unknown = {r.name: r.summary for _, r in reduced.outcome.judged if r.severity == QASeverity.UNKNOWN}
    assert "Sky_Continuum" in unknown
    assert all("no fibermap" in why for why in unknown.values()), unknown
    assert reduced.outcome.severity <= QASeverity.UNKNOWN  # nothing is wrong with the camera


# corrupt files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expid", "hdus", "keyword", "value", "told"),
    [
        (5, "SPEC R0", "EXPTIME", "NaN", "EXPTIME = .*expected a positive number of seconds"),
        (5, "SPEC R0", "EXPTIME", "-3.0", r"EXPTIME = -3\.0, expected a positive number of seconds"),
        (5, "SPEC R0", "EXPTIME", "", "no HDU has EXPTIME.*expected an HDU SPEC"),
        (5, "SPEC", "OBSTYPE", "'BANANA'", "OBSTYPE = 'BANANA'.*expected OBSTYPE to be one of ZERO"),
        (5, "SPEC R0", "EXPID", "", "HDU R0: .*EXPID"),
        (1, "R0", "CCDSECA", "", "CCDSECA"),
        (1, "R0", "DATASECB", "'[1:9,1:9]'", "differ in shape"),
        (1, "R0", "BIASSECC", "'[nonsense]'", r"BIASSECC = '\[nonsense\]'"),
        (1, "R0", "CAMERA", "'b7'", "b7"),
    ],
)
def test_a_missing_or_senseless_keyword_is_named_with_its_value_and_what_was_expected(
    night, tmp_path, reduce_r0, expid, hdus, keyword, value, told
):
    for hdu in hdus.split():
        rewrite_card(raw_path(night, expid), hdu, keyword, value)

    with pytest.raises((BadFile, StageFailed, ValueError)) as failure:
        reduce_r0(night, tmp_path / "redux", expid)

    assert re.search(told, str(failure.value)), str(failure.value)


@pytest.mark.parametrize(
    ("keyword", "why"),
    [("SPECID", "the header has no SPECID"), ("DETECTOR", "the header has no DETECTOR")],
)
def test_a_header_that_names_no_calibration_skips_what_needs_one_and_says_so(
    night, tmp_path, reduce_r0, keyword, why, caplog
):
    for hdu in ("SPEC", "R0"):
        if keyword in fitsio.read_header(str(raw_path(night, 1)), ext=hdu):
            rewrite_card(raw_path(night, 1), hdu, keyword, "")

    reduced = reduce_r0(night, tmp_path / "redux", 1)

    assert "no gain for amplifier A" in reduced.outcome.skipped["Preproc"]
    assert why in caplog.text
    assert [result.name for _, result in reduced.outcome.judged] == ["Check_HDUs"]


def test_without_its_time_an_exposure_takes_no_calibration_of_tonight(
    night, reduced_night, tmp_path, reduce_r0, caplog
):
    redux = Path(shutil.copytree(reduced_night, tmp_path / "redux"))
    for hdu in ("SPEC", "R0"):
        if "MJD-OBS" in fitsio.read_header(str(raw_path(night, SCIENCE)), ext=hdu):
            rewrite_card(raw_path(night, SCIENCE), hdu, "MJD-OBS", "NaN")

    reduced = reduce_r0(night, redux, SCIENCE)

    assert {use.origin for use in reduced.outcome.calibrations} == {"tree"}
    assert "calibrations of tonight are not used" in caplog.text


@pytest.mark.parametrize("content", [b"no FITS file", b"SIMPLE  =                    T" + b" " * 2850])
def test_a_corrupt_fibermap_fails_the_camera_by_its_name(night, tmp_path, reduce_r0, content):
    path = raw_path(night, SCIENCE).parent / "fibermap-00000005.fits"
    path.write_bytes(content)

    with pytest.raises(BadFile, match=r"fibermap-00000005\.fits"):
        reduce_r0(night, tmp_path / "redux", SCIENCE)


def test_a_fibermap_without_the_fibers_of_the_camera_says_which(night, tmp_path, reduce_r0):
    path = raw_path(night, SCIENCE).parent / "fibermap-00000005.fits"
    fibermap = read_fibermap(path)
    write_fibermap(path, Fibermap(fibermap.rows[5:], fibermap.meta))

    with pytest.raises(KeyError, match=r"no row for FIBER \[0, 1, 2, 3, 4\]"):
        reduce_r0(night, tmp_path / "redux", SCIENCE)


@pytest.mark.parametrize("value", ["NaN", "-1.0", "'high'"])
def test_a_senseless_gain_skips_preprocessing_and_keeps_the_check_of_the_header(night, tmp_path, reduce_r0, value):
    leave_out(night, "GAINB")
    path = raw_path(night, 2)
    rewrite_card(path, "R0", "CCDTEMP", "")  # room for another card
    _add_card(path, "R0", "GAINB", value)

    reduced = reduce_r0(night, tmp_path / "redux", 2)

    assert "no gain for amplifier B of r0" in reduced.outcome.skipped["Preproc"]
    assert [result.name for _, result in reduced.outcome.judged] == ["Check_HDUs"]


def _add_card(path: Path, hdu: str, keyword: str, text: str) -> None:
    """Put a card where a blank one is."""
    with fitsio.FITS(str(path)) as fits:
        place = fits[hdu].get_offsets()
    content = bytearray(path.read_bytes())
    for at in range(place["header_start"], place["data_start"], 80):
        if not content[at : at + 80].strip():
            content[at : at + 80] = f"{keyword:8s}= {text:>20s}".ljust(80).encode()
            path.write_bytes(content)
            return
    raise AssertionError("no blank card")


def test_flipped_bits_name_the_file_and_the_hdu_of_the_camera(night, tmp_path, reduce_r0):
    damage(raw_path(night, 1), [Fault("corrupt-hdu", "r0")], ["r0"])

    with pytest.raises(BadFile, match=r"desi-00000001\.fits\.fz, HDU R0: "):
        reduce_r0(night, tmp_path / "redux", 1)


def test_a_cut_file_is_refused(night, tmp_path, reduce_r0):
    damage(raw_path(night, 1), [Fault("truncated", "r0")], ["r0"])

    with pytest.raises(BadFile, match=r"desi-00000001\.fits\.fz"):
        reduce_r0(night, tmp_path / "redux", 1)


def test_a_missing_hdu_lists_those_that_are_there(night, tmp_path, reduce_r0):
    with pytest.raises(BadFile, match=r"HDU B3.*SPEC, R0"):
        read_raw(raw_path(night, 1), "b3")


@pytest.mark.parametrize(
    ("kind", "expid", "stage"), [("bias", 1, "Preproc"), ("pixflat", 2, "Preproc"), ("psf", 3, "")]
)
def test_a_corrupt_calibration_file_fails_the_camera_by_its_name_and_keeps_what_came_before(
    night, tmp_path, reduce_r0, kind, expid, stage
):
    path = next((night / "calib").rglob(f"{kind}-*r0*.fits*"))
    path.write_bytes(b"SIMPLE  =                    T" + b" " * 3000)

    with pytest.raises(StageFailed, match=f"^{stage}.*BadFile: .*{path.name}"):
        reduce_r0(night, tmp_path / "redux", expid)

    merged = merged_qa(tmp_path / "redux", expid)
    assert merged["STATE"] == "failed"
    assert merged["STAGES"]["Initialize"]["STATE"] == "done"
    assert "Check_HDUs" in merged["STAGES"]["Initialize"]["QA"]


def test_a_corrupt_calibration_of_tonight_is_passed_over(night, tmp_path, reduce_r0, caplog):
    redux = tmp_path / "redux"
    spoiled = redux / "exposures" / "20260115" / "00000004" / "qfiberflat-r0-00000004.fits"
    spoiled.parent.mkdir(parents=True)
    spoiled.write_bytes(b"half a file")

    reduced = reduce_r0(night, redux, SCIENCE)

    used = {use.kind: use.origin for use in reduced.outcome.calibrations}
    assert used["FIBERFLAT"] == "tree"
    assert "passed over as calibration of tonight" in caplog.text


# a stage that breaks, and what is written -----------------------------------------------------------------------


class Breaks(PipelineAlg):
    """A stage of a site with a mistake in it."""

    @classmethod
    def types(cls):
        return object, object

    def run(self, data, context):
        raise ZeroDivisionError("row 7 of amp C is empty")


def with_a_broken_stage(after: str):
    plans = load_plans()
    plan = plans["science"]
    steps = []
    for step in plan.steps:
        steps.append(step)
        if step.stage.name == after:
            steps.append(Step(Breaks(), ()))
    return plans | {"science": type(plan)(plan.flavor, tuple(steps), plan.path)}


def test_a_broken_stage_leaves_a_merged_qa_of_all_that_came_before(one_camera_night, tmp_path, reduce_r0):
    taken = []

    with pytest.raises(StageFailed, match="Breaks: ZeroDivisionError: row 7 of amp C is empty"):
        reduce_r0(one_camera_night, tmp_path, SCIENCE, plans=with_a_broken_stage("Extract_QP"), take=taken.append)

    merged = merged_qa(tmp_path, SCIENCE)
    states = {name: stage["STATE"] for name, stage in merged["STAGES"].items()}
    assert merged["STATE"] == "failed"
    assert states["Extract_QP"] == "done"
    assert states["Breaks"] == "failed"
    assert merged["STAGES"]["Breaks"]["REASON"] == "ZeroDivisionError: row 7 of amp C is empty"
    assert states["SkySub_QP"] == "not reached"
    assert merged["TASKS"]["CHECK_CCDs"]["METRICS"]["NOISE_AMP_STATUS"] == "NORMAL"
    assert merged["TASKS"]["CHECK_FIBERS"]["METRICS"]["XYSHIFTS_STATUS"] == "NORMAL"
    assert set(taken[0].written) == {"psf", "qframe", "qa"}
    assert all(path.exists() for path in taken[0].written.values())


def test_a_product_that_cannot_be_written_does_not_cost_the_results(one_camera_night, tmp_path, reduce_r0, monkeypatch):
    def refuses(kind, data, path):
        raise ValueError(f"product {kind} cannot be made")

    monkeypatch.setattr("qlstream.engine.camera.write_product", refuses)

    with pytest.raises(ValueError, match="product psf cannot be made"):
        reduce_r0(one_camera_night, tmp_path, SCIENCE)

    assert merged_qa(tmp_path, SCIENCE)["TASKS"]["CHECK_SPECTRA"]
    assert not list(tmp_path.rglob("*_tmp*"))


def test_an_attempt_that_was_taken_over_writes_nothing(one_camera_night, tmp_path, reduce_r0):
    with pytest.raises(Superseded):
        reduce_r0(one_camera_night, tmp_path, 3, is_current=lambda: False, qa_files="yaml")

    assert not list(tmp_path.glob("exposures/*/*/*"))


def test_products_are_written_on_request_in_their_formats(one_camera_night, tmp_path, reduce_r0):
    plan = load_plans()["science"]

    reduced = reduce_r0(one_camera_night, tmp_path, SCIENCE, requested=frozenset(plan.products), qa_files="json")

    assert set(plan.products) <= set(reduced.written)
    for path in reduced.written.values():
        assert path.exists()
        if path.name.endswith((".fits", ".fits.gz")):
            assert len(fitsio.FITS(str(path))) > 1
        else:
            json.loads(path.read_text())
    assert np.isfinite(fitsio.read(str(reduced.written["qsframe"]), ext=0)).all()


# calibrations that the user chooses ------------------------------------------------------------------------------


def test_traces_and_flat_of_chosen_exposures_serve_in_place_of_the_default(
    one_camera_night, reduced_night, tmp_path, reduce_r0
):
    redux = Path(shutil.copytree(reduced_night, tmp_path / "redux"))

    reduced = reduce_r0(one_camera_night, redux, SCIENCE, psfid=SCIENCE, flatid=4)

    used = {use.kind: (use.origin, use.path.name) for use in reduced.outcome.calibrations}
    assert used["TRACES"] == ("chosen", "psf-r0-00000005.fits")
    assert used["FIBERFLAT"] == ("chosen", "qfiberflat-r0-00000004.fits")
    shifts = reduced.context.earlier["Flexure"].shifts
    assert np.abs(shifts.dx).max() < 0.02  # they were measured on this very exposure [pixel]
    assert np.abs(shifts.dy).max() < 0.1


@pytest.mark.parametrize(("given", "told"), [("psfid", "no traces of exposure 77"), ("flatid", "no fiber flat of exp")])
def test_a_chosen_calibration_that_is_not_there_is_told(one_camera_night, tmp_path, reduce_r0, given, told):
    with pytest.raises(MissingCalibration, match=f"{told}.*for r0.*reduce that exposure first"):
        reduce_r0(one_camera_night, tmp_path, SCIENCE, **{given: 77})


def test_a_plan_of_another_flavor_is_refused(one_camera_night, tmp_path, reduce_r0):
    plans = {"arc": load_plans()["arc"]}

    with pytest.raises(LookupError, match="an exposure of flavor science; there is a plan for arc only"):
        reduce_r0(one_camera_night, tmp_path, SCIENCE, plans=plans)
