"""Figures: units on every axis, every column that they draw, ranges that noise cannot spoil."""

from __future__ import annotations

import numpy as np
import pytest
from bokeh.document import Document
from bokeh.models import ColumnDataSource, EqHistColorMapper, LinearColorMapper, LogColorMapper

from dashboards.arrays import Preview
from dashboards.figures import (
    GANTT_COLUMNS,
    SPECTRUM_COLUMNS,
    TIMELINE_COLUMNS,
    amp_boxes,
    ccd_figure,
    fiber_figure,
    gantt_figure,
    paint,
    show_range,
    snr_figure,
    spectrum_figure,
    stage_colors,
    timeline_figure,
    width_figure,
)
from dashboards.figures.ccd import limits
from dashboards.status import Status
from qlstream.datamodel.fibermap import CLASSES


def source(*columns: str) -> ColumnDataSource:
    return ColumnDataSource({column: [] for column in columns})


def figures():
    model = source("xs", "ys", "camera", "target", "color")
    boxes = source("left", "right", "bottom", "top", "x", "y", "name")
    image = ("image", "x", "y", "dw", "dh")
    return {
        "timeline": timeline_figure(source(*TIMELINE_COLUMNS)),
        "gantt": gantt_figure(source(*GANTT_COLUMNS), ["b0", "r0"]),
        "snr": snr_figure(source("fiber", "camera", "target", "magnitude", "snr"), model, CLASSES),
        "width": width_figure(source("fiber", "camera", "xsigma", "wsigma")),
        "fibers": fiber_figure(source("fiber", "camera", "value"), source("fiber", "value")),
        "spectrum": spectrum_figure(source(*SPECTRUM_COLUMNS)),
        "ccd": ccd_figure(source(*image), source(*image), boxes, source("x", "y")),
    }


@pytest.mark.parametrize("name", ["timeline", "gantt", "snr", "width", "fibers", "spectrum", "ccd"])
def test_every_figure_draws_columns_that_its_source_has(name, caplog):
    doc = Document()

    doc.add_root(figures()[name])
    doc.validate()

    assert not [r for r in caplog.records if "BAD_COLUMN_NAME" in r.message]


@pytest.mark.parametrize(
    ("name", "units"), [("gantt", "[s]"), ("snr", "mag]"), ("spectrum", "[Angstrom]"), ("ccd", "[pixel]")]
)
def test_axes_tell_their_unit(name, units):
    assert units in figures()[name].xaxis[0].axis_label


def test_every_state_differs_in_shape_word_and_letter():
    for part in ("word", "letter", "shape", "rank"):
        assert len({getattr(status, part) for status in Status}) == len(Status), part


def test_stage_colors_are_stable_and_neighbours_differ():
    colors = stage_colors(["Initialize", "Preproc", "Flexure"])

    assert list(colors) == ["Initialize", "Preproc", "Flexure"]
    assert len(set(colors.values())) == 3


def preview(image: np.ndarray, mask: np.ndarray | None = None) -> Preview:
    mask = np.zeros(image.shape, np.uint8) if mask is None else mask
    boxes = {"A": (0, 20, 0, 40), "B": (20, 40, 0, 40)}
    return Preview(image, mask, 40, 40, boxes, np.empty((0, 3), np.float32))


def test_black_and_white_come_from_good_pixels_only():
    image = np.linspace(0, 100, 400, dtype=np.float32).reshape(20, 20)
    image[0, 0], mask = 1e9, np.zeros((20, 20), np.uint8)
    mask[0, 0] = 1

    low, high = limits(image, mask, 100.0)

    assert high == pytest.approx(100)
    assert low < 1
    assert limits(np.full((4, 4), np.nan, np.float32), np.zeros((4, 4), np.uint8), 99.0) == (0.0, 1.0)


def test_the_stretch_chooses_the_color_mapper_and_the_color_bar_follows():
    fig = figures()["ccd"]
    shown = preview(np.linspace(-5, 100, 400, dtype=np.float32).reshape(20, 20))

    for stretch, kind in (("linear", LinearColorMapper), ("log", LogColorMapper), ("equalized", EqHistColorMapper)):
        paint(fig, shown, stretch, 99.0, gray=False)
        mapper = fig.select_one("image").glyph.color_mapper
        assert type(mapper) is kind
        assert fig.select_one("bar").color_mapper is mapper
    assert fig.select_one("image").glyph.color_mapper.low is not None


def test_boxes_of_amplifiers_carry_their_names_in_the_middle():
    boxes = amp_boxes(preview(np.zeros((20, 20), np.float32)))

    assert boxes["name"] == ["A", "B"]
    assert boxes["x"] == [10, 30]
    assert boxes["right"] == [20, 40]


def test_the_flux_axis_ignores_a_few_wild_pixels():
    fig, flux = figures()["spectrum"], np.random.default_rng(3).normal(10, 1, 1000)
    flux[[0, 999]], flux[500] = (-1e5, 1e5), np.nan

    show_range(fig, flux)

    assert 0 < fig.y_range.start < fig.y_range.end < 20
    show_range(fig, np.full(5, np.nan))
    assert fig.y_range.start < fig.y_range.end
