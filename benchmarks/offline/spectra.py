"""Calibrated spectra and coadds against the flux of the targets, and what they tell against light and noise."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from algorithms.tsnr2.nominal import fitted_variance
from algorithms.tsnr2.tracers import template_of
from benchmarks.offline.light import light_of, through_resolution
from benchmarks.offline.night import Night
from benchmarks.truth.line import Line, nmad
from qlstream.datamodel.frame import Frame
from qlstream.io.fiberflat import read_fiberflat
from qlstream.io.frame import read_frame
from qlstream.io.spectra import read_spectra
from qlstream.numeric.dust import extinction
from qlstream.simulate.throughput import fiber_fraction


def lines(night: Night, camera: str) -> Iterator[Line]:
    """Of one arm of the tile."""
    arm = camera[0]
    coadd = read_spectra(night.of_petal("coadd_tile"))
    frames = [read_frame(night.product("cframe", e, camera)) for e in night.of_flavor("science")]
    together = coadd.bands[arm]
    targetids = frames[0].fibermap.column("TARGETID")  # type: ignore[union-attr]
    row = {t: n for n, t in enumerate(coadd.fibermap["TARGETID"].tolist())}
    index = np.array([row[t] for t in targetids.tolist()])
    kind = night.targets(night.of_flavor("science")[0]).kind[frames[0].fibers]

    weight = [np.where(f.mask == 0, f.ivar, 0.0) for f in frames]
    implied = np.sum(weight, axis=0)
    ivar = together.ivar[index]
    seen = (implied > 0) & (ivar > 0)
    ratio = np.sqrt(ivar[seen] / implied[seen])
    told = f"median {np.median(ratio):.5f}, worst {np.abs(ratio - 1).max():.5f} from 1"
    yield Line("coadd", "S/N over that which the exposures add up to", "1", told, math.nan, "1 ± 0.001",
               bool(np.abs(np.median(ratio) - 1) < 1e-3))  # fmt: skip
    if len(frames) > 1:
        one, two = frames[:2]
        both = (weight[0] > 0) & (weight[1] > 0) & (kind == "SKY")[:, None]
        pull = ((one.flux - two.flux) / np.sqrt(1 / np.where(both, one.ivar, 1) + 1 / np.where(both, two.ivar, 1)))[
            both
        ]
        told = f"{np.mean(pull**2):.3f} (nmad {nmad(pull):.3f})"
        yield Line("cframe", "chi2/dof between exposures, sky fibers", "1", told, math.nan, "1.00 ± 0.05",
                   abs(np.mean(pull**2) - 1) <= 0.05)  # fmt: skip

    yield from _tsnr2(night, camera, frames[0])
    light = light_of(night, night.of_flavor("science")[0], camera, together.wave)
    assert together.resolution is not None
    truth = through_resolution(together.resolution[index], light.flux)
    inside = seen.copy()
    inside[:, :20] = inside[:, -20:] = False
    flux = together.flux[index]
    points = np.isin(kind, ("QSO", "STD")) & (np.median(truth * np.sqrt(ivar), axis=1) > 5)
    scale = [
        np.sum((ivar * flux * truth)[k][inside[k]]) / np.sum((ivar * truth**2)[k][inside[k]]) - 1
        for k in np.flatnonzero(points)
    ]
    told = f"{100 * np.median(scale):+.2f} ± {100 * nmad(np.array(scale)):.2f} % ({len(scale)} spectra)"
    yield Line("coadd", "flux over true flux less 1, stars and quasars", "0", told, math.nan, "± 2 %",
               abs(float(np.median(scale))) <= 0.02)  # fmt: skip
    faint = inside & np.isin(kind, ("ELG", "LRG", "QSO"))[:, None]
    pull = ((flux - truth) * np.sqrt(ivar))[faint]
    told = f"{pull.std():.3f} (nmad {nmad(pull):.3f}, mean {pull.mean():+.3f})"
    yield Line("coadd", "pull of flux less true flux, galaxies and quasars", "1", told, math.nan, "1.0 ± 0.1",
               abs(nmad(pull) - 1) <= 0.1)  # fmt: skip


def _tsnr2(night: Night, camera: str, frame: Frame) -> Iterator[Line]:
    """The scores of the first exposure against the sums over true sky, throughput and typical read noise.

    They are less by what else makes noise: dark current, the sky model, neighbouring fibers.
    """
    exposure, instrument = night.of_flavor("science")[0], night.instrument
    arm, targets = instrument.arm(camera), night.targets(exposure)
    if frame.scores is None or f"TSNR2_ELG_{arm.name.upper()}" not in (frame.scores.dtype.names or ()):
        return
    light = light_of(night, exposure, camera, frame.wave)
    flat = read_fiberflat(night.product("fiberflatnight", camera=camera)).fiberflat
    row = 0.5 * sum(arm.dispersion)
    assert frame.resolution is not None
    sky = through_resolution(frame.resolution, light.sky)
    rows = targets.rows[frame.fibers]
    offset = np.hypot(rows["DELTA_X"], rows["DELTA_Y"]) / 254.0 * 3600.0
    clear = 10.0 ** (-0.4 * rows["EBV"][:, None] * extinction(frame.wave))
    inside = (frame.wave > arm.wave_science[0]) & (frame.wave < arm.wave_science[1])
    good = inside & (frame.ivar > 0) & (frame.mask == 0)
    live = good.mean(axis=1) > 0.8 * inside.mean()
    for name in ("ELG", "QSO", "BGS"):
        template = template_of(name, arm)
        share = fiber_fraction(instrument, exposure.seeing, offset, np.full(len(rows), template.half_light))
        share /= fiber_fraction(instrument, exposure.seeing, offset)
        electrons = share[:, None] * clear * light.calibration * flat * frame.dwave
        signal2 = electrons**2 * np.interp(frame.wave, template.wave, template.contrast2)
        electrons_of_rows = row * (sky + electrons / frame.dwave * np.interp(frame.wave, template.wave, template.flux))
        noise = (
            np.stack([fitted_variance(of_fiber, arm.readnoise, arm.xsigma) for of_fiber in electrons_of_rows])
            * frame.dwave
            / row
        )
        truth = np.where(good, signal2 / noise, 0.0).sum(axis=1)
        ratio = frame.scores[f"TSNR2_{name}_{arm.name.upper()}"][live] / truth[live]
        told = f"{np.median(ratio):.3f} (nmad {nmad(ratio):.3f})"
        yield Line("cframe", f"TSNR2 of {name} over that of true light and noise", "1", told, math.nan, "1.0 ± 0.1",
                   abs(float(np.median(ratio)) - 1) <= 0.1)  # fmt: skip
