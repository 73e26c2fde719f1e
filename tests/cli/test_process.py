"""`qlstream process`, with the options that QuickLook's users know, and `qlstream plots`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from qlstream.cli.main import cli, main
from qlstream.configs import config_path
from qlstream.pipeline.plan import PlanError
from qlstream.simulate.damage import damage
from qlstream.simulate.faults import Fault

NIGHT = "20260115"
FOLDERS = ("QL_SPEC_DATA", "QL_SPEC_REDUX", "DESI_SPECTRO_CALIB", "DESI_SPECTRO_DATA", "DESI_SPECTRO_REDUX", "SPECPROD")


@pytest.fixture
def process(one_camera_night, tmp_path, monkeypatch):
    """Run it on r0 of an exposure; a keyword may take an option's place away."""
    for name in FOLDERS:
        monkeypatch.delenv(name, raising=False)

    def run(expid: int, *options: str, **environment: str) -> Result:
        folders = {"--rawdata_dir": one_camera_night / "raw", "--calib": one_camera_night / "calib"}
        folders |= {"--specprod_dir": tmp_path / "redux"}
        given = [] if environment else [str(part) for pair in folders.items() for part in pair]
        command = ["process", "-n", NIGHT, "-c", "R0", "-e", str(expid), *given, *options]
        return CliRunner().invoke(cli, command, env=environment)

    return run


@pytest.fixture
def written(tmp_path):
    """The files of an exposure by their names."""

    def files(expid: int) -> dict[str, Path]:
        return {path.name: path for path in (tmp_path / "redux/exposures" / NIGHT / f"{expid:08d}").glob("*")}

    return files


def test_products_and_merged_qa_are_written_and_the_verdict_is_told(process, written):
    result = process(3)

    assert result.exit_code == 0, result.output
    assert set(written(3)) >= {"psf-r0-00000003.fits", "qframe-r0-00000003.fits", "ql-mergedQA-r0-00000003.json"}
    assert "verdict: NORMAL" in result.output
    assert not any(name.endswith(".png") for name in written(3))


def test_folders_come_from_the_variables_of_quicklook(process, one_camera_night, tmp_path):
    result = process(
        1,
        QL_SPEC_DATA=str(one_camera_night / "raw"),
        QL_SPEC_REDUX=str(tmp_path / "elsewhere"),
        DESI_SPECTRO_CALIB=str(one_camera_night / "calib"),
        DESI_SPECTRO_REDUX="/the/offline",
        SPECPROD="production",
    )

    assert result.exit_code == 0, result.output
    assert (tmp_path / "elsewhere/exposures" / NIGHT / "00000001/ql-mergedQA-r0-00000001.json").exists()


