"""A camera started from a flat and an arc, against the truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from algorithms.bootcalib.camera import BootLimits, BootPSF, bootstrap
from algorithms.bootcalib.layout import FiberMismatch
from algorithms.bootcalib.plots import pages
from algorithms.steps.bootcalib import BootcalibStep
from algorithms.steps.psf import FitPSFStep
from qlstream import lines
from qlstream.datamodel.traces import XYTraceSet
from qlstream.instrument import load_instrument
from qlstream.io.image import write_image
from qlstream.io.psf import read_psf
from qlstream.pipeline.filestep import StepFiles
from qlstream.simulate.faults import Fault

Array = NDArray[np.float64]

DARK = [3, 6]  # the first is always broken in this simulated camera
LIT = ~np.isin(np.arange(18), DARK)


def errors(found: XYTraceSet, true: XYTraceSet, science: tuple[float, float], keep: NDArray[np.bool_]) -> Array:
    """rms over the rows and fibers `keep` of x [pixel], wavelength [Angstrom] and both widths [relative]."""
    rows = np.arange(float(true.npix_y))
    wave = true.wave_vs_y(rows)
    use = (wave > science[0]) & (wave < science[1]) & keep[:, None]
    off = (
        found.x_vs_y(rows) - true.x_vs_y(rows),
        found.wave_vs_y(rows) - wave,
        found.xsig_vs_y(rows) / true.xsig_vs_y(rows) - 1,
        found.ysig_vs_y(rows) / true.ysig_vs_y(rows) - 1,
    )
    return np.array([np.sqrt(np.mean(o[use] ** 2)) for o in off])


@pytest.fixture(scope="module")
def boot(pair) -> BootPSF:  # type: ignore[no-untyped-def]
    return bootstrap(pair.flat, pair.arc, pair.instrument, lines.arc_lines(), BootLimits())


def test_traces_wavelengths_and_widths_are_found(boot: BootPSF, pair) -> None:  # type: ignore[no-untyped-def]
    """The aims are 0.02 pixel, 0.02 Angstrom and 5 %. Noise alone would leave a tenth of that; wings beyond a
    Gaussian make its width 2 % larger than that of the core."""
    arm = pair.instrument.arm("r0")
    x, wave, xsig, ysig = errors(boot.psf.traces, pair.truth.traces, arm.wave_science, LIT)
    print(f"x {x:.4f} pixel, wavelength {wave:.4f} Angstrom, widths {100 * xsig:.1f} % and {100 * ysig:.1f} %")
    assert x < 0.02
    assert wave < 0.02
    assert xsig < 0.05
    assert ysig < 0.05


def test_a_dark_fiber_lies_between_its_neighbours(boot: BootPSF, pair) -> None:  # type: ignore[no-untyped-def]
    assert boot.dark.tolist() == DARK
    assert any("fiber 6 of bundle 1 is dark" in w for w in boot.warnings)
    x, wave, xsig, ysig = errors(boot.psf.traces, pair.truth.traces, pair.instrument.arm("r0").wave_science, ~LIT)
    # fibers scatter by 0.06 pixel in x and by 0.2 rows of 0.55 Angstrom; three times that is allowed
    assert x < 0.2
    assert wave < 0.35
    assert max(xsig, ysig) < 0.1


def test_a_lamp_that_is_off_is_noticed(boot: BootPSF) -> None:
    assert boot.lamps["Cd"] == 0.0
    assert all(boot.lamps[name] > 0.2 for name in ("Ne", "Ar"))
    assert any("Cd lamp" in w for w in boot.warnings)


def test_the_spectral_psf_fit_can_start_from_it(pair, small, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Flat and arc to a PSF whose traces are right to 0.01 pixel."""
    site = tmp_path / "small.yaml"
    site.write_text(yaml.safe_dump(small.model_dump(mode="json")))
    write_image(tmp_path / "flat.fits", pair.flat)
    write_image(tmp_path / "arc.fits", pair.arc)
    inputs = {"flat": (tmp_path / "flat.fits",), "arc": (tmp_path / "arc.fits",)}
    outputs = {"psf": tmp_path / "boot.fits", "qa": tmp_path / "qa.pdf"}

    BootcalibStep({"instrument": str(site)}).run(StepFiles(inputs, outputs))
    start = {"preproc": inputs["arc"], "psf": (outputs["psf"],)}
    # 16 lines over a quarter of a CCD bear no higher degree
    FitPSFStep({"instrument": str(site), "trace_degree_wave": 3}).run(StepFiles(start, {"psf": tmp_path / "psf.fits"}))

    written = read_psf(outputs["psf"])
    assert written.meta["DARKFIB"] == "3,6"
    assert written.meta["LAMPSOFF"] == "Cd"
    np.testing.assert_allclose(written.coef["GH-0-0"][:, 0], 1.0)
    assert outputs["qa"].read_bytes().startswith(b"%PDF")
    fitted, true = read_psf(tmp_path / "psf.fits").traces, pair.truth.traces
    wave = np.linspace(6031.7, 6719.0, 50)  # from the first line to the last: beyond them a fit cannot know better
    dx = (fitted.x_vs_wave(wave) - true.x_vs_wave(wave))[LIT]
    dy = (fitted.y_vs_wave(wave) - true.y_vs_wave(wave))[LIT]
    print(f"after the fit: x {np.sqrt(np.mean(dx**2)):.4f}, y {np.sqrt(np.mean(dy**2)):.4f} pixel")
    assert np.sqrt(np.mean(dx**2)) < 0.01
    assert np.sqrt(np.mean(dy**2)) < 0.01


