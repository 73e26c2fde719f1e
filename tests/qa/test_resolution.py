from dataclasses import replace

import numpy as np
import pytest
from scipy.special import erf

from qa.arclines import Arc_Lines
from qa.resolution import Check_Resolution
from qlstream.datamodel.linewidths import LineWidths, WidthSource
from qlstream.instrument import load_instrument
from qlstream.lines import arc_lines
from qlstream.pipeline.result import QASeverity
from qlstream.simulate.optics import build_optics


@pytest.fixture
def make_widths(make_qframe):
    """LineWidths of the mini instrument with given width ratios (40,) or (40, ncoef), and where they come from."""

    def make(ratio, source=None):
        reference = build_optics(load_instrument("mini"), "r3", seed=3).traces
        coef = reference.ysigcoef * np.broadcast_to(ratio, reference.ysigcoef.shape)
        source = np.zeros(40, np.int8) if source is None else source
        lines = arc_lines()[60:72]
        measured = (source <= WidthSource.FEW_LINES)[:, None] & (np.arange(12) < 9)
        return LineWidths(
            traces=replace(reference, ysigcoef=coef),
            spectra=make_qframe(np.zeros((40, 500)), 1.0),
            reference=reference,
            lines=lines,
            sigma=np.where(measured, 1.1, np.nan),
            error=np.where(measured, 0.01, np.nan),
            used=measured,
            source=source,
            chi2=np.full(40, 6.0),
            dof=np.full(40, 6.0),
        )

    return make


def severities(result):
    return {c.metric: c.severity for c in result.checks}


def test_a_healthy_camera_is_normal(make_context, make_widths):
    rng = np.random.default_rng(1)

    result = Check_Resolution().run(make_widths(1 + 0.01 * rng.normal(size=(40, 1))), make_context(flavor="arc"))

    assert result.metrics["CHECKARC"] == 40
    assert result.metrics["YSIGMA_RATIO"] == pytest.approx(1.0, abs=0.006)
    assert result.metrics["YSIGMA"] == pytest.approx(1.11, rel=0.05)
    # 6690 Angstrom over 4.4 Angstrom a pixel times the FWHM
    assert result.metrics["RESOLVING_POWER"] == pytest.approx(6690 / (4.4 * 2.355 * 1.11), rel=0.05)
    assert result.metrics["NLINES"] == 9
    assert result.severity == QASeverity.NORMAL
    assert {"CHECKARC_FRACTION", "YSIGMA_RATIO", "YSIGMA_OUTLIERS", "CHI2_WIDTHS"} <= set(severities(result))


@pytest.mark.parametrize(("ratio", "severity"), [(1.2, "WARNING"), (1.5, "ALARM"), (0.6, "ALARM")])
def test_lines_wider_or_narrower_than_the_calibration_are_told(make_context, make_widths, ratio, severity):
    result = Check_Resolution().run(make_widths(ratio), make_context(flavor="arc"))

    assert result.metrics["YSIGMA_RATIO"] == pytest.approx(ratio, rel=1e-6)
    assert severities(result)["YSIGMA_RATIO"].name == severity


def test_a_tilted_focus_shows_at_one_end(make_context, make_widths):
    tilted = make_widths(1.0)
    coef = tilted.traces.ysigcoef.copy()
    coef[:, 1] += 0.3 * coef[:, 0]

    result = Check_Resolution().run(
        replace(tilted, traces=replace(tilted.traces, ysigcoef=coef)), make_context(flavor="arc")
    )

    told = severities(result)
    assert told["YSIGMA_RATIO"] == QASeverity.NORMAL
    assert told["YSIGMA_RATIO_LOW"] == told["YSIGMA_RATIO_HIGH"] == QASeverity.WARNING


def test_fibers_without_lines_are_counted_and_spoil_no_scatter(make_context, make_widths):
    rng = np.random.default_rng(2)
    source = np.zeros(40, np.int8)
    source[[3, 17, 30, 31, 32, 33]] = WidthSource.NEIGHBOURS
    ratio = 1 + 0.01 * rng.normal(size=(40, 4))
    ratio[8] = 1.3  # a fiber that is really wider
    ratio[17] = 9.9

    result = Check_Resolution().run(make_widths(ratio, source), make_context(flavor="arc"))

    assert result.metrics["CHECKARC"] == 34
    assert np.flatnonzero(result.per_fiber["GOODPSFS"] == 0).tolist() == [3, 17, 30, 31, 32, 33]
    assert np.isnan(result.per_fiber["YSIGMA_FIB"][[3, 17]]).all()
    assert result.metrics["YSIGMA_OUTLIERS"] == pytest.approx(1 / 34)
    assert 1 <= result.vectors["CHECKPSF"][0] <= 6  # the wide one, and of 33 Gaussian ones 1.5
    assert severities(result)["CHECKARC_FRACTION"] == QASeverity.ALARM


