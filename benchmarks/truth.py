"""How far the pipeline's numbers are from the simulated truth, beside what the reference pipeline reaches.

    python -m benchmarks.truth [--instrument desi] [--camera r0] [--folder DIR] [--seed 1]

Simulates an arc, a flat and a science exposure of one camera, runs them through the shipped plans in that order, so
that the flat gets its wavelengths from the arc and the science exposure its fiber flat from the flat, and compares.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from algorithms.preproc.stage import Preproc
from algorithms.sky.stage import SkySub_QP
from qlstream.configs import config_path
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.image import Image, RawCamera
from qlstream.datamodel.masks import CCDMask
from qlstream.datamodel.qframe import QFrame
from qlstream.engine.camera import CameraRequest, Reduced, reduce_camera
from qlstream.instrument import Instrument, load_instrument
from qlstream.io.raw import read_raw
from qlstream.pipeline.context import Buffers
from qlstream.pipeline.plan import load_plans
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.result import QAResult
from qlstream.pipeline.runner import Cost
from qlstream.simulate.exposure import simulate_camera
from qlstream.simulate.night import simulate_night
from qlstream.simulate.schedule import plan_night
from qlstream.simulate.truth import Truth

Array = NDArray[np.float64]
NIGHT = 20260115
KINDS = ("arc", "flat", "science-dark")


@dataclass(frozen=True)
class Exposed:
    """One reduced exposure, its raw frame and the truth."""

    raw: RawCamera
    reduced: Reduced
    truth: Truth

    @property
    def image(self) -> Image:
        """After Flexure: with traces."""
        return self.reduced.outcome.outputs["Flexure"]

    @property
    def qframe(self) -> QFrame:
        return self.reduced.outcome.outputs["Extract_QP"]

    @property
    def live(self) -> NDArray[np.bool_]:
        """(nspec,) fibers that FIBERSTATUS does not call broken."""
        fibermap = self.reduced.context.fibermap
        assert fibermap is not None
        return fibermap.is_usable("flat", self.reduced.context.camera[:1])

    @property
    def in_range(self) -> NDArray[np.bool_]:
        """(nspec, ny) rows of live fibers inside the arm's science range."""
        low, high = self.reduced.context.arm.wave_science
        return (self.truth.wave > low) & (self.truth.wave < high) & self.live[:, None]


@dataclass(frozen=True)
class Line:
    """One row of the report; `good` tells whether the aim is met."""

    quantity: str
    measured: str
    reference: str
    aim: str
    good: bool


def nmad(values: Array) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def aperture_truth(image: NDArray[np.float32], x: Array, half_width: float) -> Array:
    """(nspec, ny) exact sum of the noiseless image within half_width of x, by a second method: cumulated rows."""
    ny, nx = image.shape
    total = np.zeros((ny, nx + 1))
    np.cumsum(image, axis=1, dtype=float, out=total[:, 1:])
    edges = np.arange(nx + 1) - 0.5
    out = np.empty(x.shape)
    for j in range(ny):
        out[:, j] = np.interp(x[:, j] + half_width, edges, total[j]) - np.interp(x[:, j] - half_width, edges, total[j])
    return out


def flux_pulls(science: Exposed, flat: Exposed, arc: Exposed) -> list[Line]:
    lines = []
    for name, exposed in (("science", science), ("flat", flat), ("arc", arc)):
        qframe, traces = exposed.qframe, exposed.image.traces
        assert traces is not None
        x = traces.x_vs_wave(qframe.wave)
        half_width = exposed.reduced.context.instrument.extraction_half_width
        expected = aperture_truth(exposed.truth.image, x, half_width)
        good = (qframe.ivar > 0) & exposed.in_range
        pull = ((qframe.flux - expected) * np.sqrt(qframe.ivar))[good]
        text = f"{nmad(pull):.3f} / {rms(pull):.3f} (mean {pull.mean():+.3f})"
        fine = abs(nmad(pull) - 1) <= 0.01 and abs(rms(pull) - 1) <= 0.01
        reference = "0.999 / 1.006" if name == "science" else ""
        lines.append(Line(f"flux pull in the same aperture, nmad / rms, {name}", text, reference, "1.00 ± 0.01", fine))
    return lines


