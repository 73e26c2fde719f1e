"""The CCD: preview image with stretch, mask and amplifier boxes."""

from __future__ import annotations

import numpy as np
from bokeh.core.properties import value
from bokeh.models import (
    ColorBar,
    ColorMapper,
    ColumnDataSource,
    EqHistColorMapper,
    GlyphRenderer,
    HoverTool,
    LinearColorMapper,
    LogColorMapper,
    Range1d,
)
from bokeh.palettes import Cividis256, Greys256
from bokeh.plotting import figure

from dashboards.arrays import Array, Preview
from dashboards.figures.style import FONT, NEUTRAL, plain_figure

STRETCHES = ("linear", "log", "equalized")
CUTS = (90.0, 99.0, 99.7, 100.0)  # central percentages of the pixels between black and white


def ccd_figure(
    image: ColumnDataSource, mask: ColumnDataSource, boxes: ColumnDataSource, trace: ColumnDataSource
) -> figure:
    """The preview in CCD pixels; renderers are named image, mask and amps.

    Parameters
    ----------
    image, mask : image [(h, w)], x, y, dw, dh [CCD pixel]; mask is 1 or NaN
    boxes : left, right, bottom, top [CCD pixel], name, x, y of the label
    trace : x, y of the fiber that is looked at [CCD pixel]
    """
    fig = plain_figure(
        720, None, x_axis_label="column x [pixel]", y_axis_label="row y [pixel]",
        tools="pan,box_zoom,wheel_zoom,reset,save,crosshair",
    )  # fmt: skip
    fig.aspect_ratio = 1.08  # CCDs are about square; the color bar takes the rest
    fig.toolbar.autohide = False
    fig.grid.grid_line_color = None
    fig.x_range, fig.y_range = Range1d(0, 1), Range1d(0, 1)
    mapper = _mapper("linear", 0.0, 1.0)
    shown = fig.image("image", x="x", y="y", dw="dw", dh="dh", source=image, color_mapper=mapper, name="image")
    fig.image(
        "image", x="x", y="y", dw="dw", dh="dh", source=mask, name="mask", level="glyph",
        color_mapper=LinearColorMapper(palette=["#d55e00"], low=0, high=1, nan_color=(0, 0, 0, 0)), global_alpha=0.55,
    )  # fmt: skip
    fig.quad(
        left="left", right="right", bottom="bottom", top="top", source=boxes, name="amps",
        fill_color=None, line_color="#56b4e9", line_width=1.5, line_dash="dashed",
    )  # fmt: skip
    fig.text(
        "x", "y", text="name", source=boxes, name="labels", text_color="#56b4e9", text_font_size="18px",
        text_font_style="bold", text_font=value(FONT), text_align="center", text_baseline="middle",
    )  # fmt: skip
    fig.line("x", "y", source=trace, line_color="#e69f00", line_width=2, line_alpha=0.9)
    bar = ColorBar(
        color_mapper=mapper, title="electron", width=12, padding=8, name="bar",
        background_fill_color=None, bar_line_color=None, major_tick_line_color=NEUTRAL,
        major_label_text_color=NEUTRAL, major_label_text_font=FONT,
        title_text_color=NEUTRAL, title_text_font=FONT, title_text_font_style="normal",
    )  # fmt: skip
    fig.add_layout(bar, "right")

    fig.add_tools(HoverTool(renderers=[shown], tooltips=[("x, y", "$x{0}, $y{0}"), ("signal", "@image{0.0} electron")]))
    return fig


def paint(fig: figure, preview: Preview, stretch: str, cut: float, gray: bool) -> None:
    """Map the pixels to colors: `stretch` of STRETCHES, black and white at the central `cut` percent of the pixels."""
    low, high = limits(preview.image, preview.mask, cut)
    mapper = _mapper(stretch, low, high, gray)
    renderer = fig.select_one("image")
    if isinstance(renderer, GlyphRenderer):
        renderer.glyph.color_mapper = mapper
    fig.select_one(ColorBar).color_mapper = mapper


def limits(image: Array, mask: Array, cut: float) -> tuple[float, float]:
    """The values between which the central `cut` percent of the good pixels lie; never equal."""
    good = image[(mask == 0) & np.isfinite(image)]
    if good.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(good, [50 - cut / 2, 50 + cut / 2])
    return float(low), float(max(high, low + 1e-3))


def amp_boxes(preview: Preview) -> dict[str, list[float | str]]:
    """The columns of the source of boxes."""
    boxes = {name: tuple(float(v) for v in box) for name, box in preview.amps.items()}
    return {
        "left": [b[0] for b in boxes.values()],
        "right": [b[1] for b in boxes.values()],
        "bottom": [b[2] for b in boxes.values()],
        "top": [b[3] for b in boxes.values()],
        "x": [(b[0] + b[1]) / 2 for b in boxes.values()],
        "y": [(b[2] + b[3]) / 2 for b in boxes.values()],
        "name": list(boxes),
    }


def _mapper(stretch: str, low: float, high: float, gray: bool = False) -> ColorMapper:
    palette = list(Greys256) if gray else list(Cividis256)
    if stretch == "equalized":
        return EqHistColorMapper(palette=palette, low=low, high=high, nan_color=NEUTRAL)
    if stretch == "log":
        return LogColorMapper(palette=palette, low=max(low, high / 1e4, 1e-3), high=high, nan_color=NEUTRAL)
    return LinearColorMapper(palette=palette, low=low, high=high, nan_color=NEUTRAL)
