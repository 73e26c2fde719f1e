"""A stage that cannot run says what began it."""

from pathlib import Path

from qlstream.calibration.served import MissingCalibration
from qlstream.pipeline.algorithm import PipelineAlg
from qlstream.pipeline.plan import Plan, Step
from qlstream.pipeline.runner import Runner


class Silent:
    def __getattr__(self, name):
        return lambda *told: None


class ToText(PipelineAlg[int, str]):
    def run(self, data, context):
        raise MissingCalibration("no PSF for r3 on 20260114")


class ToBytes(PipelineAlg[str, bytes]):
    def run(self, data, context):
        return data.encode()


class OfBytes(PipelineAlg[bytes, bytes]):
    needs = ("ToBytes",)

    def run(self, data, context):
        return data


def test_a_chain_of_skipped_stages_tells_its_root_and_not_itself(make_context):
    plan = Plan("science", (Step(ToText(), ()), Step(ToBytes(), ()), Step(OfBytes(), ())), Path("science.yaml"))

    outcome = Runner(plan, Silent()).run(1, make_context())

    assert outcome.skipped == {
        "ToText": "no PSF for r3 on 20260114",
        "ToBytes": "needs str, which ToText did not make: no PSF for r3 on 20260114",
        "OfBytes": "needs ToBytes, which was skipped: no PSF for r3 on 20260114",
    }
