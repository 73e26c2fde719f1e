"""From the spectra of a frame to a sky model, and from a sky model to spectra without sky."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algorithms.sky.deconvolved import DeconvolvedSky
from algorithms.sky.deviations import SCALE, measure_changes
from algorithms.sky.linevariance import add_line_variance, learn_line_errors
from algorithms.sky.ringing import learn_ringing, ringing_envelope
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.qframe import QFrame
from qlstream.datamodel.sky import SkyModel

Array = NDArray[np.float64]

_LEAST = 0.1  # a sample that all but determines the model by itself keeps this share of its variance
_SAME_WAVE = 0.01  # grids that differ by no more are the same [Angstrom]


def model_of_frame(
    frame: Frame, fitted: DeconvolvedSky, line_level: float, nsig: float, add_variance: bool, allowed: Sequence[int]
) -> SkyModel:
    """The common sky as every fiber sees it, with what the fiber's own lines say.

    Shift, width and shape of the lines are in the model's flux; their scale, which is the fiber's throughput against
    the fiber flat, is in its `throughput`. Its ivar is that of what a subtraction adds to the variance: the error of
    the common sky, less what the lines of a fiber determined of their own model, and with `add_variance` what bright
    lines leave behind beyond noise, in themselves and by ringing beside them.

    Parameters
    ----------
    frame : flat-fielded [electron/Angstrom]
    line_level : bins above this many continua of sky are in bright lines
    nsig : larger residuals are no deviations of the model
    allowed : which changes a fiber's lines may make, see `measure_changes`
    """
    bins, width, used = frame.per_bin(), frame.dwave, fitted.fibers
    bad = np.isinf(fitted.variance)
    stat = np.where(bad, 0.0, fitted.variance * width**2)
    common = np.where(bad, np.nan, fitted.flux * width).astype(np.float32)
    level = line_level * _continuum(fitted.flux)
    given = _inverse(bins.ivar)
    own = np.where((bins.ivar > 0) & ~bad, given - 2.0 * stat, -np.inf)[used]
    own[fitted.outliers] = -np.inf
    left = np.zeros(given.shape)
    for _ in range(2):  # what lines leave behind is known once they are changed, and tells what their bins weigh
        weight = _inverse(np.where(bins.ivar > 0, given + left, 0.0)).astype(np.float32)
        changes = measure_changes(bins.wave, bins.flux, weight, common, level, used, nsig, allowed)
        whole, variance = common.copy(), stat.astype(np.float32)
        changes.apply(bins.wave, whole, variance)
        left = _left_behind(bins, own + variance[used], whole, level, used)
    sky = common.copy()
    changes.apply(bins.wave, sky, np.zeros_like(variance), with_scale=False)
    sky[bad] = 0.0
    total = variance + left if add_variance else variance.astype(float)
    total = np.maximum(total, 0.01 * stat)
    mask = np.where(bad, SpecMask.BADSKY, 0).astype(np.uint32)
    mask[used] |= np.where(fitted.outliers, SpecMask.COSMIC, 0).astype(np.uint32)
    targetid = None
    if frame.fibermap is not None and "TARGETID" in frame.fibermap:
        targetid = frame.fibermap.column("TARGETID")[used].astype(np.int64)
    counts = {"NSKY": int(used.size), "NSKYREJ": int(fitted.rejected.size)}
    return SkyModel(
        wave=frame.wave,
        flux=sky / width,
        ivar=_inverse(total) * width**2,
        mask=mask,
        stat_ivar=_inverse(stat) * width**2,
        throughput=1.0 + changes.change[:, SCALE],
        skytargetid=targetid,
        meta={**frame.meta, **counts},
    )


def _left_behind(bins: QFrame, noise: Array, sky: NDArray[np.float32], level: float, used: NDArray[np.int64]) -> Array:
    """(nspec, n) variance that bright lines leave beyond noise, in themselves and by ringing beside them.

    Parameters
    ----------
    bins : counts per bin
    noise : (nused, n) variance that the sky fibers' residuals had if there were nothing but noise; -inf: unknown
    sky : (nspec, n) the model [counts per bin]; nan where there is none
    level : a bin is in a bright line if the sky exceeds this [counts/Angstrom]
    used : (nused,) the sky fibers
    """
    out = np.zeros(sky.shape)
    mine = sky[used]
    residual, is_line = bins.flux[used] - mine, mine > level * bins.dwave[used]
    add_line_variance(bins.wave, sky, level, *learn_line_errors(residual, noise, mine, is_line), out)
    out += learn_ringing(residual, noise + out[used], mine) ** 2 * ringing_envelope(sky)
    return out


def subtract_model(frame: Frame, model: SkyModel, line_level: float) -> Frame:
    """`frame` less the sky model, with the model's variance in its ivar, and what was subtracted as its `sky`.

    Bright lines are multiplied by the fibers' throughputs. In a fiber that made the model, model and noise are
    correlated: what remains has the variance of the fiber less that of the common sky, in all others it is the sum.
    Where there is no model the flux stays, ivar is 0 and the mask says BADSKY; other bits of the model are taken over,
    and take away the ivar, too.

    Raises
    ------
    ValueError : the model has other bins or fibers than the frame
    """
    if model.flux.shape != frame.flux.shape or np.abs(model.wave - frame.wave).max() > _SAME_WAVE:
        raise ValueError(
            f"the sky model has {model.flux.shape[0]} fibers and {model.wave.size} bins of {model.wave[0]:.2f}-"
            f"{model.wave[-1]:.2f} Angstrom, the frame {frame.nspec} and {frame.wave.size} of {frame.wave[0]:.2f}-"
            f"{frame.wave[-1]:.2f}; give the model of this very exposure"
        )
    sky = model.flux
    if model.throughput is not None:
        is_line = sky > line_level * _continuum(sky)
        sky = np.where(is_line, sky * model.throughput[:, None], sky)
    added = _inverse(model.ivar)
    if model.stat_ivar is not None and model.skytargetid is not None and "TARGETID" in (frame.fibermap or ()):
        assert frame.fibermap is not None
        made_it = np.isin(frame.fibermap.column("TARGETID"), model.skytargetid) & frame.fibermap.is_sky
        added[made_it] -= 2.0 * _inverse(model.stat_ivar[made_it])
    given = _inverse(frame.ivar)
    good = (model.mask == 0) & (frame.ivar > 0) & (model.ivar > 0)
    return replace(
        frame,
        flux=np.where(model.mask & SpecMask.BADSKY != 0, frame.flux, frame.flux - sky),
        ivar=np.where(good, _inverse(np.maximum(given + added, _LEAST * given)), 0.0),
        mask=frame.mask | model.mask,
        sky=replace(model, flux=sky, throughput=None, throughput_model=model.throughput),
        meta={**frame.meta, **{key: model.meta[key] for key in ("NSKY", "NSKYREJ") if key in model.meta}},
    )


def _continuum(sky: Array) -> float:
    """Median of the sky where there is one: lines are what exceeds it by far [electron/Angstrom]."""
    there = sky[sky != 0]
    return float(np.median(there)) if there.size else np.inf


def _inverse(values: NDArray[np.floating[Any]]) -> Array:
    """1 / values; what is not positive stays 0: no information."""
    out = np.zeros(values.shape)
    np.divide(1.0, values, out=out, where=values > 0)
    return out