def lost_rows(science: Exposed) -> list[Line]:
    lost = float((science.qframe.ivar[science.in_range] == 0).mean())
    return [Line("fiber rows lost, science, live fibers", f"{100 * lost:.3f} %", "1–2 %", "≤ 0.2 %", lost <= 0.002)]


def _noise(exposed: Exposed) -> NDArray[np.float32]:
    """(ny, nx) true noise of each pixel without cosmic rays [electron]."""
    return np.sqrt(exposed.truth.image + exposed.image.readnoise**2)


def _grown(pixels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """One pixel wider in all eight directions."""
    out = pixels.copy()
    ny, nx = pixels.shape
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            to = slice(max(dy, 0), ny + min(dy, 0)), slice(max(dx, 0), nx + min(dx, 0))
            at = slice(max(-dy, 0), ny + min(-dy, 0)), slice(max(-dx, 0), nx + min(-dx, 0))
            out[to] |= pixels[at]
    return out


def cosmic_rays(science: Exposed, flat: Exposed, arc: Exposed) -> list[Line]:
    lines = []
    for name, exposed, reference, aim in (
        ("science", science, "99.5 %", 0.995),
        ("flat", flat, "53 %", 0.95),
        ("arc", arc, "", 0.95),
    ):
        sigma, mask = _noise(exposed), exposed.image.mask
        flagged = (mask & int(CCDMask.COSMIC)) != 0
        masked = (mask & ~np.uint16(int(CCDMask.COSMIC | CCDMask.BADREADNOISE))) != 0
        hit = (exposed.truth.cosmics > 5 * sigma) & ~masked
        touched = (exposed.truth.cosmics > sigma) & ~masked
        flagged_good = flagged & ~masked
        found = float(flagged[hit].mean())
        exact = float(touched[flagged_good].mean())
        near = float(_grown(touched)[flagged_good].mean())
        text = f"{100 * found:.2f} % of {hit.sum()}"
        name_of = f"cosmic pixels > 5 σ found, {name}"
        lines.append(Line(name_of, text, reference, f"≥ {100 * aim:.1f} %", found >= aim))
        wanted = name == "science"
        lines.append(
            Line(
                f"  purity within 1 pixel / exact (> 1 σ), {name}",
                f"{100 * near:.1f} % / {100 * exact:.1f} % of {flagged_good.sum()}",
                "91 % / 42 %" if wanted else "",
                "≥ 97 % / ≥ 60 %" if wanted else "",
                not wanted or (near >= 0.97 and exact >= 0.60),
            )
        )
    return lines


def wavelengths_and_traces(science: Exposed, flat: Exposed, arc: Exposed) -> list[Line]:
    lines = []
    for name, exposed, reference, aim in (
        ("science", science, "0.002–0.004", 0.002),
        ("arc", arc, "0.12", 0.005),
        ("flat", flat, "0.12", 0.005),
    ):
        error = (exposed.qframe.wave - exposed.truth.wave)[exposed.in_range]
        text = f"{rms(error):.4f} (mean {error.mean():+.4f})"
        lines.append(Line(f"wavelength error rms, {name} [Å]", text, reference, f"≤ {aim}", rms(error) <= aim))
    for name, exposed in (("science", science), ("flat", flat), ("arc", arc)):
        low, high = exposed.reduced.context.arm.wave_science
        grid = np.linspace(low, high, 60)
        assert exposed.image.traces is not None
        error = (exposed.image.traces.x_vs_wave(grid) - exposed.truth.traces.x_vs_wave(grid))[exposed.live].ravel()
        text = f"{rms(error):.4f} (mean {error.mean():+.4f})"
        lines.append(Line(f"trace x error rms, {name} [pixel]", text, "0.005", "≤ 0.005", rms(error) <= 0.005))
    return lines


def sky_residuals(science: Exposed) -> list[Line]:
    """Sky fibers that made the model, and others that were told to be targets, so that they did not."""
    flattened: QFrame = science.reduced.outcome.outputs["ApplyFiberFlat_QP"]
    fibermap = flattened.fibermap
    assert fibermap is not None
    context = science.reduced.context
    usable = np.flatnonzero(fibermap.is_sky & fibermap.is_usable("sky", context.camera[:1]))
    held_out = usable[::4]
    rows = fibermap.rows.copy()
    rows["OBJTYPE"][held_out] = "TGT"
    told = Fibermap(rows, fibermap.meta)
    subtracted = SkySub_QP().run(replace(flattened, fibermap=told), replace(context, fibermap=told))
    assert subtracted.sky is not None
    lines = []
    for name, fibers, reference, aims in (
        ("sky fibers", np.setdiff1d(usable, held_out), "1.01 / 1.07", (1.01, 1.02)),
        ("blank fibers not in the fit", held_out, "1.05 / 1.11", (1.02, 1.03)),
    ):
        inside = science.in_range[fibers]
        ivar = subtracted.ivar[fibers]
        pull = subtracted.flux[fibers] * np.sqrt(ivar)
        good = (ivar > 0) & inside
        sky = subtracted.sky[fibers]
        bright = good & (sky > 4 * np.median(sky[good]))
        everywhere, on_lines = float(np.mean(pull[good] ** 2)), float(np.mean(pull[bright] ** 2))
        scatter = np.sqrt(2 / good.sum()), np.sqrt(2 / bright.sum())
        text = f"{everywhere:.3f} ± {scatter[0]:.3f} / {on_lines:.3f} ± {scatter[1]:.3f}"
        fine = everywhere <= aims[0] and on_lines <= aims[1]
        lines.append(Line(f"{name}, chi2/dof, all / bright lines", text, reference, f"≤ {aims[0]} / {aims[1]}", fine))
    return lines


def dark_pixels(science: Exposed) -> list[Line]:
    image = science.image
    dark = (science.truth.image < 0.2) & (image.mask == 0) & (science.truth.cosmics < 0.05) & (image.ivar > 0)
    pull = (image.pix[dark] - science.truth.image[dark]) * np.sqrt(image.ivar[dark])
    text = f"{nmad(pull):.4f} (median {np.median(pull):+.3f}, {dark.sum()} pixels)"
    return [Line("pull nmad of dark pixels", text, "0.95", "1.00 ± 0.01", abs(nmad(pull) - 1) <= 0.01)]


def saturation(arc: Exposed) -> list[Line]:
    """On the arc again, with saturation levels so low that its brightest thousandth of pixels reaches them."""
    level = float(np.percentile(arc.raw.pix, 99.9))
    header = dict(arc.raw.header) | {f"SATURLEV{amp.name}": level for amp in arc.raw.amps}
    lowered = replace(arc.raw, header=header)
    image = Preproc().run(lowered, replace(arc.reduced.context, header=header))
    above = flagged = 0
    for amp in arc.raw.amps:
        hot = arc.raw.pix[amp.datasec.slices] >= level
        above += int(hot.sum())
        flagged += int((image.mask[amp.ccdsec.slices][hot] & int(CCDMask.SATURATED) != 0).sum())
    fraction = flagged / above if above else float("nan")
    text = f"{100 * fraction:.2f} % of {above}"
    return [Line("pixels at or above SATURLEV that are flagged", text, "24 %", "100 %", flagged == above > 0)]


def fiberflat_error(flat: Exposed) -> list[Line]:
    product = flat.reduced.outcome.outputs["ComputeFiberflat_QP"]
    errors = []
    for i in np.flatnonzero(flat.live):
        rows = flat.in_range[i]
        wave = flat.truth.wave[i, rows]
        measured = np.interp(wave, product.wave, product.fiberflat[i])
        good = np.interp(wave, product.wave, ((product.ivar[i] > 0) & (product.mask[i] == 0)).astype(float)) == 1
        good &= flat.qframe.ivar[i, rows] > 0
        errors.append((measured / flat.truth.fiberflat[i, rows] - 1)[good])
    error = np.concatenate(errors)
    worst = float(np.abs(error).max())
    text = f"{100 * nmad(error):.3f} % / {100 * worst:.2f} %"
    fine = nmad(error) <= 0.002 and worst <= 0.03
    return [Line("fiberflat error away from masks, nmad / worst", text, "0.26 % / 51 %", "≤ 0.2 % / ≤ 3 %", fine)]


class _Silent:
    def stage_started(self, stage: str) -> None: ...
    def stage_done(self, stage: str, cost: Cost) -> None: ...
    def stage_skipped(self, stage: str, reason: str) -> None: ...
    def qa_result(self, stage: str, result: QAResult, cost: Cost) -> None: ...
    def calibration_used(self, use: object) -> None: ...


def reduce_night(instrument: Instrument, camera: str, folder: Path, seed: int) -> dict[str, Exposed]:
    """Simulate (if not yet there) and reduce an arc, a flat and a science exposure; kind -> result."""
    if not (folder / "raw").exists():
        simulate_night(instrument, NIGHT, folder, [camera], seed, kinds=KINDS)
    plans, ranges = load_plans(), Ranges.load(config_path("qa", "quicklook"))
    night: dict[str, Exposed] = {}
    with tempfile.TemporaryDirectory() as redux:
        for exposure in plan_night(NIGHT, seed, KINDS):
            path = folder / f"raw/{NIGHT}/{exposure.expid:08d}/desi-{exposure.expid:08d}.fits.fz"
            request = CameraRequest(path, camera, Path(redux), folder / "calib")
            reduced = reduce_camera(request, plans, ranges, _Silent(), Buffers())
            truth = simulate_camera(instrument, camera, exposure, seed).truth
            night[exposure.flavor] = Exposed(read_raw(path, camera), reduced, truth)
    return night


def report(night: dict[str, Exposed]) -> list[Line]:
    """Every line of the table; one that cannot be measured says why."""
    science, flat, arc = night["science"], night["flat"], night["arc"]
    measurements: tuple[Callable[[], list[Line]], ...] = (
        lambda: flux_pulls(science, flat, arc),
        lambda: lost_rows(science),
        lambda: cosmic_rays(science, flat, arc),
        lambda: wavelengths_and_traces(science, flat, arc),
        lambda: sky_residuals(science),
        lambda: dark_pixels(science),
        lambda: saturation(arc),
        lambda: fiberflat_error(flat),
    )
    return [line for measure in measurements for line in measure()]


@click.command()
@click.option("--instrument", default="desi", show_default=True)
@click.option("--camera", default="r0", show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="keep the simulated exposures here")
def main(instrument: str, camera: str, seed: int, folder: Path | None) -> None:
    """Print the truth report of one camera."""
    with tempfile.TemporaryDirectory() as scratch:
        night = reduce_night(load_instrument(instrument), camera, folder or Path(scratch), seed)
        table = Table("quantity", "measured", "reference", "aim", "", title=f"{instrument} {camera}, seed {seed}")
        for line in report(night):
            table.add_row(line.quantity, line.measured, line.reference, line.aim, "✓" if line.good else "✗ missed")
        Console(width=140).print(table)
        for flavor, exposed in night.items():
            for stage, why in exposed.reduced.outcome.skipped.items():
                print(f"{flavor}: {stage} skipped: {why}")


if __name__ == "__main__":
    main()
