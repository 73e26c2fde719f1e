"""The files that users' scripts read."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from qlstream.configs import config_path
from qlstream.engine.qafiles import merged_qa, merged_qa_path, outputs, qa_path, single_qa, write_qa_file
from qlstream.pipeline.algorithm import MonitoringAlg, PipelineAlg
from qlstream.pipeline.plan import Plan, Step, load_plans
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.result import QAResult
from qlstream.pipeline.runner import Cost, Outcome

NAN = float("nan")
RANGES = """
version: "7"
rules:
  - {metric: NOISE_AMP, normal: [2, 4], warn: [1, 5]}
  - {metric: NOISE_AMP, where: {amp: [D]}, normal: [3, 7], warn: [1, 9]}
  - {metric: BIAS_AMP, normal: [100, 9000], warn: [0, .inf]}
  - {metric: XYSHIFTS_X, normal: [-0.5, 0.5], warn: [-1, 1]}
  - {metric: XYSHIFTS_Y, normal: [-0.5, 0.5], warn: [-1, 1]}
  - {metric: FIDSNR_TGT, normal: [0, 10], warn: [0, 20]}
"""


class Preproc(PipelineAlg[int, int]):
    def run(self, data, context):
        return data


class SkySub_QP(PipelineAlg[int, int]):
    def run(self, data, context):
        return data


class Defringe(PipelineAlg[int, int]):
    def run(self, data, context):
        return data


class Get_RMS(MonitoringAlg[int]):
    def run(self, data, context):
        raise NotImplementedError


PLAN = Plan(
    "science", (Step(Preproc(), (Get_RMS(),)), Step(SkySub_QP(), ()), Step(Defringe(), ())), Path("science.yaml")
)


@pytest.fixture
def context(make_context, tmp_path):
    (tmp_path / "ranges.yaml").write_text(RANGES)
    return make_context(program="dark", ranges=Ranges.load(tmp_path / "ranges.yaml"))


def outcome_of(context, *judged):
    graded = [(stage, result.graded(context.ranges, context.where)) for stage, result in judged]
    return Outcome(judged=graded, costs={"Preproc": Cost(1, 1, 100), "SkySub_QP": Cost(1, 1, 100)})


def test_vectors_stand_in_the_order_of_amplifiers_and_each_result_key_has_its_status(context):
    noise = QAResult("Get_RMS", per_amp={"NOISE_AMP": {"D": 3.5, "A": 2.5, "C": 9.0, "B": 2.6}})

    merged = merged_qa(context, PLAN, outcome_of(context, ("Preproc", noise)))

    metrics = merged["TASKS"]["CHECK_CCDs"]["METRICS"]
    assert metrics["NOISE_AMP"] == [2.5, 2.6, 9.0, 3.5]
    assert metrics["NOISE_AMP_STATUS"] == "ALARM"
    assert merged["SEVERITY"] == "ALARM"


def test_ranges_judge_the_deviation_from_the_reference_as_quicklook_did(context):
    noise = QAResult(
        "Get_RMS",
        per_amp={"NOISE_AMP": {"A": 4.5, "B": 2.6, "C": 0.1, "D": 3.5}, "BIAS_AMP": dict.fromkeys("ABCD", 1000.0)},
    )

    merged = merged_qa(context, PLAN, outcome_of(context, ("Preproc", noise)))

    params, metrics = merged["TASKS"]["CHECK_CCDs"]["PARAMS"], merged["TASKS"]["CHECK_CCDs"]["METRICS"]
    assert params["BIAS_AMP_DARK_REF"] == [4550.0] * 4
    assert params["BIAS_AMP_NORMAL_RANGE"] == [-4450.0, 4450.0]
    assert params["BIAS_AMP_WARN_RANGE"] == [-4550.0, None]  # there is no upper limit
    deviation = np.array(metrics["NOISE_AMP"]) - params["NOISE_AMP_DARK_REF"]
    normal, warn = np.array(params["NOISE_AMP_NORMAL_RANGE"]), np.array(params["NOISE_AMP_WARN_RANGE"])
    is_normal = (deviation >= normal[:, 0]) & (deviation <= normal[:, 1])
    is_warn = (deviation >= warn[:, 0]) & (deviation <= warn[:, 1])
    verdicts = ["NORMAL" if n else "WARNING" if w else "ALARM" for n, w in zip(is_normal, is_warn, strict=True)]
    assert verdicts == ["WARNING", "NORMAL", "ALARM", "NORMAL"]
    assert normal[3].tolist() == [-2.0, 2.0]  # D has a range of its own


def test_classes_keep_their_order_and_tell_no_fibers_from_no_value(context):
    snr = QAResult("Calculate_SNR", per_class={"FIDSNR_TGT": {"STAR": NAN, "ELG": 0.5, "LRG": None}})

    merged = merged_qa(context, PLAN, outcome_of(context, ("SkySub_QP", snr)))

    metrics = merged["TASKS"]["CHECK_SPECTRA"]["METRICS"]
    assert metrics["OBJLIST"] == ["ELG", "LRG", "STAR"]
    assert metrics["FIDSNR_TGT"] == [0.5, None, None]
    assert metrics["FIDSNR_TGT_STATUS"] == "UNKNOWN"  # of the stars; the missing LRGs are nothing to judge
    assert merged["STAGES"]["SkySub_QP"]["QA"]["Calculate_SNR"]["per_class"]["FIDSNR_TGT"]["LRG"] is None


def test_pairs_that_quicklook_had_are_composed_and_judged_by_their_worse_half(context):
    shifts = QAResult("Trace_Shifts", {"XYSHIFTS_X": 0.1, "XYSHIFTS_Y": 0.9})

    merged = merged_qa(context, PLAN, outcome_of(context, ("Defringe", shifts)))

    metrics = merged["TASKS"]["CHECK_DEFRINGE"]["METRICS"]  # a stage that is in no list keeps its results
    assert metrics["XYSHIFTS"] == [0.1, 0.9]
    assert metrics["XYSHIFTS_STATUS"] == "WARNING"
    assert metrics["XYSHIFTS_X_STATUS"] == "NORMAL"


def test_a_result_key_without_a_verdict_is_unknown_and_not_left_out(context):
    counted = QAResult("CountSpectralBins", {"NGOODFIB": 38.0})

    metrics = merged_qa(context, PLAN, outcome_of(context, ("Preproc", counted)))["TASKS"]["CHECK_CCDs"]["METRICS"]

    assert metrics["NGOODFIB_STATUS"] == "UNKNOWN"


def test_two_metrics_with_one_key_lose_neither(context):
    judged = [("Preproc", QAResult(name, {"NSKY_FIB": value})) for name, value in (("First", 5.0), ("Second", 4.0))]

    metrics = merged_qa(context, PLAN, outcome_of(context, *judged))["TASKS"]["CHECK_CCDs"]["METRICS"]

    assert metrics["NSKY_FIB"] == 5.0
    assert metrics["Second.NSKY_FIB"] == 4.0


def test_nothing_that_a_metric_found_is_left_out_and_nothing_is_nan(context):
    everything = QAResult(
        "Get_RMS",
        {"A_NUMBER": NAN, "FLUX": 2.0},
        per_fiber={"FLUX": np.array([1.0, 2.0, 3.0]), "OF_FIBERS": np.array([1.0, NAN, 3.0])},
        vectors={"A_MATRIX": np.array([[1.0, np.inf], [NAN, 4.0]]), "NAMES": np.array(["b", "a"])},
    )

    merged = merged_qa(context, PLAN, outcome_of(context, ("Preproc", everything)))

    text = json.dumps(merged, allow_nan=False)
    assert json.loads(text) == merged
    metrics = merged["TASKS"]["CHECK_CCDs"]["METRICS"]
    assert metrics["A_NUMBER"] is None
    assert metrics["OF_FIBERS"] == [1.0, None, 3.0]
    assert (metrics["FLUX"], metrics["FLUX_FIB"]) == (2.0, [1.0, 2.0, 3.0])
    assert metrics["A_MATRIX"] == [[1.0, None], [None, 4.0]]
    assert metrics["NAMES"] == ["b", "a"]
    assert merged["STAGES"]["Preproc"]["QA"]["Get_RMS"]["vectors"]["A_MATRIX"] == [[1.0, None], [None, 4.0]]


def test_a_file_of_one_metric_has_the_form_of_quicklook(context, tmp_path):
    noise = QAResult("Get_RMS", per_amp={"NOISE_AMP": {"A": 2.5, "B": NAN}}, units={"NOISE_AMP": "electron"})
    noise = noise.graded(context.ranges, context.where)

    for path in (tmp_path / "ql.json", tmp_path / "ql.yaml"):
        write_qa_file(path, context, PLAN, "Preproc", noise)

    content = json.loads((tmp_path / "ql.json").read_text())
    again = yaml.safe_load((tmp_path / "ql.yaml").read_text())
    assert {**again, "QATIME": ""} == {**content, "QATIME": ""}
    assert (content["EXPID"], content["PANAME"], content["CAMERA"]) == ("00000082", "Preproc", "r3")
    assert content["METRICS"] == {"NOISE_AMP": [2.5, None], "NOISE_AMP_STATUS": "UNKNOWN"}
    assert content["CHECKS"][1]["why"] == "NOISE_AMP of B has no value"
    assert content == {**single_qa(context, PLAN, "Preproc", noise), "QATIME": content["QATIME"]}


def test_files_have_the_names_of_quicklook():
    redux = Path("/redux")

    names = [qa_path(redux, name, 20260115, 82, "r3", "json").name for name in ("Get_RMS", "Trace_Shifts", "My_Metric")]

    assert names == ["ql-getrms-r3-00000082.json", "ql-trace-r3-00000082.json", "ql-my_metric-r3-00000082.json"]
    assert merged_qa_path(redux, 20260115, 82, "r3") == (
        redux / "exposures/20260115/00000082/ql-mergedQA-r3-00000082.json"
    )


def test_no_two_shipped_metrics_share_a_file():
    metrics = {check for plan in load_plans().values() for _, check in plan.checks} | set(outputs().stems)

    stems = [outputs().stem(metric).lower() for metric in metrics]

    assert len(set(stems)) == len(metrics)


def test_every_stage_and_metric_of_the_lists_is_named_once():
    content = yaml.safe_load(config_path("qa", "outputs.yaml").read_text())

    for kind in ("stages", "metrics"):
        named = [name for task in content["tasks"].values() for name in task.get(kind, [])]
        assert len(named) == len(set(named))


def test_numbers_of_a_real_night_are_all_there(reduced_night):
    files = [json.loads(p.read_text()) for p in sorted(reduced_night.glob("exposures/*/*/ql-mergedQA-r0-*.json"))]

    assert [merged["FLAVOR"] for merged in files] == ["zero", "dark", "arc", "flat", "science"]
    arc, flat, science = files[2:]
    for merged in files:
        assert merged["STATE"] == "done"
        assert {stage["STATE"] for stage in merged["STAGES"].values()} == {"done"}
        for key in ("BIAS_AMP", "NOISE_AMP", "LITFRAC_AMP"):  # what the web monitor of QuickLook read of every flavor
            assert len(merged["TASKS"]["CHECK_CCDs"]["METRICS"][key]) == 4
            assert merged["TASKS"]["CHECK_CCDs"]["METRICS"][f"{key}_STATUS"] == "NORMAL"
        assert merged["PROVENANCE"]["CALIBRATIONS"][0]["path"].endswith(".fits.gz")
        assert len(merged["PROVENANCE"]["PLAN"]["sha256"]) == 64
        assert merged["PROVENANCE"]["VERSIONS"]["numpy"] == np.__version__
        assert merged["STAGES"]["Preproc"]["COST"]["wall_s"] > 0
        assert "cosmics_nsig" in merged["STAGES"]["Preproc"]["PARAMS"]
    for merged in (arc, flat, science):
        for task, key in (("CHECK_FIBERS", "XYSHIFTS"), ("CHECK_FIBERS", "NGOODFIB"), ("CHECK_CCDs", "XWSIGMA")):
            assert f"{key}_STATUS" in merged["TASKS"][task]["METRICS"], key
    spectra = science["TASKS"]["CHECK_SPECTRA"]["METRICS"]
    for key in ("SKYCONT", "FIDSNR_TGT", "DELTAMAG_TGT"):
        assert spectra[f"{key}_STATUS"] in ("NORMAL", "UNKNOWN"), key
    info = science["GENERAL_INFO"]
    assert len(info["RA"]) == len(info["FIBERID"]) == len(info["FIBER_MAGS"][0]) == 40
    assert info["NSKY_FIB"] == len(info["SKY_FIBERID"]) > 0
    assert science["PROVENANCE"]["CALIBRATIONS"][-1]["kind"] == "FLUXCALIB"
    assert not any(math.isnan(x) for x in info["RA"])
