"""Which pixels of the sky the targets of an exposure fall on, and the spectra of one pixel (spec §12)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy import units
from astropy_healpix import HEALPix
from numpy.typing import NDArray

from algorithms.group.frames import Key, frames2spectra, rows_of, with_all_arms
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.spectra import Spectra

NSIDE = 64


def pixel_of(ra: NDArray[np.floating], dec: NDArray[np.floating], nside: int = NSIDE) -> NDArray[np.int64]:
    """(n,) nested HEALPix pixel of each position [deg]; -1 where it is not finite."""
    good = np.isfinite(ra) & np.isfinite(dec)
    out = np.full(len(ra), -1, dtype=np.int64)
    grid = HEALPix(nside=nside, order="nested")
    out[good] = grid.lonlat_to_healpix(ra[good] * units.deg, dec[good] * units.deg)
    return out


def fibermap_pixels(fibermap: Fibermap, nside: int = NSIDE) -> dict[int, int]:
    """Pixel -> number of targets on it, in the order of the pixels; sky fibers and unassigned ones do not count.

    Raises
    ------
    KeyError : the fibermap has no TARGET_RA, TARGET_DEC
    """
    targets = fibermap.objtype == "TGT"
    pixels = pixel_of(fibermap.column("TARGET_RA"), fibermap.column("TARGET_DEC"), nside)
    found, counts = np.unique(pixels[targets & (pixels >= 0)], return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


class FrameCache(Mapping[Key, Frame]):
    """Frames that are read when asked for; the last `size` stay in memory: neighbouring pixels share exposures."""

    def __init__(self, files: Mapping[Key, Path], read: Callable[[Path], Frame], size: int = 30) -> None:
        self._files, self._read, self._size = files, read, size
        self._frames: dict[Key, Frame] = {}

    def __getitem__(self, key: Key) -> Frame:
        frame = self._frames.pop(key, None)
        if frame is None:
            frame = self._read(self._files[key])
        self._frames[key] = frame  # the newest stands last
        while len(self._frames) > self._size:
            self._frames.pop(next(iter(self._frames)))
        return frame

    def __iter__(self) -> Iterator[Key]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def spectra_of_pixel(
    pixel: int, frames: Mapping[Key, Frame], existing: Spectra | None = None, nside: int = NSIDE
) -> Spectra:
    """All spectra of the targets on one pixel.

    Parameters
    ----------
    frames : calibrated, that may have targets there; those in `existing` already are not looked at
    existing : an earlier result, which is extended by the frames it lacks

    Raises
    ------
    LookupError : no target of these frames lies on the pixel
    """
    have = _exposures_of(existing) if existing is not None else set()
    chosen: dict[Key, Frame] = {}
    for key in frames:
        if key in have:
            continue
        frame = frames[key]
        fibermap = frame.fibermap
        if fibermap is None:
            continue
        on = pixel_of(fibermap.column("TARGET_RA"), fibermap.column("TARGET_DEC"), nside) == pixel
        on &= fibermap.objtype == "TGT"
        if on.any():
            chosen[key] = rows_of(frame, on)
    if not chosen:
        if existing is None:
            raise LookupError(f"no target of {len(frames)} frames lies on pixel {pixel} of nside {nside}")
        return existing
    new = frames2spectra(chosen)
    cards = {"SPGRP": "healpix", "SPGRPVAL": pixel, "HPXPIXEL": pixel, "HPXNSIDE": nside, "HPXNEST": True}
    both = new
    if existing is not None:
        joined = existing.update(new)
        both = with_all_arms(replace(joined, meta={**existing.meta, **new.meta, **joined.meta}))
    return replace(both, meta={**both.meta, **cards})


def _exposures_of(spectra: Spectra) -> set[Key]:
    """(night, expid, camera) that have data in it; none if its fibermap does not tell the petals."""
    if "PETAL_LOC" not in (spectra.fibermap.dtype.names or ()):
        return set()
    found: set[Key] = set()
    for name, band in spectra.bands.items():
        for row in spectra.fibermap[(band.ivar > 0).any(axis=1)]:
            found.add((int(row["NIGHT"]), int(row["EXPID"]), f"{name}{int(row['PETAL_LOC'])}"))
    return found
