"""Synthetic readouts with known level, noise, gain and light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from algorithms.preproc.stage import Preproc
from qlstream.calibration.served import Calibration
from qlstream.datamodel.amplifier import Amp, amplifiers, trimmed_shape
from qlstream.datamodel.image import Image, RawCamera
from qlstream.instrument import load_instrument
from qlstream.pipeline.context import Buffers, Context
from qlstream.simulate.detector import build_detector, collect, read_out
from qlstream.simulate.exposure import CameraModel, build_camera, simulate_camera
from qlstream.simulate.schedule import Exposure
from qlstream.simulate.truth import Truth

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
        self.header = {"CAMERA": "r3", "EXPID": 82, "EXPTIME": 900.0} | self._sections() | self.cards
        self.amps: tuple[Amp, ...] = amplifiers(self.header)
        self.shape = trimmed_shape(self.amps)

    def _sections(self) -> dict[str, str]:
        """Section cards; the old names 1234 stand for ABCD."""
        if not self.names.isdigit():
            return sections(self.names)
        cards = sections("".join("ABCD"[int(name) - 1] for name in self.names))
        return {key[:-1] + str("ABCD".index(key[-1]) + 1): value for key, value in cards.items()}

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


@dataclass(frozen=True)
class Observed:
    """A simulated camera of mini, which calibration images without noise serve."""

    raw: RawCamera
    truth: Truth
    model: CameraModel
    context: Context

    def preprocess(self, **params: Any) -> Image:
        """With arrays of its own."""
        return Preproc(params).run(self.raw, replace(self.context, buffers=Buffers()))

    def with_light(self, light: NDArray[Any], seed: int = 1) -> Observed:
        """The same with other light on the CCD [electron], and no cosmic rays."""
        detector, rng = self.model.detector, np.random.default_rng(seed)
        wells = collect(detector, light.astype(np.float32), self.context.exptime, rng)
        raw = replace(self.raw, pix=read_out(detector, wells, rng))
        return replace(self, raw=raw, truth=replace(self.truth, image=light, cosmics=np.zeros_like(self.truth.cosmics)))

    def pull(self, image: Image, least: float = -1.0, most: float = np.inf) -> NDArray[Any]:
        """(pix - light) sqrt(ivar) of the good pixels with so much light that no cosmic ray touched."""
        good = (image.mask == 0) & (self.truth.cosmics < 0.05)
        good &= (self.truth.image > least) & (self.truth.image <= most)
        return ((image.pix - self.truth.image) * np.sqrt(image.ivar))[good]


@pytest.fixture(scope="session")
def observe(make_context: Callable[..., Context]) -> Callable[..., Observed]:
    """`observe("arc", names="AC", trail={...}, cards={...}, without=("PSF",))`: simulate r0 of mini; -> Observed."""
    instrument, camera, seed = load_instrument("mini"), "r0", 3

    @cache
    def simulate(kind: str, exptime: float, names: str, trail: tuple[Any, ...]) -> tuple[Any, CameraModel]:
        model = build_camera(instrument, camera, seed)
        detector = replace(build_detector(instrument, camera, seed, names), trail=dict(trail))
        model = replace(model, detector=detector)
        return simulate_camera(instrument, camera, Exposure(kind, expid=5, exptime=exptime), seed, model=model), model

    def run(
        kind: str = "science-dark",
        exptime: float = 900.0,
        names: str = "ABCD",
        trail: dict[str, tuple[float, float]] | None = None,
        cards: dict[str, Any] | None = None,
        without: tuple[str, ...] = (),
    ) -> Observed:
        simulated, model = simulate(kind, exptime, names, tuple((trail or {}).items()))
        detector = model.detector
        known: dict[str, Any] = {f"GAIN{a}": g for a, g in detector.gain.items()}
        known |= {f"SATURLEV{a}": level for a, level in detector.saturlev.items()}
        known |= {f"CROSSTALK{a}{b}": k for (a, b), k in detector.crosstalk.items()}
        for amp, (amplitude, width) in (trail or {}).items():
            known |= {f"DARKTRAILAMP{amp}": amplitude, f"DARKTRAILWIDTH{amp}": width}
        parts = {"BIAS": detector.bias, "DARK": detector.dark, "PIXFLAT": detector.pixflat, "MASK": detector.mask}
        parts |= {"PSF": model.optics.psf}
        parts = {kind: part for kind, part in parts.items() if kind not in without}
        calibration = Calibration(camera, 20260115, parts, known | (cards or {}))
        header = simulated.raw.header | {"EXPTIME": exptime}
        flavor = kind.split("-")[0]
        context = make_context(header=header, camera=camera, calibration=calibration, flavor=flavor)
        return Observed(replace(simulated.raw, header=header), simulated.truth, model, context)

    return run
