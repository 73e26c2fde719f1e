"""A mini instrument and its exposures, simulated once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from qlstream.instrument import Instrument, load_instrument
from qlstream.simulate.exposure import SimulatedCamera, simulate_camera
from qlstream.simulate.faults import parse_fault
from qlstream.simulate.schedule import Exposure

EXPTIME = {
    "zero": 0.0, "dark": 300.0, "arc": 5.0, "flat": 120.0, "science-dark": 900.0, "science-gray": 900.0,
    "science-bright": 300.0,
}  # fmt: skip


@pytest.fixture(scope="session")
def mini() -> Instrument:
    return load_instrument("mini")


@pytest.fixture(scope="session")
def make_exposure() -> Callable[..., Exposure]:
    """An exposure of a kind, with the usual exposure time."""

    def make(kind: str, **given: object) -> Exposure:
        fields = {"exptime": EXPTIME[kind], "expid": 7, "tileid": 1000}
        return Exposure(kind, **(fields | given))  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def simulated(mini, make_exposure) -> Callable[..., SimulatedCamera]:
    """`simulated("flat", "r0", "noisy-amp:r0:B")`: one camera of mini, each asked for only once."""

    @cache
    def simulate(kind: str, camera: str = "r0", *faults: str, seed: int = 3) -> SimulatedCamera:
        parsed = [parse_fault(text, mini) for text in faults]
        return simulate_camera(mini, camera, make_exposure(kind), seed, parsed)

    return simulate
