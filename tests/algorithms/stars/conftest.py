"""Synthetic standard stars in two arms, and a grid of templates around them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from algorithms.stars.match import StarSpectrum
from qlstream.datamodel.resolution import Resolution
from qlstream.datamodel.stars import StarTemplates
from qlstream.numeric.deconvolution import spread
from qlstream.simulate import templates as shapes

Array = NDArray[np.float64]

WAVE = {"b": 3600.0 + 1.6 * np.arange(1300), "r": 5760.0 + 1.6 * np.arange(1100)}
SIGMA = {"b": 1.0, "r": 0.9}  # [bin]


@pytest.fixture(scope="session")
def grid() -> StarTemplates:
    wave = np.arange(3450.0, 8000.0, 0.5)
    nodes = np.array(list(product(np.arange(5400.0, 7901.0, 250.0), (3.5, 4.0, 4.5), (-2.0, -1.5, -1.0))))
    flux = np.stack([shapes.star(wave, *node) for node in nodes])
    return StarTemplates(wave, (flux / flux.mean(axis=1, keepdims=True)).astype(np.float32), *nodes.T)


@pytest.fixture(scope="session")
def waves() -> dict[str, Array]:
    """Wavelengths of the arms [Angstrom]."""
    return WAVE


@pytest.fixture(scope="session")
def observe() -> Callable[..., list[StarSpectrum]]:
    def observed(
        temperature: float,
        velocity: float = 0.0,
        snr: float = 60.0,
        seed: int = 1,
        logg: float = 4.0,
        feh: float = -1.5,
        response: dict[str, Array] | None = None,
    ) -> list[StarSpectrum]:
        """A star in two arms, of this S/N in every bin."""
        rng, out = np.random.default_rng(seed), []
        for arm, wave in WAVE.items():
            bands = Resolution.from_widths(np.full(wave.size, SIGMA[arm]), 13).data
            seen = spread(bands, shapes.star(wave / (1 + velocity / shapes.SPEED_OF_LIGHT), temperature, logg, feh))
            seen = seen / np.median(seen) * (1.0 if response is None else response[arm])
            error = seen / snr
            flux = seen + rng.normal(size=wave.size) * error
            out.append(StarSpectrum(wave, flux, error**-2.0, bands))
        return out

    return observed
