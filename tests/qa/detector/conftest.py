"""Small images of four amplifiers with known content, and simulated cameras preprocessed with their calibrations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from algorithms.initialize import Initialize
from algorithms.preproc.stage import Preproc
from qlstream.calibration.finder import find_calibration
from qlstream.configs import config_path
from qlstream.datamodel.amplifier import Amp, Section
from qlstream.datamodel.flavor import flavor_of, program_of
from qlstream.datamodel.image import AmpReadout, Image, RawCamera
from qlstream.instrument import load_instrument
from qlstream.pipeline.context import Context
from qlstream.pipeline.plan import load_plans
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.result import QAResult
from qlstream.simulate.calibration import write_calibration, write_spectrograph_map
from qlstream.simulate.exposure import build_camera, simulate_camera
from qlstream.simulate.faults import parse_fault
from qlstream.simulate.schedule import Exposure, plan_night

NY, NX, OVERSCAN = 200, 240, 40  # trimmed rows and columns, overscan columns of each amplifier
HALF_Y, HALF_X = NY // 2, NX // 2
GAIN = 1.5


def amp_of(name: str) -> Amp:
    """An amplifier of a readout with the two overscans of each half side by side in the middle."""
    left, low = name in "AC", name in "AB"
    y0 = 0 if low else HALF_Y
    x0 = 0 if left else HALF_X + 2 * OVERSCAN
    over = HALF_X if left else HALF_X + OVERSCAN
    ccd = 0 if left else HALF_X
    return Amp(
        name,
        Section(x0, x0 + HALF_X, y0, y0 + HALF_Y),
        Section(ccd, ccd + HALF_X, y0, y0 + HALF_Y),
        Section(over, over + OVERSCAN, y0, y0 + HALF_Y),
    )


@pytest.fixture(scope="session")
def readout_of() -> Callable[..., AmpReadout]:
    """Build what preprocessing measures on a healthy amplifier; any of its fields can be given."""

    def build(name: str, **given: Any) -> AmpReadout:
        healthy = AmpReadout(amp_of(name), GAIN, 1970.0, 3.0, 0.4, 65535.0, np.zeros(HALF_Y, np.float32))
        return replace(healthy, **given)

    return build


@pytest.fixture(scope="session")
def image_of(readout_of: Callable[..., AmpReadout]) -> Callable[..., Image]:
    """Build an Image of these pixels [electron]; amplifiers are healthy unless `amps` tells otherwise."""

    def build(pix: Any = None, mask: Any = None, meta: Any = None, amps: Any = None) -> Image:
        pix = np.zeros((NY, NX), np.float32) if pix is None else np.asarray(pix, np.float32)
        mask = np.zeros((NY, NX), np.uint16) if mask is None else mask
        readouts = tuple(readout_of(name, **(amps or {}).get(name, {})) for name in "ABCD")
        return Image(pix, np.ones_like(pix), mask, "r3", readouts, dict(meta or {}))

    return build


@pytest.fixture(scope="session")
def raw_of() -> Callable[..., RawCamera]:
    """Build a raw camera: `level` and Gaussian `noise` of each amplifier [ADU] in overscan and data alike."""

    def build(noise: dict[str, float] | float = 2.0, level: float = 1970.0, add: Any = None, **cards: Any) -> RawCamera:
        rng = np.random.default_rng(5)
        pix = rng.normal(size=(NY, NX + 2 * OVERSCAN))
        amps = tuple(amp_of(name) for name in "ABCD")
        for amp in amps:
            scale = noise.get(amp.name, 2.0) if isinstance(noise, dict) else noise
            for section in (amp.datasec, amp.biassec):
                pix[section.slices] *= scale
        pix += level + (0 if add is None else add)
        header = {
            "CAMERA": "r3", "EXPID": 82, "NIGHT": 20260114, "EXPTIME": 900.0, "MJD-OBS": 61054.3,
            "DATE-OBS": "2026-01-15T07:12:00", "OBSTYPE": "SCIENCE", "PROGRAM": "DARK", "DETECTOR": "M1-53",
            "CCDTEMP": -137.5, "CRYOTEMP": 140.0, "CRYOPRES": "7.360e-08", "VCCD": "ON", "VCCDSEC": 310751.8,
            "AIRMASS": 1.1, "TILEID": 5, "CCDSIZE": f"{NY},{NX + 2 * OVERSCAN}",
        }  # fmt: skip
        primary = {k: header[k] for k in ("EXPID", "NIGHT", "OBSTYPE", "EXPTIME", "MJD-OBS", "TILEID")}
        primary |= {"REQTIME": 900.0, "FLAVOR": "science"}
        header = {key: value for key, value in (header | cards).items() if value is not None}
        return RawCamera(np.rint(pix).astype(np.uint16), "r3", header, primary, amps)

    return build


Detected = Callable[..., dict[str, QAResult]]


@pytest.fixture(scope="session")
def look_at(tmp_path_factory: pytest.TempPathFactory) -> Detected:
    """Simulate a camera of `mini`, preprocess it, and run the metrics that its plan hangs on these two stages."""
    mini, plans = load_instrument("mini"), load_plans()
    folder = tmp_path_factory.mktemp("detector")
    ranges = Ranges.load(config_path("qa", "quicklook"))
    night = {e.kind: e for e in plan_night(20260115, 1, ("zero", "dark", "arc", "flat", "science-dark"))}
    write_spectrograph_map(folder / "calib")
    known: set[str] = set()

    def look(kind: str | Exposure, camera: str = "r0", *faults: str) -> dict[str, QAResult]:
        if camera not in known:
            write_calibration(folder / "calib", build_camera(mini, camera, 1))
            known.add(camera)
        exposure = night[kind] if isinstance(kind, str) else kind
        raw = simulate_camera(mini, camera, exposure, faults=[parse_fault(text, mini) for text in faults]).raw
        flavor = flavor_of(raw.header)
        calibration = find_calibration(
            raw.header, folder / "calib", prod_dir=folder, cache_dir=folder / "cache", flavor=flavor
        )
        context = Context(
            exposure.night, exposure.expid, camera, flavor, program_of(raw.header), raw.header, None, mini,
            calibration, ranges,
        )  # fmt: skip
        found, data = {}, raw
        for step in plans[flavor].steps[:2]:
            assert isinstance(step.stage, Initialize | Preproc)
            data = context.earlier[step.stage.name] = step.stage.run(data, context)
            found |= {check.name: check.run(data, context) for check in step.checks}
        return found

    return look


@pytest.fixture
def path_of() -> Callable[..., Path]:
    """Where an exposure lies."""

    def build(night: int = 20260114, expid: int = 82) -> Path:
        return Path(f"/raw/{night}/{expid:08d}/desi-{expid:08d}.fits.fz")

    return build
