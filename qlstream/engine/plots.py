"""Static plots of results that are there already; who draws them is a setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from qlstream.engine.qafiles import qa_path
from qlstream.pipeline.plan import resolve
from qlstream.settings import Settings, SettingsError


class PlotMaker(Protocol):
    """Draws the merged QA of cameras; made with the path of a YAML plot configuration, or None for its own.

    It raises ValueError with every mistake if the configuration has some.
    """

    def draw_each(self, merged: Mapping[str, Any], path_of: Callable[[str], Path]) -> dict[str, Path]:
        """Draw each metric of a camera into the file that `path_of` names; returns metric -> file."""

    def draw_book(self, cameras: Iterable[Mapping[str, Any]], path: Path) -> int:
        """Draw all metrics of all cameras into one PDF; returns the number of pages."""


def plot_maker(settings: Settings) -> PlotMaker:
    """What draws the plots, by the settings.

    Raises
    ------
    SettingsError : there is no such class
    ValueError : the plot configuration has mistakes; all are named
    """
    try:
        made = resolve(settings.plots.maker)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError([f"plots.maker: {settings.plots.maker} cannot be imported: {error}"]) from error
    maker: PlotMaker = made(settings.plots.config)
    return maker


def write_plots(
    maker: PlotMaker, merged: Mapping[str, Any], redux: Path, suffix: str, folder: Path | None = None
) -> dict[str, Path]:
    """Draw each metric of a camera as `ql-STEM-CAMERA-EXPID.SUFFIX`; returns metric -> file.

    The files stand beside the results, or in `folder`.
    """
    night, expid, camera = merged["NIGHT"], merged["EXPID"], merged["CAMERA"]

    def path_of(metric: str) -> Path:
        path = qa_path(redux, metric, night, expid, camera, suffix)
        return path if folder is None else folder / path.name

    return maker.draw_each(merged, path_of)
