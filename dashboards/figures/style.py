"""The common look. Colors of axes, grids and labels come from `static/dashboard.css`, so they follow its theme."""

from __future__ import annotations

from typing import Any

from bokeh.models import HoverTool, Legend
from bokeh.plotting import figure

# Okabe & Ito (2008), in an order that keeps neighbours apart for color-blind eyes; yellow is too pale on white
CATEGORIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a94a0", "#a6761d")
FONT = "system-ui, sans-serif"
NEUTRAL = "#8a94a0"  # readable on dark and on light ground


def plain_figure(height: int, tooltips: list[tuple[str, str]] | None = None, **kwargs: Any) -> figure:
    """An empty figure in the house style: as wide as its place, on the ground of the page.

    Parameters
    ----------
    tooltips : (label, field) pairs shown under the pointer; None for a figure that adds its own
    """
    tools = kwargs.pop("tools", "pan,box_zoom,wheel_zoom,reset,save")
    fig = figure(height=height, sizing_mode="stretch_width", tools=tools, min_border=6, **kwargs)
    fig.background_fill_color = None
    fig.border_fill_color = None
    fig.outline_line_color = None
    fig.toolbar.logo = None
    fig.toolbar.autohide = True
    if "wheel_zoom" in tools:
        fig.toolbar.active_scroll = None  # the wheel scrolls the page until it is asked to zoom
    for axis in fig.axis:
        axis.minor_tick_line_color = None
        axis.major_tick_in = 0
        axis.axis_label_text_font = axis.major_label_text_font = FONT
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = "13px"
        axis.major_label_text_font_size = "12px"
    if tooltips:
        fig.add_tools(HoverTool(tooltips=tooltips))
    return fig


def style_legend(legend: Legend) -> None:
    """A legend that hides no data: on the ground of the page, one line, a click hides and shows an entry."""
    legend.orientation = "horizontal"
    legend.background_fill_color = None
    legend.border_line_color = None
    legend.label_text_font = FONT
    legend.label_text_color = NEUTRAL
    legend.inactive_fill_color = None
    legend.inactive_fill_alpha = 0.6
    legend.label_text_font_size = "12px"
    legend.click_policy = "hide"
    legend.padding = legend.margin = 2
    legend.spacing = 12
