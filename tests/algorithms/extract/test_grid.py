import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import erf

from algorithms.extract.boxcar import BoxcarExtract, Extract_QP
from algorithms.extract.grid import GridParams
from qlstream.datamodel.frame import PER_ANGSTROM
from qlstream.datamodel.image import Image
from qlstream.datamodel.masks import CCDMask, SpecMask
from qlstream.instrument import load_instrument
from qlstream.io.frame import read_frame, write_frame

STEP = 5.0  # [Angstrom], 1.15 rows of the mini instrument


def image_of(exposed, **given):
    return Image(exposed.pix, exposed.ivar, exposed.mask, "r1", traces=exposed.traces, **given)


def lines_at(traces, wave, electrons, ny=500):
    """(nspec, ny) electrons per row of narrow lines, with the widths of the traces."""
    y, sigma = traces.y_vs_wave(wave), traces.ysig_vs_wave(wave)
    edges = np.arange(ny + 1) - 0.5
    rows = np.zeros((traces.nspec, ny))
    for k in range(len(wave)):
        cdf = 0.5 * (1 + erf((edges - y[:, k : k + 1]) / np.sqrt(2) / sigma[:, k : k + 1]))
        rows += electrons * np.diff(cdf, axis=1)
    return rows


def test_a_continuum_keeps_its_density_and_its_signal_to_noise(expose, make_context):
    exposed = expose(600.0 + 400.0 * np.sin(np.arange(500) / 40.0))
    context = make_context(camera="r1")
    qframe = Extract_QP().run(image_of(exposed), context)

    frame = BoxcarExtract({"Wavelength": (5800.0, 7600.0, STEP)}).run(image_of(exposed), context)

    assert frame.bunit == PER_ANGSTROM
    assert frame.flux.shape == (40, 361)
    inside = (qframe.wave > 5797.5) & (qframe.wave < 7602.5)
    signal, noise = frame.flux.sum() * STEP, np.sqrt((STEP**2 / frame.ivar).sum())
    before = qframe.flux[inside].sum() / np.sqrt((1 / qframe.ivar[inside]).sum())
    # the two windows differ by a fraction of a row at both ends of 415 rows
    print(f"S/N of all counts: {signal / noise:.2f}, before {before:.2f}; ratio {signal / noise / before:.5f}")
    assert signal / noise == pytest.approx(before, rel=0.003)
    per_bin = np.sum(frame.flux**2 * frame.ivar)
    assert per_bin == pytest.approx(np.sum(qframe.flux[inside] ** 2 * qframe.ivar[inside], dtype=float), rel=0.01)
    truth = np.array([np.interp(frame.wave, w, exposed.rows[0] / np.gradient(w)) for w in qframe.wave])
    captured = np.median(frame.flux / truth)
    pull = (frame.flux - captured * truth) * np.sqrt(frame.ivar)
    print(f"pull std {pull.std():.3f}: below 1, for neighbours share rows")
    assert 0.75 < pull.std() < 1.0


@pytest.mark.parametrize("step", [2.7, 3.5, STEP, 7.0])
def test_a_line_is_its_resolution_matrix_times_a_narrow_line(expose, make_context, step):
    grid = (5800.0, 7600.0, step)
    wave = GridParams(wavelength=grid).grid(load_instrument("mini").arm("r"))
    at = np.arange(40, len(wave) - 40, 30)
    traces = expose(0.0).traces

    def extracted(electrons):
        """A frame of lines of so many electrons, and what its resolution makes of them."""
        exposed = expose(lines_at(traces, wave[at], electrons))
        frame = BoxcarExtract({"Wavelength": grid}).run(image_of(exposed), make_context(camera="r1"))
        model = np.zeros(len(wave))
        model[at] = electrons / step
        expected = np.array([frame.resolution_of(i) @ model for i in range(40)])
        return frame, expected * np.sum(frame.flux) / np.sum(expected)  # not all light is in the window

    # Bright lines of 40 fibers, which fall anywhere on their rows: the noise of the width is 0.1 %. In CCD rows instead
    # of bins, or without the boxes of rows, it would be wrong by 8 % and more.
    frame, expected = extracted(30000.0)
    width = [second_moment(flux.mean(axis=0), at) for flux in (frame.flux, expected)]
    print(f"step {step}: width of lines {width[0]:.4f} bins, of its resolution {width[1]:.4f}")
    assert width[0] == pytest.approx(width[1], rel=0.005)

    # How a line falls on its rows moves its bins by up to 6 % of the peak, which is within the noise of faint lines.
    frame, expected = extracted(300.0)
    near = (np.abs(np.arange(len(wave))[:, None] - at) <= 4).any(axis=1)
    pull = ((frame.flux - expected) * np.sqrt(frame.ivar))[:, near]
    print(f"step {step}: chi2/n of faint lines {np.mean(pull**2):.3f}")
    assert np.mean(pull**2) < 1.0  # below 1, for neighbours share rows


def second_moment(spectrum, at, half=7):
    """Standard deviation of the lines of a spectrum, less that of a bin [bin]."""
    offset = np.arange(-half, half + 1)
    stamp = np.sum([spectrum[k - half : k + half + 1] for k in at], axis=0)
    return np.sqrt(stamp @ offset**2 / stamp.sum() - 1 / 12)


