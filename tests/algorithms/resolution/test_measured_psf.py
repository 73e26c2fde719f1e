"""Widths through the line spread of a measured PSF, whose wings are far from Gaussian."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from algorithms.resolution.lines import wing_shape
from algorithms.resolution.stage import ResolutionFit
from qlstream.calibration.served import Calibration
from qlstream.datamodel.image import Image
from qlstream.datamodel.qframe import QFrame
from qlstream.instrument import load_instrument
from qlstream.io.psf import read_psf
from qlstream.lines import arc_lines

NY, READVAR = 4128, 63.0


@pytest.fixture(scope="module")
def psf():
    """Every twelfth spectrum of a measured PSF of a DESI r camera."""
    folder = Path(os.environ.get("QLSTREAM_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
    path = folder / "psf-r0-00051060.fits"
    if not path.exists():
        pytest.skip(f"no measured PSF in {folder}")
    whole = read_psf(path)
    some = slice(None, None, 12)
    return replace(whole, traces=whole.traces.select(some), coef={k: c[some] for k, c in whole.coef.items()})


def shine(psf, wider):
    """Arc lines through this line spread, integrated over each row by fine steps."""
    lines = arc_lines()
    lines = lines[(lines["wave"] > psf.traces.wavemin + 5) & (lines["wave"] < psf.traces.wavemax - 5)]
    y, sigma = psf.traces.y_vs_wave(lines["wave"]), wider * psf.parameter("GHSIGY", lines["wave"])
    shape = wing_shape(psf, lines["wave"])
    fine = (np.arange(21 * 20) + 0.5) / 20 - 10.5
    flux = np.full((psf.nspec, NY), 5.0)
    for f in range(psf.nspec):
        for k, strength in enumerate(lines["strength"]):
            row = round(y[f, k])
            if 10 < row < NY - 11:
                t = (row + fine - y[f, k]) / sigma[f, k]
                density = np.polynomial.hermite_e.hermeval(t, shape[f, k]) * np.exp(-0.5 * t**2)
                profile = density.reshape(21, 20).sum(axis=1) / (20 * sigma[f, k] * np.sqrt(2 * np.pi))
                flux[f, row - 10 : row + 11] += 30.0 * strength * profile
    return flux


@pytest.mark.shared_data
def test_the_core_width_comes_out_though_the_wings_are_far_from_gaussian(psf, make_context):
    clean = shine(psf, 1.1)
    variance = np.maximum(clean, 0.0) + READVAR
    noisy = clean + np.random.default_rng(1).normal(size=clean.shape) * np.sqrt(variance)
    empty = np.zeros((NY, 8), np.float32)
    qframe = QFrame(
        psf.traces.wave_vs_y(np.arange(float(NY))),
        noisy.astype(np.float32),
        (1 / variance).astype(np.float32),
        np.zeros(clean.shape, np.uint32),
        fibers=np.arange(psf.nspec, dtype=np.int32),
        meta={"CAMERA": "r0"},
    )
    error = {}
    for name, parts in (("with", {"PSF": psf}), ("without", {"TRACES": psf.traces})):
        context = make_context(
            camera="r0",
            flavor="arc",
            instrument=load_instrument("desi"),
            calibration=Calibration("r0", 20260114, parts),
        )
        context.earlier["Flexure"] = Image(
            empty, empty, np.zeros(empty.shape, np.uint16), "r0", traces=psf.traces, meta={"CAMERA": "r0"}
        )

        widths = ResolutionFit().run(qframe, context)

        wave = np.linspace(5760.0, 7620.0, 40)
        error[name] = widths.traces.ysig_vs_wave(wave) / (1.1 * psf.parameter("GHSIGY", wave)) - 1
        print(f"{name} the PSF: bias {error[name].mean():+.4f}, rms {error[name].std():.4f}")

    # 20 lines of 1 to 2 % in each fiber
    assert abs(error["with"].mean()) < 0.002
    assert error["with"].std() < 0.01
    assert abs(error["without"].mean()) > 0.01  # plain Gaussians
