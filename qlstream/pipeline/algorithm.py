"""The two contracts of the framework: a PipelineAlg transforms data, a MonitoringAlg judges it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict

from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

In = TypeVar("In")
Out = TypeVar("Out")


class StageParams(BaseModel):
    """Parameters of a stage; every field has a default, bounds where they make sense, and a description with its unit.

    A field's alias is the name that users of the seed know (e.g. FullWidth).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class _Algorithm:
    """Construction and self-description, common to both contracts."""

    Params: ClassVar[type[StageParams]] = StageParams

    def __init__(self, params: StageParams | dict[str, Any] | None = None) -> None:
        """Raises pydantic.ValidationError if `params` do not fit the Params model."""
        self.params: Any = params if isinstance(params, self.Params) else self.Params.model_validate(params or {})

    @property
    def name(self) -> str:
        return type(self).__name__

    @classmethod
    def get_default_config(cls) -> tuple[tuple[str, Any, str], ...]:
        """(name, default, comment) of each parameter, in the order of declaration."""
        return tuple((n, f.default, f.description or "") for n, f in cls.Params.model_fields.items())


class PipelineAlg(_Algorithm, ABC, Generic[In, Out]):
    """One processing step. Subclass as `class Extract_QP(PipelineAlg[Image, QFrame])`.

    The two types are checked along the chain when a plan is loaded, so that no wrong plan meets a night.

    Attributes
    ----------
    needs : names of earlier stages without whose success this one makes no sense; if one of them was
        skipped, this one is skipped with that reason. Of several names in one entry any one will do:
        (("SkySub", "SkySub_QL"),)
    aside : True for a stage whose output stands beside the chain (a sky model): the next stage gets what this
        one got, and finds the output in `context.earlier`
    """

    needs: ClassVar[tuple[str | tuple[str, ...], ...]] = ()
    aside: ClassVar[bool] = False

    @abstractmethod
    def run(self, data: In, context: Context) -> Out:
        """Transform `data`; leave it unchanged.

        Raises
        ------
        MissingCalibration : the stage is then skipped with that reason
        """

    @classmethod
    def needed(cls) -> tuple[tuple[str, ...], ...]:
        """`needs`, each entry as the names of which any one will do."""
        return tuple((entry,) if isinstance(entry, str) else entry for entry in cls.needs)

    @classmethod
    def types(cls) -> tuple[type, type]:
        """(input type, output type) as declared in the class statement."""
        found = _declared(cls, PipelineAlg)
        return found[0], found[1]


class MonitoringAlg(_Algorithm, ABC, Generic[In]):
    """One metric on the output of a stage. Subclass as `class Get_RMS(MonitoringAlg[Image])`.

    Attributes
    ----------
    title : what the metric tells an observer, in a few words
    """

    title: ClassVar[str] = ""

    @abstractmethod
    def run(self, data: In, context: Context) -> QAResult:
        """Measure; return a result that is graded against `context.ranges`."""

    @classmethod
    def types(cls) -> tuple[type]:
        """(input type,) as declared in the class statement."""
        return (_declared(cls, MonitoringAlg)[0],)


def _declared(cls: type, contract: type) -> tuple[type, ...]:
    for klass in cls.__mro__:
        for base in getattr(klass, "__orig_bases__", ()):
            if get_origin(base) is contract:
                args = get_args(base)
                if not any(isinstance(a, TypeVar) for a in args):
                    return tuple(a if isinstance(a, type) else object for a in args)
    raise TypeError(
        f"{cls.__module__}.{cls.__qualname__} does not declare its types; "
        f"write class {cls.__name__}({contract.__name__}[...]) with its data types"
    )
