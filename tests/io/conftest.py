"""A raw exposure as the instrument writes it, made small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

PRIMARY = {
    "EXPID": 118526,
    "NIGHT": 20220113,
    "FLAVOR": "science",
    "OBSTYPE": "SCIENCE",
    "EXPTIME": 579.1588,
    "DATE-OBS": "2022-01-14T11:04:17.830044160",
    "MJD-OBS": 59593.461317476,
    "FIBASSGN": "/data/tiles/SVN_tiles/004/fiberassign-004403.fits.gz",
    "PROGRAM": "DARK",
}

# 4 prescan, 20 active and 8 overscan columns for each amplifier; 1 prescan, 15 active and 2 overscan rows
SECTIONS = {
    "DATASECA": "[5:24,2:16]", "DATASECB": "[41:60, 2:16]", "DATASECC": "[5:24,21:35]", "DATASECD": "[41:60,21:35]",
    "CCDSECA": "[1:20,1:15]", "CCDSECB": "[21:40,1:15]", "CCDSECC": "[1:20,16:30]", "CCDSECD": "[21:40,16:30]",
    "BIASSECA": "[25:32,2:16]", "BIASSECB": "[33:40,2:16]", "BIASSECC": "[25:32,21:35]", "BIASSECD": "[33:40,21:35]",
    "ORSECA": "[5:24,17:18]", "ORSECB": "[41:60,17:18]", "ORSECC": "[5:24,19:20]", "ORSECD": "[41:60,19:20]",
}  # fmt: skip
CAMERA = {**SECTIONS, "SPECID": 4, "DETECTOR": "M1-53", "FEEVER": "v20160312", "DOSVER": "trunk", "EXPTIME": 579.193}


@pytest.fixture
def primary() -> dict[str, Any]:
    return dict(PRIMARY)


@pytest.fixture
def raw_camera() -> Callable[..., tuple[np.ndarray, dict[str, Any]]]:
    """Build (pixels, cards) of one camera; further cards can be given, None removes one."""

    def make(seed: int = 1, dtype: str = "u2", **cards: Any) -> tuple[np.ndarray, dict[str, Any]]:
        pix = np.random.default_rng(seed).integers(0, 65536, (36, 64)).astype(dtype)
        merged = CAMERA | {"NIGHT": 20220113, "EXPID": 118526} | cards
        return pix, {key: value for key, value in merged.items() if value is not None}

    return make
