"""Small spectrographs with known truth: spectra without a CCD, and exposures of spectra that moved on one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from scipy.special import erf

from qlstream.calibration.served import Calibration
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.image import Image
from qlstream.datamodel.qframe import QFrame
from qlstream.datamodel.resolution import Resolution
from qlstream.datamodel.traces import XYTraceSet
from qlstream.instrument import Instrument, load_instrument
from qlstream.lines import arc_lines, sky_lines
from qlstream.pipeline.context import Context
from qlstream.simulate.optics import build_optics
from qlstream.simulate.render import paint, row_geometry, spread_continuum, spread_lines


@dataclass
class Spectrograph:
    """`nspec` fibers with a smile, sub-pixel phases, and throughputs and line widths that vary smoothly.

    ivar is that of the true counts, so that a test of a method is not one of the variance model.
    """

    nspec: int = 60
    ny: int = 1000
    seed: int = 11
    readvar: float = 70.0  # of a row [electron^2]
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        rng = self.rng = np.random.default_rng(self.seed)
        across = np.linspace(-1, 1, self.nspec)[:, None]
        row = np.arange(self.ny) + 25 * across**2 + rng.normal(0, 0.2, (self.nspec, 1))
        self.wave = 5700 + 0.56 * row - 2e-5 * row**2
        self.ysigma = 1.1 + 0.04 * across + 0.05 * (row / self.ny - 0.5) + rng.normal(0, 0.01, (self.nspec, 1))
        self.gray = 1 + 0.06 * rng.normal(size=(self.nspec, 1))
        self.slope = 0.02 * rng.normal(size=(self.nspec, 2, 1))

    @property
    def dwave(self) -> Any:
        return np.gradient(self.wave, axis=1)

    def throughput(self, wave: Any) -> Any:
        """(nspec, n) at `wave` (nspec, n) or (n,)."""
        u = (wave - 5980.0) / 280.0
        return self.gray * (1 + self.slope[:, 0] * u + self.slope[:, 1] * np.sin(3 * u))

    def density(self, continuum: Callable[[Any], Any], lines: Any = ()) -> Any:
        """(nspec, ny) expected density [electron/Angstrom] of `continuum` and of blurred lines (wave, electrons)."""
        dwave = self.dwave
        total = continuum(self.wave)
        for wave, electrons in lines:
            pixel = (wave - self.wave) / dwave
            edge = erf((pixel + 0.5) / self.ysigma / np.sqrt(2)) - erf((pixel - 0.5) / self.ysigma / np.sqrt(2))
            total = total + electrons * 0.5 * edge / dwave
        return total

    def observe(self, density: Any, **given: Any) -> QFrame:
        """Counts per row of light of this density, with noise."""
        mean = density * self.throughput(self.wave) * self.dwave
        variance = np.maximum(mean, 0) + self.readvar
        fields = {
            "flux": mean + self.rng.normal(size=mean.shape) * np.sqrt(variance),
            "ivar": 1 / variance,
            "mask": np.zeros(mean.shape, np.uint32),
        }
        fields |= {k: v for k, v in given.items() if k in fields}
        return QFrame(
            wave=self.wave,
            flux=fields["flux"].astype(np.float32),
            ivar=fields["ivar"].astype(np.float32),
            mask=fields["mask"],
            fibers=np.arange(self.nspec, dtype=np.int32),
            ysigma=self.ysigma.astype(np.float32),
            fibermap=given.get("fibermap"),
            meta={"CAMERA": "r3"},
        )


@pytest.fixture
def spectrograph() -> Spectrograph:
    return Spectrograph()


@dataclass
class FrameSpectrograph:
    """`nspec` fibers on a common grid, each with its own resolution matrix and throughput; ivar of the true counts."""

    nspec: int = 60
    nwave: int = 600
    ndiag: int = 13
    seed: int = 5
    readvar: float = 70.0  # of a bin [electron^2]
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        rng = self.rng = np.random.default_rng(self.seed)
        across = np.linspace(-1, 1, self.nspec)[:, None]
        self.wave = 5700 + 0.8 * np.arange(self.nwave)
        along = np.linspace(-0.5, 0.5, self.nwave)
        self.ysigma = 1.1 + 0.08 * across**2 + 0.1 * along + rng.normal(0, 0.02, (self.nspec, 1))
        self.resolutions = [Resolution.from_widths(sigma, self.ndiag) for sigma in self.ysigma]
        self.gray = 1 + 0.06 * rng.normal(size=(self.nspec, 1))
        self.slope = 0.02 * rng.normal(size=(self.nspec, 2, 1))

    def throughput(self) -> Any:
        """(nspec, nwave)."""
        u = (self.wave - 5940.0) / 240.0
        return self.gray * (1 + self.slope[:, 0] * u + self.slope[:, 1] * np.sin(3 * u))

    def seen(self, model: Any) -> Any:
        """(nspec, nwave) a spectrum (nwave,) through each fiber's resolution."""
        return np.array([r.dot(model) for r in self.resolutions])

    def observe(self, density: Any, **given: Any) -> Frame:
        """A frame of this expected density (nspec, nwave) [electron/Angstrom], with noise."""
        width = np.gradient(self.wave)
        mean = density * width
        variance = np.maximum(mean, 0) + self.readvar
        fields: dict[str, Any] = {
            "wave": self.wave,
            "flux": (mean + self.rng.normal(size=mean.shape) * np.sqrt(variance)) / width,
            "ivar": width**2 / variance,
            "mask": np.zeros(mean.shape, np.uint32),
            "fibers": np.arange(self.nspec, dtype=np.int32),
            "resolution": np.array([r.data for r in self.resolutions]),
            "meta": {"CAMERA": "r3"},
        }
        return Frame(**(fields | given))


@pytest.fixture
def framing() -> FrameSpectrograph:
    return FrameSpectrograph()


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
