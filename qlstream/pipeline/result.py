"""What a metric reports: values in a fixed order, each judged against its own range."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from qlstream.pipeline.ranges import Ranges


class QASeverity(IntEnum):
    """How bad a value is; the larger, the sooner an observer must look."""

    NORMAL = 0
    UNKNOWN = 10  # could not be judged: no reference, or no finite value
    WARNING = 20
    ALARM = 30


@dataclass(frozen=True)
class Check:
    """One value against one range.

    Attributes
    ----------
    metric : result key, e.g. "NOISE_AMP"
    element : amplifier, class or axis the value belongs to; "" for a plain scalar
    severity : the verdict
    measured : the value, NaN if there is none
    normal, warn : (low, high) intervals, both ends included; None where there is no reference
    unit : unit of value and range
    rule : version of the rule that judged
    why : one sentence for the observer
    """

    metric: str
    element: str
    severity: QASeverity
    measured: float
    normal: tuple[float, float] | None = None
    warn: tuple[float, float] | None = None
    unit: str = ""
    rule: str = ""
    why: str = ""


@dataclass(frozen=True)
class QAResult:
    """The outcome of one MonitoringAlg on one camera.

    Attributes
    ----------
    name : of the metric class, e.g. "Get_RMS"
    metrics : scalars by key
    per_amp : key -> {amplifier: value}, amplifiers in the order A, B, C, D
    per_class : key -> {target class: value}, never left out: None where the camera has no fiber of that class,
        NaN where it has some and no value could be found
    per_fiber : key -> (nspec,) array in the order of the CCD; NaN where a fiber has no value
    vectors : key -> any other array that a plot needs (e.g. values against wavelength)
    checks : verdicts, one per judged value
    units : key -> unit
    summary : one sentence for people
    """

    name: str
    metrics: dict[str, float] = field(default_factory=dict)
    per_amp: dict[str, dict[str, float]] = field(default_factory=dict)
    per_class: dict[str, dict[str, float | None]] = field(default_factory=dict)
    per_fiber: dict[str, NDArray[Any]] = field(default_factory=dict)
    vectors: dict[str, NDArray[Any]] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    units: dict[str, str] = field(default_factory=dict)
    summary: str = ""

    @property
    def severity(self) -> QASeverity:
        """The worst check; NORMAL if nothing was to be judged."""
        return max((c.severity for c in self.checks), default=QASeverity.NORMAL)

    def graded(self, ranges: Ranges, where: Mapping[str, str]) -> QAResult:
        """This result with a check for every value that `ranges` has a rule for.

        Each value is judged by itself: a NaN or a missing reference is UNKNOWN with its reason and spoils no
        other (spec quicklook-pipeline §3.1 tells what happens otherwise).

        Parameters
        ----------
        where : what selects a rule: camera, arm, flavor, program; amp and class are added here. Values of
            amplifiers in its "bad_amps" are not judged, since nobody would learn anything new
        """
        checks = list(self.checks)
        values: list[tuple[str, str, str, float | None]] = [(k, "", "", v) for k, v in self.metrics.items()]
        values += [(k, "amp", amp, v) for k, table in self.per_amp.items() for amp, v in table.items()]
        values += [(k, "class", name, v) for k, table in self.per_class.items() for name, v in table.items()]
        for metric, kind, element, value in values:
            known_bad = kind == "amp" and element in where.get("bad_amps", "")
            if metric not in ranges or value is None or known_bad:
                continue
            selectors = {**where, kind: element} if kind else where
            checks.append(ranges.judge(metric, element, float(value), selectors, self.units.get(metric, "")))
        return replace(self, checks=tuple(checks))

    def to_json(self) -> dict[str, Any]:
        """Plain data with NaN as null; per-fiber arrays as lists. `vectors` stay in their file."""
        return {
            "name": self.name,
            "severity": self.severity.name,
            "summary": self.summary,
            "metrics": plain(self.metrics),
            "per_amp": plain(self.per_amp),
            "per_class": plain(self.per_class),
            "per_fiber": plain(self.per_fiber),
            "units": dict(self.units),
            "checks": [plain({**c.__dict__, "severity": c.severity.name}) for c in self.checks],
        }


def plain(value: Any) -> Any:
    """`value` as JSON data: arrays become lists, NaN and infinities become None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        if value.ndim == 1 and value.dtype.kind == "f":  # the per-fiber arrays: thousands of numbers a camera
            return [number if math.isfinite(number) else None for number in value.tolist()]
        return plain(value.tolist())
    if isinstance(value, (str, bool)) or value is None:
        return value
    if isinstance(value, Sequence):
        return [plain(v) for v in value]
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
