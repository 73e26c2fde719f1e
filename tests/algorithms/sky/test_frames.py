"""The sky of frames, modelled and subtracted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from algorithms.sky.stage import ComputeSky, ComputeSky_QL, SkySub, SkySub_QL
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.masks import FiberMask, SpecMask
from qlstream.datamodel.resolution import Resolution
from qlstream.datamodel.sky import SkyModel

LEVEL = 150.0


def light(wave):
    """A continuum, and forty lines narrower than a bin, of 300 to 30 000 electrons."""
    rng = np.random.default_rng(8)
    spectrum = LEVEL + 20 * np.sin(wave / 50)
    spectrum[rng.choice(np.arange(20, wave.size - 20), 40, replace=False)] += 10 ** rng.uniform(2.5, 4.5, 40)
    return spectrum


@pytest.fixture
def scene(framing, make_fibermap):
    """A flat-fielded sky in every fiber, every third of them a sky fiber; the truth beside it."""
    classes = ["SKY" if f % 3 == 1 else "ELG" for f in range(framing.nspec)]
    fibermap = make_fibermap(classes, TARGETID=1000 + np.arange(framing.nspec))
    density = framing.seen(light(framing.wave))
    return framing, density, framing.observe(density, fibermap=fibermap)


def chi2(out, chosen):
    part = (out.ivar > 0) & chosen
    return float(np.mean(out.flux[part] ** 2 * out.ivar[part])), int(part.sum())


@pytest.mark.parametrize("stage", [SkySub_QL, SkySub])
def test_what_remains_is_noise_of_the_stated_size_in_every_fiber_and_line(stage, scene, make_context):
    _, density, frame = scene

    out = stage().run(frame, make_context())

    sky = frame.fibermap.is_sky[:, None]
    bright = density > 3 * LEVEL
    for name, part in (
        ("sky fibers", sky & ~bright),
        ("sky fibers, lines", sky & bright),
        ("blank fibers not in the fit", ~sky & ~bright),
        ("blank fibers not in the fit, lines", ~sky & bright),
    ):
        value, n = chi2(out, part)
        z = (out.flux * np.sqrt(out.ivar))[part & (out.ivar > 0)]
        print(f"{stage.__name__}, {name}: chi2/n {value:.3f} ± {np.sqrt(2 / n):.3f}, mean pull {z.mean():+.4f}")
        # the error of the one model, a fifth of theirs here, is common to all fibers
        assert value == pytest.approx(1.0, abs=5 * np.sqrt(2 / n) + 0.03)
        assert abs(z.mean()) < 5 / np.sqrt(n) + 0.02


@pytest.mark.parametrize("stage", [ComputeSky_QL, ComputeSky])
def test_the_model_agrees_with_the_truth_within_its_own_error(stage, scene, make_context):
    _, density, frame = scene

    model = stage().run(frame, make_context())

    assert isinstance(model, SkyModel)
    assert (model.mask & SpecMask.BADSKY == 0).all()
    z = (model.flux - density) * np.sqrt(model.stat_ivar)
    bias = (model.flux - density)[density > 3 * LEVEL].sum() / density[density > 3 * LEVEL].sum()
    print(f"{stage.__name__}: pull of the model: mean {z.mean():+.3f} rms {z.std():.3f}; lines {100 * bias:+.3f} %")
    assert z.std() == pytest.approx(1.0, abs=0.1)  # about 250 independent coefficients
    assert abs(z.mean()) < 0.25
    assert abs(bias) < 0.002


def test_the_mean_is_not_low_although_the_given_variances_follow_the_noise(scene, make_context):
    framing, density, frame = scene
    ivar = 1 / ((np.maximum(frame.flux * 0.8, 0) + framing.readvar) / 0.8**2)

    model = ComputeSky_QL().run(replace(frame, ivar=ivar), make_context())

    difference = 0.8 * np.mean((model.flux - density)[:, (density < 2 * LEVEL).all(axis=0)])
    print(f"bias {difference:+.3f} electron per bin")
    assert abs(difference) < 0.35  # 1 for weights by the given variances; the noise of the mean is 0.1


def test_without_resolution_the_model_is_the_clipped_mean_and_its_error_says_what_lines_leave(scene, make_context):
    _, density, frame = scene
    plain = replace(frame, resolution=None)

    out = SkySub_QL({"Apply_resolution": False}).run(plain, make_context())
    model = ComputeSky_QL({"Apply_resolution": False}).run(plain, make_context())

    blank = ~frame.fibermap.is_sky[:, None]
    bright = density > 3 * LEVEL
    continuum, n = chi2(out, blank & ~bright)
    lines, nlines = chi2(out, blank & bright)
    print(f"chi2/n {continuum:.3f}, in lines {lines:.3f} ± {np.sqrt(2 / nlines):.3f}")
    assert continuum == pytest.approx(1.0, abs=5 * np.sqrt(2 / n) + 0.03)
    assert lines == pytest.approx(1.0, abs=0.2)
    used = frame.fibermap.is_sky
    mean = np.average(frame.flux[used], axis=0, weights=frame.ivar[used])
    far = (density < 1.2 * LEVEL).all(axis=0)
    assert np.median(np.abs(model.flux[0] / mean - 1)[far]) < 0.001
    with pytest.raises(MissingCalibration, match="without line spread"):
        SkySub_QL().run(plain, make_context())


def test_throughputs_of_the_fibers_are_found_in_their_lines_and_taken_out(scene, make_context):
    framing, density, frame = scene
    factor = 1 + 0.02 * framing.rng.normal(size=(framing.nspec, 1))
    frame = framing.observe(density * factor, fibermap=frame.fibermap)

    model = ComputeSky().run(frame, make_context())
    out = SkySub().run(frame, make_context())

    norm = factor[frame.fibermap.is_sky].mean()
    error = model.throughput - factor[:, 0] / norm
    print(f"throughput: scatter {factor.std():.4f}, error {error.std():.4f}, mean {error.mean():+.4f}")
    assert error.std() < 0.004  # lines of 2e5 electrons in all, and the mean of 20 sky fibers
    assert abs(error.mean()) < 0.004
    bright = density > 3 * LEVEL
    blank = ~frame.fibermap.is_sky[:, None]
    value, n = chi2(out, blank & bright)
    print(f"chi2/n in lines of blank fibers {value:.3f} ± {np.sqrt(2 / n):.3f}")
    assert value == pytest.approx(1.0, abs=5 * np.sqrt(2 / n) + 0.05)


def shifted(framing, density, bins):
    """`density` with its lines moved by so many bins, (nspec, 1) or (nspec, nwave)."""
    at = np.arange(framing.nwave, dtype=float)
    places = at - np.broadcast_to(bins, density.shape)
    return np.array([CubicSpline(at, row)(place) for row, place in zip(density, places, strict=True)])


@pytest.mark.parametrize("wrong", ["wavelength", "lsf"])
def test_each_fiber_moves_and_widens_its_lines_as_it_sees_them(wrong, scene, make_context):
    """Errors as of traces and of a PSF: another in every fiber, and changing along the spectrum."""
    framing, density, frame = scene
    u = np.linspace(-1, 1, framing.nwave)
    error = framing.rng.normal(size=(framing.nspec, 1)) + framing.rng.normal(size=(framing.nspec, 1)) * u
    if wrong == "wavelength":
        seen = shifted(framing, density, 0.04 * error)
    else:
        widths = framing.ysigma * (1 + 0.02 * error)
        seen = np.array([Resolution.from_widths(w, framing.ndiag).dot(light(framing.wave)) for w in widths])
    frame = framing.observe(seen, fibermap=frame.fibermap)
    chosen = ~frame.fibermap.is_sky[:, None] & (density > 3 * LEVEL)

    found = {
        adjust: chi2(SkySub({f"adjust_{wrong}": adjust, "add_variance": False}).run(frame, make_context()), chosen)
        for adjust in (False, True)
    }

    print(f"{wrong}: chi2/n in lines of blank fibers {found[False][0]:.2f} as stated, {found[True][0]:.3f} adjusted")
    assert found[False][0] > 1.5
    assert found[True][0] == pytest.approx(1.0, abs=5 * np.sqrt(2 / found[True][1]) + 0.1)


def test_a_throughput_that_nobody_asks_for_stays_one(scene, make_context):
    framing, density, frame = scene
    frame = framing.observe(density * (1 + 0.02 * framing.rng.normal(size=(60, 1))), fibermap=frame.fibermap)

    model = ComputeSky({"adjust_throughput": False}).run(frame, make_context())

    np.testing.assert_allclose(model.throughput, 1.0, atol=1e-6)


def test_errors_in_the_lines_are_learned_where_the_resolution_is_not_quite_right(scene, make_context):
    framing, density, frame = scene
    wave_error = 0.05 * framing.rng.normal(size=frame.flux.shape)  # [bin], another in each line: no change corrects it
    frame = framing.observe(density + wave_error * np.gradient(density, axis=1), fibermap=frame.fibermap)

    with_it = SkySub().run(frame, make_context())
    without = SkySub({"add_variance": False}).run(frame, make_context())

    chosen = ~frame.fibermap.is_sky[:, None] & (density > 3 * LEVEL)
    before, n = chi2(without, chosen)
    after, _ = chi2(with_it, chosen)
    print(f"chi2/n in lines {before:.2f} without, {after:.3f} ± {np.sqrt(2 / n):.3f} with what was learned")
    assert before > 1.5
    assert after == pytest.approx(1.0, abs=0.2)  # the model takes a part of the sky fibers' own errors for sky


def test_a_sky_fiber_with_other_light_and_cosmic_rays_do_no_harm(scene, make_context):
    framing, _, frame = scene
    flux = frame.flux.copy()
    flux[4] += 60
    flux[7, 300:303] += [2000, 20000, 1500]
    flux[10, 400] -= 3000
    for stage in (SkySub_QL, SkySub):
        out = stage().run(replace(frame, flux=flux), make_context())

        assert (out.meta["NSKY"], out.meta["NSKYREJ"]) == (19, 1)
        assert (out.mask[7, 300:303] & SpecMask.COSMIC != 0).all()
        assert (out.ivar[7, 300:303] == 0).all()
        others = np.ones((framing.nspec, 1), bool)
        others[[4, 7, 10]] = False
        assert chi2(out, others)[0] == pytest.approx(1.0, abs=0.03)
        assert out.flux[4][out.ivar[4] > 0].mean() == pytest.approx(60, abs=3)  # its own light stays


def test_an_earlier_model_is_taken_and_its_variance_added(scene, make_context):
    _, _, frame = scene
    flat = np.full(frame.flux.shape, 7.0)
    model = SkyModel(frame.wave, flat, np.full(flat.shape, 0.5), np.zeros(flat.shape, np.uint32))
    context = make_context()
    context.earlier["ComputeSky"] = model

    out = SkySub().run(frame, context)

    np.testing.assert_allclose(out.flux, frame.flux - 7.0)
    np.testing.assert_allclose(1 / out.ivar, 1 / frame.ivar + 2.0)
    assert isinstance(out, Frame)
    assert out.sky is not None
    np.testing.assert_array_equal(out.sky.flux, flat)
    context.earlier["ComputeSky"] = SkyModel(frame.wave, flat[1:], flat[1:], np.zeros((59, 600), np.uint32))
    with pytest.raises(ValueError, match=r"59 fibers and 600 bins .* the frame 60 and 600"):
        SkySub().run(frame, context)


def test_the_frame_keeps_what_was_subtracted(scene, make_context):
    _, _, frame = scene

    out = SkySub().run(frame, make_context())

    np.testing.assert_allclose(out.flux + out.sky.flux, frame.flux, rtol=1e-12)
    np.testing.assert_allclose(out.per_bin().sky, out.sky.flux * 0.8, rtol=1e-6)


def test_bins_that_no_sky_fiber_reaches_are_masked_not_zeroed(scene, make_context):
    _, _, frame = scene
    ivar = frame.ivar.copy()
    ivar[frame.fibermap.is_sky, -60:] = 0
    ivar[frame.fibermap.is_sky, 200:240] = 0

    out = SkySub().run(replace(frame, ivar=ivar), make_context())

    bad = out.mask & SpecMask.BADSKY != 0
    assert bad[0, -55:].all()
    assert bad[0, 205:235].all()
    assert not bad[:, :195].any()
    assert (out.ivar[bad] == 0).all()
    np.testing.assert_array_equal(out.flux[bad], frame.flux[bad])
    assert np.isfinite(out.flux).all()
    value, n = chi2(out, ~bad)
    assert value == pytest.approx(1.0, abs=5 * np.sqrt(2 / n) + 0.02)


def test_forbidden_fibers_make_no_sky_and_are_masked(scene, make_context):
    framing, _, frame = scene
    status = np.zeros(framing.nspec, np.int32)
    status[[1, 2]] = FiberMask.BADPOSITION
    status[4] = FiberMask.VARIABLETHRU
    status[7] = FiberMask.BADAMPB  # another arm's
    rows = frame.fibermap.rows.copy()
    rows["FIBERSTATUS"] = status

    out = SkySub_QL().run(replace(frame, fibermap=replace(frame.fibermap, rows=rows)), make_context())

    assert out.meta["NSKY"] == 18
    assert (out.mask[[1, 2]] & SpecMask.BADFIBER != 0).all()
    assert (out.ivar[[1, 2]] == 0).all()
    assert (out.mask[[4, 7]] & SpecMask.BADFIBER == 0).all()


def test_without_sky_fibers_none_are_invented(scene, make_context, make_fibermap):
    framing, _, frame = scene
    targets = make_fibermap(["SKY", "SKY"] + ["ELG"] * (framing.nspec - 2))

    for stage in (ComputeSky, SkySub_QL):
        for fibermap, reason in ((targets, "2 usable sky fibers"), (None, "no fibermap")):
            with pytest.raises(MissingCalibration, match=reason):
                stage().run(replace(frame, fibermap=fibermap), make_context())


def test_the_input_is_left_unchanged(scene, make_context):
    _, _, frame = scene
    before = [a.copy() for a in (frame.flux, frame.ivar, frame.mask, frame.wave)]

    SkySub().run(frame, make_context())

    for was, now in zip(before, (frame.flux, frame.ivar, frame.mask, frame.wave), strict=True):
        np.testing.assert_array_equal(was, now)
