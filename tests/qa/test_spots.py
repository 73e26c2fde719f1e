import numpy as np
import pytest
from scipy.special import erf

from qa.spots import Calc_XWSigma
from qa.traces import Trace_Shifts
from qlstream.datamodel.image import Image, TraceShifts
from qlstream.datamodel.traces import XYTraceSet
from qlstream.instrument import load_instrument
from qlstream.lines import arc_lines


def traces_of(instrument, camera, xsigma, ysigma):
    arm = instrument.arm(camera)
    nspec = instrument.nspec
    xcoef = np.column_stack([instrument.trace_columns(), np.zeros(nspec)])
    ycoef = np.column_stack([np.full(nspec, arm.ny / 2 - 0.5), np.full(nspec, arm.ny / 2)])
    low, high = arm.wave_on_ccd
    widths = [np.full((nspec, 1), s) for s in (xsigma, ysigma)]
    return XYTraceSet(xcoef, ycoef, low, high, arm.ny, *widths)


def integrate(center, sigma, size):
    edges = np.arange(size + 1) - 0.5
    cdf = 0.5 * (1 + erf((edges - np.asarray(center)[..., None]) / (np.sqrt(2) * sigma)))
    return np.diff(cdf, axis=-1)


@pytest.mark.parametrize(
    ("xsigma", "ysigma", "tolerance"),
    # far out of focus the light of the neighbours, 7.26 pixel away, takes the place of the pedestal
    [(1.04, 1.11, 0.02), (1.6, 1.9, 0.08)],
)
def test_widths_of_arc_spots_on_a_pedestal_are_those_rendered(make_context, xsigma, ysigma, tolerance):
    instrument, camera = load_instrument("mini"), "b3"
    arm, traces = instrument.arm(camera), traces_of(instrument, camera, 1.04, 1.11)
    lines = arc_lines()
    lines = lines[(lines["wave"] > arm.wave_on_ccd[0]) & (lines["wave"] < arm.wave_on_ccd[1])]
    image = np.zeros(arm.shape)
    x_profile = integrate(instrument.trace_columns(), xsigma, arm.nx)
    y_profile = integrate(traces.y_vs_wave(lines["wave"])[0], ysigma, arm.ny)
    image += np.einsum("l,ly,fx->yx", lines["strength"] * 60.0, y_profile, x_profile)
    image += 10.0  # scattered light
    variance = image + 9
    pix = image + np.random.default_rng(1).normal(size=image.shape) * np.sqrt(variance)
    mask = np.zeros(arm.shape, np.uint16)
    data = Image(pix.astype("f4"), (1 / variance).astype("f4"), mask, camera, traces=traces)

    result = Calc_XWSigma().run(data, make_context(camera=camera, flavor="arc", program=""))

    print({k: round(v, 4) for k, v in result.metrics.items()})
    assert result.metrics["XSIGMA"] == pytest.approx(xsigma, rel=tolerance)
    assert result.metrics["WSIGMA"] == pytest.approx(ysigma, rel=0.02)
    assert result.metrics["WSIGMA_RATIO"] == pytest.approx(ysigma / 1.11, rel=0.02)
    assert result.per_fiber["XSIGMA_FIB"].shape == (instrument.nspec,)


def test_a_dark_camera_has_no_widths_and_says_so(make_context):
    instrument = load_instrument("mini")
    traces = traces_of(instrument, "r3", 1.04, 1.11)
    shape = instrument.arm("r3").shape
    pix = np.random.default_rng(2).normal(0, 3, shape).astype("f4")
    image = Image(pix, np.full(shape, 1 / 9, "f4"), np.zeros(shape, np.uint16), "r3", traces=traces)

    result = Calc_XWSigma().run(image, make_context(flavor="flat", program=""))

    assert result.metrics == {}
    assert result.summary == "no spot bright enough to measure"


def test_trace_shifts_tell_a_common_wavelength_shift(make_context):
    wave = np.linspace(5760, 7620, 5)
    shifts = TraceShifts(
        wave, np.full((40, 5), 0.12), np.full((40, 5), -0.3), 400, 300, 0.02, 0.03, "profile", "sky lines"
    )
    empty = np.zeros((4, 4), np.float32)
    image = Image(empty, empty, np.zeros((4, 4), np.uint16), "r3", shifts=shifts)

    result = Trace_Shifts().run(image, make_context())

    assert result.metrics["XYSHIFTS_X"] == pytest.approx(0.12)
    assert result.metrics["XYSHIFTS_Y"] == pytest.approx(-0.3)
    assert "sky lines" in result.summary
