from dataclasses import replace

import numpy as np
import pytest

from algorithms.resolution.stage import ResolutionFit
from qlstream.datamodel.linewidths import WidthSource
from qlstream.datamodel.masks import SpecMask
from qlstream.instrument import load_instrument
from qlstream.lines import LINE, arc_lines


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.mark.parametrize(
    "wider",
    [
        lambda across, along: 1.0,
        lambda across, along: 1.1,
        lambda across, along: 1.25 + 0.05 * across + 0.08 * along - 0.03 * along**2,
    ],
    ids=["as the calibration", "10 % wider", "out of focus and tilted"],
)
def test_widths_are_those_of_the_optics(make_arc, wider):
    arc = make_arc(wider)

    widths = ResolutionFit().run(arc.qframe, arc.context)

    error = arc.errors(widths)
    print(
        f"bias {error.mean():+.5f}, rms {rms(error):.5f}, worst {np.abs(error).max():.4f}; {widths.nlines.mean()} lines"
    )
    # 20 lines of 1 % each in a fiber, three coefficients: 0.4 % on average, three times that at the ends
    assert abs(error.mean()) < 0.002
    assert rms(error) < 0.006
    assert np.abs(error).max() < 0.03
    assert (widths.source == WidthSource.LINES).all()
    assert np.median(widths.chi2 / widths.dof) == pytest.approx(1.0, abs=0.4)
    assert widths.warnings == ()


def test_single_widths_scatter_as_their_errors_say(make_arc):
    arc = make_arc()

    widths = ResolutionFit().run(arc.qframe, arc.context)

    seen = np.isfinite(widths.sigma)
    pull = ((widths.sigma - arc.truth.ysig_vs_wave(widths.lines["wave"])) / widths.error)[seen]
    print(f"{seen.sum()} widths, pull mean {pull.mean():+.3f}, std {pull.std():.3f}")
    # neighbours of 1 % of a line in the outermost rows are all that is left
    assert abs(pull.mean()) < 0.1
    assert pull.std() == pytest.approx(1.0, abs=0.07)


def test_the_result_goes_into_traces_and_spectra_and_leaves_the_input_alone(make_arc):
    arc = make_arc(lambda across, along: 1.1)
    before = arc.qframe.ysigma.copy()
    start = arc.context.earlier["Flexure"].traces

    widths = ResolutionFit().run(arc.qframe, arc.context)

    rows = np.arange(0.0, 1800.0, 50)
    np.testing.assert_allclose(widths.spectra.ysigma[:, ::50], widths.traces.ysig_vs_y(rows), rtol=1e-5)
    np.testing.assert_array_equal(arc.qframe.ysigma, before)
    np.testing.assert_array_equal(widths.traces.ycoef, start.ycoef)
    assert widths.traces.meta["YSIGEXP"] == 82
    assert widths.traces.meta["MJD-OBS"] == 61054.1
    assert "BUNIT" not in widths.traces.meta
    assert np.median(widths.ratio(np.array([6700.0]))) == pytest.approx(1.1, rel=0.005)


def test_the_mini_instrument_copes_though_most_of_its_lines_blend(make_arc):
    for camera in ("b1", "r1", "z1"):
        arc = make_arc(lambda across, along: 1.1, instrument=load_instrument("mini"), camera=camera)

        widths = ResolutionFit().run(arc.qframe, arc.context)

        error = arc.errors(widths)
        print(
            f"mini {camera}: bias {error.mean():+.4f}, rms {rms(error):.4f}, {np.median(widths.nlines)} lines; "
            f"{widths.warnings}"
        )
        assert abs(error.mean()) < 0.01
        assert rms(error) < 0.02
        assert (widths.source <= WidthSource.FEW_LINES).all()


