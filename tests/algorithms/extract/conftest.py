"""Spectra on a CCD of their own: the truth in every row, and an image with the noise of light and readout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from qlstream.datamodel.traces import XYTraceSet
from qlstream.instrument import Instrument, load_instrument
from qlstream.simulate.optics import build_optics
from qlstream.simulate.render import paint, row_geometry

READNOISE = 3.0


@dataclass
class Exposed:
    """An image of known spectra. `clean` has neither noise nor masks; ivar is the true one."""

    instrument: Instrument
    traces: XYTraceSet
    rows: Any
    clean: Any
    pix: Any
    ivar: Any
    mask: Any

    @property
    def geometry(self) -> tuple[Any, Any, Any]:
        """x, xsig and inside, as `sum_apertures` wants them."""
        ny, nspec = len(self.pix), self.traces.nspec
        row = np.arange(float(ny))
        few = np.linspace(0.0, ny - 1.0, 33)
        inside = np.tile(np.array([0, ny]), (nspec, 1))
        return self.traces.x_vs_y(row), self.traces.xsig_vs_y(few), inside


@pytest.fixture(scope="session")
def expose() -> Callable[..., Exposed]:
    """Draw spectra of `flux` electrons per row, (nspec, ny) or anything that broadcasts to it."""

    def draw(flux: Any, seed: int = 5) -> Exposed:
        instrument = load_instrument("mini")
        optics = build_optics(instrument, "r1", seed=3)
        ny, nx = optics.shape
        rows = np.ascontiguousarray(np.broadcast_to(np.asarray(flux, float), (instrument.nspec, ny)))
        clean = paint(row_geometry(optics), rows, optics.hermite_x, nx)
        rng = np.random.default_rng(seed)
        pix = (rng.poisson(clean) + rng.normal(0.0, READNOISE, clean.shape)).astype(np.float32)
        ivar = (1.0 / (clean + READNOISE**2)).astype(np.float32)
        return Exposed(instrument, optics.traces, rows, clean, pix, ivar, np.zeros(pix.shape, np.uint16))

    return draw
