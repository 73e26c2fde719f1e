"""Where the spectra fall and how sharp they are: trace shifts, wavelengths, widths of the spots, resolution."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from benchmarks.truth.exposed import Exposed
from benchmarks.truth.line import Line, compared, nmad, rms
from qa.arclines import Arc_Lines

# (what the reference reaches, aim) [Angstrom] by kind of exposure
_WAVELENGTHS = {
    "arc": ("0.12", 0.005),
    "flat": ("0.12", 0.005),
    "science-dark": ("0.002–0.004", 0.004),
    "science-gray": ("0.002–0.004", 0.004),
    "science-bright": ("0.002–0.004", 0.004),
}


def lines(exposed: Exposed) -> Iterator[Line]:
    """All that this exposure tells of its optics."""
    if exposed.kind not in _WAVELENGTHS:
        return
    yield from _shifts(exposed)
    yield _wavelengths(exposed)
    yield _traces(exposed)
    yield from _widths(exposed)
    yield from _lamps(exposed)
    yield from _resolution(exposed)


def _shifts(exposed: Exposed) -> Iterator[Line]:
    """XYSHIFTS against the calibration traces that served; later exposures start from tonight's arc."""
    result, image = exposed.result("Trace_Shifts"), exposed.image
    assert result is not None
    assert image.shifts is not None
    assert image.traces is not None
    wave = image.shifts.wave
    found = {"X": image.shifts.dx, "Y": image.shifts.dy}
    start = {
        "X": image.traces.x_vs_wave(wave) - image.shifts.dx,
        "Y": image.traces.y_vs_wave(wave) - image.shifts.dy,
    }
    here = {"X": exposed.truth.traces.x_vs_wave(wave), "Y": exposed.truth.traces.y_vs_wave(wave)}
    for axis in "XY":
        truth = here[axis] - start[axis]
        points = result.metrics[f"NPOINTS{axis}"]
        sigma = result.metrics[f"RMSD{axis}"] / math.sqrt(points) if points > 0 else math.nan
        name = f"XYSHIFTS_{axis} [pixel]"
        yield compared("Trace_Shifts", name, float(truth.mean()), float(found[axis].mean()), sigma, absolute=0.01)


def _wavelengths(exposed: Exposed) -> Line:
    reference, aim = _WAVELENGTHS[exposed.kind]
    error = (exposed.qframe.wave - exposed.truth.wave)[exposed.in_range]
    told = f"{rms(error):.4f} (mean {error.mean():+.4f})"
    return Line("Flexure", "wavelength error, rms [Å]", "0", told, math.nan, f"≤ {aim}", rms(error) <= aim, reference)


def _traces(exposed: Exposed) -> Line:
    low, high = exposed.context.arm.wave_science
    grid = np.linspace(low, high, 60)
    assert exposed.image.traces is not None
    difference = exposed.image.traces.x_vs_wave(grid) - exposed.truth.traces.x_vs_wave(grid)
    error = difference[exposed.live].ravel()
    told = f"{rms(error):.4f} (mean {error.mean():+.4f})"
    return Line("Flexure", "trace x error, rms [pixel]", "0", told, math.nan, "≤ 0.005", rms(error) <= 0.005, "0.005")


def _widths(exposed: Exposed) -> Iterator[Line]:
    """XWSIGMA against the simulated widths in the middle of the arm; its error from the scatter over the fibers."""
    result = exposed.result("Calc_XWSigma")
    assert result is not None
    low, high = exposed.context.arm.wave_science
    middle, traces = np.array([0.5 * (low + high)]), exposed.truth.traces
    for name, widths in (("XSIGMA", traces.xsig_vs_wave(middle)), ("WSIGMA", traces.ysig_vs_wave(middle))):
        if name not in result.metrics:
            continue
        per_fiber = result.per_fiber[f"{name}_FIB"]
        found = np.isfinite(per_fiber)
        error = (per_fiber - widths[:, 0])[found]
        sigma = 1.25 * nmad(error) / math.sqrt(found.sum())
        truth = float(np.median(widths[found, 0]))
        measured = result.metrics[name]
        yield compared("Calc_XWSigma", f"{name} [pixel]", truth, measured, sigma, relative=0.02)


def _lamps(exposed: Exposed) -> Iterator[Line]:
    """LINE_AREA: electrons of the lines of an arc in the middle fibers, against those that were simulated."""
    result = exposed.result("Arc_Lines")
    if result is None:
        return
    table, area = result.vectors["LINE_WAVE"], result.vectors["LINE_AREA"]
    nfiber = Arc_Lines.Params.model_validate({}).nfiber
    first = max((len(exposed.live) - nfiber) // 2, 0)
    middle = first + np.flatnonzero(exposed.live[first : first + nfiber])
    half = 5.0 * np.interp(table, exposed.context.arm.wave_on_ccd, exposed.context.arm.dispersion)
    expected, variance = exposed.aperture
    ratio, errors = [], []
    for wave, width, measured in zip(table, half, area, strict=True):
        sums = []
        for i in middle:
            near = np.abs(exposed.truth.wave[i] - wave) < width
            sums.append(float(expected[i, near].sum()))
            errors.append(math.sqrt(float(variance[i, near].sum())) / max(sums[-1], 1.0))
        ratio.append(measured / np.median(sums))
    sigma = 1.25 * float(np.median(errors)) / math.sqrt(len(middle) * len(table))
    measured = float(np.median(ratio))
    yield compared("Arc_Lines", "LINE_AREA over truth, median line", 1.0, measured, sigma, relative=0.02)


def _resolution(exposed: Exposed) -> Iterator[Line]:
    """The fitted line widths against the simulated ones, all fibers and wavelengths."""
    fitted = exposed.reduced.outcome.outputs.get("ResolutionFit")
    if fitted is None:
        return
    low, high = exposed.context.arm.wave_science
    grid = np.linspace(low, high, 60)
    truth = exposed.truth.traces.ysig_vs_wave(grid)[exposed.live]
    error = (fitted.traces.ysig_vs_wave(grid)[exposed.live] / truth - 1).ravel()
    mean, sigma = float(error.mean()), nmad(error) / math.sqrt(exposed.live.sum())
    told = f"{100 * rms(error):.2f} % (mean {100 * mean:+.2f} %, worst {100 * np.abs(error).max():.1f} %)"
    name = "sigma(wave), relative error, rms"
    yield Line("ResolutionFit", name, "0", told, mean / sigma, "≤ 2 %", rms(error) <= 0.02)
