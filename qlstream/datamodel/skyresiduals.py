"""What is left in the sky fibers of one or many exposures after the sky was subtracted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.frame import Frame

Array = NDArray[np.float64]

_SAME_WAVE = 1e-3  # grids that differ by no more are the same [Angstrom]


@dataclass(frozen=True)
class SkyResiduals:
    """Residuals of sky fibers, one row per fiber and exposure.

    Attributes
    ----------
    wave : (nwave,) [Angstrom]
    flux : (n, nwave) the sky that was subtracted, in the unit of the frames; nan where it is not known
    res : (n, nwave) what is left
    ivar : (n, nwave) its inverse variance; 0 = no information
    fiber, expid : (n,) FIBER and exposure of each row
    bunit : unit of flux and res
    """

    wave: Array
    flux: Array
    res: Array
    ivar: Array
    fiber: NDArray[np.int32]
    expid: NDArray[np.int64]
    bunit: str

    def __len__(self) -> int:
        return len(self.fiber)

    @property
    def pull(self) -> Array:
        """(n, nwave) residual over its error; nan without information."""
        return np.where(self.ivar > 0, self.res * np.sqrt(self.ivar), np.nan)

    def mean(self) -> tuple[Array, Array]:
        """(nwave,) weighted mean residual and its inverse variance, as if rows were independent; nan, 0 without any.

        Fibers of one exposure share the error of its model, so that many of one exposure say less than that.
        """
        total = self.ivar.sum(axis=0)
        mean = np.full(total.shape, np.nan)
        np.divide((self.ivar * self.res).sum(axis=0), total, out=mean, where=total > 0)
        return mean, total

    @property
    def significance(self) -> Array:
        """(nwave,) weighted mean residual over its error; nan without any.

        Standard normal for fibers that had no part in the model. Those that made it leave a mean of nearly nothing by
        construction: what stands out in them stands out in spite of that.
        """
        mean, total = self.mean()
        return np.asarray(mean * np.sqrt(total))

    @property
    def chi2pdf(self) -> Array:
        """(nwave,) mean square of the pulls: 1 where the stated errors are right; nan without information."""
        number = (self.ivar > 0).sum(axis=0)
        out = np.full(number.shape, np.nan)
        np.divide((self.ivar * self.res**2).sum(axis=0), number, out=out, where=number > 0)
        return out

    def flat(self) -> tuple[Array, Array, Array, Array]:
        """wave, flux, res and ivar of every bin with information, 1-D and row after row."""
        told = self.ivar > 0
        wave = np.broadcast_to(self.wave, told.shape)
        return wave[told], self.flux[told], self.res[told], self.ivar[told]


def residuals_of(frame: Frame, expid: int = 0, sky: Array | None = None) -> SkyResiduals:
    """The sky fibers of a sky-subtracted frame, those alone that are fit for it.

    Parameters
    ----------
    expid : of the frame
    sky : (nspec, nwave) what was subtracted, in the unit of the frame; default the frame's own, if it carries one

    Raises
    ------
    ValueError : the frame has no fibermap, or the sky another shape
    """
    if frame.fibermap is None:
        raise ValueError(f"frame of {frame.camera}: no fibermap, so it is not known which fibers see sky")
    if sky is None and frame.sky is not None:
        sky = frame.sky.flux
    if sky is None:
        sky = np.full(frame.flux.shape, np.nan)
    if sky.shape != frame.flux.shape:
        raise ValueError(f"frame of {frame.camera}: sky {sky.shape} must be {frame.flux.shape}, as its flux")
    rows = np.flatnonzero(frame.fibermap.is_sky & frame.fibermap.is_usable("sky", frame.camera[:1] or None))
    good = (frame.mask[rows] == 0) & (frame.ivar[rows] > 0)
    return SkyResiduals(
        frame.wave,
        sky[rows],
        np.where(good, frame.flux[rows], 0.0),
        np.where(good, frame.ivar[rows], 0.0),
        frame.fibers[rows],
        np.full(rows.size, expid, np.int64),
        frame.bunit,
    )


def joined(parts: Sequence[SkyResiduals]) -> SkyResiduals:
    """All rows of several sets on one grid.

    Raises
    ------
    ValueError : none given, or of other wavelengths or units
    """
    if not parts:
        raise ValueError("sky residuals: nothing given")
    first = parts[0]
    for part in parts[1:]:
        if part.wave.shape != first.wave.shape or np.abs(part.wave - first.wave).max() > _SAME_WAVE:
            raise ValueError("sky residuals: the frames stand on different wavelengths; join those of one arm")
        if part.bunit != first.bunit:
            raise ValueError(f"sky residuals: units differ ({first.bunit}, {part.bunit}); join frames of one kind")
    rows = {name: np.concatenate([getattr(p, name) for p in parts]) for name in ("flux", "res", "ivar")}
    return SkyResiduals(
        first.wave,
        rows["flux"],
        rows["res"],
        rows["ivar"],
        np.concatenate([p.fiber for p in parts]),
        np.concatenate([p.expid for p in parts]),
        first.bunit,
    )
