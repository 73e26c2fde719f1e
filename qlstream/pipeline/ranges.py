"""Reference ranges of the metrics, from YAML: which values are normal, for which camera, flavor and amplifier."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qlstream.pipeline.result import Check, QASeverity

Interval = tuple[float, float]


class Rule(BaseModel):
    """One range and where it holds. Of all rules that match, the last one in the file counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str = Field(description="result key, e.g. NOISE_AMP")
    where: dict[str, list[str]] = Field(
        default_factory=dict,
        description="selector (instrument, camera, arm, flavor, program, amp, class) -> accepted values",
    )
    normal: Interval = Field(description="NORMAL inside, both ends included")
    warn: Interval = Field(description="WARNING inside and not normal; ALARM outside")
    why: str = Field("", description="what a value outside tells, as half a sentence")

    @model_validator(mode="after")
    def _nested(self) -> Rule:
        if not (self.warn[0] <= self.normal[0] <= self.normal[1] <= self.warn[1]):
            raise ValueError(
                f"{self.metric}: the normal range {self.normal} must lie inside the warn range {self.warn}"
            )
        return self

    def matches(self, selectors: Mapping[str, str]) -> bool:
        return all(selectors.get(key, "").lower() in (v.lower() for v in ok) for key, ok in self.where.items())


class _RangeFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: str
    rules: list[Rule]


class Ranges:
    """All rules of one file, or of all files of a folder in the order of their names (`configs/qa/quicklook/`)."""

    def __init__(self, rules: list[Rule], version: str = "") -> None:
        self._rules: dict[str, list[Rule]] = {}
        for rule in rules:
            self._rules.setdefault(rule.metric, []).append(rule)
        self.version = version

    @classmethod
    def load(cls, path: Path) -> Ranges:
        """Read a file of rules, or a folder of such files.

        Raises
        ------
        ValueError : no file, or files with mistakes; all are named
        """
        files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        if not files:
            raise ValueError(f"{path}: no *.yaml with reference ranges in this folder")
        rules: list[Rule] = []
        wrong: list[str] = []
        versions: set[str] = set()
        digest = hashlib.sha256()
        for file in files:
            text = file.read_text()
            digest.update(text.encode())
            try:
                content = _RangeFile.model_validate(yaml.safe_load(text))
            except ValidationError as error:
                wrong += [f"  {file}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
                continue
            rules += content.rules
            versions.add(content.version)
        if wrong:
            raise ValueError("\n".join([f"{path}: {len(wrong)} wrong entries", *wrong]))
        return cls(rules, f"{path.stem} {'+'.join(sorted(versions))} ({digest.hexdigest()[:8]})")

    def __contains__(self, metric: str) -> bool:
        return metric in self._rules

    def find(self, metric: str, selectors: Mapping[str, str]) -> Rule | None:
        """The rule that judges `metric` here, or None."""
        return next((r for r in reversed(self._rules.get(metric, [])) if r.matches(selectors)), None)

    def judge(self, metric: str, element: str, value: float, selectors: Mapping[str, str], unit: str = "") -> Check:
        """Compare one value with its range; UNKNOWN, with the reason, if there is no range or no finite value."""
        rule = self.find(metric, selectors)
        name = f"{metric} of {element}" if element else metric
        if rule is None:
            here = ", ".join(f"{k} {v}" for k, v in selectors.items() if v)
            return Check(
                metric,
                element,
                QASeverity.UNKNOWN,
                value,
                unit=unit,
                rule=self.version,
                why=f"no range for {here}",
            )
        common = {"normal": rule.normal, "warn": rule.warn, "unit": unit, "rule": self.version}
        if not math.isfinite(value):
            return Check(metric, element, QASeverity.UNKNOWN, value, why=f"{name} has no value", **common)  # type: ignore[arg-type]
        if rule.normal[0] <= value <= rule.normal[1]:
            return Check(metric, element, QASeverity.NORMAL, value, **common)  # type: ignore[arg-type]
        inside_warn = rule.warn[0] <= value <= rule.warn[1]
        severity = QASeverity.WARNING if inside_warn else QASeverity.ALARM
        side, limit = ("below", rule.normal[0]) if value < rule.normal[0] else ("above", rule.normal[1])
        shown = f"{value:.4g} {unit}".strip()
        why = f"{name} = {shown}, {side} the normal {limit:g}" + (f": {rule.why}" if rule.why else "")
        return Check(metric, element, severity, value, why=why, **common)  # type: ignore[arg-type]
