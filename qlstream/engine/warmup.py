"""Compiles the kernels before the night does: the real pipeline on a small simulated night, once per code."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from qlstream.calibration.served import CalibrationUse
from qlstream.engine.camera import CameraRequest, Reduced, reduce_camera
from qlstream.engine.kernel_cache import is_warm, mark_warm
from qlstream.engine.preview import show
from qlstream.instrument import load_instrument
from qlstream.pipeline.context import Buffers
from qlstream.pipeline.plan import Plan, load_plans
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.result import QAResult
from qlstream.pipeline.runner import Cost
from qlstream.settings import Settings
from qlstream.simulate.night import simulate_night

log = logging.getLogger("qlstream.engine")

CAMERA = "r0"  # kernels depend on types, not on the size of a CCD: one camera of the smallest instrument does
KINDS = ("zero", "dark", "arc", "flat", "science-dark")  # each plan once, what the next one needs first


def plan_modules(plans: Iterable[Plan]) -> list[str]:
    """Modules of the stages and metrics of `plans`, in the order in which they are met."""
    steps = [step for plan in plans for step in plan.steps]
    return list(dict.fromkeys(type(alg).__module__ for step in steps for alg in (step.stage, *step.checks)))


def warm_up(settings: Settings) -> float:
    """Take one exposure of every flavor through its plan with all its metrics, products and previews.

    A plan that fails here is no reason not to start: a real exposure may pass, and will else say what is wrong.

    Returns
    -------
    the time it took [second]; 0 if the kernels of this code were compiled before

    Raises
    ------
    PlanError, ValueError : a plan or the ranges have mistakes
    """
    plans = load_plans(settings.engine.plans)
    ranges = Ranges.from_settings(settings)
    modules = plan_modules(plans.values())
    if is_warm(modules):
        return 0.0
    began = time.monotonic()
    cameras = logging.getLogger("qlstream.camera")
    cameras.addFilter(_is_error)  # what is unusual about simulated exposures interests nobody
    with tempfile.TemporaryDirectory(prefix="qlstream-warmup-") as name:
        folder = Path(name)
        files = simulate_night(load_instrument("mini"), 20260101, folder, (CAMERA,), kinds=KINDS)
        for path, kind in zip(files, KINDS, strict=True):
            request = CameraRequest(path, CAMERA, folder / "redux", folder / "calib")
            try:
                reduce_camera(request, plans, ranges, _Nobody(), Buffers(), take=_show)
            except Exception as error:
                log.warning("warm-up: the plan for %s exposures fails on a simulated one: %s", kind, error)
    cameras.removeFilter(_is_error)
    mark_warm(modules)
    return time.monotonic() - began


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _show(reduced: Reduced) -> None:
    show(reduced.outcome.outputs)


class _Nobody:
    """Reporter of what interests nobody."""

    def stage_started(self, stage: str) -> None: ...
    def stage_done(self, stage: str, cost: Cost) -> None: ...
    def stage_skipped(self, stage: str, reason: str) -> None: ...
    def qa_result(self, stage: str, result: QAResult, cost: Cost) -> None: ...
    def calibration_used(self, use: CalibrationUse) -> None: ...
