"""Coaddition of the exposures of each target on their common grid (spec offline-reduction §11)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algorithms.coadd.cosmics import mask_cosmics
from algorithms.coadd.mean import mean_of_exposures
from algorithms.coadd.norms import Norms, exposure_norms
from algorithms.coadd.resample import spectroperf_coadd
from algorithms.coadd.rows import Rows
from algorithms.coadd.tables import coadd_fibermap
from algorithms.scores import summed_scores
from qlstream.datamodel.masks import fatal_fiber_bits
from qlstream.datamodel.spectra import Band, Spectra

Array = NDArray[np.float64]


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

    Raises
    ------
    ValueError : there are no spectra
    """
    chosen = choose_exposures(spectra, cosmics_nsig, normalize)
    bands = {
        name: mean_of_exposures(band, chosen.rows, chosen.used[name], chosen.norms.factor)
        for name, band in chosen.bands.items()
    }
    return _with_tables(spectra, chosen, bands)


def coadd_on_grid(spectra: Spectra, wave: Array, cosmics_nsig: float = 4.0, normalize: bool = True) -> Spectra:
    """As `coadd`, on another grid: one fit to all good exposures and bands of a target, see `spectroperf_coadd`.

    Parameters
    ----------
    wave : (nwave,) bin centres [Angstrom]

    Raises
    ------
    ValueError : there are no spectra, or a band has no resolution
    """
    chosen = choose_exposures(spectra, cosmics_nsig, normalize)
    factor = chosen.norms.factor[:, None]
    bands = {
        name: replace(band, flux=band.flux * factor, ivar=band.ivar * chosen.used[name][:, None] / factor**2)
        for name, band in chosen.bands.items()
    }
    return _with_tables(spectra, chosen, spectroperf_coadd(replace(spectra, bands=bands), wave).bands)


@dataclass(frozen=True)
class Chosen:
    """What goes into a coadd.

    Attributes
    ----------
    bands : with cosmic rays masked
    rows : of each target
    used : band -> (nrow,) rows that take part
    norms : factors on the rows
    """

    bands: Mapping[str, Band]
    rows: Rows
    used: Mapping[str, NDArray[np.bool_]]
    norms: Norms


def choose_exposures(spectra: Spectra, cosmics_nsig: float, normalize: bool) -> Chosen:
    """Good exposures, without cosmic rays, and their factors; parameters as of `coadd`.

    Raises
    ------
    ValueError : there are no spectra
    """
    if not len(spectra):
        raise ValueError("coadd: no spectra given; their fibermap has no rows")
    rows = Rows.of(spectra.fibermap["TARGETID"])
    used = {name: _good_exposures(spectra.fibermap, name) for name in spectra.bands}
    clean = {
        name: band if cosmics_nsig <= 0 else mask_cosmics(band, rows, used[name], cosmics_nsig)
        for name, band in spectra.bands.items()
    }
    norms = exposure_norms(clean, rows, used) if normalize else Norms.none(len(spectra), len(rows))
    return Chosen(clean, rows, {name: some & ~norms.excluded for name, some in used.items()}, norms)


def _with_tables(spectra: Spectra, chosen: Chosen, bands: Mapping[str, Band]) -> Spectra:
    fibermap, exposures = coadd_fibermap(spectra.fibermap, chosen.rows, chosen.used, chosen.norms)
    scores = None if spectra.scores is None else summed_scores(spectra.scores, chosen.rows, chosen.used)
    return replace(spectra, bands=bands, fibermap=fibermap, exp_fibermap=exposures, scores=scores)


def _good_exposures(fibermap: NDArray[Any], band: str) -> NDArray[np.bool_]:
    """(nrow,) rows that take part."""
    if "FIBERSTATUS" not in (fibermap.dtype.names or ()):
        return np.ones(len(fibermap), dtype=bool)
    status = fibermap["FIBERSTATUS"].astype(np.int64)
    return np.asarray((status & int(fatal_fiber_bits("all", band[0]))) == 0)
