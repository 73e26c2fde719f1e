"""One spectrum with its errors and the sky that was taken out."""

from __future__ import annotations

import numpy as np
from bokeh.models import ColumnDataSource, Legend, Range1d
from bokeh.plotting import figure

from dashboards.arrays import Array
from dashboards.figures.style import CATEGORIES, plain_figure, style_legend

SPECTRUM_COLUMNS = ("wave", "flux", "low", "high", "sky")


def spectrum_figure(source: ColumnDataSource) -> figure:
    """Flux of one fiber against wavelength; the renderer of the sky is named sky.

    Parameters
    ----------
    source : SPECTRUM_COLUMNS; wave [Angstrom], the others in the unit of the spectra, NaN where there is none;
        low and high lie one sigma off the flux
    """
    tooltips = [("wavelength", "@wave{0.0} Å"), ("flux", "@flux{0.00}"), ("sky", "@sky{0.00}")]
    fig = plain_figure(330, tooltips, x_axis_label="wavelength [Angstrom]", y_range=Range1d(0, 1))
    band = fig.varea("wave", "low", "high", source=source, fill_color=CATEGORIES[4], fill_alpha=0.25)
    sky = fig.line("wave", "sky", source=source, name="sky", line_color=CATEGORIES[1], line_alpha=0.8, line_width=1.2)
    flux = fig.line("wave", "flux", source=source, line_color=CATEGORIES[4], line_width=1.4)
    legend = Legend(items=[("flux", [flux]), ("± 1 sigma", [band]), ("sky that was subtracted", [sky])])
    style_legend(legend)
    fig.add_layout(legend, "above")
    fig.hover.renderers = [flux]
    return fig


def show_range(fig: figure, *curves: Array) -> None:
    """Fit the flux axis to the curves, but for the wildest hundredth at either end, which noise makes."""
    values = np.concatenate([curve[np.isfinite(curve)] for curve in curves])
    low, high = np.percentile(values, [1, 99]) if values.size else (0.0, 1.0)
    margin = 0.25 * (high - low) or 1.0
    ends = {"start": float(low - margin), "end": float(high + margin)}
    fig.y_range.update(**ends, **{f"reset_{key}": value for key, value in ends.items()})
