"""Stages on a common wavelength grid: fiber flats and sky models of frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from algorithms.extract.boxcar import BoxcarExtract
from algorithms.fiberflat.stage import ApplyFiberFlat_QL, ComputeFiberflat, ComputeFiberflat_QL
from algorithms.sky.stage import ComputeSky, ComputeSky_QL, SkySub, SkySub_QL
from benchmarks.truth.exposed import Exposed
from benchmarks.truth.line import Line, compared, nmad, pulls
from benchmarks.truth.sky import error_of_bias
from benchmarks.truth.windows import Cumulated, windows_of


def lines(exposed: Exposed) -> Iterator[Line]:
    """What flats and science exposures tell of the stages on frames."""
    if exposed.context.flavor == "flat":
        yield from _flats(exposed)
    elif exposed.context.flavor == "science":
        yield from _sky(exposed)


def _flats(exposed: Exposed) -> Iterator[Line]:
    frame = BoxcarExtract().run(exposed.image, exposed.context)
    truth = exposed.model.throughput.relative(frame.wave)[exposed.live]
    for stage in (ComputeFiberflat_QL(), ComputeFiberflat()):
        flat = stage.run(frame, exposed.context)
        good = (flat.ivar > 0)[exposed.live] & (flat.mask == 0)[exposed.live]
        error = (flat.fiberflat[exposed.live] / np.where(truth > 0, truth, np.nan) - 1)[good]
        spread, extreme = nmad(error), float(np.abs(error).max())
        told = f"{100 * spread:.3f} % / {100 * extreme:.2f} %"
        met = spread <= 0.002 and extreme <= 0.03
        name = "fiber flat, relative error away from masks, nmad / worst"
        yield Line(stage.name, name, "0", told, math.nan, "≤ 0.2 % / ≤ 3 %", met)


def _sky(exposed: Exposed) -> Iterator[Line]:
    """Counts of the target fibers after the sky, in windows of 50 Angstrom, against the targets' own."""
    context, fibermap = exposed.context, exposed.context.fibermap
    assert fibermap is not None
    flattened = ApplyFiberFlat_QL().run(BoxcarExtract().run(exposed.image, context), context)
    expected, _ = exposed.aperture
    with np.errstate(divide="ignore", invalid="ignore"):
        target = expected * exposed.truth.target / exposed.truth.flux / exposed.truth.fiberflat
    usable = fibermap.is_usable("flux", exposed.camera[:1]) & (fibermap.objtype == "TGT")
    step = np.gradient(flattened.wave)
    for model, subtract in ((ComputeSky_QL(), SkySub_QL()), (ComputeSky(), SkySub())):
        sky = model.run(flattened, context)
        frame = subtract.run(flattened, replace(context, earlier=context.earlier | {model.name: sky}))
        pull = []
        for i in np.flatnonzero(usable & exposed.live):
            good = frame.ivar[i] > 0
            bins = Cumulated(frame.wave, (frame.flux[i] * step, step**2 / np.where(good, frame.ivar[i], 1.0)), good)
            rows = Cumulated(exposed.truth.wave[i], (target[i],), np.isfinite(target[i]))
            for window in windows_of(frame.wave):
                measured, true = bins.summed(*window), rows.summed(*window)
                if measured is not None and true is not None:
                    pull.append((measured[0] - true[0]) / math.sqrt(measured[1]))
        values = np.array(pull)
        # what a bright line leaves behind is too much in one bin and too little in the next; in sums it cancels
        yield pulls(subtract.name, "pull of target fibers in 50 Å", values, 0.05, granted=1e-3, low=True)
        name, mean = "bias of target fibers [σ per 50 Å]", float(values.mean())
        sigma = error_of_bias(exposed, values.size, int((usable & exposed.live).sum()))
        yield compared(subtract.name, name, 0.0, mean, sigma, absolute=0.1)
