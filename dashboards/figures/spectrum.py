"""One spectrum with its errors and the sky that was taken out."""

from __future__ import annotations

from bokeh.models import ColumnDataSource, Legend
from bokeh.plotting import figure

from dashboards.figures.style import CATEGORIES, plain_figure, style_legend

SPECTRUM_COLUMNS = ("wave", "flux", "low", "high", "sky")


def spectrum_figure(source: ColumnDataSource) -> figure:
    """Flux of one fiber against wavelength.

    Parameters
    ----------
    source : SPECTRUM_COLUMNS; wave [Angstrom], the others in the unit of the spectra, NaN where there is none;
        low and high lie one sigma off the flux
    """
    fig = plain_figure(330, [("wavelength", "@wave{0.0} Å"), ("flux", "@flux{0.00}"), ("sky", "@sky{0.00}")],
                       x_axis_label="wavelength [Angstrom]")  # fmt: skip
    band = fig.varea("wave", "low", "high", source=source, fill_color=CATEGORIES[4], fill_alpha=0.25)
    sky = fig.line("wave", "sky", source=source, line_color=CATEGORIES[1], line_alpha=0.7, line_width=1.2)
    flux = fig.line("wave", "flux", source=source, line_color=CATEGORIES[4], line_width=1.4)
    sky.visible = False  # a bright line would flatten the flux; a click on its name shows it
    fig.y_range.only_visible = True
    legend = Legend(items=[("flux", [flux]), ("± 1 sigma", [band]), ("sky that was subtracted", [sky])])
    style_legend(legend)
    fig.add_layout(legend, "above")
    fig.hover.renderers = [flux]
    return fig
