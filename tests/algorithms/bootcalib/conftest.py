"""A small spectrograph with the dispersion of a large one: 3 bundles of 6 fibers, 1600 rows of 0.55 Angstrom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from qlstream.datamodel.image import Image
from qlstream.datamodel.masks import CCDMask
from qlstream.instrument import Instrument, load_instrument
from qlstream.simulate.exposure import simulate_camera
from qlstream.simulate.faults import Fault
from qlstream.simulate.schedule import Exposure
from qlstream.simulate.truth import Truth

Faults = tuple[Fault, ...]


@dataclass(frozen=True)
class Pair:
    """A flat and an arc of one camera, and the truth about the arc."""

    flat: Image
    arc: Image
    truth: Truth
    instrument: Instrument


@pytest.fixture(scope="session")
def small() -> Instrument:
    mini = load_instrument("mini").model_dump()
    arm = next(a for a in mini["arms"] if a["name"] == "r")
    arm |= {"nx": 200, "ny": 1600, "wave_on_ccd": (6010.0, 6890.0), "dispersion": (0.566, 0.534), "smile": 20.0}
    arm |= {"wave_science": (6040.0, 6860.0), "sky_windows": ((6100.0, 6200.0),)}
    layout = {"bundles": 3, "fibers_per_bundle": 6, "first_fiber_x": 20.0, "trace_bow": 1.5}
    return Instrument.model_validate(mini | layout | {"name": "small", "mirror_area": 86590.0, "arms": [arm]})


@pytest.fixture(scope="session")
def observe() -> Callable[..., Pair]:
    """A flat and an arc with photon and read noise; cosmic rays are masked where they are bright.

    The arc is four times as long as usual, so that few fibers and lines suffice.
    """

    def make(instrument: Instrument, camera: str, faults: Faults = ()) -> Pair:
        rng = np.random.default_rng(3)
        images, truths = [], []
        for n, (kind, exptime) in enumerate((("flat", 120.0), ("arc", 20.0))):
            exposure = Exposure(kind, expid=n + 1, exptime=exptime)
            simulated = simulate_camera(instrument, camera, exposure, 1, faults)
            truth = simulated.truth
            variance = truth.image + instrument.arm(camera).readnoise ** 2
            light = truth.image + truth.cosmics + rng.normal(size=variance.shape) * np.sqrt(variance)
            mask = np.where(truth.cosmics > np.sqrt(variance), int(CCDMask.COSMIC), 0).astype(np.uint16)
            header = {"EXPID": n + 1, "NIGHT": 20260115, "FLAVOR": kind}
            ivar = (1 / variance).astype(np.float32)
            images.append(Image(light.astype(np.float32), ivar, mask, camera, meta=header))
            truths.append(truth)
        return Pair(images[0], images[1], truths[1], instrument)

    return make


@pytest.fixture(scope="session")
def pair(small: Instrument, observe: Callable[..., Pair]) -> Pair:
    """Fiber 6, the first of its bundle, is broken as fiber 3 always is, and the Cd lamp is off."""
    return observe(small, "r0", (Fault("dead-fibers", "r0", "6"), Fault("dead-lamp", "r0", "Cd")))
