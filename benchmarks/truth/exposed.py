"""One camera of one exposure, simulated, written, and reduced by the shipped plan, with the truth at hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qlstream.configs import config_path
from qlstream.datamodel.image import Image, RawCamera
from qlstream.datamodel.qframe import QFrame
from qlstream.engine.camera import CameraRequest, Reduced, reduce_camera
from qlstream.instrument import Instrument
from qlstream.io.fibermap import write_fibermap
from qlstream.io.raw import read_raw, write_raw
from qlstream.pipeline.context import Buffers, Context
from qlstream.pipeline.plan import load_plans
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.result import QAResult
from qlstream.pipeline.runner import Cost
from qlstream.simulate.calibration import write_calibration, write_spectrograph_map
from qlstream.simulate.detector import BIAS_FRAMES, DARK_EXPTIME, DARK_FRAMES, Detector
from qlstream.simulate.exposure import CameraModel, build_camera, simulate_camera
from qlstream.simulate.schedule import Exposure, plan_night
from qlstream.simulate.targets import Targets, assign_targets, fibermap_of
from qlstream.simulate.truth import Truth

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

NIGHT = 20260115
KINDS = ("zero", "dark", "arc", "flat", "science-dark", "science-gray", "science-bright")


@dataclass(frozen=True)
class Exposed:
    """One reduced camera.

    Attributes
    ----------
    exposure : as it was observed
    raw : the readout
    reduced : what the shipped plan made of it
    truth : what a perfect reduction would find
    model : the camera as manufactured
    targets : behind all fibers
    """

    exposure: Exposure
    raw: RawCamera
    reduced: Reduced
    truth: Truth
    model: CameraModel
    targets: Targets

    @property
    def kind(self) -> str:
        return self.exposure.kind

    @property
    def context(self) -> Context:
        return self.reduced.context

    @property
    def camera(self) -> str:
        return self.context.camera

    @property
    def detector(self) -> Detector:
        return self.model.detector

    @cached_property
    def image(self) -> Image:
        """After Flexure, with traces; after Preproc for an exposure without light."""
        outputs = self.reduced.outcome.outputs
        return outputs["Flexure"] if "Flexure" in outputs else outputs["Preproc"]

    @property
    def qframe(self) -> QFrame:
        """As extracted, row by row."""
        return self.reduced.outcome.outputs["Extract_QP"]

    def result(self, name: str) -> QAResult | None:
        """What a metric told; None if the plan has no such metric or its stage was skipped."""
        return next((result for _, result in self.reduced.outcome.judged if result.name == name), None)

    @cached_property
    def live(self) -> Bools:
        """(nspec,) fibers that FIBERSTATUS does not call broken."""
        fibermap = self.context.fibermap
        assert fibermap is not None
        return fibermap.is_usable("flat", self.camera[:1])

    @cached_property
    def in_range(self) -> Bools:
        """(nspec, ny) rows of live fibers inside the arm's science range."""
        low, high = self.context.arm.wave_science
        return (self.truth.wave > low) & (self.truth.wave < high) & self.live[:, None]

    @cached_property
    def noise(self) -> NDArray[np.float32]:
        """(ny, nx) true noise of each pixel without cosmic rays [electron]."""
        return np.sqrt(self.variance)

    @cached_property
    def variance(self) -> NDArray[np.float32]:
        """(ny, nx) its square: photons, dark current, readout, digitisation, and the bias and dark images."""
        exptime = self.exposure.exptime
        of_images = 1.0 / BIAS_FRAMES + (exptime / DARK_EXPTIME) ** 2 / DARK_FRAMES
        out = self.truth.image + self.detector.dark * np.float32(exptime)
        for amp in self.detector.amps:
            readout = true_readnoise(self.detector, amp.name) ** 2 + of_images * self.detector.readnoise[amp.name] ** 2
            out[amp.ccdsec.slices] += np.float32(readout)
        return out

    @cached_property
    def aperture(self) -> tuple[Array, Array]:
        """Two (nspec, ny) arrays: true electrons in the apertures that were extracted, and their true variance."""
        traces = self.image.traces
        assert traces is not None
        x = traces.x_vs_wave(self.qframe.wave)
        return aperture_sums(self.truth.image, self.variance, x, self.context.instrument.extraction_half_width)


def true_readnoise(detector: Detector, amp: str) -> float:
    """Read noise with that of rounding to whole ADU [electron]."""
    return float(np.hypot(detector.readnoise[amp], detector.gain[amp] / np.sqrt(12.0)))


def aperture_sums(
    image: NDArray[np.float32], variance: NDArray[np.float32], x: Array, half_width: float
) -> tuple[Array, Array]:
    """Exact sums within half_width of x, edge pixels by the fraction covered: of the image, and of its variance."""
    ny, nx = image.shape
    rows = np.arange(ny)
    total, total_variance = np.zeros(x.shape), np.zeros(x.shape)
    first = np.floor(x - half_width + 0.5).astype(int)
    for k in range(int(2 * half_width) + 2):
        column = first + k
        covered = np.minimum(column + 0.5, x + half_width) - np.maximum(column - 0.5, x - half_width)
        share = np.where((column >= 0) & (column < nx), covered.clip(0.0, 1.0), 0.0)
        column = column.clip(0, nx - 1)
        total += share * image[rows, column]
        total_variance += share**2 * variance[rows, column]
    return total, total_variance


def reduced_night(
    instrument: Instrument, camera: str, kinds: tuple[str, ...], seed: int, folder: Path
) -> Iterator[Exposed]:
    """Simulate and reduce the exposures one after another, so that each serves the later ones.

    Parameters
    ----------
    kinds : which of KINDS, in that order; expids and conditions are those of the full list
    folder : gets raw exposures, calibration tree and production
    """
    plans, ranges, buffers = load_plans(), Ranges.load(config_path("qa", "quicklook")), Buffers()
    model = build_camera(instrument, camera, seed)
    write_spectrograph_map(folder / "calib")
    write_calibration(folder / "calib", model)
    for exposure in plan_night(NIGHT, seed, KINDS):
        if exposure.kind not in kinds:
            continue
        targets = assign_targets(instrument, exposure, seed)
        simulated = simulate_camera(instrument, camera, exposure, seed, targets=targets)
        path = folder / f"raw/{NIGHT}/{exposure.expid:08d}/desi-{exposure.expid:08d}.fits.fz"
        path.parent.mkdir(parents=True)
        if exposure.flavor not in ("zero", "dark"):
            fibermap = fibermap_of(targets, instrument, exposure, simulated.raw.primary)
            write_fibermap(path.parent / f"fibermap-{exposure.expid:08d}.fits", fibermap)
        write_raw(path, simulated.raw.primary, {camera: (simulated.raw.pix, simulated.cards)})
        request = CameraRequest(path, camera, folder / "redux", folder / "calib")
        reduced = reduce_camera(request, plans, ranges, _Silent(), buffers)
        yield Exposed(exposure, read_raw(path, camera), reduced, simulated.truth, model, targets)


class _Silent:
    def stage_started(self, stage: str) -> None: ...
    def stage_done(self, stage: str, cost: Cost) -> None: ...
    def stage_skipped(self, stage: str, reason: str) -> None: ...
    def qa_result(self, stage: str, result: QAResult, cost: Cost) -> None: ...
    def calibration_used(self, use: object) -> None: ...
