"""The standard stars of a petal: chosen, matched with models, put on an absolute scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from speclite import filters

from algorithms.stars.match import MatchLimits, StarSpectrum, match_star, model_spectrum
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.stars import StarTemplates, StdStars
from qlstream.numeric.dust import transmission

Array = NDArray[np.float64]

_FILTERS = {"G": "decam2014-g", "R": "decam2014-r"}
_FLUX_UNIT = 1e-17


def star_fibers(fibermap: Fibermap, arm: str | None = None) -> NDArray[np.int64]:
    """Indices of usable standard stars with photometry in g and r.

    Stars are those of the target bits; where a fibermap has none of these, those that fiberassign used as such
    (FA_TYPE bit 2).
    """
    star = fibermap.is_class("STAR")
    if not star.any() and "FA_TYPE" in fibermap:
        star = (fibermap.column("FA_TYPE") & 2) != 0
    good = star & fibermap.is_usable("star", arm)
    for band in ("FLUX_G", "FLUX_R"):
        flux = fibermap.column(band, 0.0).astype(float)
        good &= np.isfinite(flux) & (flux > 0)
    return np.flatnonzero(good)


def fit_stars(
    frames: Sequence[Frame],
    templates: StarTemplates,
    limits: MatchLimits,
    max_stars: int = 50,
    min_snr: float = 4.0,
    delta_color: float = 0.2,
    progress: Callable[[float], None] = lambda _: None,
) -> StdStars:
    """Models of the stars of one petal.

    Parameters
    ----------
    frames : flat-fielded, sky-subtracted frames of one petal, any arms and exposures, with resolution
    max_stars, min_snr : the best so many, with at least this median S/N per bin in the bluest arm
    delta_color : templates whose g-r differs by more from the star's (without dust) are not tried [mag]

    Raises
    ------
    MissingCalibration : no star is good enough
    """
    fibermap = next((f.fibermap for f in frames if f.fibermap is not None), None)
    if fibermap is None:
        raise MissingCalibration("no fibermap in these frames, so it is not known which fibers look at stars")
    candidates = star_fibers(fibermap)
    by_arm: dict[str, list[Frame]] = {}
    for frame in frames:
        by_arm.setdefault(frame.camera[:1], []).append(frame)
    arms = sorted(by_arm, key=lambda arm: by_arm[arm][0].wave[0])
    snr = {arm: _snr(by_arm[arm], candidates) for arm in arms}
    order = candidates[np.argsort(snr[arms[0]])[::-1]]
    chosen = [int(k) for k in order if snr[arms[0]][np.flatnonzero(candidates == k)[0]] > min_snr][:max_stars]
    if not chosen:
        raise MissingCalibration(
            f"none of {len(candidates)} standard stars has S/N above {min_snr:g} in arm {arms[0]}; clouds, or no stars"
        )
    magnitudes = _template_magnitudes(templates)
    found, rows = [], []
    for n, k in enumerate(sorted(chosen)):
        progress(n / len(chosen))
        ebv = float(fibermap.column("EBV", 0.0)[k])
        color = _color(fibermap, k, _reddening(templates, ebv))
        model_color = magnitudes["G"] - magnitudes["R"]
        near = np.abs(model_color - color) < delta_color
        usable = np.flatnonzero(near) if near.any() else np.arange(len(templates))
        part = templates.take(usable)
        spectra = [_combined(by_arm[arm], k) for arm in arms]
        match = match_star(spectra, part, limits)
        coef = np.zeros(len(templates))
        coef[usable] = match.coef
        flux = model_spectrum(templates, coef, match.redshift, templates.wave) * transmission(templates.wave, ebv)
        observed = 22.5 - 2.5 * np.log10(float(fibermap.column("FLUX_R")[k]))
        flux = flux * 10 ** (0.4 * (_magnitude(templates.wave, flux * _FLUX_UNIT, "R") - observed))
        found.append((k, coef, flux))
        snrs = {name: float(snr[arm][np.flatnonzero(candidates == k)[0]]) for name, arm in _snr_names(arms).items()}
        rows.append((match, color, float(coef @ model_color), snrs))
    return _product(fibermap, frames, templates, found, rows)


def _snr(frames: Sequence[Frame], fibers: NDArray[np.int64]) -> Array:
    """(n,) median S/N per bin, of all exposures together."""
    total = np.zeros(len(fibers))
    for frame in frames:
        value = np.where(frame.ivar[fibers] > 0, frame.flux[fibers] * np.sqrt(frame.ivar[fibers]), 0.0)
        total += np.clip(np.median(value, axis=1), 0, None) ** 2
    return np.sqrt(total)


def _snr_names(arms: Sequence[str]) -> dict[str, str]:
    return dict(zip(("BLUE_SNR", "RED_SNR", "NIR_SNR"), arms, strict=False))


def _combined(frames: Sequence[Frame], k: int) -> StarSpectrum:
    """One star in one arm, exposures averaged with their inverse variances."""
    ivar = np.stack([np.where(f.mask[k] == 0, f.ivar[k], 0.0) for f in frames])
    total = ivar.sum(axis=0)
    safe = np.where(total > 0, total, 1.0)
    flux = (ivar * np.stack([f.flux[k] for f in frames])).sum(axis=0) / safe
    best = int(np.argmax(ivar.sum(axis=1)))
    return StarSpectrum(frames[0].wave, flux, total, frames[best].resolution_of(k).data)


def _color(fibermap: Fibermap, k: int, reddening: float) -> float:
    """g - r of a star without the Galaxy's dust [mag]."""
    observed = -2.5 * np.log10(float(fibermap.column("FLUX_G")[k]) / float(fibermap.column("FLUX_R")[k]))
    return float(observed - reddening)


