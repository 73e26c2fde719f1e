"""A plan: which stages an exposure goes through, read from YAML and checked as a whole before a night runs."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from qlstream.configs import config_path
from qlstream.datamodel.image import RawCamera
from qlstream.io.products import PRODUCTS, can_make
from qlstream.pipeline.algorithm import MonitoringAlg, PipelineAlg
from qlstream.pipeline.planfile import CheckEntry, PlanError, listed, messages, read_plan_file

FLAVORS = ("zero", "dark", "arc", "flat", "science")


@dataclass(frozen=True)
class Step:
    """One stage, the metrics that hang off it, and the products that come from it."""

    stage: PipelineAlg[Any, Any]
    checks: tuple[MonitoringAlg[Any], ...]
    write: tuple[str, ...] = ()
    write_on_request: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The stages of one flavor, in order.

    Attributes
    ----------
    flavor, steps, path : what it is for, what it does, where it was read
    heartbeat_s : time between signs of life of a stage [second]
    slow_s : a stage that takes longer is warned of [second]
    """

    flavor: str
    steps: tuple[Step, ...]
    path: Path
    heartbeat_s: float = 5.0
    slow_s: float = 120.0

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a plan; resolve classes, validate parameters and check that each stage fits the one before.

        Raises
        ------
        PlanError : naming every mistake at once
        """
        content = read_plan_file(path)
        wrong: list[str] = []
        if content.flavor not in FLAVORS:
            wrong.append(f"flavor: {content.flavor!r} is none of {', '.join(FLAVORS)}")
        steps: list[Step] = []
        have: type | None = RawCamera  # None behind a stage that could not be built: its output is unknown
        for i, entry in enumerate(content.steps):
            stage = _build(entry.run, entry.params, PipelineAlg, f"steps.{i}", wrong)
            checks = []
            for j, item in enumerate(entry.then_check):
                spec = CheckEntry(run=item) if isinstance(item, str) else item
                checks.append(_build(spec.run, spec.params, MonitoringAlg, f"steps.{i}.then_check.{j}", wrong))
            if stage is None:
                have = None
                continue
            takes, gives = stage.types()
            if have is not None and not issubclass(have, takes):
                wrong.append(f"steps.{i}.run: {stage.name} takes {takes.__name__}, but gets {have.__name__}")
            names = [s.stage.name for s in steps]
            for wanted in stage.needed():
                if not any(n in names for n in wanted):
                    wrong.append(f"steps.{i}.run: {stage.name} needs {' or '.join(wanted)} before it")
            have = have if stage.aside else gives
            for key, kinds in (("write", entry.write), ("write_on_request", entry.write_on_request)):
                wrong += [f"steps.{i}.{key}: {problem}" for problem in _wrong_products(kinds, stage, gives)]
            for j, check in enumerate(checks):
                if check is not None and not issubclass(gives, check.types()[0]):
                    wrong.append(
                        f"steps.{i}.then_check.{j}: {check.name} judges {check.types()[0].__name__}, "
                        f"but {stage.name} gives {gives.__name__}"
                    )
            good = tuple(c for c in checks if c is not None)
            asked = (*entry.write, *entry.write_on_request) if entry.dump else tuple(entry.write)
            steps.append(Step(stage, good, asked, tuple(entry.write_on_request)))
        if wrong:
            raise PlanError(listed(path, wrong))
        return cls(content.flavor, tuple(steps), path, content.heartbeat_s, content.slow_s)

    @property
    def products(self) -> tuple[str, ...]:
        """The kinds of products that its stages write, or can write on request."""
        kinds = (kind for step in self.steps for kind in (*step.write, *step.write_on_request))
        return tuple(dict.fromkeys(kinds))

    @property
    def checks(self) -> tuple[tuple[str, str], ...]:
        """(stage, metric) of every metric, in order."""
        return tuple((step.stage.name, check.name) for step in self.steps for check in step.checks)

    def with_params(self, **values: Any) -> Plan:
        """This plan with other values for every parameter of one of these names, or seed names, in any stage.

        Raises
        ------
        PlanError : no stage has such a parameter, or a value does not fit
        """
        wrong, steps, met = [], list(self.steps), set()
        for i, step in enumerate(steps):
            fields = step.stage.Params.model_fields
            new = {n: values[k] for n, f in fields.items() for k in (n, f.alias) if k is not None and k in values}
            if not new:
                continue
            met |= {k for n in new for k in (n, fields[n].alias) if k in values}
            try:
                steps[i] = replace(step, stage=type(step.stage)(step.stage.params.model_dump() | new))
            except ValidationError as error:
                wrong += [f"{step.stage.name}: {message}" for message in messages(error)]
        wrong += [f"{name}: no stage of this plan has such a parameter" for name in values if name not in met]
        if wrong:
            raise PlanError(listed(self.path, wrong))
        return replace(self, steps=tuple(steps))

    def only(self, metric: str) -> Plan:
        """The stages up to the one that a metric hangs off, and of all metrics that one alone.

        Parameters
        ----------
        metric : NAME of a metric of this plan, or package.module:NAME of any; NAME@STAGE says which stage it judges

        Raises
        ------
        PlanError : no such metric; the message lists those of the plan
        """
        name, _, stage = metric.partition("@")
        names = [step.stage.name for step in self.steps]
        if stage and stage not in names:
            raise PlanError(f"no stage {stage!r} in {self.path}; there are {', '.join(names)}")
        if ":" in name:
            at, check = self._foreign(name, stage)
        else:
            found = [
                (i, check)
                for i, step in enumerate(self.steps)
                for check in step.checks
                if check.name.lower() == name.lower() and stage in ("", step.stage.name)
            ]
            if not found:
                known = ", ".join(f"{check}@{at}" for at, check in self.checks)
                raise PlanError(
                    f"no metric {metric!r} in {self.path}; there are {known}; "
                    "any other can be given as package.module:Class"
                )
            if len(found) > 1:
                where = " or ".join(f"{name}@{names[i]}" for i, _ in found)
                raise PlanError(f"{name} judges {len(found)} stages of {self.path}; say which: {where}")
            at, check = found[0]
        steps = [replace(step, checks=()) for step in self.steps[:at]]
        return replace(self, steps=(*steps, replace(self.steps[at], checks=(check,))))

    def _foreign(self, reference: str, stage: str) -> tuple[int, MonitoringAlg[Any]]:
        """A metric that the plan does not name, and the step that gives what it judges."""
        wrong: list[str] = []
        check = _build(reference, {}, MonitoringAlg, reference, wrong)
        if check is None:
            raise PlanError("\n".join(wrong))
        takes = check.types()[0]
        fits = [i for i, step in enumerate(self.steps) if issubclass(step.stage.types()[1], takes)]
        chosen = [i for i in fits if stage in ("", self.steps[i].stage.name)]
        if len(chosen) != 1:
            choices = ", ".join(f"{reference}@{self.steps[i].stage.name}" for i in fits)
            raise PlanError(
                f"{check.name} judges {takes.__name__}; "
                + (f"say which stage's: {choices}" if fits else f"no stage of {self.path} gives one")
            )
        return chosen[0], check


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


def require_products(plans: Iterable[Plan], kinds: Iterable[str]) -> None:
    """Check that products asked for can be written.

    Raises
    ------
    PlanError : naming every kind that no stage of any of the plans gives
    """
    plans = tuple(plans)
    known = tuple(dict.fromkeys(kind for plan in plans for kind in plan.products))
    wrong = [
        f"  {kind}: " + ("no stage here gives it" if kind in PRODUCTS else "no such product")
        for kind in dict.fromkeys(kinds)
        if kind not in known
    ]
    if wrong:
        where = ", ".join(dict.fromkeys(plan.flavor for plan in plans))
        lines = [f"{len(wrong)} products cannot be written from {where} exposures", *wrong]
        raise PlanError("\n".join([*lines, f"there are {', '.join(known)}"]))


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
        wrong += [f"{where}.params.{m}" for m in messages(error)]
    except TypeError as error:
        wrong.append(f"{where}.run: {error}")
    return None


def _wrong_products(kinds: Iterable[str], stage: PipelineAlg[Any, Any], gives: type) -> list[str]:
    wrong = []
    for kind in kinds:
        if kind not in PRODUCTS:
            wrong.append(f"no product {kind!r}; there are {', '.join(PRODUCTS)}")
        elif not can_make(kind, gives):
            wrong.append(f"{stage.name} gives {gives.__name__}, which makes no {kind}")
    return wrong
