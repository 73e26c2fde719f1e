"""Synthetic readouts with known level, noise, gain and light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qlstream.datamodel.amplifier import Amp, amplifiers, trimmed_shape
from qlstream.datamodel.image import RawCamera

# (columns, rows) of an amplifier and of its overscan
SIZE, OVERSCAN, PRESCAN = 100, 32, 4


def sections(names: str) -> dict[str, str]:
    """Section cards of amplifiers in the quadrants of a CCD; letters that are not given are not read."""
    half = PRESCAN + SIZE + OVERSCAN
    cards = {}
    for name in names:
        right, upper = name in "BD" and bool(set("AC") & set(names)), name in "CD" and bool(set("AB") & set(names))
        x, over = (half + OVERSCAN, half) if right else (PRESCAN, PRESCAN + SIZE)
        y = SIZE if upper else 0
        cx = SIZE if right else 0
        cards |= {
            f"DATASEC{name}": f"[{x + 1}:{x + SIZE},{y + 1}:{y + SIZE}]",
            f"CCDSEC{name}": f"[{cx + 1}:{cx + SIZE},{y + 1}:{y + SIZE}]",
            f"BIASSEC{name}": f"[{over + 1}:{over + OVERSCAN},{y + 1}:{y + SIZE}]",
        }
    return cards


@dataclass
class Readout:
    """A CCD whose every number is known.

    Attributes
    ----------
    light : (ny, nx) expected electrons; drawn as a Poisson variable
    gain : [electron/ADU]; readnoise [electron]; level [ADU]
    """

    names: str = "ABCD"
    light: float | NDArray[Any] = 0.0
    gain: float = 1.5
    readnoise: float = 4.0
    level: float = 1970.0
    seed: int = 1
    cards: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.header = {"CAMERA": "r3", "EXPID": 82, "EXPTIME": 900.0} | sections(self.names) | self.cards
        self.amps: tuple[Amp, ...] = amplifiers(self.header)
        self.shape = trimmed_shape(self.amps)

    def expose(self, change: Callable[[NDArray[Any]], Any] | None = None) -> RawCamera:
        """Draw an exposure; `change` may spoil the raw pixels (float, before they are rounded) in place."""
        rng = np.random.default_rng(self.seed)
        rows = max(a.datasec.y1 for a in self.amps)
        columns = max(max(a.datasec.x1, a.biassec.x1) for a in self.amps) + PRESCAN
        raw = self.level + rng.normal(0.0, self.readnoise / self.gain, (rows, columns))
        electrons = rng.poisson(np.broadcast_to(self.light, self.shape))
        for amp in self.amps:
            raw[amp.datasec.slices] += electrons[amp.ccdsec.slices] / self.gain
        if change is not None:
            change(raw)
        pix = np.clip(np.rint(raw), 0, 65535).astype(np.uint16)
        return RawCamera(pix, "r3", self.header, {}, self.amps)


@pytest.fixture
def make_readout() -> Callable[..., Readout]:
    return Readout
