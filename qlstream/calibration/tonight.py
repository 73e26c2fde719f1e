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
    prod_dir: Path, night: int, kinds: Sequence[str], camera: str, mjd: float, flavor: str
) -> tuple[Path, float] | None:
    """Of the products `kinds` of this camera and night, that whose exposure started last before `mjd`, and its MJD.

    Of several products of one exposure the first of `kinds` counts. Only exposures of smaller MJD count, and only
    those of `flavor` (or of none, if a file does not tell): science has traces, too, but whether those of the exposure
    before are there depends on the order of work. So a replay finds what the live night found (design §3). Files that
    cannot be read are passed over with a warning.
    """
    best: tuple[Path, float] | None = None
    folder = prod_dir / "exposures" / str(night)
    for path in (path for kind in kinds for path in sorted(folder.glob(f"*/{kind}-{camera}-*.fits*"))):
        if "_tmp" in path.name:
            continue
        try:
            start, of_flavor = _start_of(path, path.stat().st_mtime_ns)
        except (BadFile, OSError) as error:
            _log.warning("passed over as calibration of tonight: %s", error)
            continue
        if start < mjd and of_flavor in (flavor, "") and (best is None or start > best[1]):
            best = path, start
    return best


@lru_cache(maxsize=8192)
def _start_of(path: Path, mtime_ns: int) -> tuple[float, str]:
    """MJD-OBS and FLAVOR of a product; a worker reads each version of a file once."""
    with FitsFile(path) as fits:
        header = fits.header(0)
    return float(required(path, header, "MJD-OBS", float, 0)), str(header.get("FLAVOR") or "").strip().lower()
