import logging
import threading
import time
from pathlib import Path

from qlstream.logging import exposure_log
from qlstream.pipeline.algorithm import MonitoringAlg, PipelineAlg
from qlstream.pipeline.heartbeat import Heartbeat
from qlstream.pipeline.plan import Plan, Step
from qlstream.pipeline.result import QAResult
from qlstream.pipeline.runner import Runner


def lines(caplog, level):
    return [r for r in caplog.records if r.levelno == level]


def wait_for(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)


def test_a_long_stage_gives_signs_of_life_tagged_with_what_runs_and_for_how_long(caplog):
    caplog.set_level(logging.INFO, "qlstream")

    with Heartbeat(exposure_log(82, "r3"), period_s=0.02, slow_s=60) as heartbeat:
        heartbeat.begin("Preproc")
        wait_for(lambda: len(lines(caplog, logging.INFO)) >= 2)
        heartbeat.begin("Flexure")
        wait_for(lambda: lines(caplog, logging.INFO)[-1].stage == "Flexure")

    first, second = lines(caplog, logging.INFO)[:2]
    assert (first.stage, first.expid, first.camera) == ("Preproc", 82, "r3")
    assert 0.02 <= first.elapsed_s < second.elapsed_s
    assert not lines(caplog, logging.WARNING)


def test_a_stage_beyond_its_time_is_warned_of_once_and_the_clock_starts_anew_with_the_next(caplog):
    caplog.set_level(logging.INFO, "qlstream")

    with Heartbeat(exposure_log(82, "r3"), period_s=0.01, slow_s=0.05) as heartbeat:
        for stage in ("Preproc", "Flexure"):
            heartbeat.begin(stage)
            wait_for(lambda s=stage: any(r.stage == s for r in lines(caplog, logging.WARNING)))
            beats = len(lines(caplog, logging.INFO))
            wait_for(lambda n=beats: len(lines(caplog, logging.INFO)) > n + 3)  # it goes on beating

    warned = lines(caplog, logging.WARNING)
    assert [r.stage for r in warned] == ["Preproc", "Flexure"]
    assert all(r.elapsed_s >= 0.05 for r in warned)
    assert "still running after" in warned[0].getMessage()


def test_a_quick_camera_says_nothing_and_leaves_no_thread(caplog):
    caplog.set_level(logging.INFO, "qlstream")

    with Heartbeat(exposure_log(82, "r3")) as heartbeat:
        heartbeat.begin("Preproc")

    assert not caplog.records
    assert "heartbeat" not in [thread.name for thread in threading.enumerate()]


def test_stages_and_metrics_of_a_camera_give_signs_of_life_at_the_pace_of_the_plan(make_context, caplog):
    caplog.set_level(logging.INFO, "qlstream")

    def await_beat_of(name):
        wait_for(lambda: any(r.stage == name and hasattr(r, "elapsed_s") for r in caplog.records))

    class Slow(PipelineAlg[int, int]):
        def run(self, data, context):
            await_beat_of("Slow")
            return data

    class SlowCheck(MonitoringAlg[int]):
        def run(self, data, context):
            await_beat_of("SlowCheck")
            return QAResult(self.name)

    class Nobody:
        def __getattr__(self, name):
            return lambda *told: None

    plan = Plan("science", (Step(Slow(), (SlowCheck(),)),), Path("science.yaml"), heartbeat_s=0.02, slow_s=60)

    outcome = Runner(plan, Nobody()).run(1, make_context(log=exposure_log(82, "r3")))

    assert [result.name for _, result in outcome.judged] == ["SlowCheck"]
