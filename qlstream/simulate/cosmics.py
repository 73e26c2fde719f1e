"""Cosmic rays as tracks of charge through the silicon.

Muons cross the CCD on straight lines of any direction and free about 80 electron-hole pairs per micron, with the long
tail of Landau's distribution (here in Moyal's form, 1955, Phil. Mag. 46, 263); the deeper charge is freed, the wider it
spreads. Knocked-on and Compton electrons wander: worms. Low-energy hits end where they begin: spots. A rare nuclear
fragment leaves so much charge that it saturates its pixels.
"""

from __future__ import annotations

from math import cos, erf, log, pi, sin, sqrt

import numpy as np
from numba import njit
from numpy.typing import NDArray

from qlstream.instrument import Arm

PIXEL = 15.0  # micron
PAIRS = 80.0  # per micron
READOUT_EXPOSURE = 30.0  # a CCD goes on collecting for half its readout [second]
_MUONS, _WORMS, _SPOTS = 0.7, 0.18, 0.116  # shares of the hits; the rest are fragments
_REACH = 3  # pixels around a step that its charge spreads to


def draw_cosmics(arm: Arm, exptime: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """(ny, nx) float32, electrons left by cosmic rays in `exptime` [second] and half a readout."""
    image = np.zeros(arm.shape, dtype=np.float32)
    hits = rng.poisson(arm.cosmic_rate * (exptime + READOUT_EXPOSURE) / 60.0)
    _draw(hits, arm.thickness, image, int(rng.integers(2**31)))
    return image


@njit(nogil=True, cache=True)
def _draw(hits, thickness, image, seed):  # type: ignore[no-untyped-def]
    np.random.seed(seed)
    ny, nx = image.shape
    for _ in range(hits):
        y = np.random.uniform(-0.5, ny - 0.5)
        x = np.random.uniform(-0.5, nx - 0.5)
        direction = np.random.uniform(0.0, 2.0 * pi)
        kind = np.random.uniform(0.0, 1.0)
        if kind < _MUONS:
            _muon(x, y, direction, thickness, image)
        elif kind < _MUONS + _WORMS:
            _worm(x, y, direction, thickness, image)
        elif kind > _MUONS + _WORMS + _SPOTS:
            _spread(x, y, 3e5 + np.random.exponential(3e5), 1.0, image)
        else:
            _spread(x, y, np.random.exponential(1500.0) + 100.0, np.random.uniform(0.0, 1.0), image)


@njit(nogil=True, cache=True)
def _muon(x, y, direction, thickness, image):  # type: ignore[no-untyped-def]
    """A straight line from the front to the back; isotropic, so the cosine of its slant is sqrt-uniform."""
    cosine = sqrt(max(np.random.uniform(0.0, 1.0), 0.004))
    path = thickness / cosine  # micron
    across = path * sqrt(1.0 - cosine * cosine) / PIXEL  # pixels
    steps = max(4, int(across / 0.25) + 1)
    for i in range(steps):
        t = (i + 0.5) / steps
        charge = _loss(path / steps)
        _spread(x + across * t * cos(direction), y + across * t * sin(direction), charge, t, image)


@njit(nogil=True, cache=True)
def _worm(x, y, direction, thickness, image):  # type: ignore[no-untyped-def]
    """An electron of some 100 keV: it scatters all the time and loses more as it slows down."""
    steps = int(np.random.exponential(12.0) / 0.3) + 8
    depth = np.random.uniform(0.0, 1.0)
    for i in range(steps):
        slow = 1.0 + 2.0 * i / steps
        _spread(x, y, slow * _loss(0.3 * PIXEL), depth, image)
        direction += np.random.normal(0.0, 0.25 * slow)
        x += 0.3 * cos(direction)
        y += 0.3 * sin(direction)
        depth = min(max(depth + np.random.normal(0.0, 0.3 * PIXEL / thickness), 0.0), 1.0)


@njit(nogil=True, cache=True)
def _loss(path):  # type: ignore[no-untyped-def]
    """Pairs freed along `path` micron: 80 per micron in the mean."""
    z = np.random.normal(0.0, 1.0)
    moyal = min(-log(max(z * z, 1e-9)), 20.0)
    return PAIRS * path * max(0.75 + 0.197 * moyal, 0.1)


@njit(nogil=True, cache=True)
def _spread(x, y, charge, depth, image):  # type: ignore[no-untyped-def]
    """Diffusion on the way to the gates: a Gaussian of 0.2 (front) to 0.6 pixel (back), integrated over the pixels."""
    ny, nx = image.shape
    sigma = sqrt(0.04 + 0.32 * depth)
    cx = int(np.floor(x + 0.5))
    cy = int(np.floor(y + 0.5))
    scale = 1.0 / (sqrt(2.0) * sigma)
    for j in range(cy - _REACH, cy + _REACH + 1):
        if j < 0 or j >= ny:
            continue
        along_y = 0.5 * (erf((j + 0.5 - y) * scale) - erf((j - 0.5 - y) * scale))
        for i in range(cx - _REACH, cx + _REACH + 1):
            if 0 <= i < nx:
                image[j, i] += charge * along_y * 0.5 * (erf((i + 0.5 - x) * scale) - erf((i - 0.5 - x) * scale))