@pytest.mark.parametrize(("camera", "limit"), [("b0", 0.15), ("r0", 0.06), ("z0", 0.1)])
def test_lines_that_blend_still_give_wavelengths(observe: Callable, camera: str, limit: float) -> None:  # type: ignore[type-arg]
    """mini has 4.5 Angstrom a pixel: most lines blend, so that the limits are those of the line list's strengths."""
    mini = load_instrument("mini")
    pair = observe(mini, camera)
    boot = bootstrap(pair.flat, pair.arc, mini, lines.arc_lines(), BootLimits())
    lit = np.ones(mini.nspec, dtype=bool)
    lit[boot.dark] = False
    x, wave, xsig, ysig = errors(boot.psf.traces, pair.truth.traces, mini.arm(camera).wave_science, lit)
    print(
        f"{camera}: x {x:.4f} pixel, wavelength {wave:.4f} Angstrom, widths {100 * xsig:.1f} % and {100 * ysig:.1f} %"
    )
    assert x < 0.02
    assert wave < limit, "a thirtieth of a pixel"
    assert max(xsig, ysig) < 0.05


def test_every_panel_says_what_it_shows(boot: BootPSF, small) -> None:  # type: ignore[no-untyped-def]
    """That the pages draw is seen where the step writes them."""
    figures = list(pages(boot, small, "r0"))
    assert len(figures) == 5
    assert all(ax.get_ylabel() for figure in figures for ax in figure.axes)
    assert all(any(ax.get_xlabel() for ax in figure.axes) for figure in figures)


def test_images_that_do_not_fit_are_refused(pair, observe: Callable) -> None:  # type: ignore[no-untyped-def, type-arg]
    mini = load_instrument("mini")
    other = observe(mini, "z0").flat
    with pytest.raises(ValueError, match="give one camera"):
        bootstrap(other, pair.arc, pair.instrument, lines.arc_lines(), BootLimits())
    dark = observe(mini, "r0", (Fault("lamp-off"),))
    with pytest.raises(FiberMismatch, match="was the lamp on"):
        bootstrap(dark.flat, dark.arc, mini, lines.arc_lines(), BootLimits())
