import numpy as np
import pytest
from scipy.special import erf

from qa.spots import Calc_XWSigma
from qa.traces import Trace_Shifts
from qlstream.calibration.served import Calibration
from qlstream.datamodel.image import Image, TraceShifts
from qlstream.datamodel.traces import XYTraceSet
from qlstream.instrument import load_instrument
from qlstream.lines import arc_lines
from qlstream.simulate.exposure import simulate_camera
from qlstream.simulate.schedule import Exposure


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
    np.testing.assert_allclose(result.vectors["WSIGMA_BUNDLE"], ysigma, rtol=0.03)  # ten fibers each


@pytest.mark.parametrize(("kind", "camera"), [("arc", "b0"), ("flat", "r0"), ("science-dark", "b0")])
def test_the_width_is_that_of_the_psf_core_whatever_its_wings(make_context, kind, camera):
    """Simulated spots have Gauss-Hermite wings: the Gaussian nearest to them is 2 to 8 % wider than their core."""
    instrument = load_instrument("mini")
    exposure = Exposure(kind, exptime={"arc": 5.0, "flat": 120.0, "science-dark": 900.0}[kind], tileid=1000)
    simulated = simulate_camera(instrument, camera, exposure, seed=3)
    truth = simulated.truth
    pix = simulated.truth.image + np.random.default_rng(1).normal(size=truth.image.shape) * np.sqrt(truth.image + 9)
    image = Image(
        pix.astype("f4"), (1 / (truth.image + 9)).astype("f4"), np.zeros(pix.shape, np.uint16), camera,
        traces=truth.traces,
    )  # fmt: skip
    calibration = Calibration(camera, exposure.night, {"PSF": truth.psf})
    context = make_context(camera=camera, flavor=kind.partition("-")[0], program="", calibration=calibration)

    result = Calc_XWSigma().run(image, context)

    middle = np.array([np.mean(instrument.arm(camera).wave_science)])
    true = {"XSIGMA": truth.traces.xsig_vs_wave(middle), "WSIGMA": truth.traces.ysig_vs_wave(middle)}
    for key in ("XSIGMA",) if kind == "flat" else true:
        print(f"{kind} {camera} {key}: {100 * (result.metrics[key] / np.median(true[key]) - 1):+.2f} %")
        assert result.metrics[key] == pytest.approx(np.median(true[key]), rel=0.02)
    assert ("WSIGMA" in result.metrics) == (kind != "flat")


def test_lines_can_be_given_and_absent_widths_have_a_reason(make_context):
    instrument = load_instrument("mini")
    traces = traces_of(instrument, "r3", 1.04, 1.11)
    shape = instrument.arm("r3").shape
    image = np.full(shape, 100.0)
    image += np.einsum("y,fx->yx", 5000 * integrate(traces.y_vs_wave(np.array([6500.0]))[0, 0], 1.11, shape[0]),
                       integrate(instrument.trace_columns(), 1.04, shape[1]))  # fmt: skip
    data = Image(image.astype("f4"), (1 / image).astype("f4"), np.zeros(shape, np.uint16), "r3", traces=traces)

    given = Calc_XWSigma({"PEAKS": [6500.0]}).run(data, make_context(flavor="arc", program=""))
    flat = Calc_XWSigma().run(data, make_context(flavor="flat", program=""))

    assert given.metrics["WSIGMA"] == pytest.approx(1.11, rel=0.01)
    assert given.metrics["NPOINTS"] == 80  # one spot a fiber, both ways
    assert "WSIGMA" not in flat.metrics
    assert not any(c.metric.startswith("WSIGMA") for c in flat.checks)


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
    assert result.metrics["MINDX"] == result.metrics["MAXDX"] == pytest.approx(0.12)
    assert result.metrics["SLOPEDX_X"] == pytest.approx(0)
    assert result.metrics["ERRORDY"] == pytest.approx(0.03 / np.sqrt(300))
    assert "sky lines" in result.summary


def test_slopes_and_line_shifts_are_those_of_the_field(make_context):
    instrument = load_instrument("mini")
    traces = traces_of(instrument, "r3", 1.04, 1.11)
    wave = np.linspace(5760, 7620, 9)
    across, along = np.linspace(-0.5, 0.5, instrument.nspec)[:, None], np.linspace(-0.5, 0.5, 9)
    shifts = TraceShifts(
        wave, 0.1 + 0.4 * across + 0.0 * along, -0.3 + 0.2 * along - 0.1 * across, 0, 300, 0.0, 0.03, "profile", "arc"
    )
    empty = np.zeros((4, 4), np.float32)
    image = Image(empty, empty, np.zeros((4, 4), np.uint16), "r3", traces=traces, shifts=shifts)

    result = Trace_Shifts().run(image, make_context())

    slopes = [result.metrics[f"SLOPED{a}_{b}"] for a in "XY" for b in "XY"]
    np.testing.assert_allclose(slopes, [0.4, 0.0, -0.1, 0.2], atol=1e-6)
    assert "ERRORDX" not in result.metrics  # dx was not measured
    dispersion = (7790 - 5600) / 500  # Angstrom a row
    np.testing.assert_allclose(result.vectors["DLAMBDA"], dispersion * (-0.3 + 0.2 * along), rtol=1e-6)
