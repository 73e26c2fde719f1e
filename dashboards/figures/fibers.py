"""Values of each fiber: signal to noise against brightness, spot widths, and any other vector."""

from __future__ import annotations

from collections.abc import Sequence

from bokeh.events import Tap
from bokeh.models import CDSView, ColumnDataSource, CustomJS, GroupFilter, Legend, LegendItem, TapTool
from bokeh.plotting import figure

from dashboards.figures.style import CATEGORIES, plain_figure, style_legend

_MARKERS = ("circle", "triangle", "square", "diamond", "inverted_triangle", "star")


def snr_figure(source: ColumnDataSource, model: ColumnDataSource, classes: Sequence[str]) -> figure:
    """S/N against magnitude: a marker and a color per target class, a line per fit.

    Parameters
    ----------
    source : fiber, camera, target (class), magnitude [AB mag], snr [per row]
    model : xs, ys (lists of lists), camera, target, color
    """
    fig = plain_figure(
        330,
        [("fiber", "@fiber in @camera"), ("class", "@target"), ("mag", "@magnitude{0.00}"), ("S/N", "@snr{0.00}")],
        y_axis_type="log",
        x_axis_label="magnitude in the arm's band [AB mag]",
        y_axis_label="median S/N [per row]",
    )  # fmt: skip
    fig.multi_line("xs", "ys", source=model, line_color="color", line_alpha=0.5, line_width=1.2)
    items = []
    for number, name in enumerate(classes):
        color = CATEGORIES[number % len(CATEGORIES)]
        points = fig.scatter(
            "magnitude", "snr", source=source, view=CDSView(filter=GroupFilter(column_name="target", group=name)),
            marker=_MARKERS[number % len(_MARKERS)], size=6, fill_color=color, fill_alpha=0.55, line_color=color,
        )  # fmt: skip
        items.append(LegendItem(label=name, renderers=[points]))
    legend = Legend(items=items)
    style_legend(legend)
    fig.add_layout(legend, "above")
    return fig


def width_figure(source: ColumnDataSource) -> figure:
    """Spot widths of each fiber, across and along the dispersion.

    Parameters
    ----------
    source : fiber, camera, xsigma, wsigma [pixel]
    """
    fig = plain_figure(
        270,
        [("fiber", "@fiber in @camera"), ("across", "@xsigma{0.000} pixel"), ("along", "@wsigma{0.000} pixel")],
        x_axis_label="FIBER",
        y_axis_label="spot sigma [pixel]",
    )  # fmt: skip
    across = fig.scatter("fiber", "xsigma", source=source, marker="circle", size=5, color=CATEGORIES[0], alpha=0.7)
    along = fig.scatter("fiber", "wsigma", source=source, marker="triangle", size=5, color=CATEGORIES[1], alpha=0.7)
    legend = Legend(items=[("across (x)", [across]), ("along wavelength (w)", [along])])
    style_legend(legend)
    fig.add_layout(legend, "above")
    return fig


def fiber_figure(source: ColumnDataSource, chosen: ColumnDataSource | None = None) -> figure:
    """Any value against FIBER; a click chooses the fiber.

    Parameters
    ----------
    source : fiber, camera, value
    chosen : fiber, value of the one that is looked at
    """
    tools = "pan,box_zoom,wheel_zoom,reset,save,tap"
    fig = plain_figure(
        270, [("fiber", "@fiber in @camera"), ("value", "@value{0.0000}")], x_axis_label="FIBER", tools=tools
    )
    points = fig.scatter("fiber", "value", source=source, size=5, color=CATEGORIES[4], alpha=0.8)
    points.nonselection_glyph = None
    fig.select_one(TapTool).renderers = [points]
    if chosen is not None:
        fig.scatter(
            "fiber", "value", source=chosen, size=14, marker="circle",
            fill_color=None, line_color=CATEGORIES[5], line_width=2.5,
        )  # fmt: skip
        nearest = "const fibers = Array.from(source.data.fiber), off = fibers.map(f => Math.abs(f - cb_obj.x));"
        choose = "choose('fiber', fibers[off.indexOf(Math.min(...off))])"  # of static/live.js: it changes the URL too
        fig.js_on_event(Tap, CustomJS(args={"source": source}, code=nearest + choose))
    return fig
