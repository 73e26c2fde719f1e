"""How much brighter or fainter each exposure of a target is than all of them together (spec offline-reduction §11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from algorithms.coadd.rows import Rows
from qlstream.datamodel.spectra import Band

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Part = tuple[Array, Array]  # of one band and target: flux and weight, (nexp, nwave) each

_MASKED = 0.4  # bands with more of their bins masked do not tell
_SURE = 0.1  # a factor is known if its error is less
_RANGE = (0.1, 10.0)  # an exposure beyond is of something else: a fiber beside its target, a failed calibration
_ROUNDS = 5
_MATTERS = 0.1  # chi2 per bin between the coadds with and without the factors, from which on they are applied


@dataclass(frozen=True)
class Norms:
    """Factors on the exposures of coadds.

    Attributes
    ----------
    factor : (nrow,) on the flux of each row; 1 where it would not matter
    sigma : (nrow,) standard error of the factor that was measured; NaN where none could be
    excluded : (nrow,) rows that are of something else than the others of their target
    variable : (ntarget,) the factors matter: the object, or its calibration, changes between exposures
    """

    factor: Array
    sigma: Array
    excluded: Flags
    variable: Flags

    @classmethod
    def none(cls, nrow: int, ntarget: int) -> Norms:
        """All exposures as they are."""
        return cls(np.ones(nrow), np.full(nrow, np.nan), np.zeros(nrow, bool), np.zeros(ntarget, bool))


def exposure_norms(bands: Mapping[str, Band], rows: Rows, used: Mapping[str, Flags]) -> Norms:
    """The factor that brings each exposure to the mean of its target's, by all bands that all exposures have.

    Parameters
    ----------
    bands : cosmic rays are masked
    used : band -> (nrow,) rows that take part
    """
    out = Norms.none(len(rows.group), len(rows))
    for t, index in enumerate(rows):
        if len(index) < 2:
            continue
        parts = []
        for name, band in bands.items():
            if not used[name][index].all():
                continue
            weight = np.where(band.mask[index] == 0, band.ivar[index], 0.0)
            if (weight > 0).mean(axis=1).min() > 1.0 - _MASKED:
                parts.append((band.flux[index], weight))
        if not parts:
            continue
        factor, out.sigma[index], keep = measured_factors(parts, len(index))
        out.excluded[index] = ~keep
        if keep.sum() > 1 and _matter(parts, factor, keep):
            out.variable[t] = True
            out.factor[index[keep]] = factor[keep]
    return out


def measured_factors(parts: Sequence[Part], nexp: int) -> tuple[Array, Array, Flags]:
    """Factor, error, and whether the exposure is of the same thing as the others; (1, NaN, True) if not known.

    With c the mean of the exposures f_e, and w = 1 / (1/w_e + 1/w_tot), the brightness of one relative to c is
    g = sum w c f_e / sum w c^2, each sum less what noise alone gives it, since c has the noise of f_e in it.
    """
    keep = np.ones(nexp, dtype=bool)
    for _ in range(_ROUNDS):
        level, error = _brightness(parts, keep)
        if not (np.isfinite(level[keep]).all() and (error[keep] < _SURE).all()):
            return np.ones(nexp), np.full(nexp, np.nan), np.ones(nexp, dtype=bool)
        outside = keep & ((level < _RANGE[0]) | (level > _RANGE[1]))
        if not outside.any() or not (keep & ~outside).any():
            break
        keep &= ~outside
    positive = level > 0
    safe = np.where(positive, level, 1.0)
    return 1.0 / safe, np.where(positive, error / safe**2, np.nan), keep


def _brightness(parts: Sequence[Part], keep: Flags) -> tuple[Array, Array]:
    """(nexp,) brightness of each exposure relative to the mean of those that are kept, and its error."""
    own, cross, variance = np.zeros(len(keep)), np.zeros(len(keep)), np.zeros(len(keep))
    inside = keep[:, None].astype(float)
    for flux, weight in parts:
        total = (inside * weight).sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.where(total > 0, (inside * weight * flux).sum(axis=0) / total, 0.0)
            w = np.where((weight > 0) & (total > 0), 1.0 / (1.0 / weight + 1.0 / total), 0.0)
            noise = np.where(w > 0, w / total, 0.0)
            scatter = np.where(w > 0, w**2 / weight * (mean**2 + 1.0 / total), 0.0)
        own += (w * mean**2 - noise).sum(axis=1)
        cross += (w * mean * flux - inside * noise).sum(axis=1)
        variance += scatter.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(own > 0, cross / own, np.nan), np.where(own > 0, np.sqrt(variance) / own, np.inf)


def _matter(parts: Sequence[Part], factor: Array, keep: Flags) -> bool:
    """Whether the coadd with the factors differs from that without them by more than a tenth of its noise."""
    square, number = 0.0, 0
    for flux, weight in parts:
        f, w, a = flux[keep], weight[keep], factor[keep, None]
        total, scaled = w.sum(axis=0), (w / a**2).sum(axis=0)
        good = total > 0
        plain = (w * f).sum(axis=0)[good] / total[good]
        normed = (w / a * f).sum(axis=0)[good] / scaled[good]
        square += float((total[good] * (plain - normed) ** 2).sum())
        number += int(good.sum())
    return square >= _MATTERS * number
