"""The two-dimensional extraction as the stage `Extraction_2d` calls it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from algorithms.extract.spectroperfect.extraction import extract_spectra
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.image import Image
from qlstream.datamodel.masks import EXTRACT_MASK
from qlstream.datamodel.psf import GaussHermitePSF

Array = NDArray[np.float64]


def extract_frame(
    image: Image,
    psf: GaussHermitePSF,
    wave: Array,
    *,
    fibers: NDArray[np.int32],
    bundle: NDArray[np.int64],
    nwavestep: int = 50,
    regularize: float = 0.0,
    ndecorr: bool = True,
    psf_error: float = 0.01,
    weigh_psf_error: bool = False,
    doppler: float = 1.0,
) -> Frame:
    """Spectra of all fibers of the PSF with uncorrelated bins and their resolution (see `extract_spectra`).

    Parameters
    ----------
    nwavestep : accepted, and without effect: all wavelengths of a bundle are solved at once
    ndecorr : accepted, and without effect: bins of a fiber are always exactly uncorrelated, fibers never mixed

    Raises
    ------
    ValueError : bundles that are no blocks of neighbouring fibers
    """
    starts = np.flatnonzero(np.r_[True, np.diff(bundle) != 0])
    if len(starts) != len(np.unique(bundle)):
        raise ValueError("extract_frame: the fibers of a bundle must lie side by side")
    ivar = np.where(image.mask & np.uint16(EXTRACT_MASK) == 0, image.ivar, np.float32(0.0))
    done = extract_spectra(
        image.pix,
        ivar,
        psf,
        wave,
        np.r_[starts, len(fibers)],
        regularize=regularize,
        psf_error=psf_error,
        weigh_psf_error=weigh_psf_error,
        doppler=doppler,
    )
    return Frame(
        wave=wave,
        flux=done.flux,
        ivar=done.ivar,
        mask=done.mask,
        fibers=fibers,
        resolution=done.resolution,
        ndiag=done.resolution.shape[1],
        chi2pix=done.chi2pix,
        meta={"WAVEMIN": float(wave[0]), "WAVEMAX": float(wave[-1]), "WAVESTEP": float(wave[1] - wave[0])},
    )
