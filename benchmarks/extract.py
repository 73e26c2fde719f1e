"""Trace shifts, extraction and resolution alone: cost, and errors against the truth, on images with ideal variance.

    python -m benchmarks.extract [--instrument desi] [--camera r1] [--seed 1]

Draws the true image of a flat, an arc and a science exposure with photon and read noise, masks its cosmic rays down to
a twentieth of the noise, and runs the stages on it. So it tells what they can do at best; `benchmarks.truth` tells
what the whole pipeline does. Flats start from the traces of the arc before them, as in a night. Times are in units of
D, the median of five warm reads of the same raw camera in the same run.
"""

from __future__ import annotations

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from algorithms.extract.aperture import sum_apertures
from algorithms.extract.boxcar import BoxcarExtract, Extract_QP
from algorithms.extract.grid import GridParams, to_common_grid
from algorithms.flexure.stage import Flexure
from algorithms.resolution.stage import ResolutionFit
from benchmarks.timing import reading_time_of, seconds
from qlstream.calibration.served import Calibration
from qlstream.configs import config_path
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.image import Image
from qlstream.datamodel.linewidths import LineWidths
from qlstream.datamodel.masks import CCDMask
from qlstream.datamodel.qframe import QFrame
from qlstream.datamodel.traces import XYTraceSet
from qlstream.instrument import Instrument, load_instrument
from qlstream.pipeline.context import Context
from qlstream.pipeline.ranges import Ranges
from qlstream.simulate.exposure import SimulatedCamera, build_camera, simulate_camera
from qlstream.simulate.schedule import plan_night

NIGHT = 20260115
KINDS = ("arc", "flat", "science-dark")
LIMITS = {"Flexure": 0.4, "Extract_QP": 0.3, "BoxcarExtract": 0.6, "ResolutionFit": 0.6}  # [D]
REFERENCE_RESAMPLING = 0.33  # of the reference, per fiber [second] (spec preproc-and-extraction §9.1)


def observed(simulated: SimulatedCamera, readnoise: float, rng: np.random.Generator) -> Image:
    """The true image with photon and read noise, its true variance, and its cosmic rays masked."""
    truth = simulated.truth
    variance = truth.image + readnoise**2
    light = rng.poisson(truth.image) + rng.normal(0.0, readnoise, truth.image.shape) + truth.cosmics
    mask = np.where(truth.cosmics > 0.05 * np.sqrt(variance), int(CCDMask.COSMIC), 0).astype(np.uint16)
    return Image(light.astype(np.float32), (1.0 / variance).astype(np.float32), mask, simulated.raw.camera)


def describe(simulated: SimulatedCamera, image: Image, qframe: QFrame, instrument: Instrument) -> tuple[str, ...]:
    """Errors of the traces and of the fluxes of live fibers."""
    truth, traces = simulated.truth, image.traces
    assert traces is not None
    rows = np.arange(float(image.ny))
    live = np.median(truth.fiberflat, axis=1) > 0.2
    low, high = instrument.arm(image.camera).wave_science
    inside = (truth.wave > low) & (truth.wave < high) & live[:, None]
    dx = (traces.x_vs_y(rows) - truth.traces.x_vs_y(rows))[inside]
    dwave = (traces.wave_vs_y(rows) - truth.wave)[inside]
    clean = Image(truth.image, np.ones_like(image.ivar), np.zeros_like(image.mask), image.camera)
    expected = aperture(clean, traces, instrument.extraction_half_width)
    used = (qframe.ivar > 0) & live[:, None]
    pull = ((qframe.flux - expected) * np.sqrt(qframe.ivar))[used]
    touched = pull[qframe.mask[used] > 0]
    nmad = 1.4826 * np.median(np.abs(pull - np.median(pull)))
    return (
        f"{np.sqrt(np.mean(dx**2)):.5f}",
        f"{np.sqrt(np.mean(dwave**2)):.5f} / {np.abs(dwave).max():.4f}",
        f"{nmad:.4f} / {pull.std():.4f}",
        f"{touched.std():.3f}" if touched.size else "-",
        f"{100 * np.mean(qframe.mask[live] > 0):.3f} % / {100 * np.mean(qframe.ivar[live] == 0):.3f} %",
    )


def aperture(image: Image, traces: XYTraceSet, half_width: float) -> np.ndarray:
    """Flux of an image without masks in the windows of `traces`."""
    nspec, ny = traces.nspec, image.ny
    inside = np.tile(np.array([0, ny]), (nspec, 1))
    x = traces.x_vs_y(np.arange(float(ny)))
    return sum_apertures(image.pix, image.ivar, image.mask, x, np.ones((nspec, 2)), inside, half_width)[0]


