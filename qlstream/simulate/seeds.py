"""Random numbers that depend on what they are for, not on what was drawn before."""

from __future__ import annotations

from zlib import crc32

import numpy as np


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A random generator of its own for each purpose, e.g. `generator(seed, expid, camera, "cosmics")`.

    So a camera comes out the same whichever other cameras are simulated, and in whichever order.
    """
    key = [seed, *(crc32(part.encode()) if isinstance(part, str) else part for part in purpose)]
    return np.random.default_rng(np.random.SeedSequence(key))
