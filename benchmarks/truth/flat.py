"""The fiber flat of this night against the true relative throughputs."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from benchmarks.truth.exposed import Exposed
from benchmarks.truth.line import Line, compared, nmad
from qa.fiberflat import Check_FiberFlat
from qlstream.simulate.lamps import flat_light


def lines(exposed: Exposed) -> Iterator[Line]:
    """What a flat exposure tells."""
    product = exposed.reduced.outcome.outputs.get("ComputeFiberflat_QP")
    if product is None:
        return
    errors, pulls = [], []
    for i in np.flatnonzero(exposed.live):
        rows = exposed.in_range[i]
        wave = exposed.truth.wave[i, rows]
        measured = np.interp(wave, product.wave, product.fiberflat[i])
        ivar = np.interp(wave, product.wave, product.ivar[i])
        good = np.interp(wave, product.wave, ((product.ivar[i] > 0) & (product.mask[i] == 0)).astype(float)) == 1
        good &= exposed.qframe.ivar[i, rows] > 0
        truth = exposed.truth.fiberflat[i, rows]
        errors.append((measured / truth - 1)[good])
        pulls.append(((measured - truth) * np.sqrt(ivar))[good])
    error = np.concatenate(errors)
    spread, extreme = nmad(error), float(np.abs(error).max())
    yield Line(
        "ComputeFiberflat_QP",
        "fiber flat, relative error away from masks, nmad / worst",
        "0",
        f"{100 * spread:.3f} % / {100 * extreme:.2f} % (pull {nmad(np.concatenate(pulls)):.2f})",
        math.nan,
        "≤ 0.2 % / ≤ 3 %",
        spread <= 0.002 and extreme <= 0.03,
        "0.26 % / 51 %",
    )
    yield from _checked(exposed)


def _checked(exposed: Exposed) -> Iterator[Line]:
    """The metric's mean of every fiber, and the lamp: its light in a median fiber, and in the fibers of the middle."""
    result = exposed.result("Check_FiberFlat")
    assert result is not None
    found, truth = result.per_fiber["FLATMEAN"], np.where(exposed.in_range, exposed.truth.fiberflat, np.nan)
    use = exposed.live & np.isfinite(found)
    difference = found[use] - np.nanmean(truth[use], axis=1)
    sigma = 1.25 * nmad(difference) / math.sqrt(use.sum())
    mean = float(np.median(difference))
    yield compared("Check_FiberFlat", "FLATMEAN less truth, median fiber", 0.0, mean, sigma, absolute=0.002)

    arm, exptime, through = exposed.context.arm, exposed.exposure.exptime, exposed.model.throughput
    wave = np.linspace(*arm.wave_science, 2000)
    light = flat_light(arm, wave, exptime) * through.of_arm(wave) / arm.throughput
    fibers = through.of_fibers(wave)
    typical = float(np.median(light * np.median(fibers[exposed.live], axis=0))) / exptime
    count = Check_FiberFlat.Params.model_validate({}).middle
    first = max((len(fibers) - count) // 2, 0)
    middle = fibers[first : first + count]
    whole = float((light * np.median(middle, axis=0)).sum() * (wave[1] - wave[0])) / exptime
    electrons = typical * exptime * (wave[-1] - wave[0])
    sigma = math.sqrt(1.0 / (electrons * exposed.live.sum()))  # photons of all fibers
    lamp, flux = result.metrics["FLATLAMP_RATE"], result.metrics["INTEG_FLUX"]
    yield compared("Check_FiberFlat", "FLATLAMP_RATE [e/Å/s]", typical, lamp, sigma * typical, relative=0.01)
    yield compared("Check_FiberFlat", "INTEG_FLUX [e/s]", whole, flux, 5 * sigma * whole, relative=0.01)