def signal_to_noise_kept(qframe: QFrame, frame: Frame) -> str:
    """S/N of all bins of the frame over that of the rows that it is made of."""
    step = frame.dwave[0]
    inside = (qframe.wave > frame.wave[0] - step / 2) & (qframe.wave < frame.wave[-1] + step / 2)
    rows = np.sum((qframe.flux**2 * qframe.ivar)[inside], dtype=float)
    return f"{np.sqrt(np.sum(frame.flux**2 * frame.ivar) / rows):.4f}"


def describe_widths(simulated: SimulatedCamera, widths: LineWidths, instrument: Instrument) -> tuple[str, ...]:
    """Errors of the line widths of live fibers, over the science range."""
    truth = simulated.truth
    wave = np.linspace(*instrument.arm(widths.camera).wave_science, 40)
    live = np.median(truth.fiberflat, axis=1) > 0.2
    error = (widths.traces.ysig_vs_wave(wave) / truth.traces.ysig_vs_wave(wave) - 1.0)[live]
    return (
        f"{np.median(widths.nlines[live]):.0f}",
        f"{100 * error.mean():+.3f} %",
        f"{100 * error.std():.3f} %",
        f"{100 * np.abs(error).max():.2f} %",
    )


@click.command()
@click.option("--instrument", "name", default="desi", show_default=True)
@click.option("--camera", default="r1", show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(name: str, camera: str, seed: int) -> None:
    """Print cost and errors of Flexure, Extract_QP, BoxcarExtract and ResolutionFit."""
    instrument = load_instrument(name)
    rng = np.random.default_rng(seed)
    optics = build_camera(instrument, camera, seed).optics
    traces = optics.traces
    cost = Table("exposure", "stage", "CPU [s]", "[D]", "limit [D]", title=f"{name} {camera}: cost")
    errors = Table("exposure", "x rms [pixel]", "wave rms / worst [Å]", "pull nmad / rms", "pull of filled-in rows rms",
                   "rows touched / lost", "S/N kept on the grid", title=f"{name} {camera}: errors")  # fmt: skip
    widths = Table("lines per fiber", "bias", "rms", "worst", title=f"{name} {camera}: fitted over true line width - 1")
    for exposure in plan_night(NIGHT, seed, KINDS):
        simulated = simulate_camera(instrument, camera, exposure, seed)
        image = observed(simulated, instrument.arm(camera).readnoise, rng)
        context = Context(
            NIGHT, exposure.expid, camera, exposure.flavor, "", simulated.raw.header, None, instrument,
            Calibration(camera, NIGHT, {"TRACES": traces, "PSF": optics.psf}),
            Ranges.load(config_path("qa", "quicklook")),
        )  # fmt: skip
        moved = context.earlier["Flexure"] = Flexure().run(image, context)
        qframe = Extract_QP().run(moved, context)
        unit = reading_time_of(simulated)
        stages = {
            "Flexure": lambda image=image, context=context: Flexure().run(image, context),
            "Extract_QP": lambda image=moved, context=context: Extract_QP().run(image, context),
            "BoxcarExtract": lambda image=moved, context=context: BoxcarExtract().run(image, context),
        }
        if exposure.flavor == "arc":
            stages["ResolutionFit"] = lambda qframe=qframe, context=context: ResolutionFit().run(qframe, context)
        for stage, work in stages.items():
            spent = seconds(work)
            cost.add_row(exposure.kind, stage, f"{spent:.3f}", f"{spent / unit:.2f}", f"{LIMITS[stage]:.1f}")
        grid = GridParams.model_validate({}).grid(context.arm)
        spent = seconds(lambda qframe=qframe, grid=grid: to_common_grid(qframe, grid))
        reference = qframe.nspec * REFERENCE_RESAMPLING
        cost.add_row(exposure.kind, f"  to the grid, 1/{reference / spent:.0f} of the reference's {reference:.0f} s",
                     f"{spent:.3f}", f"{spent / unit:.2f}", "")  # fmt: skip
        kept = signal_to_noise_kept(qframe, to_common_grid(qframe, grid))
        errors.add_row(exposure.kind, *describe(simulated, moved, qframe, instrument), kept)
        if exposure.flavor == "arc":
            fitted = ResolutionFit().run(qframe, context)
            widths.add_row(*describe_widths(simulated, fitted, instrument))
            traces = fitted.traces
    console = Console(width=150)
    for table in (cost, errors, widths):
        console.print(table)


if __name__ == "__main__":
    main()
