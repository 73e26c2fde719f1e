"""A camera started from one flat and one arc, and the PSF fit that starts from there, against the truth.

    python -m benchmarks.offline.bootcalib [--instrument desi] [--cameras b0,r0,z0] [--fault KIND:CAMERA:PART] [--fit]

Simulates, preprocesses and bootstraps; with --fit the PSF is fitted to the arc twice, from there and from the PSF of
the calibration tree, which is right to a fraction of a pixel: the difference is what the start costs.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from algorithms.steps.bootcalib import BootcalibStep
from algorithms.steps.preproc import PreprocStep
from algorithms.steps.psf import FitPSFStep
from benchmarks.offline.night import NIGHT, Night
from qlstream.datamodel.traces import XYTraceSet
from qlstream.instrument import load_instrument
from qlstream.io.camword import decode_camword, parse_cameras
from qlstream.io.psf import read_psf
from qlstream.pipeline.filestep import StepFiles
from qlstream.simulate.faults import Fault, parse_fault
from qlstream.simulate.night import simulate_night

Array = NDArray[np.float64]

KINDS = ("flat", "arc")


@click.command()
@click.option("--instrument", "name", default="desi", show_default=True)
@click.option("--cameras", default="b0,r0,z0", show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--fault", "faults", multiple=True, help="as `qlstream simulate --fault`, e.g. dead-lamp:r0:Ne")
@click.option("--fit", is_flag=True, help="fit the PSF from there, too")
def main(name: str, cameras: str, seed: int, faults: tuple[str, ...], fit: bool) -> None:
    """Print errors of traces, wavelengths and widths in the science range, over fibers with light."""
    instrument = load_instrument(name)
    broken = tuple(parse_fault(text, instrument) for text in faults)
    table = Table(
        "camera", "start", "CPU [s]", "dark fibers", "x rms / worst [pixel]", "wave rms / worst [Å]",
        "xsig mean, rms", "ysig mean, rms", title=f"{name}, seed {seed}" + (f", {', '.join(faults)}" if faults else ""),
    )  # fmt: skip
    for camera in decode_camword(parse_cameras(cameras)):
        with tempfile.TemporaryDirectory() as scratch:
            night = Night(Path(scratch), instrument, (camera,), seed, KINDS)
            for row in _rows(night, camera, broken, fit):
                table.add_row(camera, *row)
    Console(width=150, markup=False).print(table)


def _rows(night: Night, camera: str, faults: tuple[Fault, ...], fit: bool) -> list[tuple[str, ...]]:
    folder = night.folder
    simulate_night(night.instrument, NIGHT, folder, (camera,), night.seed, faults, night.kinds)
    images = {}
    for exposure in night.exposures:
        images[exposure.flavor] = folder / f"preproc-{exposure.flavor}.fits"
        step = PreprocStep({"camera": camera, "calib": folder / "calib"})
        step.run(StepFiles({"raw": (night.raw(exposure),)}, {"preproc": images[exposure.flavor]}))
    arc = night.of_flavor("arc")[0]
    lit = np.median(night.truth(arc, camera).read("FIBERFLAT"), axis=1) > 0.02
    true = night.truth(arc, camera).traces
    inputs = {"flat": (images["flat"],), "arc": (images["arc"],)}
    boot = folder / "boot.fits"
    BootcalibStep().run(StepFiles(inputs, {"psf": boot}))  # compiles its kernels
    start = time.process_time()
    BootcalibStep().run(StepFiles(inputs, {"psf": boot}))
    spent = time.process_time() - start
    science = night.instrument.arm(camera).wave_science
    dark = str(read_psf(boot).meta["DARKFIB"])
    rows = [("flat and arc", f"{spent:.1f}", dark, *_errors(read_psf(boot).traces, true, science, lit))]
    for origin, psf in (("fit from there", (boot,)), ("fit from the tree", ())) if fit else ():
        fitted = folder / "fit.fits"
        start = time.process_time()
        FitPSFStep({"calib": folder / "calib"}).run(
            StepFiles({"preproc": (images["arc"],), "psf": psf}, {"psf": fitted})
        )
        spent = time.process_time() - start
        rows.append((origin, f"{spent:.1f}", "", *_errors(read_psf(fitted).traces, true, science, lit)))
    return rows


def _errors(
    found: XYTraceSet, true: XYTraceSet, science: tuple[float, float], lit: NDArray[np.bool_]
) -> tuple[str, ...]:
    rows = np.arange(0.0, true.npix_y, 8.0)
    wave = true.wave_vs_y(rows)
    use = (wave > science[0]) & (wave < science[1]) & lit[:, None]
    x = (found.x_vs_y(rows) - true.x_vs_y(rows))[use]
    off = (found.wave_vs_y(rows) - wave)[use]
    xsig = (found.xsig_vs_y(rows) / true.xsig_vs_y(rows) - 1.0)[use]
    ysig = (found.ysig_vs_y(rows) / true.ysig_vs_y(rows) - 1.0)[use]
    return (
        f"{np.sqrt(np.mean(x**2)):.4f} / {np.abs(x).max():.3f}",
        f"{np.sqrt(np.mean(off**2)):.4f} / {np.abs(off).max():.3f}",
        f"{100 * xsig.mean():+.2f} %, {100 * xsig.std():.2f} %",
        f"{100 * ysig.mean():+.2f} %, {100 * ysig.std():.2f} %",
    )


if __name__ == "__main__":
    main()
