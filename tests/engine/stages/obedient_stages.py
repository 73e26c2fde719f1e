"""Stages that do what the header of their camera says: to sleep, crash, hang, allocate or raise.

Workers import this module by name from a plan, as they import a site's own stages.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from qlstream.datamodel.image import RawCamera
from qlstream.pipeline.algorithm import MonitoringAlg, PipelineAlg
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import Check, QAResult, QASeverity


class Arrive(PipelineAlg[RawCamera, RawCamera]):
    """Does nothing, so that there is a result before anything goes wrong."""

    def run(self, data: RawCamera, context: Context) -> RawCamera:
        return data


class Obey(PipelineAlg[RawCamera, RawCamera]):
    """OBEY = "ok", "sleep 2", "exit 3", "kill", "hang", "allocate", "raise"; "once ORDER" obeys the first time only."""

    def run(self, data: RawCamera, context: Context) -> RawCamera:
        order, _, rest = str(context.header["OBEY"]).partition(" ")
        if order == "once":
            assert data.path is not None
            marker = Path(data.path).with_name(f"{context.camera}.marker")
            if marker.exists():
                return data
            marker.touch()
            order, _, rest = rest.partition(" ")
        match order:
            case "ok":
                pass
            case "sleep":
                time.sleep(float(rest))
            case "exit":
                os._exit(int(rest))
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(600)
            case "allocate":
                np.ones(8 * 2**30 // 8)
            case "raise":
                raise RuntimeError("as told")
        return data


class Judge(MonitoringAlg[RawCamera]):
    """ALARM for camera z, NORMAL for the others."""

    def run(self, data: RawCamera, context: Context) -> QAResult:
        severity = QASeverity.ALARM if context.camera.startswith("z") else QASeverity.NORMAL
        check = Check("LEVEL", "", severity, float(data.pix.mean()))
        return QAResult("Judge", {"LEVEL": float(data.pix.mean())}, checks=(check,), summary="judged")
