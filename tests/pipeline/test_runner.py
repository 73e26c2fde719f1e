from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from qlstream.calibration.served import Calibration, CalibrationUse
from qlstream.instrument import load_instrument
from qlstream.pipeline.algorithm import MonitoringAlg, PipelineAlg
from qlstream.pipeline.context import Buffers, Context
from qlstream.pipeline.plan import Plan, Step
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.result import QAResult, QASeverity
from qlstream.pipeline.runner import Runner, StageFailed


class First(PipelineAlg[int, int]):
    def run(self, data, context):
        return data + 1


class NeedsFlat(PipelineAlg[int, int]):
    def run(self, data, context):
        return data * context.calibration.get("FIBERFLAT")


class AfterFlat(PipelineAlg[int, int]):
    needs = ("NeedsFlat",)

    def run(self, data, context):
        return -data


class AlsoAfterFlat(AfterFlat):
    needs = (("NeedsFlat", "First"),)


class Aside(PipelineAlg[int, str]):
    aside = True

    def run(self, data, context):
        return f"model of {data}"


class Last(PipelineAlg[int, int]):
    def run(self, data, context):
        return data + 100


class Breaks(PipelineAlg[int, int]):
    def run(self, data, context):
        raise ValueError("row 7 of amp C is empty")


class Value(MonitoringAlg[int]):
    def run(self, data, context):
        return QAResult(self.name, {"VALUE": float(data)})


class Compares(MonitoringAlg[int]):
    def run(self, data, context):
        return QAResult(self.name, {"VALUE": data / context.calibration.get("FIBERFLAT")})


class Spoiled(MonitoringAlg[int]):
    def run(self, data, context):
        raise ZeroDivisionError("division by zero")


@dataclass
class Heard:
    told: list = field(default_factory=list)

    def stage_started(self, stage):
        self.told.append(("started", stage))

    def stage_done(self, stage, cost):
        assert cost.wall_s >= 0
        assert cost.peak_mb > 1
        self.told.append(("done", stage))

    def stage_skipped(self, stage, reason):
        self.told.append(("skipped", stage, reason))

    def qa_result(self, stage, result, cost):
        self.told.append(("qa", stage, result.name))

    def calibration_used(self, use):
        self.told.append(("used", use.kind))


def context(parts=None, uses=None):
    calibration = Calibration("r3", 20260114, parts or {}, uses=uses)
    return Context(
        20260114, 82, "r3", "science", "dark", {}, None, load_instrument("mini"), calibration, Ranges([]), Buffers()
    )


def run(steps, ctx):
    heard = Heard()
    runner = Runner(Plan("science", tuple(steps), Path("science.yaml")), heard)
    return runner, heard, lambda: runner.run(1, ctx)


def test_a_missing_calibration_skips_its_stage_and_those_that_need_it_and_no_other():
    steps = [Step(First(), (Value(),)), Step(NeedsFlat(), ()), Step(AfterFlat(), (Value(),)), Step(Last(), (Value(),))]
    _, heard, go = run(steps, context())

    outcome = go()

    assert outcome.skipped == {
        "NeedsFlat": "no FIBERFLAT for r3 on 20260114",
        "AfterFlat": "needs NeedsFlat, which was skipped: no FIBERFLAT for r3 on 20260114",
    }
    assert [result.metrics["VALUE"] for _, result in outcome.judged] == [2.0, 102.0]
    assert ("skipped", "NeedsFlat", "no FIBERFLAT for r3 on 20260114") in heard.told


def test_of_several_stages_that_would_do_one_is_enough():
    either = [Step(First(), ()), Step(NeedsFlat(), ()), Step(AlsoAfterFlat(), ())]
    neither = [Step(NeedsFlat(), ()), Step(AlsoAfterFlat(), ())]

    assert run(either, context())[2]().outputs["AlsoAfterFlat"] == -2
    assert run(neither, context())[2]().skipped["AlsoAfterFlat"].startswith("needs NeedsFlat, which was skipped")


def test_what_stands_aside_is_kept_and_the_next_stage_gets_what_was_before():
    ctx = context()

    outcome = run([Step(First(), ()), Step(Aside(), (), write=("sky",)), Step(Last(), ())], ctx)[2]()

    assert outcome.products == {"sky": "model of 2"}
    assert ctx.earlier["Aside"] == "model of 2"
    assert outcome.outputs["Last"] == 102


def test_a_broken_metric_is_unknown_with_its_reason_and_stops_nothing():
    _, _, go = run([Step(First(), (Spoiled(), Value()))], context())

    outcome = go()

    broken, fine = (result for _, result in outcome.judged)
    assert broken.severity == QASeverity.UNKNOWN
    assert "ZeroDivisionError: division by zero" in broken.summary
    assert fine.metrics == {"VALUE": 2.0}


def test_a_broken_stage_fails_the_camera_and_keeps_what_came_before():
    runner, _, go = run([Step(First(), (Value(),), write=("qframe",)), Step(Breaks(), ())], context())

    with pytest.raises(StageFailed, match="Breaks: ValueError: row 7 of amp C is empty"):
        go()

    assert [result.name for _, result in runner.outcome.judged] == ["Value"]
    assert runner.outcome.products == {"qframe": 2}


def test_which_calibration_served_is_told_once():
    use = CalibrationUse("FIBERFLAT", Path("fiberflat-r3.fits"))
    steps = [Step(NeedsFlat(), ()), Step(AfterFlat(), ())]
    _, heard, go = run(steps, context({"FIBERFLAT": 5}, {"FIBERFLAT": use}))

    outcome = go()

    assert outcome.outputs["AfterFlat"] == -5
    assert heard.told.count(("used", "FIBERFLAT")) == 1


def test_a_calibration_that_only_a_metric_asked_for_is_told_too():
    use = CalibrationUse("FIBERFLAT", Path("fiberflat-r3.fits"))
    _, heard, go = run([Step(First(), (Compares(),))], context({"FIBERFLAT": 5}, {"FIBERFLAT": use}))

    go()

    assert heard.told[-1] == ("used", "FIBERFLAT")


def test_requested_products_are_kept_only_on_request():
    step = Step(First(), (), write=("qframe",), write_on_request=("preproc",))
    plan = Plan("science", (step,), Path("science.yaml"))

    plain = Runner(plan, Heard()).run(1, context())
    asked = Runner(plan, Heard(), {"preproc"}).run(1, context())

    assert set(plain.products) == {"qframe"}
    assert set(asked.products) == {"qframe", "preproc"}


def test_a_later_stage_replaces_the_product_of_an_earlier_one():
    steps = [Step(First(), (), write=("qcframe",)), Step(Last(), (), write=("qcframe",))]

    _, _, go = run(steps, context())

    assert go().products == {"qcframe": 102}


def test_buffers_keep_their_memory_between_cameras():
    buffers = Buffers()

    first = buffers.get("pix", (4, 5), np.float32)

    assert buffers.get("pix", (4, 5), np.float32) is first
    assert buffers.get("pix", (5, 4), np.float32) is not first