def test_bands_are_the_matrices_of_the_widths(expose, make_context):
    image, context = image_of(expose(300.0)), make_context(camera="r1")

    widths = BoxcarExtract({"ndiag": 11}).run(image, context)
    bands = BoxcarExtract({"usesigma": True, "ndiag": 11}).run(image, context)
    without = BoxcarExtract({"QuickResolution": False}).run(image, context)

    assert bands.resolution.shape == (40, 11, len(bands.wave))
    assert bands.ysigma is None
    np.testing.assert_allclose(bands.resolution_of(7).data, widths.resolution_of(7).data, atol=1e-6)
    assert without.resolution is None
    assert without.ysigma is None


def test_fibers_and_rows_without_information_survive_as_such(expose, make_context):
    exposed = expose(500.0)
    x = exposed.traces.x_vs_y(np.arange(500.0))
    for j in range(500):
        column = round(x[7, j])
        exposed.mask[j, column - 5 : column + 6] = int(CCDMask.BAD)
    exposed.mask[200, :] |= int(CCDMask.SATURATED)
    exposed.pix[exposed.mask > 0] = np.nan

    frame = BoxcarExtract().run(image_of(exposed), make_context(camera="r1"))

    assert np.isfinite(frame.flux).all()
    assert np.isfinite(frame.ivar).all()
    assert (frame.ivar[7] == 0).all()
    assert (frame.mask[7] & int(SpecMask.ALLBADPIX) > 0).all()
    others = np.delete(np.arange(40), [6, 7, 8])
    lost = (frame.ivar[others] == 0).sum(axis=1)
    assert (lost <= 2).all()
    assert (frame.mask[others] & int(SpecMask.SATURATED) > 0).sum(axis=1).tolist() == lost.tolist()


def test_a_grid_beyond_the_spectra_has_no_information_there(expose, make_context):
    frame = BoxcarExtract({"Wavelength": (5000.0, 8500.0, 9.0)}).run(image_of(expose(500.0)), make_context(camera="r1"))

    beyond = (frame.wave < 5500.0) | (frame.wave > 7900.0)
    inside = (frame.wave > 5760.0) & (frame.wave < 7620.0)
    assert (frame.ivar[:, beyond] == 0).all()
    assert (frame.mask[:, beyond] & int(SpecMask.NODATA) > 0).all()
    assert (frame.ivar[:, inside] > 0).all()
    assert (frame.mask[:, inside] == 0).all()


def test_a_part_of_the_spectra_brings_its_own_fibers_and_targets(expose, make_context, make_fibermap):
    exposed = expose(np.linspace(100.0, 900.0, 40)[:, None])
    context = make_context(camera="r1", fibermap=make_fibermap(["ELG"] * 40, first_fiber=40))
    whole = BoxcarExtract().run(image_of(exposed), context)

    part = BoxcarExtract({"Specmin": 5, "Nspec": 3}).run(image_of(exposed), context)

    assert part.fibers.tolist() == part.fibermap.fiber.tolist() == [45, 46, 47]
    np.testing.assert_array_equal(part.flux, whole.flux[5:8])
    np.testing.assert_array_equal(part.ysigma, whole.ysigma[5:8])
    with pytest.raises(ValueError, match="specmin 40: r1 has spectra 0 to 39"):
        BoxcarExtract({"Specmin": 40}).run(image_of(exposed), context)


def test_a_frame_is_written_and_read_back_with_its_widths(expose, make_context, tmp_path):
    frame = BoxcarExtract().run(image_of(expose(100.0)), make_context(camera="r1"))

    write_frame(tmp_path / "frame.fits", frame)

    again = read_frame(tmp_path / "frame.fits")
    np.testing.assert_allclose(again.ysigma, frame.ysigma, rtol=1e-6)
    np.testing.assert_allclose(again.wave, frame.wave)
    assert again.meta["FLAVOR"] == "science"


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, (3600.0, 5800.0, 2751)),  # the grids of the offline frames
        ({"DeltaW": 0.5}, (3600.0, 5800.0, 4401)),
        ({"Wavelength": "3570,5730,0.8"}, (3570.0, 5730.0, 2701)),
        ({"Wavelength": {"b": "3570,5730,0.8", "r": "5630,7740,0.8"}}, (3570.0, 5730.0, 2701)),
        ({"Wavelength": {"r": [5630, 7740, 0.8]}}, (3600.0, 5800.0, 2751)),
    ],
)
def test_the_grid_is_the_one_asked_for_else_that_of_the_instrument(params, expected):
    wave = GridParams.model_validate(params).grid(load_instrument("desi").arm("b"))

    assert (wave[0], pytest.approx(wave[-1]), len(wave)) == expected
    assert GridParams().grid(load_instrument("mini").arm("z"))[1] - 7520.0 == pytest.approx(5.4)


@pytest.mark.parametrize("wrong", ["5800,3600,0.8", (3600.0, 5800.0, 0.0), (1.0, 1e9, 0.1), "3600,5800"])
def test_what_is_no_grid_is_refused(wrong):
    with pytest.raises(ValidationError):
        GridParams(wavelength=wrong)
    with pytest.raises(ValidationError, match="even"):
        BoxcarExtract({"ndiag": 20})
