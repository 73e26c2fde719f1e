"""Static plots of the results of cameras: a page for each metric."""

from __future__ import annotations

import logging
import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from qa.plots import style
from qa.plots.pages import Bars, Panel, Plot2D, Table, load_pages
from qa.plots.panels import NothingToDraw, PanelError, draw_panel, say
from qa.plots.values import NoSuchValue, Results
from qlstream.io.atomic import atomic_path

_log = logging.getLogger("qlstream.plots")

_PANEL = (3.5, 2.7)  # [inch]
_HEAD, _FOOT = 0.75, 0.55  # room for title and summary [inch]
_NARROW = 5.6  # no page is narrower [inch]
_LINES = 3  # of the foot
_FEW = 30  # so many elements are drawn as points
_ROWS = 6  # of a matrix that are drawn without being asked for


class PlotBook:
    """Draws the merged QA of cameras.

    Parameters
    ----------
    config : YAML with the pages; None is the shipped one. A metric that no page of it names gets a plain page of all
        its values.

    Raises
    ------
    PlotConfigError : the configuration has mistakes; all are named
    """

    def __init__(self, config: Path | None = None) -> None:
        self.pages = load_pages(config)

    def draw_each(self, merged: Mapping[str, Any], path_of: Callable[[str], Path]) -> dict[str, Path]:
        """Draw each metric of a camera into the file that `path_of` names; returns metric -> file."""
        written = {}
        for name, figure in self.figures(merged):
            path = path_of(name)
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format=path.suffix[1:], dpi=130)
            written[name] = path
        return written

    def draw_book(self, cameras: Iterable[Mapping[str, Any]], path: Path) -> int:
        """Draw all metrics of all cameras into one PDF; returns the number of pages."""
        count = 0
        with atomic_path(path) as temporary, PdfPages(temporary) as book:
            for merged in cameras:
                for _, figure in self.figures(merged):
                    book.savefig(figure)
                    count += 1
        return count

    def figures(self, merged: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
        """(metric, its page) of a camera, in the order of its stages."""
        for stage in merged["STAGES"].values():
            for name, result in stage["QA"].items():
                yield name, self._figure(Results(result, merged), merged)

    def _figure(self, results: Results, merged: Mapping[str, Any]) -> Figure:
        title, panels = self._page_of(results)
        columns = max(math.ceil(math.sqrt(len(panels))), 1)
        rows = max(math.ceil(len(panels) / columns), 1)
        width, height = max(_PANEL[0] * columns, _NARROW), _PANEL[1] * rows + _HEAD + _FOOT
        room = (0.01, _FOOT / height, 0.98, 1 - (_HEAD + _FOOT) / height)
        layout = ConstrainedLayoutEngine(rect=room, w_pad=0.08, h_pad=0.08)
        figure = Figure(figsize=(width, height), layout=layout)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        for axes, panel in zip(grid, panels, strict=False):
            try:
                draw_panel(axes, panel, results)
            except (NoSuchValue, PanelError) as error:
                if not isinstance(error, NothingToDraw):
                    _log.warning("%s of %s: %s", results.result["name"], merged["CAMERA"], error)
                axes.clear()
                say(axes, str(error))
        if not panels:
            say(grid[0], results.result["summary"] or "no values")
        _write_head(figure, title, results.result, merged)
        _write_foot(figure, results.result)
        return figure

    def _page_of(self, results: Results) -> tuple[str, list[Panel]]:
        """The panels that show values of this metric, with the title of the last page that has any; else plain ones."""
        panels: list[Panel] = []
        title = ""
        for page in self.pages:
            if page.metrics and results.result["name"] not in page.metrics:
                continue
            own = [panel for panel in page.panels if any(name in results for name in panel.main)]
            if own:
                panels += own
                title = page.title or title
        return (title, panels) if panels else (results.result["name"], plain_panels(results))


def plain_panels(results: Results) -> list[Panel]:
    """A panel for every number that a metric gives."""
    result = results.result
    panels: list[Panel] = []
    if result["metrics"]:
        panels.append(Table(TYPE="TABLE", VALS=list(result["metrics"])))
    panels += [
        Bars(TYPE="BARS", VALS=key) for group in ("per_amp", "per_class") for key, v in result[group].items() if v
    ]
    panels += [Plot2D(TYPE="2DPLOT", XVALS="FIBER", YVALS=[k]) for k in result["per_fiber"] if results.has_numbers(k)]
    for key, value in result["vectors"].items():
        series = results.find(key)
        if not results.has_numbers(key):
            continue
        names = [key] if series.values.ndim == 1 else [f"{key}[{i}]" for i in range(min(len(value), _ROWS))]
        few = series.values.shape[-1] <= _FEW
        panels.append(
            Plot2D(TYPE="2DPLOT", XVALS="INDEX", YVALS=names, STYLE="points" if few else "line", PLOT_TITLE=key)
        )
    return panels


def _write_head(figure: Figure, title: str, result: Mapping[str, Any], merged: Mapping[str, Any]) -> None:
    """What is shown, of which camera, and the verdict in words beside its color."""
    width, height = figure.get_size_inches()
    color, _ = style.VERDICTS[result["severity"]]
    what = merged["FLAVOR"] + (f" ({merged['PROGRAM']})" if merged.get("PROGRAM") else "")
    where = f"night {merged['NIGHT']}   exposure {merged['EXPID']}   {merged['CAMERA']}   {what}"
    left = 0.12 / width
    figure.text(left, 1 - 0.28 / height, title or result["name"], fontsize=13, color=style.INK, va="center")
    figure.text(left, 1 - 0.56 / height, f"{where}   {result['name']}", fontsize=8.5, color=style.INK, va="center")
    figure.text(
        1 - left, 1 - 0.28 / height, result["severity"], ha="right", va="center", fontsize=11, color="white",
        fontweight="bold", bbox={"facecolor": color, "edgecolor": "none", "boxstyle": "round,pad=0.35"},
    )  # fmt: skip


def _write_foot(figure: Figure, result: Mapping[str, Any]) -> None:
    """The sentence of the metric, and what is not normal."""
    width, height = figure.get_size_inches()
    wrong = [check["why"] for check in result["checks"] if check["severity"] != "NORMAL" and check["why"]]
    sentences = [result["summary"], *wrong] if result["summary"] not in wrong else wrong
    lines = [line for text in sentences for line in textwrap.wrap(text, int(width * 15.5))]
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], f"... and {len(lines) - _LINES + 1} more lines"]
    figure.text(
        0.12 / width, (_FOOT - 0.08) / height, "\n".join(lines), fontsize=7.5, color=style.INK, va="top",
        linespacing=1.25, parse_math=False,
    )  # fmt: skip
