"""Reads the small array files that the workers leave: per-fiber vectors, previews of image and spectra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from dashboards.records import Detail
from qlstream.store.vectors import read_vectors

Array = NDArray[Any]


@dataclass(frozen=True)
class FiberTable:
    """Per-fiber values of several cameras of one arm, side by side.

    Attributes
    ----------
    fiber : (n,) FIBER numbers
    camera : (n,) names
    values : key -> (n,) float32, NaN where a camera has no such key
    units : key -> unit
    """

    fiber: Array
    camera: Array
    values: dict[str, Array]
    units: dict[str, str]


EMPTY_TABLE = FiberTable(np.empty(0, np.int32), np.empty(0, "U4"), {}, {})


def read_fibers(redux: Path, details: Mapping[str, Detail], cameras: list[str]) -> FiberTable:
    """The per-fiber vectors of these cameras; a file that is gone or broken is left out.

    FIBER is spectrograph x nspec + index, as in the instrument (qlstream.instrument.Instrument.fibers).
    """
    parts: list[tuple[str, int, dict[str, Array]]] = []
    units: dict[str, str] = {}
    for camera in cameras:
        found: dict[str, Array] = {}
        for row in details.get(camera, Detail()).results.values():
            if row["vectors"]:
                found.update(_per_fiber(str(redux / row["vectors"])))
                units.update(row["units"])
        if found:
            parts.append((camera, max(len(v) for v in found.values()), found))
    if not parts:
        return EMPTY_TABLE
    keys = list(dict.fromkeys(key for _, _, found in parts for key in found))
    fiber = np.concatenate([int(camera[1:] or 0) * nspec + np.arange(nspec) for camera, nspec, _ in parts])
    names = np.concatenate([np.full(nspec, camera) for camera, nspec, _ in parts])
    values = {key: np.concatenate([_padded(found.get(key), nspec) for _, nspec, found in parts]) for key in keys}
    return FiberTable(fiber.astype(np.int32), names, values, units)


@dataclass(frozen=True)
class Preview:
    """A CCD image made small (written by qlstream.engine.preview).

    Attributes
    ----------
    image : (h, w) float32 [electron]
    mask : (h, w) uint8, 1 where any CCD pixel of the bin is masked
    nx, ny : what the bins cover [CCD pixel]; a bit more than the CCD where its size is no multiple of the binning
    amps : name -> (x0, x1, y0, y1) [CCD pixel], ends excluded
    traces : (nspec, 3) columns of each fiber at the first, middle and last row [CCD pixel]; may be empty
    """

    image: Array
    mask: Array
    nx: int
    ny: int
    amps: dict[str, tuple[int, int, int, int]]
    traces: Array


@dataclass(frozen=True)
class Spectra:
    """The spectra of a camera: wave [Angstrom], flux, ivar (nspec, n), fiber (nspec,), sky as flux or None."""

    wave: Array
    flux: Array
    ivar: Array
    fiber: Array
    sky: Array | None
    bunit: str


def read_preview(path: Path) -> Preview | None:
    """The preview of an image; None if there is none that can be read."""
    found = _arrays(path)
    if found is None:
        return None
    height, width = found["image"].shape
    binning = int(found["binning"])
    boxes = [tuple(int(v) for v in box) for box in found["amp_boxes"]]
    return Preview(
        image=found["image"],
        mask=found["mask"],
        nx=width * binning,
        ny=height * binning,
        amps=dict(zip([str(name) for name in found["amp_names"]], boxes, strict=True)),  # type: ignore[arg-type]
        traces=found["traces"],
    )


def read_spectra(path: Path) -> Spectra | None:
    """The spectra of a camera; None if there are none that can be read."""
    found = _arrays(path)
    if found is None:
        return None
    sky = found["sky"] if found["sky"].size else None
    return Spectra(found["wave"], found["flux"], found["ivar"], found["fiber"], sky, str(found["bunit"]))


def _padded(values: Array | None, nspec: int) -> Array:
    out = np.full(nspec, np.nan, np.float32)
    if values is not None and values.ndim == 1:
        out[: len(values)] = values
    return out


@lru_cache(maxsize=1024)
def _per_fiber(path: str) -> dict[str, Array]:
    """The name of the file holds version and attempt, so its content never changes."""
    try:
        return read_vectors(Path(path))["per_fiber"]
    except (OSError, ValueError, KeyError, BadZipFile):
        return {}


def _arrays(path: Path) -> dict[str, Array] | None:
    try:
        stat = path.stat()
        return _load(str(path), stat.st_mtime_ns)
    except (OSError, ValueError, BadZipFile):
        return None


@lru_cache(maxsize=24)
def _load(path: str, mtime_ns: int) -> dict[str, Array]:
    with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
