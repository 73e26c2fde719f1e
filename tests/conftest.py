"""Fixtures that several packages' tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qlstream.calibration.served import Calibration
from qlstream.configs import config_path
from qlstream.datamodel.fibermap import Fibermap
from qlstream.engine.camera import CameraRequest, Reduced, reduce_camera
from qlstream.instrument import load_instrument
from qlstream.pipeline.context import Buffers, Context
from qlstream.pipeline.plan import load_plans
from qlstream.pipeline.ranges import Ranges
from qlstream.simulate.night import simulate_night


@pytest.fixture(scope="session")
def make_context() -> Callable[..., Context]:
    """Build a Context of the mini instrument; any of its fields can be given."""

    def make(**given: Any) -> Context:
        camera, night = given.get("camera", "r3"), given.get("night", 20260114)
        fields: dict[str, Any] = {
            "night": night,
            "expid": 82,
            "camera": camera,
            "flavor": "science",
            "program": "dark",
            "header": {"EXPTIME": 1000.0, "CAMERA": camera},
            "fibermap": None,
            "instrument": load_instrument("mini"),
            "calibration": Calibration(camera, night, {}),
            "ranges": Ranges.load(config_path("qa", "quicklook")),
        }
        return Context(**(fields | given))

    return make


_TARGET_BITS = {"ELG": 1 << 1, "LRG": 1 << 0, "QSO": 1 << 2, "BGS": 1 << 60, "MWS": 1 << 61, "STAR": 1 << 33}


@pytest.fixture(scope="session")
def make_fibermap() -> Callable[..., Fibermap]:
    """Build a Fibermap from one class name per fiber (SKY or a target class); further columns can be given."""

    def make(classes: list[str], first_fiber: int = 0, **columns: Any) -> Fibermap:
        types: dict[str, Any] = {"FIBER": "i4", "OBJTYPE": "U3", "DESI_TARGET": "i8", "FIBERSTATUS": "i4"}
        types |= {name: np.asarray(values).dtype for name, values in columns.items()}
        rows = np.zeros(len(classes), dtype=list(types.items()))
        rows["FIBER"] = first_fiber + np.arange(len(classes))
        rows["OBJTYPE"] = ["SKY" if c == "SKY" else "TGT" for c in classes]
        rows["DESI_TARGET"] = [_TARGET_BITS.get(c, 0) for c in classes]
        for name, values in columns.items():
            rows[name] = values
        return Fibermap(rows)

    return make


@pytest.fixture(scope="session")
def one_camera_night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """raw and calib of a bias (1), dark (2), arc (3), flat (4) and science exposure (5) of camera r0, mini."""
    out = tmp_path_factory.mktemp("one-camera-night")
    kinds = ("zero", "dark", "arc", "flat", "science-dark")
    simulate_night(load_instrument("mini"), 20260115, out, ("r0",), kinds=kinds)
    return out


class _Nobody:
    """A reporter that tells nobody."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *told: None


@pytest.fixture(scope="session")
def reduce_r0() -> Callable[..., Reduced]:
    """Take camera r0 of an exposure of `one_camera_night`, or of a copy of it, through its shipped plan."""
    plans, ranges, buffers = load_plans(), Ranges.load(config_path("qa", "quicklook")), Buffers()

    def reduce(night: Path, redux: Path, expid: int, **given: Any) -> Reduced:
        chosen = given.pop("plans", plans)
        calls = {name: given.pop(name) for name in ("take", "is_current") if name in given}
        path = night / "raw" / "20260115" / f"{expid:08d}" / f"desi-{expid:08d}.fits.fz"
        request = CameraRequest(path, "r0", redux, **({"calib": night / "calib"} | given))
        return reduce_camera(request, chosen, ranges, _Nobody(), buffers, **calls)

    return reduce


@pytest.fixture(scope="session")
def reduced_night(one_camera_night: Path, reduce_r0: Callable[..., Reduced], tmp_path_factory: Any) -> Path:
    """The production folder of `one_camera_night`, all five exposures reduced."""
    redux = tmp_path_factory.mktemp("reduced-night")
    for expid in range(1, 6):
        reduce_r0(one_camera_night, redux, expid)
    return redux
