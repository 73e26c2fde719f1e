"""PSFs put together: bundles of one exposure (join, merge), exposures of one night (mean)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.psf import TAIL_DEFAULTS, GaussHermitePSF
from qlstream.numeric import legendre

Array = NDArray[np.float64]

_NEUTRAL = {"GH-0-0": 1.0, **TAIL_DEFAULTS}  # of terms that change nothing
_WORSE = 1.0  # a bundle whose chi2 exceeds the median of the exposures by more takes no part (spec §2.6)


def merge_psf(parts: Sequence[tuple[GaussHermitePSF, NDArray[np.bool_]]]) -> GaussHermitePSF:
    """The first PSF with the fibers of the others, each where its own mask says so (spec offline-reduction §2.5).

    Parameters
    ----------
    parts : PSFs of all fibers, with the fibers (nspec,) that each was fitted for

    Raises
    ------
    ValueError : nothing given, or the series do not fit together
    """
    if not parts:
        raise ValueError("merge_psf: no PSFs given")
    psfs = _alike([psf for psf, _ in parts])
    out = psfs[0]
    for psf, (_, chosen) in zip(psfs[1:], parts[1:], strict=True):
        if chosen.shape != (out.nspec,):
            raise ValueError(f"merge_psf: the mask {chosen.shape} must be ({out.nspec},), one for each fiber")
        rows = chosen[:, None]
        coef = {name: np.where(rows, psf.coef[name], values) for name, values in out.coef.items()}
        traces: dict[str, Any] = {
            k: np.where(rows, getattr(psf.traces, k), getattr(out.traces, k)) for k in _series(out)
        }
        out = replace(out, coef=coef, traces=replace(out.traces, **traces))
    return out


def join_bundles(parts: Sequence[GaussHermitePSF]) -> GaussHermitePSF:
    """One PSF of all bundles, each given with its own fibers; terms that a bundle lacks change nothing there."""
    names = list(dict.fromkeys(name for part in parts for name in part.coef))
    ncoef = {n: max(p.coef[n].shape[1] for p in parts if n in p.coef) for n in names}
    coef = {}
    for name in names:
        rows = [np.zeros((p.nspec, ncoef[name])) for p in parts]
        for row, part in zip(rows, parts, strict=True):
            if name in part.coef:
                row[:, : part.coef[name].shape[1]] = part.coef[name]
            else:
                row[:, 0] = _NEUTRAL.get(name, 0.0)
        coef[name] = np.concatenate(rows)
    traces = parts[0].traces
    stacked: dict[str, Any] = {}
    for attribute in ("xcoef", "ycoef", "xsigcoef", "ysigcoef"):
        tables = [getattr(p.traces, attribute) for p in parts]
        width = max(t.shape[1] for t in tables)
        stacked[attribute] = np.concatenate([np.pad(t, ((0, 0), (0, width - t.shape[1]))) for t in tables])
    degree = max(p.ghdegx for p in parts), max(p.ghdegy for p in parts)
    return replace(parts[0], traces=replace(traces, **stacked), coef=coef, ghdegx=degree[0], ghdegy=degree[1])


def mean_psf(psfs: Sequence[GaussHermitePSF], rchi2: Array, bundles: NDArray[np.int64]) -> GaussHermitePSF:
    """Mean of the exposures' coefficients, bundle by bundle, without those that were fitted badly (spec §2.6).

    The mean, since a median would break what the parameters of one fit have in common.

    Parameters
    ----------
    rchi2 : (nexposure, nbundle) chi2 per pixel of each fit; nan where it failed
    bundles : first fiber of each bundle and, last, the number of fibers

    Raises
    ------
    ValueError : nothing given, or PSFs of different form
    """
    if not psfs:
        raise ValueError("mean_psf: no PSFs given")
    same = _alike(psfs)
    weight = np.zeros((len(same), same[0].nspec))
    for number in range(len(bundles) - 1):
        chi2 = rchi2[:, number]
        here = slice(int(bundles[number]), int(bundles[number + 1]))
        if not np.isfinite(chi2).any():
            weight[0, here] = 1.0  # no fit worked: what they started from is the same for all
            continue
        good = np.isfinite(chi2) & (chi2 < np.nanmedian(chi2) + _WORSE)
        weight[good, here] = 1.0 / good.sum()

    def mean(tables: list[Array]) -> Array:
        return np.einsum("ef,efk->fk", weight, np.stack(tables))

    coef = {name: mean([p.coef[name] for p in same]) for name in same[0].coef}
    traces: dict[str, Any] = {k: mean([getattr(p.traces, k) for p in same]) for k in _series(same[0])}
    meta = {**same[0].meta, "EXPID": 0}
    return replace(same[0], coef=coef, traces=replace(same[0].traces, **traces), meta=meta)


def _series(psf: GaussHermitePSF) -> tuple[str, ...]:
    return tuple(k for k in ("xcoef", "ycoef", "xsigcoef", "ysigcoef") if getattr(psf.traces, k) is not None)


def _alike(psfs: Sequence[GaussHermitePSF]) -> list[GaussHermitePSF]:
    """The same PSFs on one domain and with series of one length.

    Raises
    ------
    ValueError : another number of fibers, other parameters or spot sizes
    """
    first = psfs[0]
    for psf in psfs[1:]:
        other = sorted(set(psf.coef) ^ set(first.coef))
        if psf.nspec != first.nspec or other:
            told = f"parameters {', '.join(other)}" if other else f"{first.nspec} and {psf.nspec} fibers"
            raise ValueError(
                f"these PSFs differ in their fibers or parameters ({told}); combine those of one kind of fit"
            )
        if (psf.hsizex, psf.hsizey) != (first.hsizex, first.hsizey):
            raise ValueError("these PSFs differ in the size of their spots")
    domain = max(p.wavemin for p in psfs), min(p.wavemax for p in psfs)
    span = max(p.traces.wavemin for p in psfs), min(p.traces.wavemax for p in psfs)
    length = {name: max(p.coef[name].shape[1] for p in psfs) for name in first.coef}
    width = {k: max(getattr(p.traces, k).shape[1] for p in psfs) for k in _series(first)}
    out = []
    for psf in psfs:
        coef = {
            name: _padded(legendre.on_domain(values, (psf.wavemin, psf.wavemax), domain), length[name])
            for name, values in psf.coef.items()
        }
        old = psf.traces.wavemin, psf.traces.wavemax
        series: dict[str, Any] = {
            k: _padded(legendre.on_domain(getattr(psf.traces, k), old, span), width[k]) for k in width
        }
        traces = replace(psf.traces, wavemin=span[0], wavemax=span[1], **series)
        out.append(replace(psf, coef=coef, traces=traces, wavemin=domain[0], wavemax=domain[1]))
    return out


def _padded(table: Array, length: int) -> Array:
    return np.pad(table, ((0, 0), (0, length - table.shape[1])))