def test_folders_that_nobody_gave_are_asked_for_with_every_way_to_give_them(monkeypatch, capsys):
    for name in (*FOLDERS, "QLSTREAM_RAW", "QLSTREAM_REDUX"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(SystemExit) as end:
        main(["process", "-n", NIGHT, "-c", "r0", "-e", "1"])

    assert end.value.code == 2
    told = capsys.readouterr().err
    assert "raw: not given; use --raw, QLSTREAM_RAW, QL_SPEC_DATA, DESI_SPECTRO_DATA" in told
    assert "redux: not given; use --redux, QLSTREAM_REDUX, QL_SPEC_REDUX, DESI_SPECTRO_REDUX with SPECPROD" in told


def test_a_plan_file_is_followed_if_it_fits_the_exposure(process, tmp_path, written):
    plan = yaml.safe_load(config_path("plans", "quicklook", "arc.yaml").read_text())
    short = tmp_path / "short.yaml"
    short.write_text(yaml.safe_dump({**plan, "steps": plan["steps"][:2]}))

    result = process(3, "-i", str(short))
    wrong = process(5, "--config_file", str(short))

    assert result.exit_code == 0, result.output
    merged = json.loads(written(3)["ql-mergedQA-r0-00000003.json"].read_text())
    assert list(merged["STAGES"]) == ["Initialize", "Preproc"]
    assert merged["PROVENANCE"]["PLAN"]["path"] == str(short)
    assert wrong.exit_code == 1
    assert f"exposure 5 is of flavor science, but {short} is a plan for arc exposures" in wrong.output
    assert not written(5)


def test_outputs_of_stages_are_written_on_request_also_by_their_usual_names(process, written):
    result = process(5, "--dump", "preproc,fframe", "--qa-files", "yaml", "--mergeQA")

    assert result.exit_code == 0, result.output
    assert {"qfframe-r0-00000005.fits", "ql-getrms-r0-00000005.yaml", "ql-mergedQA-r0-00000005.json"} <= set(written(5))
    assert list(written(5)["qfframe-r0-00000005.fits"].parents[3].glob(f"preproc/{NIGHT}/00000005/preproc-r0-*"))
    noise = yaml.safe_load(written(5)["ql-getrms-r0-00000005.yaml"].read_text())
    assert noise["METRICS"]["NOISE_AMP_STATUS"] == "NORMAL"


def test_everything_that_cannot_be_done_is_told_at_once_before_anything_is_done(process, tmp_path):
    result = process(1, "--dump", "qframe,nonsense", "--singleQA", "Sky_Peaks", "--resolution")

    assert isinstance(result.exception, PlanError)
    text = str(result.exception)
    assert "--dump: 2 products cannot be written from zero exposures" in text
    assert "qframe: no stage here gives it" in text
    assert "nonsense: no such product" in text
    assert "--resolution: " in text
    assert "usesigma: no stage of this plan has such a parameter" in text
    assert "--singleQA: no metric 'Sky_Peaks'" in text
    assert "Get_RMS@Preproc" in text
    assert not (tmp_path / "redux").exists()


def test_a_single_metric_is_printed_and_written_and_nothing_else(process, written):
    result = process(1, "--singleQA", "get_rms")

    assert result.exit_code == 0, result.output
    assert set(written(1)) == {"ql-getrms-r0-00000001.json"}
    assert "Get_RMS on Preproc" in result.output
    assert "NOISE_AMP" in result.output
    assert "Bias_From_Overscan" not in result.output


def test_a_single_metric_of_no_plan_is_given_by_its_path(process, written):
    result = process(2, "--singleQA", "qa.bias:Bias_From_Overscan@Preproc", "--qa-files", "yaml")

    assert result.exit_code == 0, result.output
    assert set(written(2)) == {"ql-getbias-r0-00000002.yaml"}


def test_a_single_metric_whose_stage_is_skipped_says_why(process, one_camera_night, tmp_path):
    result = process(3, "--singleQA", "Trace_Shifts", "--calib", str(tmp_path / "nowhere"))

    assert result.exit_code == 1
    assert "Trace_Shifts could not run, since Preproc was skipped: no gain" in result.output


def test_chosen_traces_and_flat_serve_or_are_told_to_be_missing(process, written):
    assert process(3).exit_code == 0
    assert process(4).exit_code == 0

    result = process(5, "--psfid", "3", "--flatid", "4")
    missing = process(5, "--psfid", "77")

    assert result.exit_code == 0, result.output
    used = json.loads(written(5)["ql-mergedQA-r0-00000005.json"].read_text())["PROVENANCE"]["CALIBRATIONS"]
    chosen = {use["kind"]: Path(use["path"]).name for use in used if use["origin"] == "chosen"}
    assert chosen == {"TRACES": "psf-r0-00000003.fits", "FIBERFLAT": "qfiberflat-r0-00000004.fits"}
    assert missing.exit_code == 1
    assert "r0 of exposure 5 failed: no traces of exposure 77 for r0" in missing.output


def test_templates_are_accepted_with_a_word_on_what_took_their_place(process):
    result = process(1, "--templateid", "12", "--templatenight", "20260101")

    assert result.exit_code == 0
    assert "--templateid 12 changes nothing: references come from the reference ranges" in result.output
    assert "--templatenight 20260101 changes nothing" in result.output


@pytest.mark.parametrize(("level", "quiet"), [("40", True), ("WARNING", False), ("20", False)])
def test_the_level_of_the_log_may_be_a_number(process, level, quiet, tmp_path):
    log = tmp_path / "log.jsonl"

    result = process(1, "--loglvl", level, "--calib", str(tmp_path / "nowhere"), "--log-file", str(log))

    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert (lines == []) == quiet
    if not quiet:
        skipped = next(line for line in lines if "Preproc skipped" in line["message"])
        assert (skipped["expid"], skipped["camera"], skipped["level"]) == (1, "r0", "WARNING")


def test_a_level_that_is_none_is_refused(process):
    assert "is no level; expected 10, 20, 30, 40, DEBUG" in process(1, "--loglvl", "loud").output


def test_plots_are_drawn_by_the_built_in_pages_or_those_of_a_file(process, written, tmp_path):
    pages = tmp_path / "pages.yaml"
    pages.write_text("P: {Title: My noise, a: {TYPE: PATCH, VALS: NOISE_AMP}}")

    built_in = process(1, "-p", "--singleQA", "Get_RMS")
    own = process(2, "-p", str(pages), "--plot-format", "pdf", "--singleQA", "Get_RMS")

    assert built_in.exit_code == own.exit_code == 0, built_in.output + own.output
    assert set(written(1)) == {"ql-getrms-r0-00000001.json", "ql-getrms-r0-00000001.png"}
    assert set(written(2)) == {"ql-getrms-r0-00000002.json", "ql-getrms-r0-00000002.pdf"}


def test_a_wrong_plot_configuration_is_told_before_anything_is_done(process, tmp_path):
    pages = tmp_path / "pages.yaml"
    pages.write_text("P: {a: {TYPE: PIE}, b: 3}")

    result = process(1, "-p", str(pages))

    assert result.exit_code == 1
    assert "2 wrong entries" in str(result.exception)
    assert not (tmp_path / "redux").exists()


def test_a_damaged_camera_fails_with_file_and_hdu(one_camera_night, tmp_path):
    raw = Path(shutil.copytree(one_camera_night / "raw", tmp_path / "raw"))
    damage(raw / NIGHT / "00000001" / "desi-00000001.fits.fz", [Fault("corrupt-hdu", "r0")], ["r0"])
    folders = ["--raw", str(raw), "--calib", str(one_camera_night / "calib"), "--redux", str(tmp_path / "redux")]

    result = CliRunner().invoke(cli, ["process", "-n", NIGHT, "-c", "r0", "-e", "1", *folders])

    assert result.exit_code == 1
    assert "r0 of exposure 1 failed: " in result.output
    assert "desi-00000001.fits.fz, HDU R0: " in result.output


def test_a_broken_stage_still_shows_and_writes_what_came_before(process, one_camera_night, tmp_path, written):
    calib = Path(shutil.copytree(one_camera_night / "calib", tmp_path / "calib"))
    next(calib.rglob("bias-*r0*")).write_bytes(b"no FITS file")

    result = process(1, "--calib", str(calib))

    assert result.exit_code == 1
    assert "Check_HDUs" in result.output
    assert "r0 of exposure 1 failed: Preproc: BadFile: " in result.output
    assert json.loads(written(1)["ql-mergedQA-r0-00000001.json"].read_text())["STATE"] == "failed"


def test_an_exposure_that_is_not_there_is_told(process):
    result = process(99)

    assert result.exit_code == 1
    assert "no exposure" in result.output
    assert "check --raw, -n and -e" in result.output


# qlstream plots ----------------------------------------------------------------------------------------------------


def plots(*options: str) -> Result:
    return CliRunner().invoke(cli, ["plots", *map(str, options)])


def test_stored_results_are_drawn_into_one_book_of_the_exposure_or_of_each_camera(reduced_night, tmp_path):
    exposure = plots(NIGHT, "1", "--redux", reduced_night, "--out", tmp_path)
    camera = plots(NIGHT, "1", "r0", "--redux", reduced_night, "--out", tmp_path, "--one", "camera")

    assert exposure.output == f"wrote {tmp_path}/ql-plots-00000001.pdf\n"
    assert camera.output == f"wrote {tmp_path}/ql-plots-r0-00000001.pdf\n"
    pages = (tmp_path / "ql-plots-00000001.pdf").read_bytes()
    merged = json.loads((reduced_night / f"exposures/{NIGHT}/00000001/ql-mergedQA-r0-00000001.json").read_text())
    count = sum(len(stage["QA"]) for stage in merged["STAGES"].values())
    assert f"/Count {count}".encode() in pages


def test_each_stored_metric_is_drawn_into_a_file_of_its_own(reduced_night, tmp_path):
    result = plots(NIGHT, "1", "--redux", reduced_night, "--out", tmp_path, "--one", "metric", "--format", "pdf")

    assert result.exit_code == 0, result.output
    assert "ql-getrms-r0-00000001.pdf" in {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("1", "b3", "r0"), "no results of b3 in "),
        (("1", "q"), "'q' is no camera"),
        (("77",), "there are none of this exposure"),
    ],
)
def test_results_that_are_not_there_are_told_with_those_that_are(reduced_night, arguments, told):
    result = plots(NIGHT, *arguments, "--redux", reduced_night)

    assert result.exit_code == 1
    assert told in result.output


def test_a_spoiled_file_of_results_is_told_by_its_name(tmp_path):
    path = tmp_path / "exposures" / NIGHT / "00000001" / "ql-mergedQA-r0-00000001.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")

    result = plots(NIGHT, "1", "--redux", tmp_path)

    assert result.exit_code == 1
    assert f"{path} is no merged QA" in result.output
    assert [p.name for p in path.parent.iterdir()] == [path.name]
