"""Lamp, sky and flat exposures of spectra that moved on the CCD by a known amount."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from qlstream.calibration.served import Calibration
from qlstream.datamodel.image import Image
from qlstream.datamodel.traces import XYTraceSet
from qlstream.instrument import Instrument, load_instrument
from qlstream.lines import arc_lines, sky_lines
from qlstream.pipeline.context import Context
from qlstream.simulate.optics import build_optics
from qlstream.simulate.render import paint, row_geometry, spread_continuum, spread_lines

READNOISE = 3.0
LINES = {"arc": (arc_lines, 40.0), "science": (sky_lines, 100.0)}  # electrons per unit of strength


@dataclass
class Moved:
    """An exposure and where its spectra really are."""

    image: Image
    context: Context
    truth: XYTraceSet

    def errors(self, image: Image) -> tuple[Any, Any]:
        """(dx [pixel], dwave [Angstrom]) of the traces of `image`, on every fourth row of every fiber."""
        rows = np.arange(0.0, self.image.ny, 4.0)
        assert image.traces is not None
        return (
            image.traces.x_vs_y(rows) - self.truth.x_vs_y(rows),
            image.traces.wave_vs_y(rows) - self.truth.wave_vs_y(rows),
        )


def fine_instrument() -> Instrument:
    """The mini geometry at the dispersion of desi: 0.54 Angstrom per row over 1200 rows."""
    mini = load_instrument("mini")
    change = {"ny": 1200, "wave_on_ccd": (6900.0, 7548.0), "wave_science": (6920.0, 7530.0), "dispersion": (0.55, 0.53)}
    return mini.model_copy(update={"arms": (mini.arm("r").model_copy(update=change),)})


@pytest.fixture(scope="session")
def moved(make_context: Callable[..., Context]) -> Callable[..., Moved]:
    """Expose with shifts dx, dy = (constant, across fibers, along wavelength) [pixel]."""

    def expose(
        flavor: str,
        dx: tuple[float, float, float] = (0.0, 0.0, 0.0),
        dy: tuple[float, float, float] = (0.0, 0.0, 0.0),
        light: float = 1.0,
        instrument: Instrument | None = None,
        spoil: Callable[[Any], None] | None = None,
    ) -> Moved:
        instrument = instrument or fine_instrument()
        optics = build_optics(instrument, "r1", seed=3)
        start = optics.traces
        wave = np.linspace(start.wavemin, start.wavemax, 5)
        across = np.linspace(-1.0, 1.0, start.nspec)[:, None]
        along = np.linspace(-1.0, 1.0, 5)
        shifts = [c[0] + c[1] * across + c[2] * along for c in (dx, dy)]
        truth = start.shifted(*shifts, wave)
        optics = replace(optics, traces=truth)
        geometry = row_geometry(optics)
        rng = np.random.default_rng(11)
        throughput = rng.normal(1.0, 0.08, (start.nspec, 1))
        grid = np.arange(start.wavemin, start.wavemax, 0.5)
        angstrom = float(np.median(np.diff(geometry.wave)))
        level = {"flat": 1e4, "arc": 0.3, "science": 30.0}[flavor] / angstrom
        continuum = light * level * throughput * np.ones(len(grid))
        if flavor == "science":  # targets from nothing to 10 times the sky
            continuum += light * level * rng.choice([0.0, 0.3, 1.0, 10.0], (start.nspec, 1))
        rows = spread_continuum(geometry, grid, continuum, optics.hermite_y)
        if flavor in LINES:
            table, electrons = LINES[flavor]
            lines = light * electrons * throughput * table()["strength"]
            rows += spread_lines(optics, geometry, table()["wave"], np.ascontiguousarray(lines))
        clean = paint(geometry, rows, optics.hermite_x, optics.shape[1])
        if spoil is not None:
            spoil(clean)
        pix = (rng.poisson(clean) + rng.normal(0.0, READNOISE, clean.shape)).astype(np.float32)
        ivar = (1.0 / (clean + READNOISE**2)).astype(np.float32)
        context = make_context(
            camera="r1",
            flavor=flavor,
            instrument=instrument,
            calibration=Calibration("r1", 20260114, {"TRACES": start}),
        )
        return Moved(Image(pix, ivar, np.zeros(pix.shape, np.uint16), "r1"), context, truth)

    return expose
