"""The sky: its level between and on the lines, and what its subtraction leaves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from algorithms.sky.stage import SkySub_QP
from benchmarks.truth.exposed import Exposed
from benchmarks.truth.line import Array, Line, compared, pulls
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.qframe import QFrame


def lines(exposed: Exposed) -> Iterator[Line]:
    """What a science exposure tells of the sky."""
    if exposed.context.flavor != "science" or "SkySub_QP" not in exposed.reduced.outcome.outputs:
        return
    yield from _continuum(exposed)
    yield from _subtracted(exposed)
    yield from _residuals(exposed)


def _flattened_truth(exposed: Exposed) -> tuple[Array, Array]:
    """(nspec, ny): the true sky in the aperture after a perfect flat, and its variance [e/row]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        expected, variance = exposed.aperture
        flat = exposed.truth.fiberflat
        share = np.where(exposed.truth.flux > 0, exposed.truth.sky / exposed.truth.flux, 1.0)
        return expected * share / flat, variance / flat**2


def _continuum(exposed: Exposed) -> Iterator[Line]:
    """SKYCONT: the same windows on the noiseless sky."""
    result = exposed.result("Sky_Continuum")
    assert result is not None
    sky, variance = _flattened_truth(exposed)
    level, error = [], []
    for i in np.flatnonzero(np.isfinite(result.per_fiber["SKYCONT_FIBER"])):
        wave = exposed.truth.wave[i]
        width = np.gradient(wave)
        medians, errors = [], []
        for low, high in exposed.context.arm.sky_windows:
            inside = (wave > low) & (wave < high)
            medians.append(np.median((sky[i] / width)[inside]))
            noise = np.sqrt(np.median((variance[i] / width**2)[inside]))
            errors.append(1.25 * noise / math.sqrt(inside.sum()))
        level.append(np.mean(medians))
        error.append(math.hypot(*errors) / len(errors))
    truth, sigma = float(np.mean(level)), float(np.sqrt(np.square(error).sum()) / len(error))
    yield compared("Sky_Continuum", "SKYCONT [e/Å]", truth, result.metrics["SKYCONT"], sigma, relative=0.01)


def _subtracted(exposed: Exposed) -> Iterator[Line]:
    """What is left in the target fibers beside the target: bias and scatter of the whole chain up to here."""
    subtracted: QFrame = exposed.reduced.outcome.outputs["SkySub_QP"]
    fibermap = exposed.context.fibermap
    assert fibermap is not None
    expected, _ = exposed.aperture
    with np.errstate(divide="ignore", invalid="ignore"):
        target = expected * exposed.truth.target / exposed.truth.flux / exposed.truth.fiberflat
    pull = (subtracted.flux - target) * np.sqrt(subtracted.ivar)
    usable = fibermap.is_usable("flux", exposed.camera[:1]) & (fibermap.objtype == "TGT")
    good = (subtracted.ivar > 0) & exposed.in_range & usable[:, None] & np.isfinite(target)
    yield pulls("SkySub_QP", "pull of target fibers", pull[good], 0.02)
    mean, sigma = float(pull[good].mean()), 1.0 / math.sqrt(good.sum())
    yield compared("SkySub_QP", "bias of target fibers [σ per row]", 0.0, mean, sigma, absolute=0.02)


def _residuals(exposed: Exposed) -> Iterator[Line]:
    """Sky fibers that made the model, and others that were told to be targets, so that they did not."""
    flattened: QFrame = exposed.reduced.outcome.outputs["ApplyFiberFlat_QP"]
    fibermap = flattened.fibermap
    assert fibermap is not None
    context = exposed.context
    usable = np.flatnonzero(fibermap.is_sky & fibermap.is_usable("sky", context.camera[:1]))
    held_out = usable[::4]
    rows = fibermap.rows.copy()
    rows["OBJTYPE"][held_out] = "TGT"
    told = Fibermap(rows, fibermap.meta)
    subtracted = SkySub_QP().run(replace(flattened, fibermap=told), replace(context, fibermap=told))
    assert subtracted.sky is not None
    for name, fibers, reference, aims in (
        ("sky fibers", np.setdiff1d(usable, held_out), "1.01 / 1.07", (1.01, 1.02)),
        ("blank fibers not in the fit", held_out, "1.05 / 1.11", (1.02, 1.03)),
    ):
        inside = exposed.in_range[fibers]
        ivar = subtracted.ivar[fibers]
        pull = subtracted.flux[fibers] * np.sqrt(ivar)
        good = (ivar > 0) & inside
        sky = subtracted.sky[fibers]
        bright = good & (sky > 4 * np.median(sky[good]))
        everywhere, on_lines = float(np.mean(pull[good] ** 2)), float(np.mean(pull[bright] ** 2))
        scatter = math.sqrt(2 / good.sum()), math.sqrt(2 / max(bright.sum(), 1))
        measured = f"{everywhere:.3f} ± {scatter[0]:.3f} / {on_lines:.3f} ± {scatter[1]:.3f}"
        # two standard errors are granted, since the aim lies as close to 1 as that
        met = everywhere <= aims[0] + 2 * scatter[0] and (not bright.any() or on_lines <= aims[1] + 2 * scatter[1])
        aim = f"≤ {aims[0]} / {aims[1]} + 2 σ"
        quantity = f"{name}, chi2/dof, all / bright lines"
        sigmas = (everywhere - 1) / scatter[0]
        yield Line("SkySub_QP", quantity, "1 / 1", measured, sigmas, aim, met, reference)
