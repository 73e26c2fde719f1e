"""Skies that differ over the focal plane."""

from __future__ import annotations

import numpy as np
import pytest

from algorithms.sky.robust import TooFewSkyFibers
from algorithms.sky.stage import ComputeSky, SkySub
from algorithms.sky.variation import monomials
from qlstream.calibration.served import MissingCalibration

LEVEL = 400.0


@pytest.fixture
def scene(framing, make_fibermap):
    """Every second fiber sees sky; the frame of a sky density, and where the fibers are in units of the largest x."""
    rng = np.random.default_rng(12)
    place = rng.uniform(-200, 200, (framing.nspec, 2)) + np.array([150, 80])
    classes = ["SKY" if f % 2 else "ELG" for f in range(framing.nspec)]
    fibermap = make_fibermap(
        classes, TARGETID=1000 + np.arange(framing.nspec), FIBER_X=place[:, 0], FIBER_Y=place[:, 1]
    )
    wave = framing.wave
    model = LEVEL + 50 * np.sin(wave / 50)
    lines = np.zeros(wave.size)
    lines[rng.choice(np.arange(20, wave.size - 20), 25, replace=False)] = 10 ** rng.uniform(2.5, 4, 25)
    return framing, fibermap, (place - [150, 80]) / 200, model, lines


def seen(framing, factor, model, moon=None):
    """(nspec, nwave) of a sky times a factor per fiber and wavelength, and a part of its own."""
    return np.array([r.dot(f * model + m) for r, f, m in zip(
        framing.resolutions, factor, np.zeros(factor.shape) if moon is None else moon, strict=True)])  # fmt: skip


def chi2(out, chosen):
    part = (out.ivar > 0) & chosen
    return float(np.mean(out.flux[part] ** 2 * out.ivar[part])), int(part.sum())


CHOICES = {
    "uniform": {},
    "polynomial": {"angular_degree": 1, "chromatic_degree": 1},
    "components": {"angular_degree": 1, "chromatic_degree": -1},
}


@pytest.mark.parametrize("kind", ["polynomial", "components"])
def test_a_gradient_leaves_noise_of_the_stated_size_in_blank_fibers(kind, scene, make_context):
    framing, fibermap, place, model, lines = scene
    u = np.linspace(-1, 1, framing.nwave)
    factor = 1 + 0.05 * place[:, :1] * (1 + 0.4 * u) - 0.03 * place[:, 1:]
    frame = framing.observe(seen(framing, factor, model + lines), fibermap=fibermap)

    even = SkySub({"fiber_tolerance": 0.2}).run(frame, make_context())
    out = SkySub({**CHOICES[kind], "fiber_tolerance": 0.2}).run(frame, make_context())

    blank = ~fibermap.is_sky[:, None]
    bright = frame.flux > 3 * LEVEL
    before, _ = chi2(even, blank & ~bright)
    for name, part in (("continuum", ~bright), ("lines", bright)):
        value, n = chi2(out, blank & part)
        z = (out.flux * np.sqrt(out.ivar))[blank & part & (out.ivar > 0)]
        print(f"{kind}, {name}: chi2/n {value:.3f} ± {np.sqrt(2 / n):.3f} (uniform {before:.2f}), mean {z.mean():+.4f}")
        # errors of the model are common to all fibers, a thirtieth of each one's variance for every term
        assert value == pytest.approx(1.0, abs=5 * np.sqrt(2 / n) + 0.05)
        assert abs(z.mean()) < 5 / np.sqrt(n) + 0.03
    assert before > 1.2  # although its errors grow by what it takes for errors of the lines


def test_light_with_a_spectrum_of_its_own_needs_a_spectrum_of_its_own(scene, make_context):
    framing, fibermap, place, model, lines = scene
    moon = np.outer(60 * place[:, 0], 1 + np.sin(framing.wave / 9))
    frame = framing.observe(seen(framing, np.ones(moon.shape), model + lines, moon), fibermap=fibermap)

    found = {
        kind: chi2(SkySub({**given, "fiber_tolerance": 0.2}).run(frame, make_context()), ~fibermap.is_sky[:, None])
        for kind, given in CHOICES.items()
    }

    print({kind: round(value, 3) for kind, (value, _) in found.items()})
    assert found["uniform"][0] > found["polynomial"][0] > 1.1
    assert found["components"][0] == pytest.approx(1.0, abs=5 * np.sqrt(2 / found["components"][1]) + 0.05)


@pytest.mark.parametrize("kind", ["polynomial", "components"])
def test_where_the_sky_is_even_nothing_is_lost_but_a_little_noise(kind, scene, make_context):
    framing, fibermap, _, model, lines = scene
    density = seen(framing, np.ones((framing.nspec, framing.nwave)), model + lines)
    frame = framing.observe(density, fibermap=fibermap)

    sky = ComputeSky(CHOICES[kind]).run(frame, make_context())

    z = (sky.flux - density) * np.sqrt(sky.stat_ivar)
    print(f"{kind}: pull of the model: mean {z.mean():+.3f} rms {z.std():.3f}")
    assert z.std() == pytest.approx(1.0, abs=0.15)
    assert abs(z.mean()) < 0.25


def test_fibers_of_unknown_place_get_the_mean_sky_and_too_few_make_none(scene, make_context):
    framing, fibermap, place, model, lines = scene
    known = monomials(np.where(np.arange(60)[:, None] < 3, np.nan, place), 2, np.arange(1, 60, 2))
    np.testing.assert_array_equal(known[:3], [[1, 0, 0, 0, 0, 0]] * 3)
    assert np.abs(known[3:][np.arange(3, 60) % 2 == 1]).max() <= 1 + 1e-9
    with pytest.raises(TooFewSkyFibers, match="place in the focal plane"):
        monomials(np.full((5, 2), np.nan), 1, np.arange(5))

    frame = framing.observe(seen(framing, np.ones((60, framing.nwave)), model + lines), fibermap=fibermap)
    few = fibermap.flagged(np.where(np.arange(60) > 14, 1 << 16, 0))
    with pytest.raises(MissingCalibration, match="lower angular_degree"):
        ComputeSky({"angular_degree": 3}).run(frame.__class__(**{**frame.__dict__, "fibermap": few}), make_context())
