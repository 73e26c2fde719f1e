"""The lines of an arc as the spots that a PSF fit sees: which stand alone, which hold others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from algorithms.extract.spectroperfect.spots import Spots, make_spots
from algorithms.flexure.blends import OTHER_KIND_ERROR, RATIO_ERROR
from qlstream import lines
from qlstream.datamodel.psf import GaussHermitePSF

Array = NDArray[np.float64]

_MERGED = 1.5  # lines that stand closer are one spot [sigma]
_FAINT = 1e-3  # of the light of a spot: what is fainter is not held


@dataclass(frozen=True)
class ArcLines:
    """Spots of an arc.

    Attributes
    ----------
    wave : (nspot,) of the brightest line of each, increasing [Angstrom]
    alone : (nspot,) bool, those that are measured; the light of the others is in the model
    blur : (nspot,) error of the place by the unknown shares of the lines it holds [Angstrom]
    host, held, share : (nheld,) spot that holds a fainter line, its wavelength, and its light as part of the brightest
    """

    wave: Array
    alone: NDArray[np.bool_]
    blur: Array
    host: NDArray[np.int64]
    held: Array
    share: Array

    @classmethod
    def single(cls, wave: Array, alone: NDArray[np.bool_] | None = None) -> ArcLines:
        """Lines that hold no others."""
        measured = np.ones(wave.size, dtype=bool) if alone is None else alone
        return cls(wave, measured, np.zeros(wave.size), np.zeros(0, np.int64), np.zeros(0), np.zeros(0))

    def spots(self, psf: GaussHermitePSF) -> Spots:
        """Their images of unit flux of the brightest line, held lines included."""
        spots = make_spots(psf, 0, psf.nspec, self.wave)
        if not self.held.size:
            return spots
        beside = make_spots(psf, 0, psf.nspec, self.held)
        down = beside.row - spots.row[self.host]
        right = beside.column - spots.column[self.host]
        high, wide = int(np.abs(down).max()), int(np.abs(right).max())
        nline, nfiber, height, width = spots.image.shape
        image = np.zeros((nline, nfiber, height + 2 * high, width + 2 * wide))
        image[:, :, high : high + height, wide : wide + width] = spots.image
        for n, host in enumerate(self.host):
            for f in range(nfiber):
                y, x = high + down[n, f], wide + right[n, f]
                image[host, f, y : y + height, x : x + width] += self.share[n] * beside.image[n, f]
        return Spots(image, spots.row - high, spots.column - wide)


def choose_lines(
    table: NDArray[np.void], start: GaussHermitePSF, ny: int, max_lines: int, separation: float, contamination: float
) -> ArcLines:
    """All lines on the CCD, those closer than _MERGED widths as one; the brightest that stand alone are measured.

    Parameters
    ----------
    table : as `qlstream.lines.arc_lines`
    start : a PSF whose traces and widths are about right
    ny : rows of the CCD
    max_lines : that are measured
    separation, contamination : lines with more than that light of others nearer than `separation` [sigma] are not
        measured

    Raises
    ------
    ValueError : none of the lines is on the CCD
    """
    y = start.traces.y_vs_wave(table["wave"])
    seen = np.any((y > -start.hsizey) & (y < ny + start.hsizey), axis=0)
    seen &= (table["wave"] > start.traces.wavemin) & (table["wave"] < start.traces.wavemax)
    whole = np.all((y > start.hsizey) & (y < ny - start.hsizey - 1), axis=0)
    table, whole = table[seen], whole[seen]
    if not len(table):
        raise ValueError(
            f"none of the lines lies in the range of the PSF, {start.traces.wavemin:.0f} to "
            f"{start.traces.wavemax:.0f} Angstrom; give the line list of the lamps of this camera"
        )
    middle = slice(start.nspec // 2, start.nspec // 2 + 1)
    part = start.select(middle)
    width = part.parameter("GHSIGY", table["wave"])[0] / part.traces.dy_dwave(table["wave"])[0]
    alone = lines.is_isolated(table, separation * width, contamination)
    index = np.arange(len(table))
    host = np.full(len(table), -1)
    for k in np.argsort(table["strength"])[::-1]:
        away = np.where(host == index, np.abs(table["wave"] - table["wave"][k]), np.inf)
        nearest = int(away.argmin())
        host[k] = nearest if away[nearest] < _MERGED * width[k] else k
    main = np.flatnonzero(host == index)
    share = table["strength"] / table["strength"][host]
    held = np.flatnonzero((host != index) & (share > _FAINT))
    error = np.where(table["name"][held] == table["name"][host[held]], RATIO_ERROR, OTHER_KIND_ERROR)
    shift = error * share[held] * (table["wave"][held] - table["wave"][host[held]])
    blur = np.sqrt(np.bincount(host[held], shift**2, len(table)))
    measured = alone[main] & whole[main]
    faint = np.flatnonzero(measured)[np.argsort(-table["strength"][main][measured])][max_lines:]
    measured[faint] = False
    return ArcLines(
        np.ascontiguousarray(table["wave"][main], dtype=float), measured, blur[main],
        np.searchsorted(main, host[held]), np.ascontiguousarray(table["wave"][held], dtype=float), share[held],
    )  # fmt: skip
