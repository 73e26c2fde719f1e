"""The arms of each target stitched to one spectrum, where their grids are parts of one grid (spec §11)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qlstream.datamodel.spectra import Band, Spectra


def coadd_cameras(spectra: Spectra, tolerance: float = 1e-4) -> Spectra:
    """One band, named by all of them ("brz"): overlaps are averaged with their inverse variances.

    Parameters
    ----------
    tolerance : by how much a bin may miss the common grid [Angstrom]

    Raises
    ------
    ValueError : the grids are not parts of one even grid; the message tells which and by how much
    """
    order = sorted(spectra.bands, key=lambda name: spectra.bands[name].wave[0])
    first = spectra.bands[order[0]].wave
    step = float(first[1] - first[0])
    start = {}
    for name in order:
        wave = spectra.bands[name].wave
        at = (wave - first[0]) / step
        miss = np.abs(at - np.rint(at)).max() * step
        if miss > tolerance or not np.allclose(np.diff(np.rint(at)), 1):
            raise ValueError(
                f"coadd_cameras: the grid of {name} misses that of {order[0]} (step {step:g}) by {miss:.3g} Angstrom; "
                "resample the bands to one grid first"
            )
        start[name] = int(np.rint(at[0]))
    nwave = max(start[name] + len(spectra.bands[name].wave) for name in order)
    shape = (len(spectra), nwave)
    flux, ivar, spare = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    mask = np.full(shape, np.iinfo(np.uint32).max, np.uint32)
    seen = np.zeros(nwave, dtype=bool)
    for name in order:
        band = spectra.bands[name]
        here = slice(start[name], start[name] + len(band.wave))
        weight = np.where(band.mask == 0, band.ivar, 0.0)
        ivar[:, here] += weight
        spare[:, here] += band.ivar
        mask[:, here] &= band.mask
        seen[here] = True
    total = np.where(ivar > 0, ivar, spare)
    safe = np.where(total > 0, total, 1.0)
    ndiag = max((b.resolution.shape[1] if b.resolution is not None else 0) for b in spectra.bands.values())
    resolution = np.zeros((len(spectra), ndiag, nwave)) if ndiag else None
    for name in order:
        band = spectra.bands[name]
        here = slice(start[name], start[name] + len(band.wave))
        good = np.where(band.mask == 0, band.ivar, 0.0)
        share = np.where(ivar[:, here] > 0, good, band.ivar) / safe[:, here]
        flux[:, here] += share * band.flux
        if resolution is not None and band.resolution is not None:
            _add(resolution[:, :, here], band.resolution, share)
    mask[:, ~seen] = 0
    mask[ivar > 0] = 0
    wave = first[0] + step * np.arange(nwave)
    return replace(spectra, bands={"".join(order): Band(wave, flux, ivar, mask, resolution)})


def _add(total: np.ndarray, resolution: np.ndarray, share: np.ndarray) -> None:
    """Add share_i R_ij to a view of the stitched resolution, which may have more diagonals."""
    ndiag, nwave = resolution.shape[1:]
    first = (total.shape[1] - ndiag) // 2
    for k in range(ndiag):
        offset = ndiag // 2 - k  # R[j - offset, j]
        columns = slice(max(offset, 0), nwave + min(offset, 0))
        rows = slice(columns.start - offset, columns.stop - offset)
        total[:, first + k, columns] += resolution[:, k, columns] * share[:, rows]
