"""What a camera's results look like on disk: the merged QA, and a file for each metric."""

from __future__ import annotations

import hashlib
import math
import platform
import time
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import yaml
from pydantic import BaseModel, ConfigDict, Field

from qlstream import __version__
from qlstream.configs import config_path
from qlstream.datamodel.amplifier import AMP_NAMES
from qlstream.datamodel.fibermap import CLASSES
from qlstream.io.atomic import atomic_path
from qlstream.io.paths import findfile
from qlstream.pipeline.algorithm import StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.plan import Plan
from qlstream.pipeline.result import Check, QAResult, QASeverity, plain
from qlstream.pipeline.runner import Outcome

_GENERAL = ("PROGRAM", "EXPTIME", "MJD-OBS", "DATE-OBS", "AIRMASS", "SEEING", "TILEID", "OBSTYPE")
_PACKAGES = ("numpy", "scipy", "numba", "fitsio")
_ORDER = {name: i for i, name in enumerate((*AMP_NAMES, *CLASSES))}


class _Task(BaseModel):
    model_config = ConfigDict(extra="forbid")
    stages: list[str] = Field(default_factory=list)
    metrics: list[str] = Field(default_factory=list)


class Outputs(BaseModel):
    """How results are grouped and named on disk, from `configs/qa/outputs.yaml`."""

    model_config = ConfigDict(extra="forbid")
    tasks: dict[str, _Task]
    pairs: dict[str, tuple[str, str]]
    status_from: dict[str, list[str]]
    stems: dict[str, str]

    def task(self, stage: str, metric: str) -> str:
        """The final task of the merged QA that a metric belongs to."""
        by_metric = (name for name, task in self.tasks.items() if metric in task.metrics)
        by_stage = (name for name, task in self.tasks.items() if stage in task.stages)
        return next(by_metric, None) or next(by_stage, f"CHECK_{stage.upper()}")

    def stem(self, metric: str) -> str:
        """The word for a metric in file names."""
        return self.stems.get(metric, metric.lower())


@cache
def outputs() -> Outputs:
    """The shipped grouping and naming."""
    return Outputs.model_validate(yaml.safe_load(config_path("qa", "outputs.yaml").read_text()))


def qa_path(redux: Path, metric: str, night: int, expid: int, camera: str, suffix: str) -> Path:
    """Where the file of one metric is: `ql-STEM-CAMERA-EXPID.SUFFIX`."""
    path = findfile("ql_file", night, expid, camera, word=outputs().stem(metric), specprod_dir=redux)
    return Path(path).with_suffix(f".{suffix}")


def merged_qa_path(redux: Path, night: int, expid: int, camera: str) -> Path:
    """Where the merged QA of a camera is; `camera` may be a pattern."""
    return Path(findfile("ql_mergedQA_file", night, expid, camera, specprod_dir=redux))


