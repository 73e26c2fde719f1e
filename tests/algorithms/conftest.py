"""A small spectrograph without a CCD: spectra per row with known throughput, line spread and light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from scipy.special import erf

from qlstream.datamodel.qframe import QFrame


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
