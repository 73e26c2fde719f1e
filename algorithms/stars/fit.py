"""The standard stars of a petal: chosen, matched with models, put on an absolute scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from algorithms.stars.match import MatchLimits, StarMatch, StarSpectrum, match_star, model_spectrum
from algorithms.stars.photometry import Photometry, photometry_of
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.stars import StarTemplates, StdStars
from qlstream.numeric.dust import transmission

Array = NDArray[np.float64]

_FLUX_UNIT = 1e-17
_SNR_NAMES = ("BLUE_SNR", "RED_SNR", "NIR_SNR")


@dataclass(frozen=True)
class Choice:
    """Which stars are fitted, with which templates.

    Attributes
    ----------
    max_stars, min_snr : the best so many, with at least this median S/N per bin in the bluest arm
    delta_color : templates whose colour differs by more from the star's (without dust) are not tried [mag]; wider than
        the cut on stars of wrong colours, so that these find their true model and are seen
    """

    max_stars: int = 50
    min_snr: float = 4.0
    delta_color: float = 0.4


@dataclass(frozen=True)
class _Fitted:
    """One star: its row in the fibermap, match, weights of all templates, model, colours and S/N by arm."""

    row: int
    match: StarMatch
    coef: Array
    flux: Array
    data_color: float
    model_color: float
    snr: tuple[float, ...]


def star_targets(fibermap: Fibermap) -> NDArray[np.bool_]:
    """(nspec,) standard stars by their target bits; where a fibermap has none, those that fiberassign used as such."""
    star = fibermap.is_class("STAR")
    if not star.any() and "FA_TYPE" in fibermap:
        star = (fibermap.column("FA_TYPE") & 2) != 0
    return star


def star_fibers(fibermap: Fibermap, arm: str | None = None) -> tuple[NDArray[np.int64], Photometry]:
    """Indices of usable standard stars with photometry, and which photometry that is."""
    good = star_targets(fibermap) & fibermap.is_usable("star", arm)
    photometry = photometry_of(fibermap, good)
    return np.flatnonzero(good & photometry.has(fibermap)), photometry


def fit_stars(
    frames: Sequence[Frame],
    templates: StarTemplates,
    limits: MatchLimits,
    choice: Choice | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> StdStars:
    """Models of the stars of one petal.

    Parameters
    ----------
    frames : flat-fielded, sky-subtracted frames of one petal, any arms and exposures, with resolution

    Raises
    ------
    MissingCalibration : no star is good enough
    ValueError : the frames are not of the same fibers
    """
    choice = choice or Choice()
    for frame in frames:
        if not np.array_equal(frame.fibers, frames[0].fibers):
            raise ValueError(
                f"fit_stars: the frames of {frames[0].camera} and {frame.camera} are of different fibers; give those "
                "of one petal and one tile"
            )
    fibermap = next((f.fibermap for f in frames if f.fibermap is not None), None)
    if fibermap is None:
        raise MissingCalibration("no fibermap in these frames, so it is not known which fibers look at stars")
    candidates, photometry = star_fibers(fibermap)
    by_arm: dict[str, list[Frame]] = {}
    for frame in frames:
        by_arm.setdefault(frame.camera[:1], []).append(frame)
    arms = sorted(by_arm, key=lambda arm: by_arm[arm][0].wave[0])
    snr = np.stack([_snr(by_arm[arm], candidates) for arm in arms])
    order = np.argsort(snr[0])[::-1][: choice.max_stars]
    chosen = np.sort(order[snr[0][order] > choice.min_snr])
    if not chosen.size:
        best = f", the best has {snr[0].max():.1f}" if candidates.size else ""
        raise MissingCalibration(
            f"none of {candidates.size} standard stars has S/N above {choice.min_snr:g} per bin in {arms[0]}{best}; "
            "clouds, no stars in this petal, or no photometry of them in the fibermap"
        )
    level = templates.flux.mean(axis=1, dtype=np.float64)
    even = replace(templates, flux=(templates.flux / level[:, None]).astype(np.float32))
    colors = photometry.colors(even)
    fitted = []
    for n, k in enumerate(chosen):
        progress(n / chosen.size)
        spectra = [_combined(by_arm[arm], int(candidates[k])) for arm in arms]
        fitted.append(_fit_one(int(candidates[k]), spectra, tuple(snr[:, k]), fibermap, photometry, even, colors,
                               limits, choice.delta_color))  # fmt: skip
    return _product(fibermap, frames, even, level, photometry, fitted)


def _fit_one(
    row: int,
    spectra: Sequence[StarSpectrum],
    snr: tuple[float, ...],
    fibermap: Fibermap,
    photometry: Photometry,
    templates: StarTemplates,
    colors: Array,
    limits: MatchLimits,
    delta_color: float,
) -> _Fitted:
    ebv = float(fibermap.column("EBV", 0.0)[row])
    magnitude = {band: float(photometry.observed(fibermap, band)[row]) for band in photometry.filters}
    color = magnitude[photometry.blue] - magnitude[photometry.red] - photometry.reddening(templates, ebv)
    near = np.abs(colors - color) < delta_color
    usable = np.flatnonzero(_inside_box(templates, near)) if near.any() else np.arange(len(templates))
    match = match_star(spectra, templates.take(usable), limits)
    coef = np.zeros(len(templates))
    coef[usable] = match.coef
    flux = model_spectrum(templates, coef, match.redshift, templates.wave) * transmission(templates.wave, ebv)
    model = photometry.of(templates.wave, flux * _FLUX_UNIT, photometry.scale)
    scaled = flux * 10 ** (0.4 * (model - magnitude[photometry.scale]))
    return _Fitted(row, match, coef, scaled, color, float(coef @ colors), snr)


def _inside_box(templates: StarTemplates, near: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(ntemplate,) the templates within the ranges of the parameters of those that are `near`."""
    inside = np.ones(len(templates), dtype=bool)
    for values in (templates.teff, templates.logg, templates.feh):
        inside &= (values >= values[near].min()) & (values <= values[near].max())
    return inside


