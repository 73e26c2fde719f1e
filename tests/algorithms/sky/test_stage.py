from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from algorithms.sky.stage import SkySub_QP
from algorithms.sky.subtract import fit_sky_fibers
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.masks import FiberMask, SpecMask

LINES = [(5789.0, 300.0), (5891.6, 8000.0), (5897.6, 4000.0), (5934.0, 600.0), (6000.3, 20000.0), (6003.0, 2000.0)]


def continuum(wave):
    return 150 + 20 * np.sin(wave / 50)


@pytest.fixture
def scene(spectrograph, make_fibermap):
    """A flat-fielded sky in every fiber, every fourth of them a sky fiber; the truth beside it."""
    spectrograph.gray[:], spectrograph.slope[:] = 1.0, 0.0
    density = spectrograph.density(continuum, LINES)
    fibermap = make_fibermap(["SKY" if f % 4 == 1 else "ELG" for f in range(spectrograph.nspec)])
    return spectrograph, density, spectrograph.observe(density, fibermap=fibermap)


def pull(qframe, light=0.0):
    good = qframe.ivar > 0
    return ((qframe.flux - light) * np.sqrt(qframe.ivar))[good], good


def test_what_remains_is_noise_of_the_stated_size_in_every_fiber_and_line(scene, make_context):
    _, density, qframe = scene

    out = SkySub_QP().run(qframe, make_context(fibermap=qframe.fibermap))

    z, good = pull(out)
    used = qframe.fibermap.is_sky[:, None] & good
    bright = density > 3 * continuum(qframe.wave)
    for name, part in (
        ("sky fibers", used),
        ("sky fibers, lines", used & bright),
        ("other fibers", good & ~used),
        ("other fibers, lines", good & ~used & bright),
    ):
        chi2 = (z[part[good]] ** 2).mean()
        print(f"{name}: chi2/n {chi2:.3f} of {part.sum()}, mean pull {z[part[good]].mean():+.3f}")
        # one model serves all fibers: its error, a tenth of theirs here, is common to them
        assert chi2 == pytest.approx(1.0, abs=5 * np.sqrt(2 / part.sum()) + (0.05 if "lines" in name else 0.02))


def test_the_model_agrees_with_the_truth_within_its_own_error(scene):
    _, density, qframe = scene
    sky = np.flatnonzero(qframe.fibermap.is_sky)

    spectrum = fit_sky_fibers(qframe, sky, 0.65, 2, 5.0, 0.02, 0.05, 3).spectrum

    counts, variance = spectrum.counts(qframe.wave, qframe.ysigma), spectrum.variance(qframe.wave, qframe.ysigma)
    z = ((counts - density * qframe.dwave) / np.sqrt(variance))[np.isfinite(counts)]
    print(f"pull of the model: mean {z.mean():+.3f} rms {z.std():.3f}")
    assert z.std() == pytest.approx(1.0, abs=0.06)  # about 1500 independent coefficients
    assert abs(z.mean()) < 0.15


def test_the_mean_is_not_low_although_the_given_variances_follow_the_noise(scene):
    spectrograph, density, qframe = scene
    ivar = 1 / (np.maximum(qframe.flux, 0) + spectrograph.readvar)

    spectrum = fit_sky_fibers(
        replace(qframe, ivar=ivar.astype(np.float32)), np.flatnonzero(qframe.fibermap.is_sky), 0.65, 2, 5.0, 0.02,
        0.05, 3,
    ).spectrum  # fmt: skip

    difference = np.nanmean(spectrum.counts(qframe.wave, qframe.ysigma) - density * qframe.dwave)
    print(f"bias {difference:+.3f} electron per row")
    assert abs(difference) < 0.35  # 1 for weights by the given variances; the noise of the mean is 0.1


def test_a_sky_fiber_with_other_light_and_cosmic_rays_do_no_harm(scene, make_context):
    spectrograph, _, qframe = scene
    flux = qframe.flux.copy()
    flux[5] += 60
    flux[9, 300:303] += [2000, 20000, 1500]
    flux[13, 700] -= 3000

    out = SkySub_QP().run(replace(qframe, flux=flux), make_context(fibermap=qframe.fibermap))

    assert out.meta["NSKY"] == 14
    assert out.meta["NSKYREJ"] == 1
    assert (out.mask[9, 300:303] & SpecMask.COSMIC != 0).all()
    assert (out.ivar[9, 300:303] == 0).all()
    others = np.setdiff1d(np.arange(spectrograph.nspec), [5, 9, 13])
    z, _ = pull(replace(out, flux=out.flux[others], ivar=out.ivar[others], wave=out.wave[others], sky=None, ysigma=None,
                        mask=out.mask[others], fibers=out.fibers[others], fibermap=None))  # fmt: skip
    assert (z**2).mean() == pytest.approx(1.0, abs=0.03)
    remaining = out.flux[5][out.ivar[5] > 0]
    assert remaining.mean() == pytest.approx(60, abs=1.5)  # its own light stays


def test_rows_that_no_sky_fiber_reaches_are_masked_not_zeroed(scene, make_context):
    _, _, qframe = scene
    ivar = qframe.ivar.copy()
    ivar[qframe.fibermap.is_sky, -100:] = 0

    out = SkySub_QP().run(replace(qframe, ivar=ivar), make_context(fibermap=qframe.fibermap))

    bad = out.mask == SpecMask.BADSKY
    assert bad[0, -50:].all()
    assert (out.ivar[bad] == 0).all()
    np.testing.assert_array_equal(out.flux[bad], qframe.flux[bad])
    assert np.isfinite(out.flux).all()
    assert np.isfinite(out.sky).all()


def test_forbidden_fibers_make_no_sky_and_are_masked(scene, make_context):
    spectrograph, _, qframe = scene
    status = np.zeros(spectrograph.nspec, np.int32)
    status[[1, 2]] = FiberMask.BADPOSITION
    status[5] = FiberMask.VARIABLETHRU
    status[9] = FiberMask.BADAMPB  # another arm's
    rows = qframe.fibermap.rows.copy()
    rows["FIBERSTATUS"] = status

    out = SkySub_QP().run(replace(qframe, fibermap=replace(qframe.fibermap, rows=rows)), make_context())

    assert out.meta["NSKY"] == 13
    assert (out.mask[[1, 2]] & SpecMask.BADFIBER != 0).all()
    assert (out.ivar[[1, 2]] == 0).all()
    assert (out.mask[[5, 9]] & SpecMask.BADFIBER == 0).all()


def test_without_sky_fibers_none_are_invented(scene, make_context, make_fibermap):
    spectrograph, _, qframe = scene
    targets = make_fibermap(["SKY", "SKY"] + ["ELG"] * (spectrograph.nspec - 2))

    for fibermap, reason in ((targets, "2 usable sky fibers"), (None, "no fibermap")):
        with pytest.raises(MissingCalibration, match=reason):
            SkySub_QP().run(replace(qframe, fibermap=fibermap), make_context())


def test_the_input_is_left_unchanged(scene, make_context):
    _, _, qframe = scene
    before = [a.copy() for a in (qframe.flux, qframe.ivar, qframe.mask, qframe.wave)]

    SkySub_QP().run(qframe, make_context())

    for was, now in zip(before, (qframe.flux, qframe.ivar, qframe.mask, qframe.wave), strict=True):
        np.testing.assert_array_equal(was, now)
