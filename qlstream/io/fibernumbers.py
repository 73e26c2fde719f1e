"""FIBER numbers of the spectra in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.fibermap import Fibermap
from qlstream.io.errors import BadFile
from qlstream.io.fibermap import fibermap_hdu, fibermap_of
from qlstream.io.fitsfile import HDU, Cards, FitsFile


def read_fibers(fits: FitsFile, nspec: int, header: Cards) -> tuple[NDArray[np.int32], Fibermap | None]:
    """FIBER numbers, and the fibermap if the file has one.

    They come from FIBERMAP, else FIBERMIN, else SPECGRPH or the digit of CAMERA (spec datamodel §5.1).

    Raises
    ------
    BadFile : no source tells them, or the fibermap has another number of rows
    """
    if "FIBERMAP" in fits:
        fibermap = fibermap_of(fits)
        if len(fibermap) != nspec:
            raise BadFile(fits.path, f"{len(fibermap)} rows", "FIBERMAP", expected=f"{nspec}, one for each spectrum")
        return fibermap.fiber, fibermap
    first = _first_fiber(fits.path, header, nspec)
    return (first + np.arange(nspec)).astype(np.int32), None


def fiber_hdus(fibers: NDArray[np.int32], fibermap: Fibermap | None) -> list[HDU]:
    """The FIBERMAP HDU, if one is needed: a fibermap is there, or FIBERMIN cannot tell the numbers."""
    if fibermap is None and np.array_equal(fibers, fibers[0] + np.arange(len(fibers))):
        return []
    if fibermap is None:
        rows = np.zeros(len(fibers), dtype=[("FIBER", "i4")])
        rows["FIBER"] = fibers
        fibermap = Fibermap(rows)
    return [fibermap_hdu(fibermap)]


def _first_fiber(path: Path, header: Cards, nspec: int) -> int:
    for keyword, factor in (("FIBERMIN", 1), ("SPECGRPH", nspec), ("CAMERA", nspec)):
        value: Any = header.get(keyword)
        text = str(value).strip()[-1:] if keyword == "CAMERA" else value
        try:
            return int(text) * factor  # type: ignore[arg-type]
        except (TypeError, ValueError):
            continue
    raise BadFile(path, "nothing tells the fiber numbers", 0, expected="a FIBERMAP HDU, FIBERMIN, SPECGRPH or CAMERA")
