"""Options and types of values that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import click

from qlstream.io.nights import validate_night

F = TypeVar("F", bound=Callable[..., Any])

_FOLDER = click.Path(path_type=Path)


class Night(click.ParamType):  # type: ignore[type-arg]
    """A night YYYYMMDD that exists in the calendar."""

    name = "night"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            validate_night(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return int(value)


class Speed(click.ParamType):  # type: ignore[type-arg]
    """A factor > 0, or "max" for infinity."""

    name = "speed"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, str) and value.lower() == "max":
            return math.inf
        try:
            speed = float(value)
        except (TypeError, ValueError):
            speed = math.nan
        if not speed > 0:
            self.fail(f"{value!r} is no speed; expected a number above 0, or max", param, ctx)
        return speed


class LogLevel(click.ParamType):  # type: ignore[type-arg]
    """DEBUG, INFO, WARNING or ERROR, or the number that Python's logging has for it."""

    name = "level"
    _NAMES: ClassVar = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR"}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).strip().upper()
        if text.isdigit():
            text = self._NAMES.get(min(int(text), 40) // 10 * 10, "DEBUG")
        if text not in self._NAMES.values():
            self.fail(f"{value!r} is no level; expected 10, 20, 30, 40, DEBUG, INFO, WARNING or ERROR", param, ctx)
        return text


class Words(click.ParamType):  # type: ignore[type-arg]
    """Words with commas between them."""

    name = "words"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(part.strip() for part in parts if part.strip())


def raw_option(command: F) -> F:
    return click.option("--raw", type=_FOLDER, help="folder of raw exposures, NIGHT/EXPID/desi-EXPID.fits.fz")(command)


def calib_option(command: F) -> F:
    return click.option("--calib", type=_FOLDER, help="calibration tree (DESI_SPECTRO_CALIB)")(command)


def redux_options(command: F) -> F:
    """--redux, --store and --config: where results are, for commands that write and that read them."""
    for option in (
        click.option("--config", type=_FOLDER, help="YAML file with the site's settings"),
        click.option("--store", metavar="URL", help="store; default sqlite:///REDUX/qlstream.db"),
        click.option("--redux", type=_FOLDER, help="production folder"),
    ):
        command = option(command)
    return command


def service_options(command: F) -> F:
    """Options of the commands that process exposures."""
    for option in (
        click.option("--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]), help="least severity"),
        click.option("--instrument", help="name, YAML file, or auto for what the headers say"),
        click.option("--workers", type=int, metavar="N", help="worker processes; default one per core"),
        click.option("--once", is_flag=True, help="end when everything found is processed; status 0 if nothing failed"),
        click.option("--offline", is_flag=True, default=None, help="reduce exposures completely as they finish"),
        click.option("--no-dashboard", is_flag=True, help="do not serve the pages"),
        click.option("--port", type=int, metavar="N", help="port of the dashboard; 0 takes a free one"),
    ):
        command = option(command)
    return calib_option(raw_option(redux_options(command)))
