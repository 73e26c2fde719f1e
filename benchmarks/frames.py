"""Fiber flat and sky of frames alone: cost, and errors against the truth, with resolution matrices that are known.

    python -m benchmarks.frames [--instrument desi] [--camera z0] [--seed 1] [--matrices]

Builds a flat and a science frame of a camera on a common grid: lamp and sky go through every fiber's resolution and
throughput and get noise, bin by bin. So it tells what these stages do at best; an extraction adds its own errors, and
resampled bins are correlated. A quarter of the sky fibers is told to be targets, so that blank fibers tell what
happens to spectra that did not make the model. Costs are CPU seconds of one core.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from algorithms.fiberflat.stage import ApplyFiberFlat, ComputeFiberflat, ComputeFiberflat_QL
from algorithms.sky.stage import ComputeSky, ComputeSky_QL, SkySub, SkySub_QL
from benchmarks.timing import seconds
from qlstream.calibration.served import Calibration
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.resolution import Resolution
from qlstream.instrument import Instrument, load_instrument
from qlstream.pipeline.context import Context
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.resources import peak_memory
from qlstream.simulate.exposure import CameraModel, build_camera
from qlstream.simulate.lamps import FLAT_EXPTIME, flat_light
from qlstream.simulate.skylight import Sky

Array = NDArray[np.float64]
NIGHT, EXPTIME = 20260115, 900.0
READ_VARIANCE = 80.0  # of a bin [electron^2]
EVERY = 12  # fiber is a sky fiber


class Scene:
    """Flat and science frame of one camera, and the truth."""

    def __init__(self, instrument: Instrument, camera: str, seed: int, matrices: bool) -> None:
        model = build_camera(instrument, camera, seed)
        arm, rng = instrument.arm(camera), np.random.default_rng(seed)
        step = max(0.8, float(np.ceil(10 * max(arm.dispersion)) / 10))
        self.wave = np.arange(arm.wave_science[0], arm.wave_science[1], step)
        traces = model.optics.traces
        wave = np.broadcast_to(self.wave, (instrument.nspec, self.wave.size))
        rows = np.gradient(traces.y_vs_wave(wave), self.wave, axis=1)  # [row/Angstrom]
        self.widths = traces.ysig_vs_wave(wave) / rows / step
        self.flat = model.throughput.relative(self.wave)
        self.live: NDArray[np.bool_] = np.all(self.flat > 0, axis=1)
        self.lamp = flat_light(arm, self.wave, FLAT_EXPTIME)
        self.sky = self._seen(_sky(model, instrument, self.wave))
        kinds = np.where(np.arange(instrument.nspec) % EVERY == 3, "SKY", "TGT")
        blank = np.flatnonzero(kinds == "SKY")
        kinds[blank[::4]] = "TGT"
        self.used = (kinds == "SKY") & self.live
        self.blank = np.isin(np.arange(instrument.nspec), blank) & ~self.used & self.live
        fibermap = np.zeros(instrument.nspec, dtype=[("FIBER", "i4"), ("TARGETID", "i8"), ("OBJTYPE", "U3")])
        fibermap["FIBER"], fibermap["OBJTYPE"] = instrument.fibers(camera), kinds
        fibermap["TARGETID"] = 1000 + np.arange(instrument.nspec)
        self.fibermap = Fibermap(fibermap)
        given: dict[str, Any] = {"ysigma": self.widths}
        if matrices:
            given = {"resolution": np.array([Resolution.from_widths(w).data for w in self.widths])}
        self.lamp_frame = self._observe(self._seen(self.lamp) * self.flat, camera, rng, given)
        self.science = self._observe(self.sky * self.flat, camera, rng, given)

    def _seen(self, spectrum: Array) -> Array:
        return np.array([Resolution.from_widths(w).dot(spectrum) for w in self.widths])

    def _observe(self, density: Array, camera: str, rng: np.random.Generator, given: dict[str, Any]) -> Frame:
        width = np.gradient(self.wave)
        counts = density * width
        variance = counts + READ_VARIANCE
        return Frame(
            wave=self.wave,
            flux=(counts + rng.normal(size=counts.shape) * np.sqrt(variance)) / width,
            ivar=width**2 / variance,
            mask=np.zeros(counts.shape, np.uint32),
            fibers=self.fibermap.column("FIBER"),
            fibermap=self.fibermap,
            meta={"CAMERA": camera},
            **given,
        )


def _sky(model: CameraModel, instrument: Instrument, wave: Array) -> Array:
    """(n,) electrons per Angstrom of a dark sky before the resolution; each line in the two bins about it."""
    sky, step = Sky(), float(wave[1] - wave[0])
    density = sky.continuum(wave)
    lines, flux = sky.lines()
    place = (lines - wave[0]) / step
    inside = (place > 1) & (place < wave.size - 2)
    first, part = place[inside].astype(int), place[inside] % 1.0
    np.add.at(density, first, (1.0 - part) * flux[inside] / step)
    np.add.at(density, first + 1, part * flux[inside] / step)
    area = 0.25 * np.pi * instrument.fiber_diameter**2
    return np.asarray(density * area * EXPTIME * model.throughput.electrons(wave))


def describe(pull: Array) -> str:
    return f"chi2/n {np.mean(pull**2):.4f} ± {np.sqrt(2 / pull.size):.4f}, mean {pull.mean():+.4f}"


@click.command()
@click.option("--instrument", "name", default="desi", show_default=True)
@click.option("--camera", default="z0", show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--matrices", is_flag=True, help="frames with whole resolution matrices instead of line widths")
def main(name: str, camera: str, seed: int, matrices: bool) -> None:
    """Print cost and errors of the frame stages of fiber flat and sky."""
    instrument = load_instrument(name)
    scene = Scene(instrument, camera, seed, matrices)
    context = Context(
        NIGHT, 1, camera, "flat", "", {"EXPTIME": EXPTIME}, scene.fibermap, instrument, Calibration(camera, NIGHT, {}),
        Ranges([]),
    )  # fmt: skip
    before = peak_memory.look()
    flats = {
        stage.__name__: stage().run(scene.lamp_frame, context) for stage in (ComputeFiberflat_QL, ComputeFiberflat)
    }
    flat = flats["ComputeFiberflat"]
    context = replace(context, flavor="science", calibration=Calibration(camera, NIGHT, {"FIBERFLAT": flat}))
    flattened = ApplyFiberFlat().run(scene.science, context)
    spectra = {stage.__name__: stage().run(flattened, context) for stage in (SkySub_QL, SkySub)}
    peak = peak_memory.look()

    nspec, nwave = scene.science.flux.shape
    cost = Table("stage", "CPU [s]")
    for stage, work in (
        (ComputeFiberflat_QL, lambda: ComputeFiberflat_QL().run(scene.lamp_frame, context)),
        (ComputeFiberflat, lambda: ComputeFiberflat().run(scene.lamp_frame, context)),
        (ApplyFiberFlat, lambda: ApplyFiberFlat().run(scene.science, context)),
        (ComputeSky_QL, lambda: ComputeSky_QL().run(flattened, context)),
        (ComputeSky, lambda: ComputeSky().run(flattened, context)),
        (SkySub, lambda: SkySub().run(flattened, context)),
    ):
        cost.add_row(stage.__name__, f"{seconds(work, repeat=3):.2f}")

    errors = Table("quantity", "measured", title="errors against the truth")
    for stage_name, product in flats.items():
        good = (product.mask == 0) & scene.live[:, None]
        error = (product.fiberflat / np.where(scene.flat > 0, scene.flat, np.nan) - 1)[good]
        nmad = 1.4826 * np.median(np.abs(error - np.median(error)))
        errors.add_row(f"{stage_name}, nmad / worst", f"{100 * nmad:.3f} % / {100 * np.abs(error).max():.2f} %")
    bright = np.asarray(scene.sky > 4 * np.median(scene.sky))
    for stage_name, frame in spectra.items():
        pull = frame.flux * np.sqrt(frame.ivar)
        for fibers, chosen in (("sky fibers", scene.used), ("blank fibers not in the fit", scene.blank)):
            part = (frame.ivar > 0) & chosen[:, None]
            errors.add_row(f"{stage_name}, {fibers}", describe(pull[part]))
            errors.add_row(f"{stage_name}, {fibers}, bright lines", describe(pull[part & bright]))
        lines = (frame.ivar > 0) & scene.blank[:, None] & bright
        assert frame.sky is not None
        bias = frame.flux[lines].sum() / scene.sky[lines].sum()
        errors.add_row(f"{stage_name}, what is left of the bright lines", f"{100 * bias:+.3f} %")
    console = Console(width=110)
    size = f"{nspec} fibers x {nwave} bins"
    console.print(f"{name} {camera}: {size}; peak {peak:.0f} MB, of which {before:.0f} for the simulation")
    console.print(cost)
    console.print(errors)


if __name__ == "__main__":
    main()
