"""Spectra of one camera on a common wavelength grid."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.cameraspectra import CameraSpectra
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.qframe import ELECTRON, QFrame
from qlstream.datamodel.resolution import Resolution
from qlstream.datamodel.sky import SkyModel

Array = NDArray[np.float64]

PER_ANGSTROM = "electron/Angstrom"


@dataclass(frozen=True)
class Frame(CameraSpectra):
    """A frame, sframe, cframe or fframe (spec datamodel §5.1, §5.2).

    Attributes
    ----------
    wave : (nwave,) float64 [Angstrom, vacuum], increasing
    flux : (nspec, nwave) float64 [electron/Angstrom] unless `bunit` says otherwise
    ivar : (nspec, nwave) float64 [1/flux unit^2]; 0 = no information
    mask : (nspec, nwave) uint32, SpecMask bits
    fibers : (nspec,) int32, FIBER numbers
    resolution : (nspec, ndiag, nwave) bands of the resolution matrices (see `Resolution`), or None
    ysigma : (nspec, nwave) float64 [pixel], Gaussian sigma of the line spread where only that is known, or None
    ndiag : number of diagonals that belong to `ysigma`
    fibermap : the rows of these fibers, same order, or None
    chi2pix : (nspec, nwave) float64, chi2 per degree of freedom of the 2-D extraction, or None
    scores : table with one row per spectrum, or None
    sky : the model that was subtracted, or None
    bunit : unit of flux
    meta : header cards
    """

    wave: Array
    flux: Array
    ivar: Array
    mask: NDArray[np.uint32]
    fibers: NDArray[np.int32]
    resolution: NDArray[np.floating[Any]] | None = None
    ysigma: Array | None = None
    ndiag: int = 21
    fibermap: Fibermap | None = None
    chi2pix: Array | None = None
    scores: NDArray[Any] | None = None
    sky: SkyModel | None = None
    bunit: str = PER_ANGSTROM
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.fibers), len(self.wave))
        images = {k: getattr(self, k) for k in ("flux", "ivar", "mask", "ysigma", "chi2pix")}
        wrong = [
            f"{name} {image.shape}" for name, image in images.items() if image is not None and image.shape != shape
        ]
        if self.resolution is not None and (self.resolution.shape[0], self.resolution.shape[-1]) != shape:
            wrong.append(f"resolution {self.resolution.shape}")
        if wrong:
            raise ValueError(
                f"Frame: {', '.join(wrong)} must be (nspec, nwave) = {shape}, resolution with ndiag inside"
            )
        for name, rows in (("fibermap", self.fibermap), ("scores", self.scores)):
            if rows is not None and len(rows) != shape[0]:
                raise ValueError(f"Frame: {name} has {len(rows)} rows for {shape[0]} spectra")

    @property
    def nspec(self) -> int:
        return len(self.fibers)

    @property
    def camera(self) -> str:
        return str(self.meta.get("CAMERA", "")).lower()

    @cached_property
    def dwave(self) -> Array:
        """(nwave,) width of each bin [Angstrom]."""
        return np.gradient(self.wave)

    def per_bin(self) -> QFrame:
        """Electrons per bin instead of per Angstrom, every fiber on the same bins; widths count in bins, too.

        Neighbouring bins may be correlated (spec preproc-and-extraction §9): a QFrame never tells. It is made once, for
        all the metrics that ask for it.
        """
        return self._bins

    @cached_property
    def _bins(self) -> QFrame:
        width = self.dwave if self.bunit == PER_ANGSTROM else np.ones(len(self.wave))
        sky = None if self.sky is None else (self.sky.flux * width).astype(np.float32)
        return QFrame(
            wave=np.broadcast_to(self.wave, self.flux.shape),
            flux=(self.flux * width).astype(np.float32),
            ivar=(self.ivar / width**2).astype(np.float32),
            mask=self.mask,
            fibers=self.fibers,
            ysigma=None if self.ysigma is None else self.ysigma.astype(np.float32),
            fibermap=self.fibermap,
            sky=sky,
            bunit=ELECTRON if self.bunit == PER_ANGSTROM else self.bunit,
            meta=self.meta,
        )

    def with_bins(self, bins: QFrame) -> Frame:
        """This frame with flux, ivar and mask of `bins`, which has its shape and counts per bin; the way back."""
        width = self.dwave if bins.bunit == ELECTRON else np.ones(len(self.wave))
        return replace(
            self,
            flux=bins.flux / width,
            ivar=bins.ivar * width**2,
            mask=bins.mask,
            bunit=PER_ANGSTROM if bins.bunit == ELECTRON else bins.bunit,
            meta=bins.meta,
        )

    def resolution_of(self, index: int) -> Resolution:
        """The resolution matrix of one spectrum, from its bands or from its width.

        Raises
        ------
        ValueError : the frame has neither
        """
        if self.resolution is not None:
            return Resolution.of_bands(self.resolution[index])
        if self.ysigma is not None:
            return Resolution.from_widths(self.ysigma[index], self.ndiag)
        raise ValueError(f"Frame {self.camera}: neither a RESOLUTION nor a YSIGMA came with it")
