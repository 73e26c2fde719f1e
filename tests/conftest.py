"""Fixtures that several packages' tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qlstream.calibration.served import Calibration
from qlstream.configs import config_path
from qlstream.datamodel.fibermap import Fibermap
from qlstream.instrument import load_instrument
from qlstream.pipeline.context import Context
from qlstream.pipeline.ranges import Ranges


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
