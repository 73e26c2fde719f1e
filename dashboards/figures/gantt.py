"""Where the time went: from the complete file to the last result of each camera."""

from __future__ import annotations

from collections.abc import Iterable

from bokeh.models import ColumnDataSource
from bokeh.plotting import figure

from dashboards.figures.style import CATEGORIES, plain_figure

GANTT_COLUMNS = ("camera", "stage", "left", "right", "color", "alpha", "state", "wall", "cpu", "peak")
WAITING = "waiting for a worker"


def gantt_figure(source: ColumnDataSource, cameras: list[str]) -> figure:
    """A bar per stage, a row per camera.

    Parameters
    ----------
    source : GANTT_COLUMNS; left, right [s since the file was complete], wall, cpu [s], peak [MB]
    cameras : rows from top to bottom
    """
    fig = plain_figure(
        gantt_height(len(cameras)),
        [("@camera", "@stage @state"), ("took", "@wall{0.00} s, CPU @cpu{0.00} s"), ("peak", "@peak{0} MB")],
        y_range=cameras[::-1] or ["-"],
        x_axis_label="time since the file was complete [s]",
    )  # fmt: skip
    fig.ygrid.grid_line_color = None
    fig.hbar(
        y="camera", left="left", right="right", height=0.7, source=source,
        fill_color="color", fill_alpha="alpha", line_color=None,
    )  # fmt: skip
    return fig


def gantt_height(cameras: int) -> int:
    """Height of the figure for so many rows [screen pixel]."""
    return 90 + 17 * max(cameras, 2)


def stage_colors(stages: Iterable[str]) -> dict[str, str]:
    """A color for each stage, in the order of the plan."""
    return {stage: CATEGORIES[i % len(CATEGORIES)] for i, stage in enumerate(stages)}
