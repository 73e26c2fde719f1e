from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def sums(observed: Any, image: Any, half_width: int = 3) -> tuple[Any, Any, Any]:
    """Sums over 7 columns about each trace: expected electrons, pull, weight; rows with a flag are left out."""
    ny = image.ny
    x = np.rint(observed.truth.traces.x_vs_y(np.arange(ny, dtype=float))).astype(int)
    columns = x[:, :, None] + np.arange(-half_width, half_width + 1)
    rows = np.arange(ny)[None, :, None]
    bad = (image.mask != 0) | (observed.truth.cosmics > 0.05)
    good = ~bad[rows, columns].any(axis=2)
    expected = observed.truth.image[rows, columns].sum(axis=2, dtype=float)[good]
    off = (image.pix - observed.truth.image)[rows, columns].sum(axis=2, dtype=float)[good]
    variance = 1 / np.where(image.ivar > 0, image.ivar, 1e-9)
    weight = 1 / variance[rows, columns].sum(axis=2, dtype=float)[good]
    return expected, off * np.sqrt(weight), weight


@pytest.mark.parametrize(("kind", "exptime"), [("arc", 5.0), ("science-dark", 900.0)])
@pytest.mark.parametrize("model", [False, True])
def test_sums_along_the_traces_have_the_error_they_claim_beside_lines_and_on_them(
    observe: Any, kind: str, exptime: float, model: bool
) -> None:
    """On mini, which has ten times the lines in a row: there a line is rarely alone, as the interpolation wants."""
    observed = observe(kind, exptime)

    image = observed.preprocess(model_variance=model)

    expected, pull, weight = sums(observed, image)
    for low, high, tolerance in ((-1, 50, 0.04), (50, 500, 0.06), (500, np.inf, 0.06)):
        part = pull[(expected > low) & (expected <= high)]
        if part.size > 500:
            print(
                f"{kind}, model {model}, {low} to {high} e: {part.size}, mean {part.mean():+.3f}, rms {part.std():.3f}"
            )
            assert part.std() == pytest.approx(1, abs=5 / np.sqrt(2 * part.size) + tolerance)
    mean = np.sum(pull * np.sqrt(weight)) / weight.sum()  # of pull / sqrt(weight), the error in electrons
    print(f"{kind}, model {model}: rms {pull.std():.3f}, weighted mean off by {mean:+.3f} e")
    assert pull.std() == pytest.approx(1, abs=0.03)
    assert abs(mean) < 5 / np.sqrt(weight.sum()) + 0.15


def test_the_weight_of_a_pixel_does_not_know_its_noise_nor_that_of_its_row(observe: Any) -> None:
    observed = observe("science-dark", 900.0)
    light = np.full(observed.truth.image.shape, 20.0)
    flat = observed.with_light(light)

    image = flat.preprocess(cosmics=False)

    good = (image.mask == 0) & (np.abs(observed.model.detector.pixflat - 1) < 0.02)
    noise, weight = (image.pix - 20.0)[good], image.ivar[good]
    correlation = np.corrcoef(noise, weight)[0, 1]
    rows = np.where(good, image.pix - 20.0, 0).sum(axis=1), np.where(good, image.ivar, 0).sum(axis=1)
    print(f"correlation of noise and weight: {correlation:+.4f} of pixels, {np.corrcoef(*rows)[0, 1]:+.3f} of rows")
    assert abs(correlation) < 5 / np.sqrt(good.sum()) + 0.01  # outliers of 4 sigma are given their own variance
    assert abs(np.corrcoef(*rows)[0, 1]) < 5 / np.sqrt(len(light))
    assert abs(np.sum(noise * weight) / weight.sum()) < 0.1  # the pixel's own value as its variance: 1 e low


def test_the_model_needs_traces_and_light_and_says_so(observe: Any) -> None:
    without = observe("arc", 5.0, without=("PSF",)).preprocess(model_variance=True)
    dark = observe("dark", 300.0).preprocess(model_variance=True)

    assert without.meta["PPMODVAR"].startswith("left out: no PSF for r0")
    assert dark.meta["PPMODVAR"] == "left out: a dark exposure has no spectra"
    assert np.isfinite(without.ivar).all()
