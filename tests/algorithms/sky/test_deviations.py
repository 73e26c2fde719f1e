from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from algorithms.sky.deviations import measure_changes
from algorithms.sky.stage import SkySub_QP

LINES = [(5700.0 + 9.7 * i, 4000.0 * (1 + i % 4)) for i in range(60)]


def continuum(wave):
    return 100 + 0 * wave


@pytest.fixture
def misjudged(spectrograph, make_fibermap):
    """A sky whose fibers are not quite what the frame says: width 2 %, wavelength 0.004 A, throughput 0.5 % off."""
    spectrograph.gray[:], spectrograph.slope[:] = 1.0, 0.0
    rng, nspec = np.random.default_rng(4), spectrograph.nspec
    density = spectrograph.density(continuum, LINES)
    fibermap = make_fibermap(["SKY" if f % 3 == 1 else "ELG" for f in range(nspec)])
    qframe = spectrograph.observe(density * (1 + 0.005 * rng.normal(size=(nspec, 1))), fibermap=fibermap)
    ysigma = qframe.ysigma * (1 + 0.02 * rng.normal(size=(nspec, 1)))
    wave = qframe.wave + 0.004 * rng.normal(size=(nspec, 1))
    return replace(qframe, ysigma=ysigma.astype(np.float32), wave=wave), density > 3 * continuum(qframe.wave)


def chi2_in_lines(out, bright, fibers):
    good = (out.ivar > 0) & bright & fibers[:, None]
    return float(np.mean(out.flux[good] ** 2 * out.ivar[good])), int(good.sum())


def test_each_fiber_corrects_its_own_lines(misjudged, make_context):
    qframe, bright = misjudged
    targets = ~qframe.fibermap.is_sky

    as_stated = SkySub_QP({"line_level": 1e6}).run(qframe, make_context())
    corrected = SkySub_QP().run(qframe, make_context())

    before, _ = chi2_in_lines(as_stated, bright, targets)
    after, n = chi2_in_lines(corrected, bright, targets)
    print(f"chi2/n in the lines of target fibers: {before:.3f} as stated, {after:.3f} ± {np.sqrt(2 / n):.3f} corrected")
    assert before > 1.2
    assert after == pytest.approx(1.0, abs=0.08)


def test_an_emission_line_of_a_target_on_a_sky_line_is_kept(misjudged, make_context):
    qframe, _ = misjudged
    light = 3000 * np.exp(-0.5 * ((qframe.wave[6] - LINES[30][0]) / 1.5) ** 2)  # [OII] in fiber 6
    flux = qframe.flux.copy()
    flux[6] += light

    out = SkySub_QP().run(replace(qframe, flux=flux.astype(np.float32)), make_context())

    near = np.abs(qframe.wave[6] - LINES[30][0]) < 5
    kept = out.flux[6, near].sum() / light[near].sum()
    print(f"{100 * kept:.1f} % of the line kept")
    assert kept == pytest.approx(1.0, abs=0.05)  # its noise is 3 %


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_bin_without_model_beside_a_line_leaves_the_others_to_tell(lost):
    """A line of 10 bins on a flat sky, 1 % brighter than the model; one bin near its middle has no model."""
    at = np.arange(60.0)
    sky = (10.0 + 1e4 * np.exp(-0.5 * ((at - 30) / 2.0) ** 2)).astype(np.float32)[None]
    flux = (10.0 + 1.01 * (sky - 10.0)).astype(np.float32)
    sky[0, 30 + lost] = np.nan
    ivar = np.where(np.isnan(sky), 0.0, 1.0 / 50.0**2).astype(np.float32)
    changes = measure_changes(5000.0 + at[None], flux, ivar, sky, 30.0, np.array([0]), 100.0)
    assert np.isfinite(changes.change).all()
    assert np.isfinite(changes.covariance).all()
