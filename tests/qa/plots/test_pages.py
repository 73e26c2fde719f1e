"""Plot configurations, and their mistakes."""

import pytest

from qa.plots.pages import Patch, Plot2D, Plot3D, PlotConfigError, load_pages
from qlstream.pipeline.plan import load_plans


def load(tmp_path, text):
    (tmp_path / "plots.yaml").write_text(text)
    return load_pages(tmp_path / "plots.yaml")


def test_a_configuration_of_quicklook_is_understood(tmp_path):
    pages = load(
        tmp_path,
        """
        PAGE1:
          Title: "Bias"
          Bias:
            TYPE: PATCH
            VALS: BIAS_AMP
            GRID: [2, 2]
            PLOT_TITLE: "Bias from overscan"
            HEAT: OrRd
        PAGE2:
          Title: "Sky"
          Continuum: {TYPE: 2DPLOT, XVALS: SKYFIBERID, YVALS: SKYCONT_FIBER, PLOT_TITLE: a, XTITLE: b, YTITLE: c}
          Residual: {TYPE: 3DPLOT, XVALS: RA, YVALS: DEC, ZVALS: "XWSIGMA_FIB[0]", XTITLE: b, ZRANGE: [-1, 1]}
        """,
    )

    assert [page.title for page in pages] == ["Bias", "Sky"]
    assert pages[0].panels == (Patch(TYPE="PATCH", VALS="BIAS_AMP", PLOT_TITLE="Bias from overscan", HEAT="OrRd"),)
    assert isinstance(pages[1].panels[0], Plot2D)
    assert isinstance(pages[1].panels[1], Plot3D)


def test_every_mistake_is_named_at_once_with_page_and_panel(tmp_path):
    with pytest.raises(PlotConfigError) as error:
        load(
            tmp_path,
            """
            PAGE1:
              a: {TYPE: PATCH, GRID: [0, 2], HEAT: rainbowish}
              b: {TYPE: 2DPLOT, XVALS: FIBER, YVALS: MEDIAN_SNR, XRANGE: [3, 1], COLOUR: red}
              c: {TYPE: PIE, VALS: BIAS_AMP}
              d: {VALS: BIAS_AMP}
              e: just text
            PAGE2: [1, 2]
            PAGE3: {QA: {a: 1}}
            """,
        )

    text = str(error.value)
    for expected in (
        "plots.yaml: 10 wrong entries",
        "PAGE1.a.VALS: Field required",
        "PAGE1.a.GRID.0: Input should be greater than or equal to 1, got 0",
        "PAGE1.a.HEAT: Value error, 'rainbowish' is no colour map of matplotlib; try cividis",
        "PAGE1.b.XRANGE: Value error, the lower end must come first",
        "PAGE1.b.COLOUR: Extra inputs are not permitted, got 'red'",
        "PAGE1.c: Input tag 'PIE'",
        "PAGE1.d: Unable to extract tag",
        "PAGE1.e: expected TYPE and its values, got 'just text'",
        "PAGE2: expected a Title and panels",
        "PAGE3.QA: expected names of metrics",
    ):
        assert expected in text, f"{expected!r} not in\n{text}"


@pytest.mark.parametrize("text", ["", "- a", "PAGE1: {"])
def test_a_file_that_holds_no_pages_is_refused_by_name(tmp_path, text):
    with pytest.raises(PlotConfigError, match=r"plots\.yaml: "):
        load(tmp_path, text)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(PlotConfigError, match=r"nowhere\.yaml: cannot be read"):
        load_pages(tmp_path / "nowhere.yaml")


def test_the_shipped_pages_are_good_and_use_colours_that_everybody_can_tell_apart():
    pages = load_pages()

    assert len({page.name for page in pages}) == len(pages)
    known = {check for plan in load_plans().values() for _, check in plan.checks}
    for page in pages:
        assert page.title
        assert set(page.metrics) <= known, page.name
        assert page.panels
        for panel in page.panels:
            assert getattr(panel, "HEAT", "cividis") in ("cividis", "PuOr"), f"{page.name}: {panel}"
