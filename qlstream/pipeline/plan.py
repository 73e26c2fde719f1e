"""A plan: which stages an exposure goes through, read from YAML and checked as a whole before a night runs."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qlstream.configs import config_path
from qlstream.datamodel.image import RawCamera
from qlstream.pipeline.algorithm import MonitoringAlg, PipelineAlg

FLAVORS = ("zero", "dark", "arc", "flat", "science")


class PlanError(ValueError):
    """A plan with mistakes; the message names every one with file and key."""


class _Check(BaseModel):
    model_config = ConfigDict(extra="forbid")
    run: str
    params: dict[str, Any] = Field(default_factory=dict)


class _Step(BaseModel):
    model_config = ConfigDict(extra="forbid")
    run: str = Field(description="package.module:Class of a PipelineAlg")
    params: dict[str, Any] = Field(default_factory=dict)
    write: list[str] = Field(default_factory=list, description="products written from this stage's output")
    write_on_request: list[str] = Field(default_factory=list, description="products written only if asked for")
    then_check: list[str | _Check] = Field(default_factory=list, description="package.module:Class of MonitoringAlgs")


class _PlanFile(BaseModel):
    model_config = ConfigDict(extra="forbid")
    flavor: str
    description: str = ""
    steps: list[_Step] = Field(min_length=1)


@dataclass(frozen=True)
class Step:
    """One stage, the metrics that hang off it, and the products that come from it."""

    stage: PipelineAlg[Any, Any]
    checks: tuple[MonitoringAlg[Any], ...]
    write: tuple[str, ...] = ()
    write_on_request: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The stages of one flavor, in order."""

    flavor: str
    steps: tuple[Step, ...]
    path: Path

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a plan; resolve classes, validate parameters and check that each stage fits the one before.

        Raises
        ------
        PlanError : naming every mistake at once
        """
        try:
            content = _PlanFile.model_validate(yaml.safe_load(path.read_text()))
        except (ValidationError, yaml.YAMLError) as error:
            raise PlanError(_listed(path, _messages(error))) from None
        wrong: list[str] = []
        if content.flavor not in FLAVORS:
            wrong.append(f"flavor: {content.flavor!r} is none of {', '.join(FLAVORS)}")
        steps: list[Step] = []
        have: type | None = RawCamera  # None behind a stage that could not be built: its output is unknown
        for i, entry in enumerate(content.steps):
            stage = _build(entry.run, entry.params, PipelineAlg, f"steps.{i}", wrong)
            checks = []
            for j, item in enumerate(entry.then_check):
                spec = _Check(run=item) if isinstance(item, str) else item
                checks.append(_build(spec.run, spec.params, MonitoringAlg, f"steps.{i}.then_check.{j}", wrong))
            if stage is None:
                have = None
                continue
            takes, gives = stage.types()
            if have is not None and not issubclass(have, takes):
                wrong.append(f"steps.{i}.run: {stage.name} takes {takes.__name__}, but gets {have.__name__}")
            names = [s.stage.name for s in steps]
            wrong += [f"steps.{i}.run: {stage.name} needs {n} before it" for n in stage.needs if n not in names]
            have = gives
            for j, check in enumerate(checks):
                if check is not None and not issubclass(gives, check.types()[0]):
                    wrong.append(
                        f"steps.{i}.then_check.{j}: {check.name} judges {check.types()[0].__name__}, "
                        f"but {stage.name} gives {have.__name__}"
                    )
            good = tuple(c for c in checks if c is not None)
            steps.append(Step(stage, good, tuple(entry.write), tuple(entry.write_on_request)))
        if wrong:
            raise PlanError(_listed(path, wrong))
        return cls(content.flavor, tuple(steps), path)


def load_plans(folder: Path | None = None) -> dict[str, Plan]:
    """The plans of every flavor: `folder/FLAVOR.yaml`; default the shipped quicklook plans.

    Raises
    ------
    PlanError : every mistake of every plan
    """
    folder = folder or config_path("plans", "quicklook")
    plans, wrong = {}, []
    for flavor in FLAVORS:
        path = folder / f"{flavor}.yaml"
        try:
            if not path.exists():
                raise PlanError(f"{path}: no plan for {flavor} exposures; each of {', '.join(FLAVORS)} needs one")
            plans[flavor] = Plan.load(path)
        except PlanError as error:
            wrong.append(str(error))
    if wrong:
        raise PlanError("\n".join(wrong))
    return plans


def resolve(reference: str) -> Any:
    """The object that `package.module:Name` names.

    Raises
    ------
    ImportError, AttributeError : it does not exist
    ValueError : the text is not of that form
    """
    module, colon, name = reference.partition(":")
    if not colon or not module or not name:
        raise ValueError(f"{reference!r} is no reference; write package.module:Name")
    return getattr(importlib.import_module(module), name)


def _build(reference: str, params: dict[str, Any], contract: type, where: str, wrong: list[str]) -> Any:
    try:
        klass = resolve(reference)
    except (ImportError, AttributeError, ValueError) as error:
        wrong.append(f"{where}.run: {reference}: {error}")
        return None
    if not (isinstance(klass, type) and issubclass(klass, contract)):
        wrong.append(f"{where}.run: {reference} is no {contract.__name__}")
        return None
    try:
        klass.types()  # type: ignore[attr-defined]
        return klass(params)  # type: ignore[call-arg]
    except ValidationError as error:
        wrong += [f"{where}.params.{m}" for m in _messages(error)]
    except TypeError as error:
        wrong.append(f"{where}.run: {error}")
    return None


def _messages(error: Exception) -> list[str]:
    if isinstance(error, ValidationError):
        return [f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e.get('input')!r}" for e in error.errors()]
    return [str(error)]


def _listed(path: Path, wrong: list[str]) -> str:
    return "\n".join([f"{path}: {len(wrong)} wrong entries", *(f"  {w}" for w in wrong)])
