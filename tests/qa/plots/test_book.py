"""What is drawn: read back from the figures, not from their pixels."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from qa.plots.book import PlotBook
from qa.plots.pages import Bars, Histogram, Patch, Plot2D, Plot3D, Table
from qa.plots.panels import PanelError, draw_panel
from qa.plots.values import NoSuchValue, Results
from qlstream.pipeline.plan import load_plans


def check(metric, element, severity, measured, normal=(0.0, 10.0), warn=(-5.0, 15.0)):
    return {
        "metric": metric, "element": element, "severity": severity, "measured": measured,
        "normal": list(normal), "warn": list(warn), "unit": "electron", "rule": "1",
        "why": "" if severity == "NORMAL" else f"{metric} of {element} is off",
    }  # fmt: skip


NOISE = {
    "name": "Get_RMS",
    "severity": "ALARM",
    "summary": "read noise",
    "metrics": {"WORST": 30.0, "OTHER_FIB": 2.1},
    "per_amp": {"NOISE_AMP": {"A": 3.0, "B": 3.1, "C": 30.0, "D": None}, "ALIKE_AMP": {"C": 1.0}, "NONE_AMP": {}},
    "per_class": {"FIDSNR_TGT": {"ELG": 0.5, "LRG": None}},
    "per_fiber": {"SIGMA_FIB": [1.0, None, 1.2, 1.1], "OTHER_FIB": [2.0, 2.1, None, 2.3]},
    "vectors": {"SPECTRUM": [1.0, 2.0, 3.0], "MATRIX": [[1.0, 0.5], [0.5, 1.0]]},
    "units": {"NOISE_AMP": "electron", "SIGMA_FIB": "pixel"},
    "checks": [
        check("NOISE_AMP", "A", "NORMAL", 3.0),
        check("NOISE_AMP", "B", "NORMAL", 3.1),
        check("NOISE_AMP", "C", "ALARM", 30.0),
        check("NOISE_AMP", "D", "UNKNOWN", None),
        check("WORST", "", "ALARM", 30.0),
    ],
}
SHIFTS = {
    "name": "Trace_Shifts",
    "severity": "NORMAL",
    "summary": "",
    "metrics": {"XYSHIFTS_X": 0.1, "XYSHIFTS_Y": -0.2},
    "per_amp": {},
    "per_class": {},
    "per_fiber": {},
    "vectors": {},
    "units": {"XYSHIFTS_X": "pixel", "XYSHIFTS_Y": "pixel"},
    "checks": [check("XYSHIFTS_Y", "", "NORMAL", -0.2)],
}
MERGED = {
    "NIGHT": 20260115,
    "EXPID": 82,
    "CAMERA": "r3",
    "FLAVOR": "science",
    "PROGRAM": "dark",
    "GENERAL_INFO": {"RA": [10.0, 11.0, 12.0, 13.0], "DEC": [0.0, 1.0, 2.0, 3.0], "FIBERID": [5, 6, 7, 8],
                     "SKY_FIBERID": [7]},
    "STAGES": {"Preproc": {"QA": {"Get_RMS": NOISE}}, "Flexure": {"QA": {"Trace_Shifts": SHIFTS}}},
}  # fmt: skip


@pytest.fixture
def results():
    return Results(NOISE, MERGED)


@pytest.fixture
def axes():
    from matplotlib.figure import Figure

    return Figure().subplots()


def texts(axes):
    return [text.get_text() for text in axes.texts if text.get_text()]


# finding values ----------------------------------------------------------------------------------------------------


def test_values_are_found_by_name_index_and_element(results):
    assert results.find("NOISE_AMP").values[:3].tolist() == [3.0, 3.1, 30.0]
    assert math.isnan(results.find("NOISE_AMP").values[3])
    assert results.find("NOISE_AMP").labels == ("A", "B", "C", "D")
    assert results.find("NOISE_AMP[C]").values.tolist() == [30.0]
    assert results.find("NOISE_AMP[1]").values.tolist() == [3.1]
    assert results.find("SIGMA_FIB[-1]").values.tolist() == [1.1]
    assert results.find("MATRIX[1]").values.tolist() == [0.5, 1.0]
    assert results.find("MATRIX[1][0]").values.tolist() == [0.5]
    assert results.find("WORST").label == "WORST"
    assert results.find("NOISE_AMP").label == "NOISE_AMP [electron]"
    assert results.find("OTHER_FIB", single=True).values.tolist() == [2.1]  # the median of the vector of this name
    assert results.find("FIBER").values.tolist() == [0, 1, 2, 3]


def test_values_of_the_exposure_and_of_other_metrics_are_found_too(results):
    assert results.find("RA").values.tolist() == [10.0, 11.0, 12.0, 13.0]
    assert results.find("SKYFIBERID").values.tolist() == [7]
    assert results.find("XYSHIFTS_X").values.tolist() == [0.1]
    assert "XYSHIFTS_X" not in results  # but they are not this metric's own
    assert "RA" not in results


def test_a_pair_of_quicklook_is_found_by_its_name_and_by_index():
    shifts = Results(SHIFTS, MERGED)

    assert shifts.find("XYSHIFTS").values.tolist() == [0.1, -0.2]
    assert shifts.find("XYSHIFTS").labels == ("XYSHIFTS_X", "XYSHIFTS_Y")
    assert shifts.find("XYSHIFTS[1]").values.tolist() == [-0.2]
    assert shifts.find("XYSHIFTS[1]").check_of(0)["severity"] == "NORMAL"
    assert "XYSHIFTS[0]" in shifts


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("NOTHING", "NOTHING: no such value in Get_RMS, nor elsewhere of this camera"),
        ("NOISE_AMP[E]", r"NOISE_AMP has 4 elements \(A, B, C, D\)"),
        ("SIGMA_FIB[4]", "SIGMA_FIB has 4 elements"),
        ("a b", "is no name of a value"),
    ],
)
def test_what_is_not_there_is_told(results, name, told):
    with pytest.raises(NoSuchValue, match=told):
        results.find(name)


# panels ------------------------------------------------------------------------------------------------------------


def test_a_patch_shows_each_amplifier_where_it_is_with_value_range_and_verdict(axes, results):
    draw_panel(axes, Patch(TYPE="PATCH", VALS="NOISE_AMP"), results)

    written = {(text.get_position()[0] > 1, text.get_position()[1] > 1, text.get_text()) for text in axes.texts}
    assert (False, False, "3 electron") in written
    assert (True, False, "3.1 electron") in written
    assert (False, True, "30 electron") in written
    assert (False, True, "C ■") in written  # the mark of an alarm, beside its colour
    assert (True, True, "D ◆") in written
    assert texts(axes).count("normal 0 to 10") == 4


def test_an_amplifier_keeps_its_place_if_others_are_absent(axes, results):
    draw_panel(axes, Patch(TYPE="PATCH", VALS="ALIKE_AMP"), results)

    (label,) = [text for text in axes.texts if text.get_text() == "C"]
    assert label.get_position() == (0.5, 1.76)


def test_a_matrix_fills_the_grid_from_below(axes, results):
    draw_panel(axes, Patch(TYPE="PATCH", VALS="MATRIX"), results)

    assert [text.get_text() for text in axes.texts if text.get_position()[1] % 1 == 0.5] == ["1", "0.5", "0.5", "1"]


def test_bars_stand_for_elements_and_their_ranges_behind_them(axes, results):
    draw_panel(axes, Bars(TYPE="BARS", VALS="NOISE_AMP", XTITLE="amplifier"), results)

    bars = [p for p in axes.patches if isinstance(p, Rectangle) and p.get_width() == pytest.approx(0.6)]
    bands = [p for p in axes.patches if p not in bars]
    assert [bar.get_height() for bar in bars] == [3.0, 3.1, 30.0, 0.0]
    assert [label.get_text() for label in axes.get_xticklabels()] == list("ABCD")
    assert (0.0, 10.0) in {(band.get_y(), band.get_y() + band.get_height()) for band in bands}
    assert "30 ■" in texts(axes)
    assert "– ◆" in texts(axes)
    assert axes.get_ylabel() == "NOISE_AMP [electron]"
    assert axes.get_xlabel() == "amplifier"


def test_points_leave_out_what_has_no_value_and_axes_tell_units(axes, results):
    draw_panel(axes, Plot2D(TYPE="2DPLOT", XVALS="FIBER", YVALS=["SIGMA_FIB", "OTHER_FIB"]), results)

    first, second = axes.lines
    assert first.get_xydata().tolist() == [[0, 1.0], [2, 1.2], [3, 1.1]]
    assert second.get_xydata().tolist() == [[0, 2.0], [1, 2.1], [3, 2.3]]
    assert axes.get_ylabel() == "SIGMA_FIB [pixel]"
    assert axes.get_xlabel() == "fiber on the CCD"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["SIGMA_FIB", "OTHER_FIB"]


def test_numbers_of_some_fibers_choose_their_values_as_in_the_pages_of_quicklook(axes, results):
    draw_panel(axes, Plot2D(TYPE="2DPLOT", XVALS="SKYFIBERID", YVALS=["SIGMA_FIB"]), results)

    assert axes.lines[0].get_xydata().tolist() == [[7, 1.2]]


@pytest.mark.parametrize("style", ["points", "line", "bars", "steps"])
def test_every_style_takes_titles_and_limits(axes, results, style):
    panel = Plot2D(
        TYPE="2DPLOT", XVALS="RA", YVALS=["SIGMA_FIB"], STYLE=style, PLOT_TITLE="t", XTITLE="x", YTITLE="y",
        XRANGE=(9, 14), YRANGE=(0, 2), RANGE_OF="WORST",
    )  # fmt: skip

    draw_panel(axes, panel, results)

    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("t", "x", "y")
    assert (axes.get_xlim(), axes.get_ylim()) == ((9, 14), (0, 2))


def test_the_range_of_a_judged_value_is_drawn_over_the_whole_width(axes, results):
    draw_panel(axes, Plot2D(TYPE="2DPLOT", XVALS="INDEX", YVALS=["SPECTRUM"], RANGE_OF="WORST"), results)

    low, high = axes.get_ylim()
    band = axes.patches[0]
    assert low <= band.get_y() == 0.0
    assert band.get_y() + band.get_height() == pytest.approx(min(10.0, high))


def test_colour_is_the_third_value_of_a_point(axes, results):
    draw_panel(axes, Plot3D(TYPE="3DPLOT", XVALS="RA", YVALS="DEC", ZVALS="SIGMA_FIB", ZRANGE=(0, 3)), results)

    dots = axes.collections[0]
    assert dots.get_offsets().tolist() == [[10.0, 0.0], [12.0, 2.0], [13.0, 3.0]]
    assert dots.get_array().tolist() == [1.0, 1.2, 1.1]
    assert dots.get_clim() == (0, 3)
    assert axes.figure.axes[1].get_ylabel() == "SIGMA_FIB [pixel]"


def test_a_histogram_counts_every_value_once(axes, results):
    draw_panel(axes, Histogram(TYPE="HISTOGRAM", VALS=["OTHER_FIB"], BINS=3), results)

    heights = np.unique(axes.patches[0].get_xy()[:, 1])
    assert heights.max() == 1  # three values in three bins
    assert axes.get_xlabel() == "OTHER_FIB"


def test_a_table_shows_value_range_and_verdict_of_what_the_metric_has(axes, results):
    draw_panel(axes, Table(TYPE="TABLE", VALS=["WORST", "NOISE_AMP[A]", "RA", "NOTHING"]), results)

    assert texts(axes) == ["value", "normal", "WORST", "30 ■", "0 to 10", "NOISE_AMP[A] A", "3 electron", "0 to 10"]


@pytest.mark.parametrize(
    ("panel", "told"),
    [
        (Plot2D(TYPE="2DPLOT", XVALS="SKYFIBERID", YVALS=["SPECTRUM"]), "SKYFIBERID has 1, SPECTRUM has 3"),
        (Plot3D(TYPE="3DPLOT", XVALS="RA", YVALS="SPECTRUM", ZVALS="DEC"), "RA has 4, SPECTRUM has 3, DEC has 4"),
        (Patch(TYPE="PATCH", VALS="NOISE_AMP", GRID=(1, 2)), "NOISE_AMP has 4 values, GRID 1 x 2 has fewer places"),
        (Plot2D(TYPE="2DPLOT", XVALS="INDEX", YVALS=["MATRIX"]), r"MATRIX has 2 rows; name one of them, MATRIX\[0\]"),
        (Bars(TYPE="BARS", VALS="MATRIX"), "MATRIX has 2 rows"),
        (Plot2D(TYPE="2DPLOT", XVALS="FIBER", YVALS=["FIDSNR_TGT[LRG]"]), "belong together"),
        (Histogram(TYPE="HISTOGRAM", VALS=["NOISE_AMP[D]"]), "there is no finite value"),
    ],
)
def test_values_that_do_not_fit_are_told_and_not_drawn(axes, results, panel, told):
    with pytest.raises(PanelError, match=told):
        draw_panel(axes, panel, results)


# pages -------------------------------------------------------------------------------------------------------------


def book(tmp_path, text):
    (tmp_path / "plots.yaml").write_text(text)
    return PlotBook(tmp_path / "plots.yaml")


def words(figure):
    return " ".join(text.get_text() for text in figure.texts)


def test_a_page_says_what_it_shows_of_which_camera_and_how_bad_it_is(tmp_path):
    pages = book(tmp_path, "P: {Title: Noise of reading, a: {TYPE: PATCH, VALS: NOISE_AMP}}")

    (name, figure), _ = pages.figures(MERGED)

    assert name == "Get_RMS"
    for expected in ("Noise of reading", "night 20260115", "exposure 82", "r3", "science (dark)", "Get_RMS", "ALARM",
                     "NOISE_AMP of C is off"):  # fmt: skip
        assert expected in words(figure), expected
    assert len(figure.axes) == 1


def test_panels_of_several_pages_that_show_a_metric_share_its_page_with_the_last_title(tmp_path):
    panels = ", ".join(f"p{i}: {{TYPE: BARS, VALS: NOISE_AMP}}" for i in range(11))
    pages = book(
        tmp_path, f"P: {{Title: first, {panels}}}\nQ: {{Title: last, a: {{TYPE: 2DPLOT, XVALS: RA, YVALS: SIGMA_FIB}}}}"
    )

    (_, figure), _ = pages.figures(MERGED)

    assert len([axes for axes in figure.axes if axes.get_title()]) == 12  # more than QuickLook's nine
    assert "last" in words(figure)


def test_a_page_may_be_for_some_metrics_only(tmp_path):
    pages = book(
        tmp_path,
        "P: {Title: Noise, a: {TYPE: BARS, VALS: NOISE_AMP}}\nQ: {Title: No, QA: Other, b: {TYPE: TABLE, VALS: WORST}}",
    )

    (_, figure), _ = pages.figures(MERGED)

    assert [axes.get_title() for axes in figure.axes] == ["NOISE_AMP"]
    assert "Noise" in words(figure)


def test_a_metric_that_no_page_names_gets_a_page_of_all_its_values(tmp_path):
    pages = book(tmp_path, "P: {Title: Sky, a: {TYPE: BARS, VALS: SKYCONT}}")

    (_, figure), (_, other) = pages.figures(MERGED)

    shown = [axes.get_title() for axes in figure.axes]
    for key in ("NOISE_AMP", "ALIKE_AMP", "FIDSNR_TGT", "SIGMA_FIB", "OTHER_FIB", "SPECTRUM", "MATRIX"):
        assert key in shown
    assert "NONE_AMP" not in shown
    assert "XYSHIFTS_X" in texts(other.axes[0])


def test_a_panel_that_cannot_be_drawn_says_so_on_the_page_and_in_the_log(tmp_path, caplog):
    pages = book(tmp_path, "P: {a: {TYPE: 2DPLOT, XVALS: NOTHING, YVALS: SIGMA_FIB}, b: {TYPE: BARS, VALS: NOISE_AMP}}")

    (_, figure), _ = pages.figures(MERGED)

    assert "NOTHING: no such value" in figure.axes[0].texts[0].get_text()
    assert "Get_RMS of r3: NOTHING: no such value" in caplog.text
    assert figure.axes[1].get_title() == "NOISE_AMP"


def test_a_metric_that_broke_has_a_page_with_the_reason():
    empty = {"metrics": {}, "per_amp": {}, "per_class": {}, "per_fiber": {}, "vectors": {}, "units": {}}
    broken = {
        **empty,
        "name": "Get_RMS",
        "severity": "UNKNOWN",
        "summary": "Get_RMS broke: ValueError: x",
        "checks": [],
    }

    ((_, figure),) = PlotBook().figures({**MERGED, "STAGES": {"Preproc": {"QA": {"Get_RMS": broken}}}})

    assert figure.axes[0].texts[0].get_text() == "Get_RMS broke: ValueError: x"


def test_files_are_written_in_both_formats(tmp_path):
    pages = PlotBook()

    png = pages.draw_each(MERGED, lambda name: tmp_path / f"{name}.png")
    pdf = pages.draw_each(MERGED, lambda name: tmp_path / f"{name}.pdf")
    count = pages.draw_book([MERGED, MERGED], tmp_path / "book.pdf")

    assert set(png) == set(pdf) == {"Get_RMS", "Trace_Shifts"}
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in png.values())
    assert all(path.read_bytes()[:4] == b"%PDF" for path in pdf.values())
    assert count == 4
    assert b"/Count 4" in (tmp_path / "book.pdf").read_bytes()
    assert not list(tmp_path.glob("*_tmp*"))


def test_every_shipped_metric_is_drawn_from_a_stored_night_without_a_word_of_complaint(reduced_night, caplog):
    pages = PlotBook()
    shown: set[str] = set()

    for path in sorted(reduced_night.glob("exposures/*/*/ql-mergedQA-*.json")):
        merged = json.loads(path.read_text())
        for name, figure in pages.figures(merged):
            if merged["FLAVOR"] == "science":  # one flavor tells whether the layout works
                figure.draw_without_rendering()
            shown.add(name)
            for axes in figure.axes:
                assert axes.has_data() or axes.texts or axes.patches or not axes.axison, f"{name}: an empty panel"

    assert shown == {check for plan in load_plans().values() for _, check in plan.checks}
    assert not caplog.records


def test_matplotlib_is_loaded_only_when_something_is_drawn():
    script = (
        "import sys, qlstream.cli.process, qlstream.cli.plots, qlstream.engine.worker\n"
        "assert 'matplotlib' not in sys.modules"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