def _reddening(templates: StarTemplates, ebv: float) -> float:
    """What dust adds to g - r of the middle template [mag]; it is nearly the same for all stars."""
    flux = templates.flux[len(templates) // 2].astype(np.float64) * _FLUX_UNIT
    behind = flux * transmission(templates.wave, ebv)
    g, r = (_magnitude(templates.wave, behind, b) - _magnitude(templates.wave, flux, b) for b in _FILTERS)
    return g - r


def _template_magnitudes(templates: StarTemplates) -> Mapping[str, Array]:
    return {
        band: np.array(
            [_magnitude(templates.wave, row * _FLUX_UNIT, band) for row in templates.flux.astype(np.float64)]
        )
        for band in _FILTERS
    }


def _magnitude(wave: Array, flux: Array, band: str) -> float:
    """AB magnitude of a spectrum [erg/s/cm2/Angstrom]."""
    curve = filters.load_filter(_FILTERS[band])
    padded, grid = curve.pad_spectrum(flux, wave, method="edge")
    return float(curve.get_ab_magnitude(padded, grid))


def _product(
    fibermap: Fibermap,
    frames: Sequence[Frame],
    templates: StarTemplates,
    found: Sequence[tuple[int, Array, Array]],
    rows: Sequence[tuple[Any, float, float, Mapping[str, float]]],
) -> StdStars:
    index = np.array([k for k, _, _ in found])
    columns = ["LOGG", "TEFF", "FEH", "CHI2DOF", "REDSHIFT", "DATA_G-R", "MODEL_G-R", *rows[0][3]]
    table = np.zeros(len(found), dtype=[("TARGETID", "i8"), ("FIBER", "i4"), *((name, "f8") for name in columns)])
    table["TARGETID"] = fibermap.column("TARGETID", 0)[index]
    table["FIBER"] = fibermap.fiber[index]
    for n, (match, color, model_color, snrs) in enumerate(rows):
        values = (match.logg, match.teff, match.feh, match.chi2dof, match.redshift, color, model_color, *snrs.values())
        for name, value in zip(columns, values, strict=True):
            table[name][n] = value
    inputs = np.zeros(len(frames), dtype=[("NIGHT", "i8"), ("EXPID", "i8"), ("CAMERA", "S2")])
    for n, frame in enumerate(frames):
        inputs[n] = (int(frame.meta.get("NIGHT", 0)), int(frame.meta.get("EXPID", 0)), frame.camera.encode())
    return StdStars(
        wave=templates.wave,
        flux=np.stack([flux for _, _, flux in found]),
        fibers=fibermap.fiber[index],
        metadata=table,
        coef=np.stack([coef for _, coef, _ in found]),
        fibermap=fibermap.rows[index],
        inputs=inputs,
        meta={k: frames[0].meta[k] for k in ("NIGHT", "EXPID", "TILEID") if k in frames[0].meta},
    )
