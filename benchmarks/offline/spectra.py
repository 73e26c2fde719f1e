"""Calibrated spectra and coadds against the flux of the targets."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from benchmarks.offline.light import light_of, through_resolution
from benchmarks.offline.night import Night
from benchmarks.truth.line import Line, nmad
from qlstream.io.frame import read_frame
from qlstream.io.spectra import read_spectra


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
    implied = sum(weight)
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
