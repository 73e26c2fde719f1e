"""Spectra of many targets and exposures, in several bands."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.resolution import Resolution

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Band:
    """Spectra of one band on a common grid, one row per row of the fibermap.

    Attributes
    ----------
    wave : (nwave,) float64 [Angstrom]
    flux, ivar : (nspec, nwave) [1e-17 erg/s/cm2/Angstrom], [1/flux^2]; ivar 0 = no information
    mask : (nspec, nwave) uint32, SpecMask bits
    resolution : (nspec, ndiag, nwave) float32 or float64, bands as in `Resolution`, or None
    """

    wave: Array
    flux: Array
    ivar: Array
    mask: NDArray[np.uint32]
    resolution: NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        shape = self.flux.shape
        if len(shape) != 2 or self.ivar.shape != shape or self.mask.shape != shape or self.wave.shape != shape[1:]:
            raise ValueError(
                f"Band: wave {self.wave.shape}, flux {shape}, ivar {self.ivar.shape}, mask {self.mask.shape} "
                "must be (nwave,) and (nspec, nwave)"
            )
        if self.resolution is not None and (self.resolution.shape[0], self.resolution.shape[2]) != shape:
            raise ValueError(f"Band: resolution {self.resolution.shape} must be (nspec, ndiag, nwave) of {shape}")

    def take(self, index: ArrayLike) -> Band:
        """The spectra `index` (integers or boolean mask), in that order."""
        rows = np.asarray(index)
        resolution = None if self.resolution is None else self.resolution[rows]
        return Band(self.wave, self.flux[rows], self.ivar[rows], self.mask[rows], resolution)

    def resolution_of(self, index: int) -> Resolution:
        """The resolution matrix of one spectrum.

        Raises
        ------
        ValueError : the band carries none
        """
        if self.resolution is None:
            raise ValueError("this band came without resolution")
        return Resolution.of_bands(self.resolution[index])


@dataclass(frozen=True)
class Spectra:
    """Spectra of several bands with their fibermap (spec datamodel §8.1, §8.2).

    Attributes
    ----------
    bands : "b", "r", "z", or "brz" of stitched ones -> Band
    fibermap : structured array, one row per spectrum: at least TARGETID; before coaddition NIGHT, EXPID, FIBER, too
    exp_fibermap : of a coadd, one row per exposure that went into it, or None
    scores : table with one row per spectrum, or None
    meta : header cards
    """

    bands: Mapping[str, Band]
    fibermap: NDArray[Any]
    exp_fibermap: NDArray[Any] | None = None
    scores: NDArray[Any] | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "TARGETID" not in (self.fibermap.dtype.names or ()):
            raise ValueError(f"Spectra: the fibermap needs a TARGETID column; it has {self.fibermap.dtype.names}")
        wrong = [f"band {name}: {len(band.flux)}" for name, band in self.bands.items() if len(band.flux) != len(self)]
        if self.scores is not None and len(self.scores) != len(self):
            wrong.append(f"scores: {len(self.scores)}")
        if wrong:
            raise ValueError(f"Spectra: {'; '.join(wrong)} rows for {len(self)} rows of the fibermap")

    def __len__(self) -> int:
        return len(self.fibermap)

    def num_spectra(self) -> int:
        return len(self)

    def num_targets(self) -> int:
        return len(self.target_ids())

    def target_ids(self) -> NDArray[np.int64]:
        """TARGETIDs in the order of their first appearance."""
        ids, first = np.unique(self.fibermap["TARGETID"], return_index=True)
        return np.asarray(ids[np.argsort(first)], dtype=np.int64)

    def wavelength_grid(self, band: str) -> Array:
        """Raises KeyError if there is no such band."""
        if band not in self.bands:
            raise KeyError(f"no band {band!r}; there are {', '.join(self.bands)}")
        return self.bands[band].wave

    def __getitem__(self, index: ArrayLike | slice | int) -> Spectra:
        """The spectra `index` (integer, slice, integers or boolean mask), in that order."""
        if isinstance(index, slice):
            rows = np.arange(len(self))[index]
        elif np.ndim(index) == 0:
            rows = np.array([int(index)])  # type: ignore[arg-type]
        else:
            given = np.asarray(index)
            rows = np.flatnonzero(given) if given.dtype == bool else given
        fibermap = self.fibermap[rows]
        exposures = self.exp_fibermap
        if exposures is not None:
            exposures = exposures[np.isin(exposures["TARGETID"], fibermap["TARGETID"])]
        scores = None if self.scores is None else self.scores[rows]
        bands = {name: band.take(rows) for name, band in self.bands.items()}
        return replace(self, bands=bands, fibermap=fibermap, exp_fibermap=exposures, scores=scores)

    def select(
        self,
        nights: Collection[int] | None = None,
        exposures: Collection[int] | None = None,
        bands: Collection[str] | None = None,
        targets: Collection[int] | None = None,
        fibers: Collection[int] | None = None,
        invert: bool = False,
    ) -> Spectra:
        """The spectra that meet all conditions, in their order; with `invert` those that do not meet all.

        Raises
        ------
        KeyError : a band or column that a condition needs is not there
        LookupError : nothing is left
        """
        keep = np.ones(len(self), dtype=bool)
        for column, wanted in (("NIGHT", nights), ("EXPID", exposures), ("TARGETID", targets), ("FIBER", fibers)):
            if wanted is not None:
                if column not in (self.fibermap.dtype.names or ()):
                    raise KeyError(f"cannot select by {column}: the fibermap has no such column")
                keep &= np.isin(self.fibermap[column], list(wanted))
        if invert:
            keep = ~keep
        chosen = self
        if bands is not None:
            for name in bands:
                self.wavelength_grid(name)
            chosen = replace(self, bands={name: band for name, band in self.bands.items() if name in bands})
        if not keep.any():
            raise LookupError(f"none of {len(self)} spectra meets the conditions")
        return chosen[keep]

    def update(self, other: Spectra) -> Spectra:
        """These spectra with those of `other`, which replace the same (by target, night, exposure and fiber) here.

        Bands, columns and scores that a replaced spectrum has and its replacement lacks are kept, and with such bands
        the bits of their FIBERSTATUS; what only one of them has is filled with ivar 0 and NODATA for the other.
        """
        columns = [c for c in ("TARGETID", "NIGHT", "EXPID", "FIBER") if c in _names(self) and c in _names(other)]
        mine, theirs = _keys(self.fibermap, columns), _keys(other.fibermap, columns)
        row = {key: n for n, key in enumerate(mine)}
        old = np.array([row.get(key, -1) for key in theirs], dtype=np.int64)
        keep = np.ones(len(self), dtype=bool)
        keep[old[old >= 0]] = False
        lacking = {name: _kept(band, old) for name, band in self.bands.items() if name not in other.bands}
        fibermap = _completed(other.fibermap, self.fibermap, old)
        if lacking and "FIBERSTATUS" in _names(self) and "FIBERSTATUS" in _names(other):
            fibermap["FIBERSTATUS"] |= np.where(old >= 0, self.fibermap["FIBERSTATUS"][old], 0)
        scores = other.scores
        if self.scores is not None:
            scores = _completed(other.fibermap[["TARGETID"]] if scores is None else scores, self.scores, old)
        full = replace(other, bands={**lacking, **other.bands}, fibermap=fibermap, scores=scores)
        return stack([self[keep], full]) if keep.any() else full


def stack(parts: Sequence[Spectra]) -> Spectra:
    """All spectra, one set behind the other. Bands that a set lacks are filled with ivar 0 and
    NODATA, columns it lacks with 0.

    Raises
    ------
    ValueError : nothing given, or a band's grids differ
    """
    if not parts:
        raise ValueError("stack: no spectra given")
    if len(parts) == 1:
        return parts[0]
    names = list(dict.fromkeys(name for part in parts for name in part.bands))
    bands = {name: _stacked(name, parts) for name in names}
    scores = [p.scores for p in parts if p.scores is not None]
    exposures = [p.exp_fibermap for p in parts if p.exp_fibermap is not None]
    return Spectra(
        bands,
        stack_tables([p.fibermap for p in parts]),
        stack_tables(exposures) if exposures else None,
        stack_tables(scores) if len(scores) == len(parts) else None,
        dict(parts[0].meta),
    )


def stack_tables(tables: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Rows of all tables, with every column of any; what a table lacks is 0 or empty."""
    dtypes: dict[str, np.dtype[Any]] = {}
    for table in tables:
        for name in table.dtype.names or ():
            kind = table.dtype[name]
            dtypes[name] = np.promote_types(dtypes[name], kind) if name in dtypes and kind.shape == () else kind
    out = np.zeros(sum(len(t) for t in tables), dtype=list(dtypes.items()))
    at = 0
    for table in tables:
        for name in table.dtype.names or ():
            out[name][at : at + len(table)] = table[name]
        at += len(table)
    return out


