"""A plan as it stands in a YAML file: its steps, or what it adds to another plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qlstream.configs import config_path

SHIPPED = "quicklook"  # how a plan names the shipped one of its flavor
_NOT_A_PLAN = (
    "a QuickLook configuration with Pipeline and Algorithms; a plan lists its stages under `steps`, each with its "
    "params and then_check (docs/process-one-camera.md shows one beside the other)"
)


class PlanError(ValueError):
    """A plan with mistakes; the message names every one with file and key."""


class CheckEntry(BaseModel):
    """A metric with its parameters."""

    model_config = ConfigDict(extra="forbid")
    run: str
    params: dict[str, Any] = Field(default_factory=dict)


class StepEntry(BaseModel):
    """A stage, and the metrics that hang off it."""

    model_config = ConfigDict(extra="forbid")
    run: str = Field(description="package.module:Class of a PipelineAlg")
    params: dict[str, Any] = Field(default_factory=dict)
    write: list[str] = Field(default_factory=list, description="products written from this stage's output")
    write_on_request: list[str] = Field(default_factory=list, description="products written only if asked for")
    dump: bool = Field(False, description="write what is written on request without being asked")
    then_check: list[str | CheckEntry] = Field(
        default_factory=list, description="package.module:Class of MonitoringAlgs"
    )

    @property
    def name(self) -> str:
        """Of the stage, as far as the text tells it."""
        return self.run.rpartition(":")[2]


class Addition(BaseModel):
    """What is added behind a stage of the plan that is extended."""

    model_config = ConfigDict(extra="forbid")
    after: str = Field(description="name of a stage")
    steps: list[StepEntry] = Field(default_factory=list, description="stages that follow it")
    then_check: list[str | CheckEntry] = Field(default_factory=list, description="metrics that hang off it, too")


class PlanFile(BaseModel):
    """The content of a plan's file."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    flavor: str
    description: str = ""
    heartbeat_s: float = Field(5.0, gt=0, alias="Period", description="between signs of life of a stage [s]")
    slow_s: float = Field(120.0, gt=0, alias="Timeout", description="a stage that takes longer is warned of [s]")
    steps: list[StepEntry] = Field(default_factory=list)
    extends: str = Field(
        "", description="the plan that this one adds to: quicklook, for the shipped one, or a file beside this one"
    )
    add: list[Addition] = Field(default_factory=list, description="in the order in which they are added")

    @model_validator(mode="after")
    def _has_steps_or_a_base(self) -> PlanFile:
        if bool(self.steps) == bool(self.extends):
            raise ValueError("a plan lists its stages under `steps`, or adds to the plan that it `extends`")
        if self.add and not self.extends:
            raise ValueError("`add` adds to the plan that is named by `extends`, and there is none")
        return self


def read_plan_file(path: Path) -> PlanFile:
    """The plan with all its steps: those of the plan it extends, too.

    Raises
    ------
    PlanError : naming every mistake of the file
    """
    return _read(path, ())


def messages(error: Exception) -> list[str]:
    """What is wrong, key by key."""
    if isinstance(error, ValidationError):
        return [f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e.get('input')!r}" for e in error.errors()]
    return [str(error)]


def listed(path: Path, wrong: list[str]) -> str:
    """Every mistake of a file, one a line."""
    return "\n".join([f"{path}: {len(wrong)} wrong entries", *(f"  {w}" for w in wrong)])


def _read(path: Path, extending: tuple[Path, ...]) -> PlanFile:
    try:
        given = yaml.safe_load(path.read_text())
        if isinstance(given, Mapping) and {"Pipeline", "Algorithms"} & set(given):
            raise PlanError(listed(path, [_NOT_A_PLAN]))
        content = PlanFile.model_validate(given)
    except (OSError, UnicodeDecodeError, ValidationError, yaml.YAMLError) as error:
        raise PlanError(listed(path, messages(error))) from None
    if not content.extends:
        return content
    base_path = _base_path(path, content)
    if base_path.resolve() in (p.resolve() for p in (path, *extending)):
        raise PlanError(listed(path, [f"extends: {content.extends} leads back to this plan"]))
    base = _read(base_path, (path, *extending))
    wrong = []
    if base.flavor != content.flavor:
        wrong.append(f"extends: {base_path} is a plan for {base.flavor} exposures, this one for {content.flavor}")
    steps = [step.model_copy(deep=True) for step in base.steps]
    for i, addition in enumerate(content.add):
        at = next((n for n, step in enumerate(steps) if step.name == addition.after), None)
        if at is None:
            names = ", ".join(step.name for step in steps)
            wrong.append(f"add.{i}.after: no stage {addition.after!r} in {base_path}; there are {names}")
            continue
        steps[at].then_check += addition.then_check
        steps[at + 1 : at + 1] = addition.steps
    if wrong:
        raise PlanError(listed(path, wrong))
    return content.model_copy(update={"steps": steps, "extends": "", "add": []})


def _base_path(path: Path, content: PlanFile) -> Path:
    if content.extends == SHIPPED:
        return config_path("plans", SHIPPED, f"{content.flavor}.yaml")
    return path.parent / content.extends
