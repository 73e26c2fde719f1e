"""Figures: each function draws a source; none asks the store, none computes."""

from dashboards.figures.ccd import amp_boxes, ccd_figure, paint
from dashboards.figures.fibers import fiber_figure, snr_figure, width_figure
from dashboards.figures.gantt import GANTT_COLUMNS, gantt_figure, stage_colors
from dashboards.figures.spectrum import SPECTRUM_COLUMNS, show_range, spectrum_figure
from dashboards.figures.timeline import TIMELINE_COLUMNS, timeline_figure

__all__ = [
    "GANTT_COLUMNS",
    "SPECTRUM_COLUMNS",
    "TIMELINE_COLUMNS",
    "amp_boxes",
    "ccd_figure",
    "fiber_figure",
    "gantt_figure",
    "paint",
    "show_range",
    "snr_figure",
    "spectrum_figure",
    "stage_colors",
    "timeline_figure",
    "width_figure",
]
