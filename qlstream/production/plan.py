"""The offline plan: which class does each kind of task, with which parameters; read from YAML, checked as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qlstream.configs import config_path
from qlstream.pipeline.filestep import FileStep
from qlstream.pipeline.plan import PlanError, resolve
from qlstream.production.kinds import KINDS


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")
    run: str = Field(description="package.module:Class of a FileStep")
    params: dict[str, Any] = Field(default_factory=dict)
    arms: dict[str, dict[str, Any]] = Field(default_factory=dict, description="arm -> parameters that differ there")


class _PlanFile(BaseModel):
    model_config = ConfigDict(extra="forbid")
    description: str = ""
    steps: dict[str, _Entry]


@dataclass(frozen=True)
class OfflinePlan:
    """Kind of task -> its step.

    Attributes
    ----------
    steps : kind -> dotted path of its class
    params : kind -> arm ("" for all others) -> parameters
    """

    steps: Mapping[str, str]
    params: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | None = None) -> OfflinePlan:
        """Read and check a plan; default is the shipped one.

        Raises
        ------
        PlanError : naming every mistake at once
        """
        path = path or config_path("plans", "offline.yaml")
        try:
            content = _PlanFile.model_validate(yaml.safe_load(path.read_text()))
        except (ValidationError, yaml.YAMLError) as error:
            raise PlanError(f"{path}: {error}") from None
        known = {kind.name for kind in KINDS}
        unknown = [name for name in content.steps if name not in known]
        wrong = [f"steps.{name}: no such kind of task; there are {', '.join(known)}" for name in unknown]
        params: dict[str, dict[str, dict[str, Any]]] = {}
        for name, entry in content.steps.items():
            params[name] = {"": entry.params, **{arm: entry.params | own for arm, own in entry.arms.items()}}
            try:
                klass = step_class(entry.run)
                for given in params[name].values():
                    klass(dict(given))
            except (ImportError, AttributeError, TypeError, ValueError) as error:
                wrong.append(f"steps.{name}: {entry.run}: {error}")
        if wrong:
            raise PlanError("\n".join([f"{path}: {len(wrong)} wrong entries", *(f"  {w}" for w in wrong)]))
        return cls({name: entry.run for name, entry in content.steps.items()}, params)

    def available(self, surroundings: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, str]]:
        """Kinds that can be done on this machine, and why the others cannot; `surroundings` as in `step`."""
        why = {kind: reason for kind in self.steps if (reason := self._unavailable(kind, surroundings))}
        return tuple(kind for kind in self.steps if kind not in why), why

    def _unavailable(self, kind: str, surroundings: Mapping[str, Any]) -> str:
        step = self.step(kind, surroundings=surroundings)
        return step.unavailable(step.params)

    def step(self, kind: str, arm: str = "", surroundings: Mapping[str, Any] | None = None) -> FileStep:
        """The step of a kind of task, with the parameters of an arm.

        Parameters
        ----------
        surroundings : values by name (camera, calib, redux ...) for those steps that have such parameters
        """
        klass = step_class(self.steps[kind])
        choices = self.params.get(kind, {"": {}})
        around = {k: v for k, v in (surroundings or {}).items() if k in klass.Params.model_fields}
        return klass(around | dict(choices.get(arm, choices[""])))


def step_class(reference: str) -> type[FileStep]:
    """The FileStep that `package.module:Class` names.

    Raises
    ------
    ImportError, AttributeError, ValueError : it does not exist
    TypeError : it is no FileStep
    """
    klass = resolve(reference)
    if not (isinstance(klass, type) and issubclass(klass, FileStep)):
        raise TypeError(f"{reference} is no FileStep")
    return klass