def write_merged_qa(path: Path, context: Context, plan: Plan, outcome: Outcome) -> None:
    """Write all that is known of a camera, also of one that failed on the way."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(_readable(merged_qa(context, plan, outcome)))


def write_qa_file(path: Path, context: Context, plan: Plan, stage: str, result: QAResult) -> None:
    """Write one metric as JSON, or as YAML if `path` says so."""
    content = single_qa(context, plan, stage, result)
    with atomic_path(path) as temporary:
        if path.suffix == ".yaml":
            temporary.write_text(yaml.safe_dump(content, sort_keys=False, width=120, allow_unicode=True))
        else:
            temporary.write_bytes(_readable(content))


def merged_qa(context: Context, plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """All results of a camera as JSON data; NaN is null, nothing is left out (spec quicklook-pipeline §6).

    TASKS holds them as QuickLook did: METRICS with each key's status, PARAMS with its ranges. STAGES holds them as they
    came: every value with its element and its check, the parameters and the cost of each stage. PROVENANCE tells what
    they stand on.
    """
    state = "failed" if outcome.failed else "done"
    return {
        "NIGHT": context.night,
        "EXPID": context.expid,
        "CAMERA": context.camera,
        "FLAVOR": context.flavor,
        "PROGRAM": context.program,
        "INSTRUMENT": context.instrument.name,
        "STATE": state,
        "SEVERITY": outcome.severity.name,
        "GENERAL_INFO": _general_info(context),
        "TASKS": _tasks(context, plan, outcome),
        "STAGES": _stages(plan, outcome),
        "PROVENANCE": _provenance(context, plan, outcome),
    }


def single_qa(context: Context, plan: Plan, stage: str, result: QAResult) -> dict[str, Any]:
    """One metric as QuickLook gave it (spec quicklook-pipeline §3), and its checks."""
    metrics, checks = _with_pairs(*_values(result))
    return {
        "EXPID": f"{context.expid:08d}",
        "PANAME": stage,
        "QANAME": result.name,
        "QATIME": _now(),
        "CAMERA": context.camera,
        "NIGHT": str(context.night),
        "FLAVOR": context.flavor,
        "PROGRAM": context.program,
        "EXPTIME": context.exptime,
        "SEVERITY": result.severity.name,
        "SUMMARY": result.summary,
        "METRICS": metrics,
        "PARAMS": _params(plan, stage, result.name) | _ranges(checks, _program(context)),
        "UNITS": dict(result.units),
        "CHECKS": result.to_json()["checks"],
        "VERSION": __version__,
        "RANGES": context.ranges.version,
    }


def _tasks(context: Context, plan: Plan, outcome: Outcome) -> dict[str, Any]:
    tasks: dict[str, Any] = {}
    for stage, result in outcome.judged:
        name = outputs().task(stage, result.name)
        task = tasks.setdefault(name, {"METRICS": {}, "PARAMS": {}})
        metrics, checks = _with_pairs(*_values(result))
        params = _params(plan, stage, result.name) | _ranges(checks, _program(context))
        for group, values in (("METRICS", metrics), ("PARAMS", params)):
            for key, value in values.items():
                own = key if task[group].get(key, value) == value else f"{result.name}.{key}"
                task[group][own] = value
    return tasks


def _values(result: QAResult) -> tuple[dict[str, Any], tuple[Check, ...]]:
    """Every value by its key: vectors of amplifiers in the order A, B, C, D, of classes in theirs; and the checks."""
    values: dict[str, Any] = dict(result.metrics)
    for table in (result.per_amp, result.per_class):
        for key, by_name in table.items():
            values[key] = [by_name[name] for name in _in_order(by_name)]
    if result.per_class:
        values["OBJLIST"] = _in_order(next(iter(result.per_class.values())))
    for key, array in (*result.per_fiber.items(), *result.vectors.items()):
        values[f"{key}_FIB" if key in result.metrics else key] = array  # beside the median that has its name
    return plain(values), result.checks


def _with_pairs(values: dict[str, Any], checks: Iterable[Check]) -> tuple[dict[str, Any], tuple[Check, ...]]:
    """The values with QuickLook's pairs and the status of all that was judged; and the checks of all that."""
    all_checks = list(checks)
    for key, parts in outputs().pairs.items():
        if any(part in values for part in parts):
            values.setdefault(key, [values.get(part) for part in parts])
            all_checks += [
                Check(**{**vars(check), "metric": key, "element": f"{part} {check.element}".strip()})
                for part in parts
                for check in checks
                if check.metric == part
            ]
    worst: dict[str, QASeverity] = {}
    for check in all_checks:
        worst[check.metric] = max(check.severity, worst.get(check.metric, QASeverity.NORMAL))
    for key, judged in outputs().status_from.items():
        if key in values and key not in worst:
            worst[key] = max((worst[name] for name in judged if name in worst), default=QASeverity.UNKNOWN)
    values |= {f"{key.removesuffix('_STATUS')}_STATUS": severity.name for key, severity in worst.items()}
    return values, tuple(all_checks)


def _ranges(checks: Iterable[Check], program: str) -> dict[str, Any]:
    """Ranges as QuickLook wrote them: a reference, and normal and warn intervals of the deviation from it.

    The reference is the middle of the normal range. Where the elements of a vector have ranges of different widths,
    there is one interval for each, in the order of the values.
    """
    by_metric: dict[str, list[Check]] = {}
    for check in checks:
        if check.normal is not None and check.warn is not None:
            by_metric.setdefault(check.metric, []).append(check)
    params: dict[str, Any] = {}
    for metric, found in by_metric.items():
        found.sort(key=lambda check: _ORDER.get(check.element, 0))
        references = [_middle(check.normal) for check in found if check.normal is not None]
        params[f"{metric}_{program}_REF" if program else f"{metric}_REF"] = references
        for name in ("normal", "warn"):
            intervals = [
                [round(end - middle, 9) for end in getattr(check, name)]
                for check, middle in zip(found, references, strict=True)
            ]
            same = all(interval == intervals[0] for interval in intervals)
            params[f"{metric}_{name.upper()}_RANGE"] = intervals[0] if same else intervals
    return plain(params)


