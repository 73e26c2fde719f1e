"""The contract of a step of the offline reduction: files in, files out, one process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from qlstream.pipeline.algorithm import StageParams

Report = Callable[[float, str], None]  # share done (0 to 1), what is being done


@dataclass(frozen=True)
class Port:
    """One input or output of a step.

    Attributes
    ----------
    name : also the option of its command: "stdstars" becomes --stdstars
    help : what the file is
    many : any number of files, at least one unless optional
    optional : may be left out
    holds : the product that it must be, as `stepinputs.Told` names it; "" for any
    flavor : of the exposure that it must be of; "" for any
    same_exposure : all such inputs of a step are of one exposure
    """

    name: str
    help: str
    many: bool = False
    optional: bool = False
    holds: str = ""
    flavor: str = ""
    same_exposure: bool = False

    @property
    def option(self) -> str:
        return self.name.replace("_", "-")


@dataclass(frozen=True)
class StepFiles:
    """The files of one run of a step, by the names of its ports."""

    inputs: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    outputs: Mapping[str, Path] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Path:
        """The one file of an input.

        Raises
        ------
        FileNotFoundError : it was not given
        """
        given = self.inputs.get(name, ())
        if not given:
            raise FileNotFoundError(f"input {name!r} was not given")
        return given[0]

    def get(self, name: str) -> Path | None:
        """The file of an optional input, or None."""
        given = self.inputs.get(name, ())
        return given[0] if given else None

    def all(self, name: str) -> tuple[Path, ...]:
        """All files of an input, in the order given."""
        return self.inputs.get(name, ())

    def out(self, name: str) -> Path | None:
        """Where an output goes; None if it is optional and not wanted."""
        return self.outputs.get(name)


class FileStep(ABC):
    """One step of the offline reduction.

    A step reads its inputs, and writes each output by a temporary name that is renamed when it is whole (the writers of
    `qlstream.io` do); it keeps no state. The command line, the production and tests run it through `run`.

    Attributes
    ----------
    title : what it does, one sentence: the help of its command
    inputs, outputs : its files
    one_camera : all inputs belong to one camera
    """

    title: ClassVar[str] = ""
    inputs: ClassVar[tuple[Port, ...]] = ()
    outputs: ClassVar[tuple[Port, ...]] = ()
    one_camera: ClassVar[bool] = True
    Params: ClassVar[type[StageParams]] = StageParams

    def __init__(self, params: StageParams | dict[str, Any] | None = None) -> None:
        """Raises pydantic.ValidationError if `params` do not fit the Params model."""
        self.params: Any = params if isinstance(params, self.Params) else self.Params.model_validate(params or {})

    @classmethod
    def unavailable(cls, params: StageParams) -> str:
        """Why the step cannot run on this machine, e.g. for lack of an optional program; "" if it can."""
        return ""

    @abstractmethod
    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        """Make the outputs.

        Raises
        ------
        MissingCalibration : something it needs is not there; the step is skipped with that reason
        BadFile, ValueError : an input cannot be used; the message names file and value
        """
