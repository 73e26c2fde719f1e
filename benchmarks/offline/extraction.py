"""The extraction: errors, correlations, and whether the resolution makes of the light what is seen."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from algorithms.extract.spectroperfect.extraction import extract_spectra
from benchmarks.offline import byrow
from benchmarks.offline.light import light_of, through_resolution
from benchmarks.offline.night import Night
from benchmarks.truth.line import Line, nmad
from qlstream.datamodel.masks import EXTRACT_MASK
from qlstream.io.frame import read_frame
from qlstream.io.image import read_image
from qlstream.io.psf import read_psf
from qlstream.simulate.schedule import Exposure

Array = NDArray[np.float64]

_STRONG, _AROUND = 100.0, 12  # S/N of a bin in a strong line, and bins on either side that its residuals reach


def lines(night: Night, camera: str) -> Iterator[Line]:
    """Of the first science exposure."""
    exposure = night.of_flavor("science")[0]
    frame = read_frame(night.product("frame", exposure, camera))
    clean = noiseless(night, exposure, camera)
    good = (frame.ivar > 0) & (frame.mask == 0)
    pull = (frame.flux - clean) * np.sqrt(frame.ivar)
    yield from pull_lines("extract", "flux less that of the noiseless image", pull[good], 0.02, 0.05)
    both = good[:, 1:] & good[:, :-1]
    correlation = float((pull[:, 1:] * pull[:, :-1])[both].mean())
    told = f"{correlation:+.4f}"
    yield Line("extract", "correlation of neighbouring bins", "0", told, math.nan, "± 0.02", abs(correlation) <= 0.02)
    bright = good & (clean > np.quantile(clean[good], 0.9))
    told = f"{pull[bright].mean():+.3f} ± {pull[bright].std():.3f}"
    yield Line("extract", "pull of the brightest tenth", "0 ± 1", told, math.nan, "", True)

    light = light_of(night, exposure, camera, frame.wave)
    assert frame.resolution is not None
    expected = through_resolution(frame.resolution, light.sky + light.target)
    inside = good.copy()
    inside[:, :20] = inside[:, -20:] = False  # light from beyond the ends of the grid is in the flux, not in R x
    # a line between two bins has frequencies beyond those of the grid; at such S/N the grid itself shows
    strong = maximum_filter1d(np.where(good, clean * np.sqrt(frame.ivar), 0.0) > _STRONG, 2 * _AROUND + 1, axis=1)
    difference = (clean - expected) * np.sqrt(frame.ivar)
    for where, bins in (("", inside & ~strong), (f", at lines of S/N > {_STRONG:g}", inside & strong)):
        if not bins.any():
            continue
        scatter = nmad(difference[bins])
        told = f"nmad {scatter:.3f} σ, rms {np.sqrt(np.mean(difference[bins] ** 2)):.3f} σ"
        quantity = f"noiseless flux less resolution x true light{where}"
        aim = "" if where else "nmad ≤ 0.3 σ"
        yield Line("extract", quantity, "0", told, math.nan, aim, bool(where) or scatter <= 0.3)
    pull = (frame.flux - expected) * np.sqrt(frame.ivar)
    yield from pull_lines("extract", "flux less resolution x true light", pull[inside & ~strong], 0.05, 0.05)
    yield from byrow.lines(night, exposure, camera, frame)


def pull_lines(step: str, quantity: str, pull: Array, mean_aim: float, width_aim: float) -> Iterator[Line]:
    """Mean and width of pulls, each with its aim; the robust width stands beside the plain one."""
    mean, width = float(pull.mean()), float(pull.std())
    error = 1.0 / math.sqrt(pull.size)
    yield Line(
        step, f"pull of {quantity}, mean", "0", f"{mean:+.4f}", mean / error, f"± {mean_aim:g}", abs(mean) <= mean_aim
    )
    told = f"{width:.4f} (nmad {nmad(pull):.4f})"
    met = abs(width - 1) <= width_aim
    yield Line(step, f"pull of {quantity}, width", "1", told, (width - 1) / error, f"1.00 ± {width_aim:g}", met)


def noiseless(night: Night, exposure: Exposure, camera: str) -> Array:
    """(nspec, nwave) the image without noise extracted with the PSF and the weights of the frame; kept on disk."""
    kept = night.folder / "benchmark" / f"noiseless-{camera}-{exposure.expid:08d}.npy"
    frame = night.product("frame", exposure, camera)
    if not kept.exists() or kept.stat().st_mtime < frame.stat().st_mtime:
        image = read_image(night.product("preproc", exposure, camera))
        psf = read_psf(night.product("psf", exposure, camera))
        ivar = np.where(image.mask & np.uint16(EXTRACT_MASK) == 0, image.ivar, np.float32(0.0))
        wave = read_frame(frame).wave
        bundles = np.arange(0, psf.nspec + 1, night.instrument.fibers_per_bundle)
        light = night.truth(exposure, camera).read("IMAGE").astype(np.float32)
        kept.parent.mkdir(exist_ok=True)
        np.save(kept, extract_spectra(light, ivar, psf, wave, bundles).flux)
    return np.asarray(np.load(kept))
