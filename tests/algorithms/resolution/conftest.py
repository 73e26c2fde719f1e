"""Arc spectra per row, without a CCD: lines of known width on the rows of each fiber."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from qlstream.calibration.served import Calibration
from qlstream.datamodel.image import Image
from qlstream.datamodel.qframe import QFrame
from qlstream.datamodel.traces import XYTraceSet
from qlstream.instrument import Instrument, load_instrument
from qlstream.lines import arc_lines
from qlstream.pipeline.context import Context
from qlstream.simulate.optics import build_optics
from qlstream.simulate.render import row_geometry, spread_lines

READVAR = 7 * 3.0**2  # of a row [electron^2]


@dataclass
class Arc:
    """An extracted arc, what surrounds it, and its true widths."""

    qframe: QFrame
    context: Context
    truth: XYTraceSet

    def errors(self, widths: Any) -> Any:
        """(nspec, 40) fitted over true width - 1 within the science range."""
        wave = np.linspace(*self.context.arm.wave_science, 40)
        return widths.traces.ysig_vs_wave(wave) / self.truth.ysig_vs_wave(wave) - 1


def fine_instrument() -> Instrument:
    """The mini geometry at the dispersion of desi: 0.54 Angstrom per row over 1800 rows."""
    mini = load_instrument("mini")
    change = {"ny": 1800, "wave_on_ccd": (6200.0, 7172.0), "wave_science": (6220.0, 7150.0), "dispersion": (0.55, 0.53)}
    return mini.model_copy(update={"arms": (mini.arm("r").model_copy(update=change),)})


@pytest.fixture(scope="session")
def make_arc(make_context: Callable[..., Context]) -> Callable[..., Arc]:
    """Shine the arc lamps on optics whose lines are wider than the calibration PSF's by wider(across, along)."""

    def make(
        wider: Callable[[Any, Any], Any] = lambda across, along: 1.0,
        light: Any = 40.0,
        instrument: Instrument | None = None,
        camera: str = "r1",
        spoil: Callable[[Any], None] | None = None,
        lines: Any = None,
        calibration: dict[str, Any] | None = None,
    ) -> Arc:
        instrument = instrument or fine_instrument()
        optics = build_optics(instrument, camera, seed=3)
        start = optics.traces
        u = np.cos(np.pi * (np.arange(12) + 0.5) / 12)
        across = np.linspace(-1.0, 1.0, start.nspec)[:, None]
        factor = np.broadcast_to(wider(across, u), (start.nspec, 12))
        widths = np.polynomial.legendre.legval(u, start.ysigcoef.T) * factor
        truth = replace(start, ysigcoef=np.polynomial.legendre.legfit(u, widths.T, 6).T)
        moved = replace(optics, traces=truth)
        table = arc_lines() if lines is None else lines
        rng = np.random.default_rng(11)
        electrons = light * rng.normal(1.0, 0.05, (start.nspec, 1)) * table["strength"]
        geometry = row_geometry(moved)
        clean = spread_lines(moved, geometry, table["wave"], np.ascontiguousarray(electrons)) + 5.0
        if spoil is not None:
            spoil(clean)
        variance = clean + READVAR
        flux = clean + rng.normal(size=clean.shape) * np.sqrt(variance)
        parts = {"PSF": optics.psf, "TRACES": start} if calibration is None else calibration
        context = make_context(
            camera=camera,
            flavor="arc",
            program="",
            instrument=instrument,
            calibration=Calibration(camera, 20260114, parts),
        )
        shape = clean.shape
        empty = np.zeros((shape[1], 8), np.float32)
        image = Image(
            empty, empty, np.zeros(empty.shape, np.uint16), camera, meta={"EXPID": 82, "MJD-OBS": 61054.1}, traces=start
        )
        context.earlier["Flexure"] = image
        qframe = QFrame(
            start.wave_vs_y(np.arange(float(shape[1]))),
            flux.astype(np.float32),
            (1 / variance).astype(np.float32),
            np.zeros(shape, np.uint32),
            fibers=instrument.fibers(camera),
            ysigma=start.ysig_vs_y(np.arange(float(shape[1]))).astype(np.float32),
            meta={"CAMERA": camera, "EXPID": 82, "BUNIT": "electron"},
        )
        return Arc(qframe, context, truth)

    return make
