"""What the pages show, as plain immutable records; every page of a process reads the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dashboards.status import Status, status_of
from qlstream.pipeline.result import QASeverity

_MJD_OF_1970 = 40587.0


@dataclass(frozen=True)
class Finding:
    """A check that is not normal.

    Attributes
    ----------
    result : name of the metric class, e.g. "Get_RMS"
    metric, element : e.g. "NOISE_AMP", "C"
    normal : (low, high), None where there is no reference; an end may be None for "no limit"
    why : the sentence of the rule
    """

    expid: int
    camera: str
    result: str
    metric: str
    element: str
    severity: int
    measured: float | None
    normal: tuple[float | None, float | None] | None
    unit: str
    why: str
    time_utc: float

    @property
    def status(self) -> Status:
        return status_of(self.severity)

    @property
    def place(self) -> str:
        """Where it was found: "r3 amplifier C" for amplifiers, "r3 ELG" for classes."""
        if not self.element:
            return self.camera
        return f"{self.camera} {'amp ' if len(self.element) == 1 else ''}{self.element}"


@dataclass(frozen=True)
class Camera:
    """One camera of the present version of an exposure.

    Attributes
    ----------
    state : of its job: ready, running, done or failed; "missing" if the file lacks it
    stage : the stage that runs now, "" otherwise
    severity : worst QASeverity so far, None before the first result
    ready_utc, started_utc, ended_utc : [s since 1970]
    cpu_s, peak_mb : what it took [s], [MB]
    """

    camera: str
    state: str
    job_id: int = 0
    reason: str = ""
    severity: int | None = None
    attempt: int = 0
    stage: str = ""
    ready_utc: float | None = None
    started_utc: float | None = None
    ended_utc: float | None = None
    cpu_s: float | None = None
    peak_mb: float | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def status(self) -> Status:
        """Bad news at once, good news only at the end."""
        if self.state in ("failed", "missing"):
            return Status.FAILED if self.state == "failed" else Status.MISSING
        if (self.severity or 0) >= QASeverity.WARNING or self.state == "done":
            return status_of(self.severity)
        return Status.RUNNING if self.state == "running" else Status.QUEUED


@dataclass(frozen=True)
class Exposure:
    """One exposure with its cameras; columns as in the table `exposures` of the store."""

    night: int
    expid: int
    state: str
    reason: str = ""
    version: int = 1
    flavor: str = ""
    program: str = ""
    tileid: int | None = None
    exptime: float | None = None
    mjd: float | None = None
    airmass: float | None = None
    seeing: float | None = None
    instrument: str = ""
    path: str = ""
    seen_utc: float | None = None
    ready_utc: float | None = None
    done_utc: float | None = None
    cameras: Mapping[str, Camera] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        """The worst that is known of it; RUNNING only while nothing is wrong."""
        if self.state in ("incomplete", "failed"):
            return Status.FAILED
        worst = max((c.status for c in self.cameras.values()), key=lambda s: s.rank, default=Status.QUEUED)
        if worst.rank < Status.WARNING.rank and not self.is_done:
            running = any(c.state in ("running", "done") for c in self.cameras.values())
            return Status.RUNNING if running else Status.QUEUED
        return worst

    @property
    def is_done(self) -> bool:
        return self.state == "done"

    @property
    def start_utc(self) -> float | None:
        """When the shutter opened [s since 1970], from MJD."""
        return None if self.mjd is None else (self.mjd - _MJD_OF_1970) * 86400.0

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(f for camera in self.cameras.values() for f in camera.findings)


@dataclass(frozen=True)
class Detail:
    """Everything of one camera; rows as `qlstream.store.query` gives them.

    Attributes
    ----------
    results : QA rows by metric class, in the order they came
    stages : stage rows in the order of the plan
    products : kind -> path relative to the redux folder
    calibrations : calibration rows
    """

    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    stages: tuple[Mapping[str, Any], ...] = ()
    products: Mapping[str, str] = field(default_factory=dict)
    calibrations: tuple[Mapping[str, Any], ...] = ()

    @property
    def checks(self) -> list[dict[str, Any]]:
        """All checks, with the metric class under "result"."""
        return [{**check, "result": name} for name, row in self.results.items() for check in row["checks"]]
