"""Shifts by spectra and by spots against spectra that moved by a known amount; pulls are printed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from algorithms.flexure.stage import Flexure
from algorithms.psffit.arclines import choose_lines
from algorithms.traceshift.methods import Correlation, by_correlation, by_spots
from algorithms.traceshift.reference import read_spectrum
from qlstream.datamodel.image import Image
from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.lines import arc_lines, sky_lines
from qlstream.simulate.optics import build_optics

Array = NDArray[np.float64]

DX, DY = (0.31, 0.06, -0.05), (-0.42, 0.05, 0.07)


def rms(error: Array) -> float:
    return float(np.sqrt(np.mean(error**2)))


def spectrum_of(table: NDArray[np.void], continuum: float, step: float = 0.1) -> tuple[Array, Array, str]:
    """A spectrum of narrow lines on a continuum, as an atlas has it."""
    wave = np.arange(6800.0, 7700.0, step)
    flux = np.full(wave.size, continuum)
    inside = (table["wave"] > wave[0]) & (table["wave"] < wave[-1])
    for line in table[inside]:
        flux += line["strength"] / 0.3 * np.exp(-0.5 * ((wave - line["wave"]) / 0.12) ** 2)
    return wave, flux, "atlas"


def pulls(exposure: Any, image: Image) -> Array:
    """Of the measurements along the rows, against the true shift at their places."""
    points = image.shifts.points_y[image.shifts.points_y["used"]]
    start = exposure.context.calibration.traces
    wave = points["wave"]
    grid = np.linspace(start.wavemin, start.wavemax, 400)
    # points are what was left when they were measured; the traces then had all but that
    left = exposure.truth.y_vs_wave(grid) - image.traces.y_vs_wave(grid)
    at = np.array([np.interp(w, grid, left[f]) for f, w in zip(points["fiber"], wave, strict=True)])
    return np.asarray((points["shift"] - at) / points["error"])


@pytest.mark.parametrize(
    ("flavor", "table", "aim"), [("science", sky_lines, 0.008), ("arc", arc_lines, 0.012)], ids=["sky", "arc"]
)
def test_a_reference_spectrum_gives_the_wavelengths(
    moved: Callable[..., Any], flavor: str, table: Any, aim: float
) -> None:
    """Sky lines within their noise; the bright lines of an arc are not quite the Gaussians of the reference."""
    exposure = moved(flavor, DX, DY)
    how = Correlation(6, 5.0, spectrum_of(table(), 10.0 if flavor == "science" else 0.0))

    image = by_correlation(exposure.image, exposure.context, Flexure(), how)

    x, wave = exposure.errors(image)
    pull = pulls(exposure, image)
    print(
        f"{flavor}: x {rms(x):.4f} pixel, wave {rms(wave):.4f} A, {pull.size} pulls {pull.mean():+.2f} {pull.std():.2f}"
    )
    assert image.shifts.warnings == ()
    assert image.shifts.method_y == "atlas"
    assert rms(x) < 0.005
    assert rms(wave) < aim
    assert image.shifts.dy.mean() == pytest.approx(DY[0], abs=0.015)


def test_fibers_among_each_other_have_no_zero_point(moved: Callable[..., Any]) -> None:
    exposure = moved("science", DX, (0.0, 0.15, 0.0))

    image = by_correlation(exposure.image, exposure.context, Flexure(), Correlation(6, 3.0))

    x, wave = exposure.errors(image)
    print(f"internal: x {rms(x):.4f} pixel, wave {rms(wave - wave.mean()):.4f} A about the mean {wave.mean():+.4f}")
    assert rms(x) < 0.005
    assert rms(wave - wave.mean()) < 0.01
    assert abs(wave.mean()) < 0.03


def psf_of(exposure: Any) -> GaussHermitePSF:
    """The PSF that spread the light, on the traces from before the spectra moved."""
    psf = build_optics(exposure.context.instrument, "r1", seed=3).psf
    return replace(psf, traces=exposure.context.calibration.traces)


@pytest.mark.parametrize(("flavor", "table"), [("arc", arc_lines), ("science", sky_lines)], ids=["arc", "sky"])
def test_spots_give_both_axes(moved: Callable[..., Any], flavor: str, table: Any) -> None:
    exposure = moved(flavor, DX, DY)
    psf = psf_of(exposure)
    lines = choose_lines(table(), psf, exposure.image.ny, 40, 4.0, 0.05)
    bundles = np.arange(0, psf.nspec + 1, exposure.context.instrument.fibers_per_bundle)

    image = by_spots(exposure.image, exposure.context, Flexure(), psf, lines, bundles, 5.0)

    x, wave = exposure.errors(image)
    pull = pulls(exposure, image)
    print(
        f"{flavor}: x {rms(x):.4f} pixel, wave {rms(wave):.4f} A, {pull.size} pulls {pull.mean():+.2f} {pull.std():.2f}"
    )
    assert image.shifts.warnings == ()
    assert rms(x) < 0.01
    assert rms(wave) < 0.006


def test_without_light_the_traces_stay_and_a_warning_says_why(moved: Callable[..., Any]) -> None:
    exposure = moved("science", light=0.0)
    start = exposure.context.calibration.traces

    image = by_correlation(exposure.image, exposure.context, Flexure(), Correlation(6, 3.0))

    np.testing.assert_allclose(image.traces.ycoef, start.ycoef, atol=1e-9)
    assert any("dy is not measured" in warning for warning in image.shifts.warnings)


def test_a_reference_that_does_not_suit_is_refused(moved: Callable[..., Any], tmp_path: Path) -> None:
    exposure = moved("science")
    wave, flux, name = spectrum_of(sky_lines(), 10.0)
    short = Correlation(6, 3.0, (wave[:2000], flux[:2000], name))
    with pytest.raises(ValueError, match="atlas covers 6800 to 7000 Angstrom"):
        by_correlation(exposure.image, exposure.context, Flexure(), short)
    coarse = Correlation(6, 3.0, spectrum_of(sky_lines(), 10.0, 3.0))
    with pytest.raises(ValueError, match="steps must be finer"):
        by_correlation(exposure.image, exposure.context, Flexure(), coarse)
    path = tmp_path / "sky.dat"
    path.write_text("# wave flux\n7000 1.5\n6999 2\n")
    with pytest.raises(ValueError, match="increasing wavelength"):
        read_spectrum(path)
    path.write_text("6999 2\n7000 nan\n")
    with pytest.raises(ValueError, match="finite"):
        read_spectrum(path)
