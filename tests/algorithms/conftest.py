"""A small spectrograph without a CCD: spectra per row with known throughput, line spread and light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from scipy.special import erf

from qlstream.datamodel.frame import Frame
from qlstream.datamodel.qframe import QFrame
from qlstream.datamodel.resolution import Resolution


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
