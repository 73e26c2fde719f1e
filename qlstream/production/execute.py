"""One task in one process: find its files, run its step, prove its outputs."""

from __future__ import annotations

import gzip
import logging
import os
import time
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import fitsio

from qlstream.calibration.finder import find_calibration
from qlstream.calibration.served import MissingCalibration
from qlstream.engine.worker import DiskFull, disk_trouble
from qlstream.io.compression import other_form
from qlstream.logging import log_to, start_logging
from qlstream.pipeline.filestep import StepFiles
from qlstream.pipeline.resources import peak_memory
from qlstream.production.graph import Source, Task
from qlstream.production.plan import OfflinePlan
from qlstream.settings import Settings

log = logging.getLogger("qlstream.production")

_BLOCK = 2880  # bytes of a FITS header block
NICENESS = 10  # offline work steps back behind the exposures of the night


@dataclass(frozen=True)
class Ended:
    """How a task ended; small, since it crosses processes.

    Attributes
    ----------
    state : done or failed
    """

    state: str
    reason: str = ""
    cpu_s: float = 0.0
    peak_mb: float = 0.0


@dataclass(frozen=True)
class _Process:
    settings: Settings
    plan: OfflinePlan


_process: _Process | None = None  # a worker has no other place that outlives a task


def prepare(settings: Settings, plan: OfflinePlan) -> None:
    """Make this process a worker of the production."""
    global _process
    start_logging(settings.logging.level, settings.logging.file)
    os.nice(NICENESS)
    _process = _Process(settings, plan)


def run_task(task: Task) -> Ended:
    """Run the step of a task on the files that are there; what it logs goes to the log of the task.

    Raises
    ------
    MemoryError : it needs more than its limit
    DiskFull : there is no room for its outputs
    """
    assert _process is not None, "prepare() has not run in this process"
    settings, plan = _process.settings, _process.plan
    assert settings.redux is not None
    peak_memory.reset()
    cpu = time.process_time()
    state, reason = "done", ""
    try:
        with log_to(log_of(task, settings.redux)):
            try:
                _run(task, settings, plan)
            except Exception:
                log.exception("%s failed", task.name)
                raise
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and (trouble := disk_trouble(settings)):
            raise DiskFull(trouble) from None
        state, reason = "failed", _told(error)
    return Ended(state, reason, time.process_time() - cpu, peak_memory.look())


def log_of(task: Task, redux: Path) -> Path:
    """Where the newest attempt at a task logs (spec production §2)."""
    return redux / "run" / "logs" / "night" / str(task.night) / f"{task.name}.log"


def _run(task: Task, settings: Settings, plan: OfflinePlan) -> None:
    """Raises RuntimeError if the step ended without an output, beside what the step raises."""
    files = StepFiles(gather(task, settings), dict(task.outputs))
    around = {"camera": task.camera, "calib": settings.calib, "redux": settings.redux}
    plan.step(task.kind, task.arm, around).run(files)
    missing = [str(path) for _, path in task.outputs if not is_whole(path)]
    if missing:
        raise RuntimeError(f"its step ended without {', '.join(missing)}")


def gather(task: Task, settings: Settings) -> dict[str, tuple[Path, ...]]:
    """Port -> the files that are there for it; the calibration tree serves where a task's own are not.

    Raises
    ------
    MissingCalibration : nothing serves
    FileNotFoundError : a file that must be there is not
    """
    files: dict[str, list[Path]] = defaultdict(list)
    spare: dict[str, Source] = {}
    for source in task.sources:
        if source.path is not None and is_whole(source.path):
            files[source.port].append(source.path)
        elif source.calibration:
            spare[source.port] = source
        elif source.need == "all":
            raise FileNotFoundError(f"{task.name} needs {source.path} (made by {source.task or 'the telescope'})")
    for port, source in spare.items():
        if not files[port]:
            files[port].append(_calibration(task, source.calibration, settings))
    return {port: tuple(found) for port, found in files.items()}


def is_whole(path: Path) -> bool:
    """Whether a product (or its other, compressed or plain form) is there and begins as a FITS file.

    Products appear by renaming, so what begins well is whole. Only the first header block is read: to open a compressed
    file means to unpack all of it, which for the images of a night takes minutes.
    """
    for form in (path, other_form(path)):
        if form is not None and form.exists():
            try:
                with gzip.open(form) if form.suffix == ".gz" else form.open("rb") as file:
                    return file.read(_BLOCK).startswith(b"SIMPLE")
            except (OSError, EOFError, zlib.error):
                return False
    return False


def _calibration(task: Task, kind: str, settings: Settings) -> Path:
    """The file of the calibration tree for the camera and time of the task's own input.

    What an earlier run left in the production does not serve: the same task has to come to the same product again.
    """
    example = next((s.path for s in task.sources if s.path is not None and s.path.exists()), None)
    if example is None:
        raise MissingCalibration(f"{task.name}: no input tells which {kind} it needs")
    header = dict(fitsio.read_header(str(example), ext=0))
    header.setdefault("NIGHT", task.night)
    if task.camera:
        header["CAMERA"] = task.camera
    found = find_calibration(header, settings.calib, tonight=False, allow_expired=settings.engine.allow_expired)
    return found.file(kind)


def _told(error: Exception) -> str:
    """Our own errors speak for themselves; for others the type helps."""
    speaks = type(error).__module__.startswith("qlstream") or isinstance(error, FileNotFoundError)
    return str(error) if speaks and str(error) else f"{type(error).__name__}: {error}"