def _snr(frames: Sequence[Frame], fibers: NDArray[np.int64]) -> Array:
    """(n,) median S/N per bin, of all exposures together."""
    total = np.zeros(len(fibers))
    for frame in frames:
        ivar = np.where(frame.mask[fibers] == 0, frame.ivar[fibers], 0.0)
        value = frame.flux[fibers] * np.sqrt(ivar)
        total += np.clip(np.median(value, axis=1), 0, None) ** 2
    return np.sqrt(total)


def _combined(frames: Sequence[Frame], k: int) -> StarSpectrum:
    """One star in one arm: its exposures on the scale of the best, so that a bin which one lacks makes no step."""
    ivar = np.stack([np.where(f.mask[k] == 0, f.ivar[k], 0.0) for f in frames])
    flux = np.stack([f.flux[k] for f in frames])
    best = int(np.argmax(np.median(flux * np.sqrt(ivar), axis=1)))  # by S/N: a cloudy one has the largest ivar
    scale = np.array([_brightness(q, flux[best], (w > 0) & (ivar[best] > 0)) for q, w in zip(flux, ivar, strict=True)])
    scale = scale[:, None]
    total = (scale**2 * ivar).sum(axis=0)
    flux = (scale * ivar * flux).sum(axis=0) / np.where(total > 0, total, 1.0)
    return StarSpectrum(frames[0].wave, flux, total, frames[best].resolution_of(k).data)


def _brightness(flux: Array, other: Array, shared: NDArray[np.bool_]) -> float:
    """Of a spectrum relative to another one, by the bins that both have; 0 for one without light."""
    if not shared.any():
        return 0.0
    level = float(np.median(other[shared]))
    return max(float(np.median(flux[shared])) / level, 0.0) if level > 0 else 1.0


def _product(
    fibermap: Fibermap,
    frames: Sequence[Frame],
    templates: StarTemplates,
    level: Array,
    photometry: Photometry,
    fitted: Sequence[_Fitted],
) -> StdStars:
    index = np.array([star.row for star in fitted])
    weights = np.stack([star.coef for star in fitted]) / level  # of the templates as they are in their file
    inputs = np.zeros(len(frames), dtype=[("NIGHT", "i8"), ("EXPID", "i8"), ("CAMERA", "S2")])
    for n, frame in enumerate(frames):
        inputs[n] = (int(frame.meta.get("NIGHT", 0)), int(frame.meta.get("EXPID", 0)), frame.camera.encode())
    return StdStars(
        wave=templates.wave,
        flux=np.stack([star.flux for star in fitted]),
        fibers=fibermap.fiber[index],
        metadata=_table(fibermap, photometry, fitted),
        coef=weights / weights.sum(axis=1, keepdims=True),
        fibermap=fibermap.rows[index],
        inputs=inputs,
        meta={k: frames[0].meta[k] for k in ("NIGHT", "EXPID", "TILEID") if k in frames[0].meta},
    )


def _table(fibermap: Fibermap, photometry: Photometry, fitted: Sequence[_Fitted]) -> NDArray[np.void]:
    """METADATA: one row per star."""
    index = np.array([star.row for star in fitted])
    columns: Mapping[str, list[float] | Array] = {
        "LOGG": [s.match.logg for s in fitted],
        "TEFF": [s.match.teff for s in fitted],
        "FEH": [s.match.feh for s in fitted],
        "TEFF_ERR": [s.match.errors[0] for s in fitted],
        "LOGG_ERR": [s.match.errors[1] for s in fitted],
        "FEH_ERR": [s.match.errors[2] for s in fitted],
        "CHI2DOF": [s.match.chi2dof for s in fitted],
        "REDSHIFT": [s.match.redshift for s in fitted],
        "REDSHIFT_ERR": [s.match.redshift_error for s in fitted],
        f"DATA_{photometry.color}": [s.data_color for s in fitted],
        f"MODEL_{photometry.color}": [s.model_color for s in fitted],
        "EBV": fibermap.column("EBV", 0.0)[index],
        **{name: [s.snr[n] for s in fitted] for n, name in enumerate(_SNR_NAMES[: len(fitted[0].snr)])},
    }
    table = np.zeros(len(fitted), dtype=[("TARGETID", "i8"), ("FIBER", "i4"), *((name, "f8") for name in columns)])
    table["TARGETID"], table["FIBER"] = fibermap.column("TARGETID", 0)[index], fibermap.fiber[index]
    for name, values in columns.items():
        table[name] = values
    return table
