"""The clock of the benchmarks, and D, the unit in which they count."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fitsio
import numpy as np

from qlstream.io.raw import write_raw
from qlstream.simulate.exposure import SimulatedCamera


def seconds(work: Callable[[], Any], repeat: int = 5) -> float:
    """Median CPU time of `work`, warm."""
    work()
    spent = []
    for _ in range(repeat):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return float(np.median(spent))


def reading_time(path: Path, camera: str) -> float:
    """D: median of five warm reads of a camera's HDU [second]."""
    return seconds(lambda: fitsio.read(str(path), ext=camera.upper()))


def reading_time_of(simulated: SimulatedCamera) -> float:
    """D of a simulated camera, written as a raw exposure [second]."""
    camera = simulated.raw.camera
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "raw.fits.fz"
        write_raw(path, simulated.raw.primary, {camera: (simulated.raw.pix, simulated.cards)})
        return reading_time(path, camera)
