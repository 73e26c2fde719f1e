"""Walks one camera through its plan: stage, its metrics, next stage; everything in memory, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from qlstream.calibration.served import CalibrationUse, MissingCalibration
from qlstream.datamodel.image import RawCamera
from qlstream.logging import stage_log
from qlstream.pipeline.algorithm import MonitoringAlg, PipelineAlg
from qlstream.pipeline.context import Context
from qlstream.pipeline.heartbeat import Heartbeat
from qlstream.pipeline.plan import Plan
from qlstream.pipeline.resources import peak_memory
from qlstream.pipeline.result import Check, QAResult, QASeverity


@dataclass(frozen=True)
class Cost:
    """What a stage took: wall and CPU time [second], peak memory of the process so far [MB]."""

    wall_s: float
    cpu_s: float
    peak_mb: float


class StageFailed(RuntimeError):
    """A stage broke; the camera is failed, what came before is kept."""


class Reporter(Protocol):
    """Who is told while the camera runs: the store in a worker, a progress bar in the foreground."""

    def stage_started(self, stage: str) -> None: ...
    def stage_done(self, stage: str, cost: Cost) -> None: ...
    def stage_skipped(self, stage: str, reason: str) -> None: ...
    def qa_result(self, stage: str, result: QAResult, cost: Cost) -> None: ...
    def calibration_used(self, use: CalibrationUse) -> None: ...


@dataclass
class Outcome:
    """What a camera gave.

    Attributes
    ----------
    outputs : stage name -> its output, for the stages that ran
    skipped : stage name -> reason
    judged : (stage, its QAResult), in order
    products : product kind -> data to write; a later stage replaces what an earlier one gave
    costs : stage name -> what it took, its metrics apart
    check_costs : (stage, metric) -> what the metric took
    failed : the stage that broke -> reason
    calibrations : what served, in the order it was asked for
    """

    outputs: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    judged: list[tuple[str, QAResult]] = field(default_factory=list)
    products: dict[str, Any] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    check_costs: dict[tuple[str, str], Cost] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    calibrations: list[CalibrationUse] = field(default_factory=list)

    @property
    def severity(self) -> QASeverity:
        """The worst check of all metrics."""
        return max((result.severity for _, result in self.judged), default=QASeverity.NORMAL)


class Runner:
    """Runs one plan.

    Parameters
    ----------
    plan : the stages of the exposure's flavor
    reporter : told of every step as it happens
    requested : products wanted beside those that the plan always writes, e.g. {"preproc"}
    """

    def __init__(self, plan: Plan, reporter: Reporter, requested: Iterable[str] = ()) -> None:
        self.plan = plan
        self.reporter = reporter
        self.requested = frozenset(requested)
        self.outcome = Outcome()
        self._roots: dict[str, str] = {}  # of the stages that another one's absence skipped

    def run(self, raw: RawCamera, context: Context) -> Outcome:
        """Take `raw` through the plan.

        A stage without its calibration is skipped, and so is every stage that needs it; all others run.
        A metric that breaks becomes UNKNOWN with its reason and stops nothing.

        Raises
        ------
        StageFailed : a stage broke, or a needed stage met data it cannot take; `self.outcome` keeps what came before
        """
        with Heartbeat(context.log, self.plan.heartbeat_s, self.plan.slow_s) as heartbeat:
            return self._run(raw, context, heartbeat)

    def _run(self, raw: RawCamera, context: Context, heartbeat: Heartbeat) -> Outcome:
        data: Any = raw
        outcome = self.outcome
        for step in self.plan.steps:
            stage = step.stage
            reason = self._reason_to_skip(stage, data)
            if reason is None:
                self.reporter.stage_started(stage.name)
                heartbeat.begin(stage.name)
                try:
                    with stage_log(stage.name):
                        out, cost = _timed(lambda s=stage, d=data: s.run(d, context))  # type: ignore[misc]
                except MissingCalibration as missing:
                    reason = str(missing)
                except Exception as error:
                    outcome.failed[stage.name] = f"{type(error).__name__}: {error}"
                    raise StageFailed(f"{stage.name}: {outcome.failed[stage.name]}") from error
                finally:
                    self._report_calibrations(context)
            if reason is not None:
                outcome.skipped[stage.name] = reason
                context.log.warning("%s skipped: %s", stage.name, reason)
                self.reporter.stage_skipped(stage.name, reason)
                continue
            context.earlier[stage.name] = outcome.outputs[stage.name] = out
            data = data if stage.aside else out
            outcome.costs[stage.name] = cost
            self.reporter.stage_done(stage.name, cost)
            for kind in (*step.write, *(k for k in step.write_on_request if k in self.requested)):
                outcome.products[kind] = out
            for check in step.checks:
                heartbeat.begin(check.name)
                with stage_log(check.name):
                    result, cost = _timed(lambda c=check, d=out: _checked(c, d, context))  # type: ignore[misc]
                outcome.judged.append((stage.name, result))
                outcome.check_costs[stage.name, check.name] = cost
                self.reporter.qa_result(stage.name, result, cost)
            self._report_calibrations(context)  # that a metric asked for
        return outcome

    def _reason_to_skip(self, stage: PipelineAlg[Any, Any], data: Any) -> str | None:
        """Why the stage cannot run; the reason that began it all is told, not the whole chain of what it cost."""
        outcome = self.outcome
        for wanted in stage.needed():
            absent = [name for name in wanted if name in outcome.skipped]
            if absent and not any(name in outcome.outputs for name in wanted):
                self._roots[stage.name] = root = self._roots.get(absent[0], outcome.skipped[absent[0]])
                return f"needs {absent[0]}, which was skipped: {root}"
        takes = stage.types()[0]
        if isinstance(data, takes):
            return None
        skipped = [s.stage for s in self.plan.steps if s.stage.name in outcome.skipped]
        maker = next((s for s in skipped if issubclass(s.types()[1], takes)), skipped[0] if skipped else None)
        if maker is None:
            return f"needs {takes.__name__}, but got {type(data).__name__}"
        self._roots[stage.name] = root = self._roots.get(maker.name, outcome.skipped[maker.name])
        return f"needs {takes.__name__}, which {maker.name} did not make: {root}"

    def _report_calibrations(self, context: Context) -> None:
        while context.calibration.used:
            use = context.calibration.used.pop(0)
            self.outcome.calibrations.append(use)
            self.reporter.calibration_used(use)


def _checked(check: MonitoringAlg[Any], data: Any, context: Context) -> QAResult:
    try:
        return check.run(data, context)
    except MissingCalibration as missing:
        why = f"skipped: {missing}"
    except Exception as error:
        context.log.exception("metric %s broke", check.name)
        why = f"{check.name} broke: {type(error).__name__}: {error}"
    unknown = Check(check.name, "", QASeverity.UNKNOWN, float("nan"), why=why)
    return QAResult(check.name, checks=(unknown,), summary=why)


def _timed(work: Callable[[], Any]) -> tuple[Any, Cost]:
    wall, cpu = time.perf_counter(), time.process_time()
    value = work()
    return value, Cost(time.perf_counter() - wall, time.process_time() - cpu, peak_memory.look())
