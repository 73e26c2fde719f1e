"""The night at a glance: when was the shutter open, for what, and how did it go."""

from __future__ import annotations

from bokeh.models import ColumnDataSource, DatetimeTickFormatter, OpenURL, TapTool
from bokeh.plotting import figure

from dashboards.figures.style import plain_figure

FLAVORS = ("zero", "dark", "arc", "flat", "science")
TIMELINE_COLUMNS = (
    "expid", "night", "start", "end", "mid", "flavor", "color", "marker", "word", "what", "exptime", "headline",
)  # fmt: skip


def timeline_figure(source: ColumnDataSource) -> figure:
    """Exposures on the UTC axis, a lane per flavor; color and marker tell the verdict; a click opens the exposure.

    Parameters
    ----------
    source : TIMELINE_COLUMNS; start, end, mid [ms since 1970], exptime [s]
    """
    fig = plain_figure(
        240,
        [("exposure", "@expid @word"), ("what", "@flavor @what"), ("exposed", "@exptime{0.0} s"), ("", "@headline")],
        x_axis_type="datetime",
        y_range=list(reversed(FLAVORS)),
        x_axis_label="UTC",
        tools="xpan,xbox_zoom,xwheel_zoom,reset,save,tap",
    )
    fig.toolbar.active_scroll = None
    fig.ygrid.grid_line_color = None
    bars = fig.hbar(
        y="flavor", left="start", right="end", height=0.62, source=source,
        fill_color="color", fill_alpha=0.45, line_color="color", line_width=1.5,
    )  # fmt: skip
    marks = fig.scatter(
        "mid", "flavor", marker="marker", size=9, source=source, fill_color="color", line_color="color", line_width=1.5
    )
    for glyph in (bars, marks):
        glyph.nonselection_glyph = None
    fig.xaxis.formatter = DatetimeTickFormatter(hours="%H:%M", minutes="%H:%M", seconds="%H:%M:%S", days="%d %b")
    fig.select_one(TapTool).callback = OpenURL(url="/exposure?night=@night&expid=@expid", same_tab=True)
    return fig
