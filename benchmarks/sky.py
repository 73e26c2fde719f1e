"""Fiber flat, sky and flux calibration alone: cost, and errors against the truth, on spectra that no CCD has touched.

    python -m benchmarks.sky [--instrument desi] [--camera r1] [--seed 1]

Simulates a flat and a science exposure, adds noise to their true counts per row, and runs the four stages on them. So
it tells what these stages can do at best; `benchmarks.truth` tells what the whole pipeline does. Times are in units of
D, the median of five warm reads of the same raw camera in the same run.
"""

from __future__ import annotations

from dataclasses import replace

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from algorithms.fiberflat.stage import ApplyFiberFlat_QP, ComputeFiberflat_QP
from algorithms.fluxcal.stage import ApplyFluxCalibration
from algorithms.sky.stage import SkySub_QP
from benchmarks.timing import reading_time_of, seconds
from qlstream.calibration.served import Calibration
from qlstream.configs import config_path
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.qframe import QFrame
from qlstream.instrument import Instrument, load_instrument
from qlstream.pipeline.context import Context
from qlstream.pipeline.ranges import Ranges
from qlstream.simulate.exposure import SimulatedCamera, build_camera, simulate_camera
from qlstream.simulate.schedule import plan_night

NIGHT = 20260115
KINDS = ("flat", "science-dark")
READ_VARIANCE = 60.0  # of a row [electron^2]


def observed(simulated: SimulatedCamera, instrument: Instrument, rng: np.random.Generator) -> QFrame:
    """The true counts per row with photon and read noise, and their true variance."""
    truth = simulated.truth
    fibers = instrument.fibers(simulated.raw.camera)
    variance = truth.flux + READ_VARIANCE
    flux = truth.flux + rng.normal(size=truth.flux.shape) * np.sqrt(variance)
    ysigma = truth.traces.ysig_vs_wave(truth.wave).astype(np.float32)
    rows = np.zeros(len(fibers), dtype=[("FIBER", "i4"), ("OBJTYPE", "U3")])
    rows["FIBER"] = fibers
    rows["OBJTYPE"] = np.where(truth.targets["KIND"] == b"SKY", "SKY", "TGT")
    return QFrame(
        truth.wave,
        flux.astype(np.float32),
        (1.0 / variance).astype(np.float32),
        np.zeros(flux.shape, np.uint32),
        fibers,
        ysigma,
        Fibermap(rows),
        meta={"CAMERA": simulated.raw.camera},
    )


def describe(pull: np.ndarray) -> str:
    return f"chi2/n {np.mean(pull**2):.4f} ± {np.sqrt(2 / pull.size):.4f}, mean {pull.mean():+.4f}"


@click.command()
@click.option("--instrument", "name", default="desi", show_default=True)
@click.option("--camera", default="r1", show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(name: str, camera: str, seed: int) -> None:
    """Print cost and errors of the stages after extraction."""
    instrument = load_instrument(name)
    flat_raw, science_raw = (simulate_camera(instrument, camera, e, seed) for e in plan_night(NIGHT, seed, KINDS))
    rng = np.random.default_rng(seed)
    lamp, science = observed(flat_raw, instrument, rng), observed(science_raw, instrument, rng)
    context = Context(
        NIGHT, 1, camera, "flat", "", flat_raw.raw.header, lamp.fibermap, instrument,
        Calibration(camera, NIGHT, {}), Ranges.load(config_path("qa", "quicklook")),
    )  # fmt: skip
    flat = ComputeFiberflat_QP().run(lamp, context)
    fluxcalib = build_camera(instrument, camera, seed).throughput.fluxcalib(instrument)
    context = replace(
        context,
        flavor="science",
        header=science_raw.raw.header,
        calibration=Calibration(camera, NIGHT, {"FIBERFLAT": flat, "FLUXCALIB": fluxcalib}),
    )
    flattened = ApplyFiberFlat_QP().run(science, context)
    subtracted = SkySub_QP().run(flattened, context)

    unit = reading_time_of(science_raw)
    cost = Table("stage", "CPU [s]", f"in D = {unit:.3f} s", title=f"{name} {camera}: cost")
    for stage, run in (
        ("ComputeFiberflat_QP", lambda: ComputeFiberflat_QP().run(lamp, context)),
        ("ApplyFiberFlat_QP", lambda: ApplyFiberFlat_QP().run(science, context)),
        ("SkySub_QP", lambda: SkySub_QP().run(flattened, context)),
        ("ApplyFluxCalibration", lambda: ApplyFluxCalibration().run(subtracted, context)),
    ):
        spent = seconds(run)
        cost.add_row(stage, f"{spent:.3f}", f"{spent / unit:.2f}")

    errors = Table("quantity", "measured", title="errors against the truth")
    live = (flat.mask == 0).mean(axis=1) > 0.5
    low, high = instrument.arm(camera).wave_science
    inside = (science.wave > low) & (science.wave < high) & live[:, None] & (subtracted.ivar > 0)
    measured = np.array([np.interp(w, flat.wave, f) for w, f in zip(lamp.wave, flat.fiberflat, strict=True)])
    error = (measured / np.where(flat_raw.truth.fiberflat > 0, flat_raw.truth.fiberflat, np.nan) - 1)[inside]
    nmad = 1.4826 * np.median(np.abs(error - np.median(error)))
    errors.add_row("fiber flat, nmad / worst", f"{100 * nmad:.3f} % / {100 * np.abs(error).max():.2f} %")
    assert subtracted.sky is not None
    sky = subtracted.sky
    bright = sky > 4 * np.median(sky[inside])
    truth = science_raw.truth
    target = truth.target / np.where(truth.fiberflat > 0, truth.fiberflat, 1.0)
    pull = (subtracted.flux - target) * np.sqrt(subtracted.ivar)
    assert science.fibermap is not None
    is_sky = science.fibermap.is_sky[:, None]
    for fibers, chosen in (("sky fibers", is_sky), ("target fibers", ~is_sky)):
        for where, rows in (("", inside), (", bright lines", inside & bright)):
            errors.add_row(f"flux after sky, {fibers}{where}", describe(pull[rows & chosen]))
    console = Console(width=110)
    console.print(cost)
    console.print(errors)


if __name__ == "__main__":
    main()
