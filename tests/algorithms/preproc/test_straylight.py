"""Light that is not where the spectra are: smooth backgrounds, halos, and what lies between the blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from algorithms.preproc.gaps import GapRules, find_gaps, measure_gaps, wing_light


def background(shape: tuple[int, int]) -> Any:
    """Smooth light of 4 to 12 electrons that grows to the right and upwards."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    return 4.0 + 6.0 * x / shape[1] + 2.0 * (y / shape[0]) ** 2


def between(observed: Any, rules: GapRules | None = None) -> Any:
    """Pixels in the middle of the gaps."""
    gaps = find_gaps(observed.context.calibration.traces, 10, observed.truth.image.shape[0], rules or GapRules())
    inside = np.zeros(observed.truth.image.shape, bool)
    for x in gaps.x:
        for d in (-2, -1, 0, 1, 2):
            inside[np.arange(len(x)), np.clip(np.rint(x).astype(int) + d, 0, inside.shape[1] - 1)] = True
    return inside


def test_light_between_the_blocks_is_measured_and_taken_away(observe: Any) -> None:
    observed = observe("science-dark", 900.0)
    truth = observed.truth.image
    stray = background(truth.shape)
    lit = observed.with_light(truth + stray)

    image, bare = lit.preprocess(bkgsub_science=True, gap_window=120), lit.preprocess(gap_window=120)

    good = (image.mask == 0) & (np.abs(observed.model.detector.pixflat - 1) < 0.02)
    error = np.where(good, image.pix - truth, 0)
    for amp in image.readouts:
        window = amp.amp.ccdsec.slices
        left, before = error[window].mean(), (bare.pix - truth)[window][good[window]].mean()
        low, high = image.meta[f"BBKGMIN{amp.name}"], image.meta[f"BBKGMAX{amp.name}"]
        seen = stray[window]
        print(f"{amp.name}: {before:.2f} e before, {left:+.3f} e after; measured {low:.2f} to {high:.2f}")
        # a node is the median of 120 rows of 5 pixels of 4 e, so good to 0.2 e; there are 3 gaps x 4 nodes
        assert abs(left) < 0.3
        assert before > 5
        assert seen.min() - 0.5 < low < high < seen.max() + 0.5
        assert bare.meta[f"BBKGMIN{amp.name}"] == low
    assert image.meta["PPBKGSCI"] == bare.meta["PPBKGMEA"] == "done"
    # the gaps look dark as the truth does, and the spectra lose no light
    assert abs((image.pix - truth)[between(observed) & good].mean()) < 0.15
    smooth = gaussian_filter(error, 25)
    assert np.abs(smooth[30:-30, 30:-30]).max() < 1.0


def test_without_stray_light_none_is_found_and_no_spectrum_suffers(observe: Any) -> None:
    observed = observe("flat", 120.0)

    image = observed.preprocess(bkgsub_science=True)

    levels = [image.meta[f"BBKG{end}{amp}"] for amp in "ABCD" for end in ("MIN", "MAX")]
    print(f"levels {min(levels):.2f} to {max(levels):.2f} e beside spectra of up to {observed.truth.image.max():.0f} e")
    assert max(np.abs(levels)) < 1.0


