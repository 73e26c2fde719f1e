"""Dark current, simple or with profiles that depend on the exposure time (spec raw-and-calib §8)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.calibration.cache import load_arrays, load_image
from qlstream.io.errors import BadFile
from qlstream.io.fitsfile import FitsFile

_PROFILE = re.compile(r"^T(\d+(?:\.\d+)?)$")


def _none() -> NDArray[np.float32]:
    return np.empty(0, dtype=np.float32)


@dataclass(frozen=True)
class Dark:
    """Dark current of a CCD.

    Attributes
    ----------
    rate : (ny, nx) float32 [electron/second]
    exptimes : (n,) increasing [second], where profiles were measured
    profiles : (n, 2, ny) float32 [electron], one value per row for the left and the right half of the CCD
    """

    rate: NDArray[np.float32]
    exptimes: NDArray[np.float32] = field(default_factory=_none)
    profiles: NDArray[np.float32] = field(default_factory=_none)

    def at(self, exptime: float) -> NDArray[np.float32]:
        """(ny, nx) float32 [electron] after `exptime` [second]: exptime x rate + the profile at that time.

        Profiles are interpolated linearly and held at the ends; an exposure of 0 s has none.
        """
        dark = self.rate * np.float32(exptime)
        if len(self.exptimes) and exptime > 0:
            at = float(np.interp(exptime, self.exptimes, np.arange(len(self.exptimes))))
            low = min(int(at), len(self.exptimes) - 1)
            high = min(low + 1, len(self.exptimes) - 1)
            left, right = self.profiles[low] + np.float32(at - low) * (self.profiles[high] - self.profiles[low])
            middle = dark.shape[1] // 2
            dark[:, :middle] += left[:, None]
            dark[:, middle:] += right[:, None]
        return dark


def load_dark(path: Path, cache_dir: Path | None = None) -> Dark:
    """A dark file; its image comes from the cache.

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : no dark image, or profiles that do not fit it
    """
    layout = load_arrays(path, cache_dir, "layout", lambda: _layout(path))
    rate = load_image(path, cache_dir, np.float32, "DARK" if layout["named"] else 0)
    exptimes, profiles = layout["exptimes"], layout["profiles"]
    if len(exptimes) and profiles.shape[2] != rate.shape[0]:
        expected = f"(2, {rate.shape[0]})"
        raise BadFile(path, f"profile of shape {profiles.shape[1:]}", f"T{exptimes[0]:g}", expected=expected)
    return Dark(rate, exptimes, profiles)


def _layout(path: Path) -> dict[str, NDArray[Any]]:
    """Whether an HDU is called DARK, and the profiles with their exposure times [second], in order."""
    with FitsFile(path) as fits:
        times = sorted((float(m[1]), name) for name in fits.names if (m := _PROFILE.match(name.upper())))
        profiles = {name: fits.image(name).astype(np.float32) for _, name in times}
        named = "DARK" in fits
    for name, profile in profiles.items():
        if profile.ndim != 2 or len(profile) != 2 or profile.shape != profiles[times[0][1]].shape:
            raise BadFile(path, f"profile of shape {profile.shape}", name, expected="(2, rows of the CCD), all alike")
    stacked = np.stack([profiles[name] for _, name in times]) if times else np.empty((0, 2, 0), dtype=np.float32)
    return {"named": np.array(named), "exptimes": np.array([t for t, _ in times], np.float32), "profiles": stacked}
