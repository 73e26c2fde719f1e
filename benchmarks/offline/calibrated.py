"""Fiber flat, sky and flux calibration against the throughput and the light that were simulated."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from algorithms.fiberflat.apply import divide_by_fiberflat
from algorithms.sky.framemodel import subtract_model
from benchmarks.offline.extraction import pull_lines
from benchmarks.offline.light import light_of, through_resolution
from benchmarks.offline.night import Night
from benchmarks.truth.line import Line, nmad
from qlstream.datamodel.frame import Frame
from qlstream.io.fiberflat import read_fiberflat
from qlstream.io.fluxcalib import read_fluxcalib
from qlstream.io.frame import read_frame
from qlstream.io.sky import read_sky
from qlstream.io.stdstars import read_stdstars
from qlstream.simulate.schedule import Exposure

Array = NDArray[np.float64]

_LINE_LEVEL = 3.0  # as in the steps
_WINDOW = 50.0  # [Angstrom]


def lines(night: Night, camera: str) -> Iterator[Line]:
    """Of the flat and the first science exposure."""
    yield from _fiberflat(night, camera)
    yield from _sky(night, camera)
    yield from _fluxcalib(night, camera)


def star_lines(night: Night) -> Iterator[Line]:
    """What the standard stars were taken for."""
    exposure = night.of_flavor("science")[0]
    petal = int(night.cameras[0][1:])
    stars = read_stdstars(night.product("stdstars", exposure, spectrograph=petal))
    targets = night.targets(exposure)
    true = targets.kind[stars.fibers] == "STD"
    asked = int((targets.kind[night.instrument.fibers(night.cameras[0])] == "STD").sum())
    told = f"{true.sum()} and {(~true).sum()} others"
    yield Line("starfit", "standard stars fitted", str(asked), told, math.nan, "all, no others",
               bool(true.all() and true.sum() == asked))  # fmt: skip
    error = stars.metadata["TEFF"] - targets.shape[stars.fibers]
    told = f"{np.median(error):+.0f} ± {nmad(error):.0f} K, worst {np.abs(error).max():.0f}"
    sigma = stars.metadata["TEFF_ERR"]
    pull = float(np.sqrt(np.mean((error / sigma) ** 2)))
    told += f" (error {np.median(sigma):.0f} K, pull {pull:.2f})"
    good = abs(np.median(error)) <= 50 and nmad(error) <= 100
    yield Line("starfit", "temperature less truth", "0", told, math.nan, "± 50, nmad ≤ 100 K", good)
    speed, speed_error = (299792.458 * stars.metadata[name] for name in ("REDSHIFT", "REDSHIFT_ERR"))
    pull = float(np.abs(speed / speed_error).max())
    told = f"{np.median(speed):+.1f} ± {nmad(speed):.1f} km/s, worst {np.abs(speed).max():.0f}, worst pull {pull:.1f}"
    yield Line("starfit", "redshift", "0", told, math.nan, "worst ≤ 15 km/s", bool(np.abs(speed).max() <= 15))
    told = f"{np.median(stars.metadata['CHI2DOF']):.2f}, {stars.metadata['CHI2DOF'].max():.2f}"
    yield Line("starfit", "chi2/dof of the lines, median and worst", "1", told, math.nan, "", True)
    inside = (stars.wave > 3700) & (stars.wave < 9700)
    model = stars.flux[:, inside] / targets.spectra(stars.fibers, stars.wave[inside])
    scale = np.median(model, axis=1) - 1.0
    told = f"{100 * np.median(scale):+.2f} ± {100 * nmad(scale):.2f} %"
    yield Line("starfit", "model over true flux less 1, median over wavelength", "0", told, math.nan, "± 2 %",
               abs(float(np.median(scale))) <= 0.02)  # fmt: skip
    slope = model / np.median(model, axis=1, keepdims=True) - 1.0
    told = f"rms {100 * np.sqrt(np.mean(slope**2)):.2f} %, worst {100 * np.abs(slope).max():.1f} %"
    yield Line("starfit", "its change with wavelength", "0", told, math.nan, "rms ≤ 2 %",
               bool(np.sqrt(np.mean(slope**2)) <= 0.02))  # fmt: skip


def _fiberflat(night: Night, camera: str) -> Iterator[Line]:
    flat = read_fiberflat(night.product("fiberflatnight", camera=camera))
    truth = night.truth(night.of_flavor("flat")[0], camera).at("FIBERFLAT", flat.wave)
    good = (flat.ivar > 0) & (flat.mask == 0) & (truth > 0)
    truth = truth / np.median(truth[good.any(axis=1)], axis=0)  # relative to the median of the same fibers
    error = np.where(good, flat.fiberflat / np.where(truth > 0, truth, 1.0) - 1.0, 0.0)[good]
    pull = ((flat.fiberflat - truth) * np.sqrt(flat.ivar))[good]
    told = f"{100 * nmad(error):.3f} % / {100 * np.abs(error).max():.2f} % (pull {nmad(pull):.2f})"
    yield Line("fiberflat", "relative error away from masks, nmad / worst", "0", told, math.nan, "nmad ≤ 0.2 %",
               nmad(error) <= 0.002)  # fmt: skip


def _sky(night: Night, camera: str) -> Iterator[Line]:
    exposure = night.of_flavor("science")[0]
    frame = read_frame(night.product("frame", exposure, camera))
    flat = read_fiberflat(night.product("fiberflatnight", camera=camera))
    model = read_sky(night.product("sky", exposure, camera))
    flux, ivar, mask = divide_by_fiberflat(frame, flat)
    flattened = Frame(frame.wave, flux, ivar, mask, frame.fibers, frame.resolution, fibermap=frame.fibermap,
                      meta=frame.meta)  # fmt: skip
    clean = subtract_model(flattened, model, _LINE_LEVEL)
    assert clean.sky is not None
    assert frame.fibermap is not None
    good = (clean.ivar > 0) & (clean.mask == 0)
    kind = night.targets(exposure).kind[frame.fibers]
    throughput = np.median(night.truth(exposure, camera).read("FIBERFLAT"), axis=1)
    pull = clean.flux * np.sqrt(clean.ivar)
    is_line = clean.sky.flux > _LINE_LEVEL * np.median(clean.sky.flux)
    groups = {"sky fibers": kind == "SKY", "blank fibers": (kind == "") & (throughput > 0.8)}
    for name, fibers in groups.items():
        for where, bins in (("", good), (", lines", good & is_line)):
            here = bins & fibers[:, None]
            if not here.any():
                continue
            square = pull[here] ** 2
            error = math.sqrt(2.0 / square.size)
            told = f"{square.mean():.4f} (mean pull {pull[here].mean():+.3f}, n {square.size})"
            met = abs(square.mean() - 1) <= max(0.05, 3 * error)
            yield Line("sky", f"chi2/dof of {name}{where}", "1", told, (square.mean() - 1) / error, "1.00 ± 0.05", met)
    here = good & is_line & groups["sky fibers"][:, None]
    if here.sum() > 100:
        sky, noise = clean.sky.flux[here], 1.0 / clean.ivar[here]
        mean = float((clean.flux[here]).sum() / sky.sum())
        excess = float(np.sqrt(max(np.sum(clean.flux[here] ** 2 - 1.0 / ivar[here]), 0.0) / np.sum(sky**2)))
        told = f"mean {100 * mean:+.3f} %, rms beyond photon noise {100 * excess:.2f} %"
        assert (noise > 0).all()
        yield Line("sky", "residual of bright lines, of the line", "0", told, math.nan, "< 1 %",
                   abs(mean) < 0.01 and excess < 0.01)  # fmt: skip
        whole = _whole_lines(np.where(here, clean.flux, 0.0), np.where(here, clean.sky.flux, 0.0),
                             np.where(here, 1.0 / np.where(ivar > 0, ivar, 1.0), 0.0))  # fmt: skip
        told = f"rms beyond photon noise {100 * whole:.2f} %"
        yield Line("sky", "the same, each line as a whole", "0", told, math.nan, "< 1 %", whole < 0.01)
    light = light_of(night, exposure, camera, frame.wave)
    assert frame.resolution is not None
    truth = through_resolution(frame.resolution, light.target)
    truth /= np.where(flat.fiberflat > 0.01, flat.fiberflat, 1.0)
    others = good & ((kind != "SKY") & (throughput > 0.8))[:, None]
    others[:, :20] = others[:, -20:] = False
    yield from pull_lines("sky", "targets less true light", ((clean.flux - truth) * np.sqrt(clean.ivar))[others],
                          0.05, 0.05)  # fmt: skip


def _whole_lines(residual: Array, sky: Array, variance: Array) -> float:
    """Rms of what is left of the flux of lines beyond noise, over the rms of that flux; a line is a run of bins."""
    square = flux = 0.0
    for r, s, v in zip(residual, sky, variance, strict=True):
        starts = np.flatnonzero(np.diff((s > 0).astype(int), prepend=0) == 1)
        if starts.size:  # bins between the lines are 0
            square += float((np.add.reduceat(r, starts) ** 2 - np.add.reduceat(v, starts)).sum())
            flux += float((np.add.reduceat(s, starts) ** 2).sum())
    return math.sqrt(max(square, 0.0) / flux)


def _fluxcalib(night: Night, camera: str) -> Iterator[Line]:
    """The calibration of every fiber against throughput, air and fiber losses, all through its resolution.

    What it is off is photon noise of the stars, which its own errors tell, and errors of their models, which all
    wavelengths share. Errors of a window's bins are those of the window: a smooth response has no others.
    """
    exposure = night.of_flavor("science")[0]
    calib = read_fluxcalib(night.product("fluxcalib", exposure, camera))
    frame = read_frame(night.product("frame", exposure, camera))
    truth = _true_calibration(night, exposure, camera, frame)
    kind = night.targets(exposure).kind[frame.fibers]
    good = (calib.ivar > 0) & (calib.mask == 0) & (kind != "")[:, None]
    known, live = good.any(axis=0), good.any(axis=1)
    wave, ratio = frame.wave[known], np.where(good, calib.value / truth, np.nan)[:, known]
    average = np.nanmedian(ratio, axis=0)
    error = 1.0 / np.median((truth * np.sqrt(calib.ivar))[live][:, known], axis=0)
    windows = [
        w for low in np.arange(wave[0], wave[-1], _WINDOW) if (w := (wave >= low) & (wave < low + _WINDOW)).any()
    ]
    level = np.array([np.median(average[w]) for w in windows]) - 1.0
    sigma = np.array([np.median(error[w]) for w in windows])
    worst = int(np.abs(level).argmax())
    told = (f"median {100 * np.median(average - 1):+.2f} %, worst 50 Å {100 * level[worst]:+.2f} ± "
            f"{100 * sigma[worst]:.2f} % at {wave[windows[worst]].mean():.0f}")  # fmt: skip
    yield Line("fluxcalib", "calibration over simulated throughput less 1", "0", told, math.nan, "± 2 %",
               bool(np.abs(level).max() <= 0.02))  # fmt: skip
    bins = average - 1.0
    told = f"nmad {100 * nmad(bins):.2f} %, worst bin {100 * np.abs(bins).max():.1f} %"
    yield Line("fluxcalib", "the same bin by bin", "0", told, math.nan, "nmad ≤ 2 %", nmad(bins) <= 0.02)
    fibers = np.nanmedian((ratio / average)[live], axis=1) - 1.0
    told = f"nmad {100 * nmad(fibers):.2f} %, worst {100 * np.abs(fibers).max():.1f} %"
    yield Line("fluxcalib", "fiber against fiber (flat, positioner)", "0", told, math.nan, "nmad ≤ 1 %",
               nmad(fibers) <= 0.01)  # fmt: skip
    pull = (average / np.median(average) - 1.0) / error
    told = f"{nmad(pull):.2f}; error {100 * np.median(error):.2f} % of {calib.meta['NSTDSTAR']} stars"
    yield Line("fluxcalib", "pull of the vector's shape, nmad", "1", told, math.nan, "≤ 1.5", nmad(pull) <= 1.5)


def _true_calibration(night: Night, exposure: Exposure, camera: str, frame: Frame) -> Array:
    """(nspec, nwave) through the resolution of each fiber, with the light from beyond both ends of the grid."""
    assert frame.resolution is not None
    more = frame.resolution.shape[1] // 2
    longer = np.pad(frame.resolution, ((0, 0), (0, 0), (more, more)), "edge")
    light = light_of(night, exposure, camera, np.pad(frame.wave, more, "reflect", reflect_type="odd"))
    truth = through_resolution(longer, light.calibration)
    truth /= np.maximum(through_resolution(longer, np.ones(truth.shape)), 0.1)
    return truth[:, more:-more]