def _stacked(name: str, parts: Sequence[Spectra]) -> Band:
    having = [p.bands[name] for p in parts if name in p.bands]
    wave = having[0].wave
    if any(b.wave.shape != wave.shape or not np.allclose(b.wave, wave, atol=1e-4) for b in having):
        raise ValueError(f"stack: the wavelength grids of band {name} differ; resample them first")
    ndiag = max((0 if b.resolution is None else b.resolution.shape[1]) for b in having)
    filled = [p.bands[name] if name in p.bands else _empty(wave, len(p)) for p in parts]
    resolution = np.concatenate([_padded(b, ndiag) for b in filled]) if ndiag else None
    joined = {f.name: np.concatenate([getattr(b, f.name) for b in filled]) for f in fields(Band)[1:4]}
    return Band(wave, joined["flux"], joined["ivar"], joined["mask"], resolution)


def _empty(wave: Array, nspec: int) -> Band:
    shape = (nspec, len(wave))
    return Band(wave, np.zeros(shape), np.zeros(shape), np.full(shape, SpecMask.NODATA, np.uint32))


def _kept(band: Band, old: NDArray[np.int64]) -> Band:
    """Rows `old` of a band; without information where that is negative."""
    taken, missing = band.take(old), old < 0
    taken.flux[missing], taken.ivar[missing], taken.mask[missing] = 0.0, 0.0, SpecMask.NODATA
    return taken


def _completed(new: NDArray[Any], table: NDArray[Any], old: NDArray[np.int64]) -> NDArray[Any]:
    """The table `new` with columns that it lacks from rows `old` of another one; a copy."""
    out = stack_tables([new, table[:0]])
    for name in set(table.dtype.names or ()) - set(new.dtype.names or ()):
        out[name][old >= 0] = table[name][old[old >= 0]]
    return out


def _padded(band: Band, ndiag: int) -> NDArray[np.floating]:
    """The resolution with `ndiag` diagonals."""
    kind = np.float32 if band.resolution is None else band.resolution.dtype
    out = np.zeros((len(band.flux), ndiag, len(band.wave)), kind)
    if band.resolution is not None:
        first = (ndiag - band.resolution.shape[1]) // 2
        out[:, first : first + band.resolution.shape[1]] = band.resolution
    return out


def _names(spectra: Spectra) -> tuple[str, ...]:
    return spectra.fibermap.dtype.names or ()


def _keys(table: NDArray[Any], columns: Sequence[str]) -> list[tuple[int, ...]]:
    return list(zip(*(table[c].tolist() for c in columns), strict=True))