def test_fibers_without_lines_take_their_neighbours_change_and_a_flag(make_arc):
    def spoil(clean):
        clean[7] = 5.0  # a broken fiber
        clean[20, : clean.shape[1] // 2] = 5.0
        clean[20, clean.shape[1] // 2 + 100 :] = 5.0

    arc = make_arc(lambda across, along: 1.1 + 0.05 * across, spoil=spoil)

    widths = ResolutionFit().run(arc.qframe, arc.context)

    error = arc.errors(widths)
    print(f"lines {widths.nlines[[7, 20]]}, errors {np.abs(error[[7, 20]]).max(axis=1)}")
    assert widths.source[7] == WidthSource.NEIGHBOURS
    assert widths.source[20] == WidthSource.FEW_LINES
    assert np.abs(error[[7, 20]]).max() < 0.02
    assert (np.delete(widths.source, [7, 20]) == WidthSource.LINES).all()


def test_without_light_the_widths_of_the_calibration_stay(make_arc):
    arc = make_arc(light=0.0)

    widths = ResolutionFit().run(arc.qframe, arc.context)

    wave = np.linspace(6300.0, 7100.0, 9)
    start = arc.context.calibration.traces
    np.testing.assert_allclose(widths.traces.ysig_vs_wave(wave), start.ysig_vs_wave(wave), rtol=1e-9)
    assert (widths.source == WidthSource.UNCHANGED).all()
    assert widths.nlines.sum() == 0
    assert "those that the traces came with stay" in widths.warnings[0]
    assert "YSIGEXP" not in widths.traces.meta


def test_spectra_without_any_information_make_no_exception(make_arc):
    arc = make_arc()
    lost = replace(arc.qframe, ivar=np.zeros_like(arc.qframe.ivar), flux=np.full_like(arc.qframe.flux, np.nan))

    widths = ResolutionFit().run(lost, arc.context)

    assert np.isfinite(widths.traces.ysigcoef).all()
    assert (widths.source == WidthSource.UNCHANGED).all()


def test_unknown_neighbours_cosmic_rays_and_masked_rows_do_not_pull(make_arc):
    table = arc_lines()
    extra = np.zeros(1, LINE)  # in no table: blends with Ne 6508
    bright = table["strength"][np.abs(table["wave"] - 6508.3).argmin()]
    extra["wave"], extra["strength"] = 6509.3, 0.5 * bright
    lines = np.concatenate([table, extra])

    def spoil(clean):
        rng = np.random.default_rng(2)
        for fiber, row in zip(rng.integers(0, 40, 300), rng.integers(0, 1797, 300), strict=True):
            clean[fiber, row : row + 2] += 3000.0

    arc = make_arc(spoil=spoil, lines=np.sort(lines, order="wave"))
    arc.qframe.mask[:, 900:903] = int(SpecMask.SATURATED)
    arc.qframe.flux[:, 900:903] = 1e6

    widths = ResolutionFit().run(arc.qframe, arc.context)

    error = arc.errors(widths)
    blended = np.abs(widths.lines["wave"] - 6508.3).argmin()
    print(f"bias {error.mean():+.5f}, rms {rms(error):.5f}; {widths.used[:, blended].sum()} blended widths used")
    assert widths.used[:, blended].sum() == 0
    assert abs(error.mean()) < 0.003
    assert rms(error) < 0.01


def test_the_lines_may_be_given(make_arc):
    arc = make_arc()

    widths = ResolutionFit({"Linelist": [6404.02, 6931.38, 7034.35, 6100.0, 6700.0]}).run(arc.qframe, arc.context)

    assert widths.lines["wave"] == pytest.approx([6404.02, 6700.0, 6931.38, 7034.35], abs=0.01)  # 6100 is off the CCD
    assert widths.lines["name"].tolist() == ["Ne", "?", "Ne", "Ne"]
    assert (widths.nlines == 3).all()
    assert rms(arc.errors(widths)) < 0.02


def test_it_works_without_a_psf_and_without_widths_to_start_from(make_arc):
    arc = make_arc()
    start = arc.context.calibration.traces
    bare = make_arc(calibration={"TRACES": replace(start, xsigcoef=None, ysigcoef=None)})
    image = bare.context.earlier["Flexure"]
    bare.context.earlier["Flexure"] = replace(image, traces=replace(image.traces, ysigcoef=None))

    widths = ResolutionFit().run(bare.qframe, bare.context)

    error = bare.errors(widths)
    print(f"plain Gaussians: bias {error.mean():+.4f}, rms {rms(error):.4f}")
    assert rms(error) < 0.03  # without a PSF the wings are not known, and the Gaussian nearest to it is 1-2 % off


def test_what_it_cannot_take_is_named(make_arc):
    arc = make_arc()
    few = {k: getattr(arc.qframe, k)[:3] for k in ("wave", "flux", "ivar", "mask", "fibers", "ysigma")}
    with pytest.raises(ValueError, match=r"3 spectra in 'electron' for 40 traces"):
        ResolutionFit().run(replace(arc.qframe, **few), arc.context)
    arc.context.earlier.clear()
    with pytest.raises(ValueError, match="no stage before gave traces"):
        ResolutionFit().run(arc.qframe, arc.context)