def _middle(interval: tuple[float, float]) -> float:
    low, high = interval
    if math.isfinite(low) and math.isfinite(high):
        return 0.5 * (low + high)
    return low if math.isfinite(low) else high if math.isfinite(high) else 0.0


def _params(plan: Plan, stage: str, metric: str) -> dict[str, Any]:
    """Parameters of a metric by the names that QuickLook's users know."""
    for step in plan.steps:
        for check in step.checks:
            if step.stage.name == stage and check.name == metric:
                return _dumped(check.params)
    return {}


def _dumped(params: StageParams) -> dict[str, Any]:
    return plain(params.model_dump(mode="json", by_alias=True))


def _stages(plan: Plan, outcome: Outcome) -> dict[str, Any]:
    stages: dict[str, Any] = {}
    for step in plan.steps:
        name = step.stage.name
        entry: dict[str, Any] = {"STATE": "not reached", "PARAMS": _dumped(step.stage.params)}
        if name in outcome.costs:
            entry |= {"STATE": "done", "COST": plain(vars(outcome.costs[name]))}
        elif name in outcome.skipped:
            entry |= {"STATE": "skipped", "REASON": outcome.skipped[name]}
        elif name in outcome.failed:
            entry |= {"STATE": "failed", "REASON": outcome.failed[name]}
        stages[name] = entry | {"QA": {}}
    for stage, result in outcome.judged:
        cost = outcome.check_costs.get((stage, result.name))
        stages[stage]["QA"][result.name] = {
            **result.to_json(),
            "vectors": plain(result.vectors),
            "cost": plain(vars(cost)) if cost else None,
            "params": _params(plan, stage, result.name),
        }
    return stages


def _general_info(context: Context) -> dict[str, Any]:
    """What is generally known of the exposure and its targets; positions as rounded as QuickLook had them."""
    header, fibermap = context.header, context.fibermap
    info: dict[str, Any] = {key: header.get(key) for key in _GENERAL}
    info |= {
        "QLrun_datime_UTC": _now(),
        "FITS_DESISPEC_VERSION": _dependency(header, "desispec"),
        "PROC_QuickLook_VERSION": f"qlstream {__version__}",
    }
    if fibermap is not None:
        fiber = fibermap.fiber
        with np.errstate(divide="ignore", invalid="ignore"):
            magnitudes = [22.5 - 2.5 * np.log10(fibermap.column(f"FLUX_{band}", np.nan)) for band in "GRZ"]
        info |= {
            "FIBERID": fiber,
            "RA": np.round(fibermap.column("TARGET_RA", np.nan), 5),
            "DEC": np.round(fibermap.column("TARGET_DEC", np.nan), 5),
            "FIBER_MAGS": magnitudes,
            "SKY_FIBERID": fiber[fibermap.is_sky],
            "NSKY_FIB": int(fibermap.is_sky.sum()),
            **{f"{name}_FIBERID": fiber[fibermap.is_class(name)] for name in CLASSES},
        }
    return plain(info)


def _provenance(context: Context, plan: Plan, outcome: Outcome) -> dict[str, Any]:
    uses = [{"kind": u.kind, "path": str(u.path), "origin": u.origin, "mjd": u.mjd} for u in outcome.calibrations]
    return {
        "VERSIONS": {"qlstream": __version__, "python": platform.python_version(), **_versions()},
        "PLAN": {"path": str(plan.path), "sha256": _digest(plan.path)},
        "RANGES": context.ranges.version,
        "CALIBRATIONS": uses,
    }


@cache
def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # another build of it, under another name
            continue
    return found


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None  # a plan that a program made


def _dependency(header: Mapping[str, Any], package: str) -> str | None:
    """Version of a package that wrote the file, from its DEPNAMnn and DEPVERnn cards."""
    for key, value in header.items():
        if key.startswith("DEPNAM") and str(value).strip() == package:
            return str(header.get(f"DEPVER{key[6:]}"))
    return None


def _readable(content: Any, indent: bytes = b"") -> bytes:
    """JSON with one line for each key: objects are indented, vectors of thousands of numbers are not."""
    if not isinstance(content, Mapping) or not content:
        return orjson.dumps(content)
    inner = indent + b"  "
    lines = (inner + orjson.dumps(str(key)) + b": " + _readable(value, inner) for key, value in content.items())
    return b"{\n" + b",\n".join(lines) + b"\n" + indent + b"}"


def _in_order(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: _ORDER.get(name, len(_ORDER)))


def _program(context: Context) -> str:
    return context.program.upper() if context.flavor == "science" else ""


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
