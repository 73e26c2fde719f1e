from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qlstream.datamodel.qframe import QFrame


@pytest.fixture(scope="session")
def make_qframe() -> Callable[..., QFrame]:
    """Build a QFrame on a regular grid per fiber, each fiber shifted a little, from flux and ivar."""

    def make(flux: Any, ivar: Any, wave: Any = None, **given: Any) -> QFrame:
        flux = np.asarray(flux, dtype=np.float32)
        nspec, ny = flux.shape
        if wave is None:
            wave = np.linspace(5760, 7620, ny) + 0.3 * np.arange(nspec)[:, None]
        fields = {
            "mask": np.zeros(flux.shape, np.uint32),
            "fibers": np.arange(nspec, dtype=np.int32),
            "meta": {"CAMERA": "r3"},
        }
        return QFrame(
            np.broadcast_to(wave, flux.shape).copy(),
            flux,
            np.broadcast_to(np.asarray(ivar, dtype=np.float32), flux.shape).copy(),
            **(fields | given),
        )

    return make
