"""Steps of the offline reduction as commands on files: one option per port, one per parameter."""

from __future__ import annotations

import sys
import typing
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from qlstream.calibration.served import MissingCalibration
from qlstream.cli.options import LogLevel
from qlstream.io.errors import BadFile
from qlstream.logging import start_logging
from qlstream.pipeline.filestep import FileStep, Port, StepFiles
from qlstream.pipeline.stepinputs import check_inputs
from qlstream.production.plan import step_class

_FILE = click.Path(path_type=Path)
_OUTPUTS = "An output that is there is replaced, once the new one is whole; a missing folder is made."


def step_command(name: str, reference: str) -> click.Command:
    """The command of a step: `qlstream NAME --input FILE ... --output FILE --parameter VALUE`.

    Parameters
    ----------
    reference : package.module:Class of a FileStep
    """
    klass = step_class(reference)
    parameters: list[click.Parameter] = [_input(port) for port in klass.inputs]
    parameters += [_output(port, first=n == 0) for n, port in enumerate(klass.outputs)]
    parameters += [_parameter(key, info) for key, info in klass.Params.model_fields.items()]
    parameters.append(click.Option(["--no-check"], is_flag=True, help="take inputs that do not seem to fit each other"))
    parameters.append(
        click.Option(["--log-level"], type=LogLevel(), default="WARNING", help="least severity shown; default WARNING")
    )

    def run(log_level: str, no_check: bool, **given: Any) -> None:
        start_logging(log_level, None)
        files = StepFiles(
            {p.name: tuple(_listed(given.pop(p.name))) for p in klass.inputs},
            {p.name: path for p in klass.outputs if (path := given.pop(f"{p.name}_out")) is not None},
        )
        try:
            _spare_inputs(files)
            step = klass({k: v for k, v in given.items() if v is not None})
            if not no_check:
                check_inputs(step, files)
            _run(step, name, files)
        except ValidationError as error:
            wrong = "\n".join(
                f"  --{_flag('-'.join(map(str, e['loc'])))}: {e['msg']}, got {e['input']}" for e in error.errors()
            )
            raise click.UsageError(f"{len(error.errors())} wrong values\n{wrong}") from None
        except (BadFile, MissingCalibration, OSError, ValueError, LookupError) as error:
            raise click.ClickException(_told(error)) from error
        for path in files.outputs.values():
            click.echo(f"wrote {path}")

    return click.Command(name, params=parameters, callback=run, help=klass.title, epilog=_OUTPUTS)


def _run(step: FileStep, name: str, files: StepFiles) -> None:
    columns = (TextColumn("{task.description:40s}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as progress:
        bar = progress.add_task(name, total=1.0)
        step.run(files, lambda share, what: progress.update(bar, completed=share, description=what))


def _spare_inputs(files: StepFiles) -> None:
    """Raises ValueError if an output would replace an input."""
    given = {path.resolve() for paths in files.inputs.values() for path in paths}
    for path in files.outputs.values():
        if path.resolve() in given:
            raise ValueError(f"{path} is an input; give the output another name")


def _told(error: Exception) -> str:
    """The system's own errors without their number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}"
    return str(error)


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _listed(value: Any) -> list[Path]:
    return [] if value is None else list(value) if isinstance(value, tuple) else [value]


def _input(port: Port) -> click.Option:
    told = port.help + ("; may be given several times" if port.many else "")
    kind = click.Path(path_type=Path, exists=True, dir_okay=False)
    return click.Option(
        [f"--{port.option}", port.name],
        type=kind,
        multiple=port.many,
        required=not port.optional,
        help=told,
    )


def _output(port: Port, first: bool) -> click.Option:
    flag = f"--{port.option}-out"
    flags = ["-o", flag] if first else [flag]
    return click.Option([*flags, f"{port.name}_out"], type=_FILE, required=not port.optional, help=port.help)


def _parameter(key: str, info: FieldInfo) -> click.Option:
    """An option of a parameter; its value is validated by the step's model, so that bounds are told once."""
    flags = [f"--{_flag(key)}"]
    if info.alias and info.alias.lower() != key:
        flags.append(f"--{info.alias}")
    told = info.description or ""
    default = "" if info.default in (None, "", ()) else f"  [default: {info.default}]"
    if info.annotation is bool:
        pair = f"--{_flag(key)}/--no-{_flag(key)}"
        return click.Option([pair, key], default=None, help=told + default)
    many = typing.get_origin(info.annotation) is tuple
    return click.Option(
        [*flags, key],
        type=click.Path(path_type=Path, exists=True) if Path in typing.get_args(info.annotation) else None,
        metavar=_metavar(info.annotation),
        default=None,
        multiple=many,
        callback=_none_if_empty if many else None,
        help=told + default,
    )


def _metavar(annotation: Any) -> str | None:
    """How the value of a parameter reads: its choices, or its kind."""
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return f"[{'|'.join(map(str, parts))}]"
    for kind, name in ((float, "NUMBER"), (int, "INTEGER"), (Path, "PATH")):
        if annotation is kind or kind in parts:
            return name
    return None


def _none_if_empty(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> Any:
    return value or None