def test_a_camera_without_lines_alarms_once_and_has_no_invented_widths(make_context, make_widths):
    result = Check_Resolution().run(make_widths(1.0, np.full(40, WidthSource.UNCHANGED)), make_context(flavor="arc"))

    told = severities(result)
    assert result.metrics["CHECKARC"] == 0
    assert told["CHECKARC_FRACTION"] == QASeverity.ALARM
    assert "YSIGMA_RATIO" not in result.metrics
    assert np.isnan(result.per_fiber["YSIGMA_FIB"]).all()
    assert result.vectors["CHECKPSF"].tolist() == [0, 0, 0, 0]


@pytest.fixture
def make_arc(make_qframe):
    """Extracted arc lamps of the mini instrument, each element with its own brightness."""

    def make(camera="z3", level=9.0, **lamps):
        arm, table = load_instrument("mini").arm(camera), arc_lines()
        rng = np.random.default_rng(4)
        wave = np.linspace(*arm.wave_on_ccd, arm.ny) + rng.normal(0, 1.5, (40, 1))
        step = np.gradient(wave, axis=1)
        brightness = np.array([lamps.get(str(name), 1.0) for name in table["name"]])
        flux = np.full(wave.shape, 8.0)
        for line, electrons in zip(table, 5.0 * level * brightness * table["strength"], strict=True):
            edges = [erf((wave + side * step / 2 - line["wave"]) / step / 1.1 / np.sqrt(2)) for side in (-1, 1)]
            flux += 0.5 * electrons * (edges[1] - edges[0])
        variance = flux + 63.0
        noisy = flux + rng.normal(size=flux.shape) * np.sqrt(variance)
        return make_qframe(noisy, 1 / variance, wave, meta={"CAMERA": camera})

    return make


@pytest.mark.parametrize("camera", ["b3", "r3", "z3"])
def test_the_level_of_the_lamps_is_that_put_in(make_context, make_arc, camera):
    context = make_context(camera=camera, flavor="arc", program="", header={"EXPTIME": 5.0})

    result = Arc_Lines().run(make_arc(camera), context)

    print(camera, {k: round(v, 3) for k, v in result.metrics.items()})
    # the level beside crowded lines is a few percent of them too high
    assert result.metrics["LAMP_LEVEL"] == pytest.approx(9.0, rel=0.15)
    assert len(result.metrics) >= 3
    assert all(0.7 < v < 1.4 for k, v in result.metrics.items() if k != "LAMP_LEVEL")
    assert result.severity == QASeverity.NORMAL
    area = result.vectors["LINE_AREA"] / result.vectors["LINE_RATE"] / 5.0
    assert (area >= 20).all()  # the strengths, of lines bright enough


@pytest.mark.parametrize(("camera", "dead"), [("z3", "Kr"), ("z3", "Ne"), ("r3", "Ne"), ("b3", "Cd"), ("b3", "Hg")])
def test_a_lamp_that_is_off_alarms_and_no_other_does(make_context, make_arc, camera, dead):
    context = make_context(camera=camera, flavor="arc", program="", header={"EXPTIME": 5.0})

    result = Arc_Lines().run(make_arc(camera, **{dead: 0.0}), context)

    assert [c.metric for c in result.checks if c.severity == QASeverity.ALARM] == [f"LAMP_{dead.upper()}"]
    assert f"off: {dead}" in result.summary


@pytest.mark.parametrize(("level", "severity"), [(9.0 * 0.4, "ALARM"), (0.0, "ALARM"), (9.0 * 3, "ALARM")])
def test_lamps_that_are_all_dim_off_or_too_bright_alarm(make_context, make_arc, level, severity):
    context = make_context(camera="r3", flavor="arc", program="", header={"EXPTIME": 5.0})

    result = Arc_Lines().run(make_arc("r3", level), context)

    assert severities(result)["LAMP_LEVEL"].name == severity
    assert {c.metric for c in result.checks if c.severity != QASeverity.NORMAL} == {"LAMP_LEVEL"}


def test_lines_are_the_same_for_every_exposure_and_lost_bins_do_not_count(make_context, make_arc):
    context = make_context(camera="z3", flavor="arc", program="", header={"EXPTIME": 5.0})
    arc = make_arc("z3")
    moved = replace(arc, wave=arc.wave + 8.0)
    lost = replace(arc, ivar=np.where(np.arange(40)[:, None] == 20, 0.0, arc.ivar), flux=arc.flux.copy())
    lost.flux[20] = np.nan

    results = [Arc_Lines().run(spectra, context) for spectra in (arc, moved, lost)]

    for result in results[1:]:
        np.testing.assert_array_equal(result.vectors["LINE_WAVE"], results[0].vectors["LINE_WAVE"])
    assert results[2].metrics["LAMP_LEVEL"] == pytest.approx(results[0].metrics["LAMP_LEVEL"], rel=0.03)


def test_lines_may_be_chosen(make_context, make_arc):
    context = make_context(camera="z3", flavor="arc", program="", header={"EXPTIME": 5.0})

    result = Arc_Lines({"lines": [4048.0, 8192.3, 8822.0]}).run(make_arc("z3"), context)

    assert result.vectors["LINE_WAVE"] == pytest.approx([8192.3, 8822.0], abs=1.0)
    assert result.vectors["LINE_NAME"].tolist() == ["Kr", "Xe"]
