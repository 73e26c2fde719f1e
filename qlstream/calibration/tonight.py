"""Calibrations made earlier in the same night by the quicklook itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from qlstream.io.errors import BadFile
from qlstream.io.fitsfile import FitsFile, required

_log = logging.getLogger(__name__)


def latest_before(
    prod_dir: Path, night: int, kinds: Sequence[str], camera: str, mjd: float
) -> tuple[Path, float] | None:
    """Of the products `kinds` of this camera and night, that whose exposure started last before `mjd`, and its MJD.

    Of several products of one exposure the first of `kinds` counts. Only exposures of smaller MJD count, so that a
    replay finds what the live night found (design §3). Files that cannot be read are passed over with a warning.
    """
    best: tuple[Path, float] | None = None
    folder = prod_dir / "exposures" / str(night)
    for path in (path for kind in kinds for path in sorted(folder.glob(f"*/{kind}-{camera}-*.fits*"))):
        if "_tmp" in path.name:
            continue
        try:
            start = _mjd_of(path, path.stat().st_mtime_ns)
        except (BadFile, OSError) as error:
            _log.warning("passed over as calibration of tonight: %s", error)
            continue
        if start < mjd and (best is None or start > best[1]):
            best = path, start
    return best


@lru_cache(maxsize=8192)
def _mjd_of(path: Path, mtime_ns: int) -> float:
    """MJD-OBS of a product; a worker reads each version of a file once."""
    with FitsFile(path) as fits:
        return float(required(path, fits.header(0), "MJD-OBS", float, 0))
