"""Coaddition of the exposures of each target on their common grid (spec offline-reduction §11)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algorithms.coadd.cosmics import mask_cosmics
from algorithms.coadd.mean import mean_of_exposures
from algorithms.coadd.norms import Norms, exposure_norms
from algorithms.coadd.rows import Rows
from algorithms.coadd.tables import coadd_fibermap
from algorithms.scores import summed_scores
from qlstream.datamodel.masks import fatal_fiber_bits
from qlstream.datamodel.spectra import Spectra


def coadd(spectra: Spectra, cosmics_nsig: float = 4.0, normalize: bool = True) -> Spectra:
    """One spectrum per target and band: the inverse-variance weighted mean of its good exposures.

    Exposures with a fatal FIBERSTATUS for a band take no part in it, and bins with a mask do not count; where a target
    has nothing else, that is kept to look at, with ivar 0 (see `mean_of_exposures`). The resolution is averaged with
    the same weights, so that R x still is the expectation of the coadd.

    Parameters
    ----------
    cosmics_nsig : cosmic rays beyond so many sigma are masked first (see `mask_cosmics`); 0 looks for none
    normalize : bring exposures of a target whose brightness varies to their mean (see `exposure_norms`), lest the
        coadd have steps where one of them is masked; leave out those with less than a tenth of the light

    Returns
    -------
    Spectra with one row per target, in the order of their first appearance; `exp_fibermap` has the old rows,
    `scores` their TSNR2 and effective times added up
    """
    rows = Rows.of(spectra.fibermap["TARGETID"])
    used = {name: _good_exposures(spectra.fibermap, name) for name in spectra.bands}
    clean = {
        name: band if cosmics_nsig <= 0 else mask_cosmics(band, rows, used[name], cosmics_nsig)
        for name, band in spectra.bands.items()
    }
    norms = exposure_norms(clean, rows, used) if normalize else Norms.none(len(spectra), len(rows))
    used = {name: some & ~norms.excluded for name, some in used.items()}
    bands = {name: mean_of_exposures(band, rows, used[name], norms.factor) for name, band in clean.items()}
    fibermap, exposures = coadd_fibermap(spectra.fibermap, rows, used, norms)
    scores = None if spectra.scores is None else summed_scores(spectra.scores, rows, used)
    return replace(spectra, bands=bands, fibermap=fibermap, exp_fibermap=exposures, scores=scores)


def _good_exposures(fibermap: NDArray[Any], band: str) -> NDArray[np.bool_]:
    """(nrow,) rows that take part."""
    if "FIBERSTATUS" not in (fibermap.dtype.names or ()):
        return np.ones(len(fibermap), dtype=bool)
    status = fibermap["FIBERSTATUS"].astype(np.int64)
    return np.asarray((status & int(fatal_fiber_bits("all", band[0]))) == 0)
