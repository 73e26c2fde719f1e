"""Preprocessing alone: what it costs, and what it makes of pixels whose truth is known.

    python -m benchmarks.preproc [--instrument desi] [--camera r0] [--seed 1]

Simulates a camera with its calibration tree (master frames of finite noise) and one exposure of each kind, and runs
Preproc on them as a worker does. Times are CPU times in units of D, the median of five warm reads of the same HDU in
the same run. Definitions:

- cosmic: a pixel with cosmic electrons > 5 sigma, sigma^2 = true light + dark + readnoise^2, not flagged otherwise;
- exact: flagged pixels with cosmic electrons > 1 sigma; near: these and their 8 neighbours; far: flagged, yet neither;
- pull: (pix - light) sqrt(ivar) away from cosmic rays and flags; dark: light < 1 electron. Raw pixels are whole ADU,
  about 0.5 sigma where it is dark, so that their median absolute deviation is that of a comb: up to half an ADU is
  added at random, and the variance of that to the pixel's.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.ndimage import maximum_filter

from algorithms.preproc.stage import Preproc
from benchmarks.timing import reading_time, seconds
from qlstream.calibration.finder import find_calibration
from qlstream.configs import config_path
from qlstream.datamodel.image import Image
from qlstream.datamodel.masks import CCDMask
from qlstream.instrument import Instrument, load_instrument
from qlstream.io.raw import read_raw, write_raw
from qlstream.pipeline.context import Context
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.resources import PeakMemory
from qlstream.simulate.calibration import write_calibration, write_spectrograph_map
from qlstream.simulate.detector import Detector
from qlstream.simulate.exposure import SimulatedCamera, build_camera, simulate_camera
from qlstream.simulate.schedule import plan_night

NIGHT = 20260115
OPTIONS_OF = "science-dark"
KINDS = ("zero", "dark", "arc", "flat", "science-dark", "science-bright")
LIMIT = 1.5  # [D]
OPTIONS: tuple[dict[str, object], ...] = (
    {"measure_background": False},
    {"overscan_row": True, "savgol": True},
    {"model_variance": True},
    {"bkgsub_science": True},
    {"remove_scattered_light": True},
)
Pixels = NDArray[np.float32]


def nmad(values: Pixels) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def true_sigma(simulated: SimulatedCamera, detector: Detector, exptime: float) -> Pixels:
    """Noise of every pixel without cosmic rays [electron]."""
    variance = simulated.truth.image * detector.response + detector.dark * np.float32(exptime)
    for amp in detector.amps:
        variance[amp.ccdsec.slices] += detector.readnoise[amp.name] ** 2
    return np.sqrt(variance)


def pulls(image: Image, simulated: SimulatedCamera, detector: Detector) -> Pixels:
    """Pull of every pixel, the comb of whole ADU smeared."""
    rng = np.random.default_rng(1)
    gain = np.ones(image.pix.shape, np.float32)
    for amp in detector.amps:
        gain[amp.ccdsec.slices] = detector.gain[amp.name]
    flat = np.where(detector.pixflat > 0.001, detector.pixflat, np.float32(1.0))
    step = gain / flat
    light = simulated.truth.image * detector.response / flat
    variance = 1.0 / np.maximum(image.ivar, np.float32(1e-12)) + step**2 / 12
    smeared = image.pix + step * (rng.random(image.pix.shape, dtype=np.float32) - np.float32(0.5))
    return (smeared - light) / np.sqrt(variance)


def share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> str:
    """Per cent of `whole` that is also in `part`."""
    n = int(whole.sum())
    return f"{100 * int((part & whole).sum()) / n:.2f}" if n else "-"


def measure(image: Image, simulated: SimulatedCamera, detector: Detector, exptime: float) -> list[str]:
    """The row of one exposure: completeness, purities, pulls, saturation."""
    cosmics, sigma = simulated.truth.cosmics, true_sigma(simulated, detector, exptime)
    flagged = (image.mask & CCDMask.COSMIC) != 0
    usable = (image.mask & ~np.uint16(CCDMask.COSMIC)) == 0
    true = cosmics > sigma
    near = maximum_filter(true, 3)
    clean = usable & ~flagged & (cosmics < 0.05)
    pull = pulls(image, simulated, detector)
    dark = pull[clean & (simulated.truth.image < 1)]
    lit = pull[clean & (simulated.truth.image > 30)]
    saturated = np.zeros(flagged.shape, bool)
    for amp in detector.amps:
        saturated[amp.ccdsec.slices] = simulated.raw.pix[amp.datasec.slices] >= detector.saturlev[amp.name]
    strong = (cosmics > 5 * sigma) & usable
    return [
        f"{int(strong.sum())}",
        share(flagged, strong),
        share(near, flagged),
        share(true, flagged),
        f"{int((flagged & ~near).sum())}",
        f"{nmad(dark):.3f} / {dark.std():.3f}" if dark.size else "-",
        f"{nmad(lit):.3f} / {lit.std():.3f}" if lit.size else "-",
        f"{share((image.mask & CCDMask.SATURATED) != 0, saturated)} of {int(saturated.sum())}",
    ]


def context_of(
    raw_header: dict[str, object], instrument: Instrument, camera: str, flavor: str, folder: Path
) -> Context:
    return Context(
        night=NIGHT,
        expid=int(str(raw_header["EXPID"])),
        camera=camera,
        flavor=flavor,
        program="",
        header=raw_header,
        fibermap=None,
        instrument=instrument,
        calibration=find_calibration(raw_header, folder / "calib", cache_dir=folder / "cache", flavor=flavor),
        ranges=Ranges.load(config_path("qa", "quicklook")),
    )


@click.command()
@click.option("--instrument", "name", default="desi", show_default=True)
@click.option("--camera", default="r0", show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(name: str, camera: str, seed: int) -> None:
    """Print cost and quality of Preproc for every kind of exposure."""
    instrument = load_instrument(name)
    detector = (model := build_camera(instrument, camera, seed)).detector
    table = Table(
        "kind", "cost [D]", "of it cosmics", "cosmic", "found %", "near %", "exact %", "far", "dark", "lit", "sat %"
    )
    table.title = f"Preproc, {name} {camera}; pulls: nmad / rms"
    options = Table("option", "cost beyond the default [D]", title=f"{OPTIONS_OF} exposure")
    slowest, peak = 0.0, 0.0
    reads: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_spectrograph_map(folder / "calib")
        write_calibration(folder / "calib", model)
        context: Context | None = None
        for exposure in plan_night(NIGHT, seed, KINDS):
            simulated = simulate_camera(instrument, camera, exposure, seed)
            path = folder / "raw.fits.fz"
            write_raw(path, simulated.raw.primary, {camera: (simulated.raw.pix, simulated.cards)})
            d = reading_time(path, camera)
            raw = read_raw(path, camera)
            buffers = context.buffers if context else None
            context = context_of(raw.header, instrument, camera, exposure.flavor, folder)
            context = replace(context, buffers=buffers) if buffers else context
            whole = seconds(lambda raw=raw, context=context: Preproc().run(raw, context)) / d
            without = seconds(lambda raw=raw, context=context: Preproc({"cosmics": False}).run(raw, context)) / d
            slowest, reads = max(slowest, whole), [*reads, d]
            memory = PeakMemory()
            memory.reset()
            image = Preproc().run(raw, context)
            peak = max(peak, memory.look())
            row = measure(image, simulated, detector, exposure.exptime)
            for option in OPTIONS if exposure.kind == OPTIONS_OF else ():
                cost = seconds(lambda raw=raw, context=context, option=option: Preproc(option).run(raw, context)) / d
                options.add_row(", ".join(f"{k}: {v}" for k, v in option.items()), f"{cost - whole:+.2f}")
            table.add_row(exposure.kind, f"{whole:.2f}", f"{whole - without:.2f}", *row)
    console = Console(width=150)
    console.print(table, options)
    console.print(f"D = {np.median(reads):.3f} s; slowest {slowest:.2f} D, limit {LIMIT} D")
    console.print(f"peak memory {peak:.0f} MB, the simulated truth in it")


if __name__ == "__main__":
    main()
