"""Reference ranges of the metrics, from YAML: which values are normal, for which camera, flavor and amplifier."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qlstream.configs import config_path
from qlstream.pipeline.learned import LearnedRanges, learned_for
from qlstream.pipeline.result import Check, QASeverity
from qlstream.pipeline.rule import LearnedRule, Rule
from qlstream.settings import Settings


class _RangeFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: str
    extends: Literal["", "quicklook"] = Field("", description="quicklook: these rules follow the shipped ones")
    rules: list[Rule]
    unjudged: dict[str, str] = Field(
        default_factory=dict, description="result keys without a range -> why they need none, as half a sentence"
    )


class Ranges:
    """All rules of one file, or of all files of a folder in the order of their names (`configs/qa/quicklook/`).

    Ranges that were learned from past exposures (docs/reference-ranges.md) lie over the written ones: `on` puts those
    of a night into force.

    Attributes
    ----------
    written_version : of the written rules
    unjudged : result key -> why it has no range
    learned : the learned ranges in force, or None
    """

    def __init__(
        self,
        rules: list[Rule],
        version: str = "",
        unjudged: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Rules in their order: of all that match a value, the last one counts; `folder` has the learned ranges."""
        self._rules: dict[str, list[Rule]] = {}
        for rule in rules:
            self._rules.setdefault(rule.metric, []).append(rule)
        self._folder = folder
        self.written_version = version
        self.unjudged = dict(unjudged or {})
        self.learned: LearnedRanges | None = None

    @classmethod
    def load(cls, path: Path, folder: Path | None = None) -> Ranges:
        """Read a file of rules, or a folder of such files; one that extends the shipped rules comes after them.

        Parameters
        ----------
        folder : of learned ranges

        Raises
        ------
        ValueError : no file, or files with mistakes; all are named
        """
        files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        if not files:
            raise ValueError(f"{path}: no *.yaml with reference ranges in this folder")
        rules: list[Rule] = []
        unjudged: dict[str, str] = {}
        wrong: list[str] = []
        versions: set[str] = set()
        shipped: Ranges | None = None
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
            unjudged |= content.unjudged
            versions.add(content.version)
            if content.extends and shipped is None:
                shipped = cls.load(config_path("qa", content.extends))
        if wrong:
            raise ValueError("\n".join([f"{path}: {len(wrong)} wrong entries", *wrong]))
        version = f"{path.stem} {'+'.join(sorted(versions))} ({digest.hexdigest()[:8]})"
        if shipped is not None:
            rules = [*(rule for those in shipped._rules.values() for rule in those), *rules]
            unjudged = shipped.unjudged | unjudged
            version = f"{shipped.written_version}, {version}"
        return cls(rules, version, unjudged, folder)

    @classmethod
    def from_settings(cls, settings: Settings) -> Ranges:
        """The ranges that the settings ask for, with the folder of those learned in this production.

        Raises
        ------
        ValueError : the written ranges have mistakes, or there is no such folder as `engine.learned_ranges`
        """
        folder = learned_folder(settings)
        if settings.engine.learned_ranges is not None and not settings.engine.learned_ranges.is_dir():
            raise ValueError(f"engine.learned_ranges: no folder {settings.engine.learned_ranges}")
        return cls.load(settings.engine.ranges or config_path("qa", "quicklook"), folder)

    def on(self, night: int) -> Ranges:
        """These ranges with the newest learned ones that are valid on `night`: a replay is judged as the night was."""
        learned = learned_for(self._folder, night) if self._folder is not None else None
        if learned is self.learned:
            return self
        there = Ranges([], self.written_version, self.unjudged, self._folder)
        there._rules, there.learned = self._rules, learned
        return there

    @property
    def version(self) -> str:
        """Of all rules in force."""
        return self.written_version if self.learned is None else f"{self.written_version}, {self.learned.version}"

    def __contains__(self, metric: str) -> bool:
        return metric in self._rules

    @property
    def metrics(self) -> list[str]:
        """Every metric that has a rule."""
        return list(self._rules)

    def elements_of(self, metric: str, selectors: Mapping[str, str]) -> list[tuple[str, str]]:
        """("amp" or "class", name) of each element that a rule of this metric singles out here."""
        rules: list[Rule] = list(self._rules.get(metric, []))
        rules += self.learned.rules_of(metric, selectors.get("camera", "")) if self.learned is not None else []
        found: dict[tuple[str, str], None] = {}
        for rule in rules:
            for kind in ("amp", "class"):
                for name in rule.where.get(kind, []):
                    if rule.matches({**selectors, kind: name}):
                        found[kind, name] = None
        return sorted(found)

    def written(self, metric: str, selectors: Mapping[str, str]) -> Rule | None:
        """The written rule for `metric` here, whatever was learned; or None."""
        return next((r for r in reversed(self._rules.get(metric, [])) if r.matches(selectors)), None)

    def find(self, metric: str, selectors: Mapping[str, str]) -> Rule | None:
        """The rule that judges `metric` here, or None."""
        rule = self.written(metric, selectors)
        learned = self.learned.find(metric, selectors) if self.learned is not None and rule is not None else None
        return rule if learned is None or rule is None else learned.within(rule)

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
                rule=self.written_version,
                why=f"no range for {here}",
            )
        version = self.learned.version if isinstance(rule, LearnedRule) and self.learned else self.written_version
        common = {"normal": rule.normal, "warn": rule.warn, "unit": unit, "rule": version}
        if not math.isfinite(value):
            return Check(metric, element, QASeverity.UNKNOWN, value, why=f"{name} has no value", **common)  # type: ignore[arg-type]
        if rule.normal[0] <= value <= rule.normal[1]:
            return Check(metric, element, QASeverity.NORMAL, value, **common)  # type: ignore[arg-type]
        inside_warn = rule.warn[0] <= value <= rule.warn[1]
        severity = QASeverity.WARNING if inside_warn else QASeverity.ALARM
        side, limit = ("below", rule.normal[0]) if value < rule.normal[0] else ("above", rule.normal[1])
        shown = f"{value:.4g} {unit}".strip()
        why = f"{name} = {shown}, {side} the normal {limit:.5g}" + (f": {rule.why}" if rule.why else "")
        return Check(metric, element, severity, value, why=why, **common)  # type: ignore[arg-type]


def learned_folder(settings: Settings) -> Path | None:
    """Where learned ranges are kept: `engine.learned_ranges`, else REDUX/qlstream/ranges; None without a production."""
    if settings.engine.learned_ranges is not None:
        return settings.engine.learned_ranges
    return None if settings.redux is None else settings.redux / "qlstream" / "ranges"
