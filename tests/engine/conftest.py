"""Small real exposures whose cameras tell a test's stages what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from qlstream.engine.pool import preload
from qlstream.io.atomic import atomic_path
from qlstream.io.raw import write_raw
from qlstream.settings import Settings, load_settings

NIGHT = 20260115
STAGES = Path(__file__).parent / "stages"
PLAN: list[dict[str, Any]] = [
    {"run": "obedient_stages:Arrive", "then_check": ["obedient_stages:Judge"]},
    {"run": "obedient_stages:Obey"},
]

preload(["qlstream.engine.worker"])  # or each of the many fresh workers would import it anew


def write_exposure(raw: Path, expid: int, orders: dict[str, str], obstype: str = "ZERO") -> Path:
    """Write an exposure whose cameras carry `orders` (camera -> OBEY), by temporary name and rename."""
    path = raw / str(NIGHT) / f"{expid:08d}" / f"desi-{expid:08d}.fits.fz"
    primary = {
        "EXPTIME": 0.0,
        "NIGHT": NIGHT,
        "EXPID": expid,
        "OBSTYPE": obstype,
        "MJD-OBS": 61056.0 + expid / 1000,
        "CAMERAS": ",".join(orders),
        "DOSVER": "sim",
        "FEEVER": "sim",
        "INSTRUME": "mini",
    }
    cameras = {}
    for camera, order in orders.items():
        cards = {
            "OBEY": order,
            "DETECTOR": f"sim-{camera}",
            "EXPID": expid,
            "CCDSECA": "[1:20,1:16]",
            "DATASECA": "[1:20,1:16]",
            "BIASSECA": "[21:24,1:16]",
            "GAINA": 1.0,
        }
        cameras[camera] = np.full((16, 24), 1000 + expid, dtype=np.uint16), cards
    with atomic_path(path) as temporary:
        write_raw(temporary, primary, cameras)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """raw, redux and plans of a test's own night."""
    plans = tmp_path / "plans"
    plans.mkdir()
    for flavor in ("zero", "dark", "arc", "flat", "science"):
        (plans / f"{flavor}.yaml").write_text(yaml.safe_dump({"flavor": flavor, "steps": PLAN}))
    (tmp_path / "raw").mkdir()
    return {"raw": tmp_path / "raw", "redux": tmp_path / "redux", "plans": plans}


@pytest.fixture
def make_settings(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Settings of a test's own night, quick and without dashboard; dotted keys can be given."""
    monkeypatch.syspath_prepend(str(STAGES))
    assert str(STAGES) in sys.path

    def make(**given: Any) -> Settings:
        flags: dict[str, Any] = {
            "raw": folders["raw"],
            "redux": folders["redux"],
            "engine.plans": folders["plans"],
            "engine.workers": 2,
            "engine.camera_timeout": 3.0,
            "engine.memory_limit_mb": 2000,
            "engine.heartbeat_s": 0.2,
            "dashboard.enabled": False,
            "ingest.settle_s": 0.0,
            "ingest.scan_s": 0.3,
            "ingest.give_up_s": 1.0,
            "logging.level": "WARNING",
        }
        return load_settings(flags=flags | {key.replace("__", "."): value for key, value in given.items()}, environ={})

    return make