def test_each_amplifier_has_its_own_level_in_the_gap_that_two_share(observe: Any) -> None:
    observed = observe("science-dark", 900.0)
    shape = observed.truth.image.shape
    step = np.zeros(shape)
    step[:, shape[1] // 2 :] = 20.0
    lit = observed.with_light(step)

    image = lit.preprocess(bkgsub_science=True, cosmics=False)

    assert image.meta["BBKGMAXA"] < 1 < 19 < image.meta["BBKGMINB"]


def test_a_gap_beside_a_very_bright_fiber_does_not_count(observe: Any) -> None:
    observed = observe("science-dark", 900.0)
    traces, shape = observed.context.calibration.traces, observed.truth.image.shape
    x = traces.x_vs_y(np.arange(shape[0], dtype=float))[9]  # last fiber of the first block
    distance = np.arange(shape[1]) - x[:, None]
    light = np.full(shape, 3.0) + 3000.0 / (1 + distance**2)  # with Lorentzian wings: 40 e in the gap
    lit = observed.with_light(light)

    image = lit.preprocess(cosmics=False, cosmics_nsig=20)

    gaps = find_gaps(traces, 10, shape[0], GapRules())
    wings = wing_light(image.pix, image.mask, gaps.x)
    print(f"light from wings: {np.round(wings, 1)} e; measured up to {image.meta['BBKGMAXA']:.1f} e")
    assert np.argmax(wings) == 1
    assert image.meta["BBKGMAXA"] < 12
    every = measure_gaps(image.pix, image.mask, [r.amp for r in image.readouts], gaps, GapRules(contamination=1e6))
    assert every[0].extremes[1] > 25


def test_rows_of_a_bright_line_do_not_count(observe: Any) -> None:
    observed = observe("science-dark", 900.0)
    traces = observed.context.calibration.traces
    middle = 0.5 * (traces.wavemin + traces.wavemax)

    gaps = find_gaps(traces, 10, 500, GapRules(lines=(middle,)))

    for k, fiber in ((0, 0), (4, 39)):
        row = traces.y_vs_wave([middle])[fiber, 0]
        np.testing.assert_allclose(np.flatnonzero(~gaps.is_used[k]).mean(), row, atol=0.6)
        assert (~gaps.is_used[k]).sum() in (10, 11)


def test_the_middles_of_the_gaps_are_as_far_from_both_blocks(observe: Any) -> None:
    traces = observe("science-dark", 900.0).context.calibration.traces
    rows = np.arange(500, dtype=float)

    gaps = find_gaps(traces, 10, 500, GapRules(margin=8.0))

    x = traces.x_vs_y(rows)
    np.testing.assert_allclose(gaps.x[0], x[0] - 8.0, atol=1e-3)
    np.testing.assert_allclose(gaps.x[2] - x[19], x[20] - gaps.x[2], atol=1e-3)
    np.testing.assert_allclose(gaps.x[4], x[39] + 8.0, atol=1e-3)
    with pytest.raises(ValueError, match="40 traces are no whole number of blocks of 25 fibers"):
        find_gaps(traces, 25, 500, GapRules())


def test_a_smooth_background_of_a_dark_is_taken_away_amplifier_by_amplifier(observe: Any) -> None:
    observed = observe("dark", 300.0)
    shape = observed.truth.image.shape
    glow = background(shape)
    glow[: shape[0] // 2, : shape[1] // 2] += 30.0  # a step between amplifiers, as wrong levels make it
    lit = observed.with_light(glow)

    image = lit.preprocess(bkgsub_dark=True, bkg_patch=60.0)

    good = image.mask == 0
    smooth = gaussian_filter(np.where(good, image.pix, 0), 15)
    print(f"left: mean {image.pix[good].mean():+.3f} e, smooth part up to {np.abs(smooth).max():.2f} e")
    assert abs(image.pix[good].mean()) < 0.05 + 5 * 4.5 / np.sqrt(good.sum())
    assert np.abs(smooth).max() < 1.0  # a patch is good to 0.1 e; nine more sigma for edges, where a spline swings
    assert image.meta["PPBKGDRK"] == "done"
    assert (image.pix * np.sqrt(image.ivar))[good].std() == pytest.approx(1, abs=0.02)


def halo_of(radius: Any, halo: Any, size: int = 301) -> Any:
    y, x = np.mgrid[0:size, 0:size] - size // 2
    kernel = np.interp(np.hypot(x, y), radius, halo, right=0)
    return kernel / kernel.sum()


def test_scattered_light_is_modelled_from_the_spectra_and_taken_away(observe: Any) -> None:
    observed = observe("flat", 120.0)
    truth = observed.truth.image
    radius, halo = (0.0, 20.0, 60.0, 120.0), (1.0, 0.6, 0.2, 0.0)
    scattered = 0.03 * fftconvolve(truth, halo_of(radius, halo), mode="same")
    lit = observed.with_light(truth + scattered)

    image, bare = (lit.preprocess(remove_scattered_light=use, halo_radius=radius, halo=halo) for use in (True, False))

    good = (image.mask == 0) & between(observed)
    edge = 20  # where the spectra end, and with them what a gap can tell
    before, after = ((i.pix - truth)[edge:-edge][good[edge:-edge]] for i in (bare, image))
    print(f"gaps: {before.mean():.2f} +- {before.std():.2f} e before, {after.mean():+.2f} +- {after.std():.2f} e after")
    print(f"share {image.meta['SCATFRAC']:.4f}, scattered {scattered.min():.0f} to {scattered.max():.0f} e")
    assert abs(after.mean()) < 0.02 * before.mean() + 0.1
    smooth = gaussian_filter(np.where(image.mask == 0, image.pix - truth, 0), 12)
    assert np.abs(smooth[edge:-edge, edge:-edge]).max() < 0.15 * scattered.max()  # under the spectra too
    assert image.meta["SCATFRAC"] == pytest.approx(0.03, rel=0.1)


@pytest.mark.parametrize(
    ("params", "card"),
    [
        ({"bkgsub_science": True}, "PPBKGSCI"),
        ({}, "PPBKGMEA"),
        ({"remove_scattered_light": True}, "PPSCATT"),
    ],
)
def test_what_needs_traces_is_left_out_without_them_and_says_so(observe: Any, params: Any, card: str) -> None:
    image = observe("science-dark", 900.0, without=("PSF",)).preprocess(**params)

    assert image.meta[card].startswith("left out: no PSF for r0 on 20260115")
    assert "BBKGMINA" not in image.meta


def test_what_makes_no_sense_for_a_flavor_is_left_out(observe: Any) -> None:
    dark = observe("dark", 300.0).preprocess(bkgsub_science=True)
    science = observe("science-dark", 900.0).preprocess(bkgsub_dark=True)

    assert dark.meta["PPBKGSCI"] == "left out: a dark exposure has no spectra"
    assert science.meta["PPBKGDRK"].startswith(
        "left out: a smooth background cannot be told from the light of a science"
    )


def test_traces_of_another_instrument_are_refused(observe: Any) -> None:
    observed = observe("science-dark", 900.0)
    few = observed.context.calibration.psf.traces.select(slice(0, 25))
    parts = {"TRACES": few, "PSF": observed.context.calibration.psf}
    calibration = type(observed.context.calibration)("r0", 20260115, parts, observed.context.calibration.cards)
    image = replace(observed, context=replace(observed.context, calibration=calibration)).preprocess()

    assert image.meta["PPBKGMEA"].startswith("left out: 25 traces for 40 fibers of mini")
