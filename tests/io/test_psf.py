"""Traces and PSFs, from every form of file that is around, and from a measured one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from qlstream.io.errors import BadFile
from qlstream.io.fitsfile import HDU, write_fits
from qlstream.io.psf import read_psf, write_psf
from qlstream.io.xytraceset import read_xytraceset, write_xytraceset
from qlstream.numeric import legendre

SHARED = Path(os.environ.get("QLSTREAM_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
REAL = SHARED / "psf-r0-00051060.fits"
needs_real = pytest.mark.skipif(not REAL.exists(), reason="the folder of real inputs is absent")

DOMAIN = {"WAVEMIN": 5543.0, "WAVEMAX": 7826.0}
RNG = np.random.default_rng(4)
X, Y = (c * np.array([1000.0, 300, 3, 1, 0.1]) for c in RNG.uniform(0.5, 1.5, (2, 3, 5)))
WAVE = np.linspace(5600, 7800, 9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "psf.fits"


@needs_real
@pytest.mark.shared_data
def test_a_measured_psf_reads_as_its_documentation_says():
    psf = read_psf(REAL)

    assert psf.traces.xcoef.shape == psf.traces.ycoef.shape == (500, 7)
    assert (psf.traces.wavemin, psf.traces.wavemax, psf.traces.npix_y) == (5543.0, 7826.0, 4128)
    assert (psf.wavemin, psf.wavemax) == (5543.0, 7827.0)
    assert (psf.ghdegx, psf.ghdegy, psf.hsizex, psf.hsizey) == (6, 6, 8, 5)
    assert len(psf.coef) == 59
    assert psf.meta["CAMERA"] == "r0"
    y = psf.traces.y_vs_wave([5760.0, 6690.0, 7620.0])
    np.testing.assert_allclose(y[0], [374, 2072, 3892], atol=1)
    np.testing.assert_allclose(y[250], [268, 1954, 3757], atol=1)
    x = psf.traces.x_vs_wave([6690.0])[:, 0]
    np.testing.assert_allclose(x[[0, 24, 25, 250, 499]], [120, 295, 315, 2041, 3944], atol=1)
    sigma = psf.traces.xsig_vs_wave([6690.0]).mean(), psf.traces.ysig_vs_wave([6690.0]).mean()
    np.testing.assert_allclose(sigma, [1.04, 1.11], atol=0.1)


@needs_real
@pytest.mark.shared_data
def test_a_measured_psf_comes_back_as_it_was_written(path):
    psf = read_psf(REAL)

    write_psf(path, psf)

    back = read_psf(path)
    assert list(back.coef) == list(psf.coef)
    for name in psf.coef:
        np.testing.assert_array_equal(back.coef[name], psf.coef[name])
    np.testing.assert_array_equal(back.traces.xcoef, psf.traces.xcoef)
    np.testing.assert_array_equal(back.traces.ysigcoef, psf.traces.ysigcoef)
    for key, value in psf.meta.items():
        assert back.meta[key] == (pytest.approx(value, rel=1e-14) if isinstance(value, float) else value), key


@needs_real
@pytest.mark.shared_data
def test_traces_in_single_precision_stay_within_a_thousandth_of_a_pixel(path):
    traces = read_xytraceset(REAL)

    write_xytraceset(path, traces)

    back = read_xytraceset(path)
    assert np.abs(back.x_vs_wave(WAVE) - traces.x_vs_wave(WAVE)).max() < 1e-3
    assert np.abs(back.y_vs_wave(WAVE) - traces.y_vs_wave(WAVE)).max() < 1e-3
    assert np.abs(back.ysig_vs_wave(WAVE) - traces.ysig_vs_wave(WAVE)).max() < 1e-6


@pytest.mark.parametrize(("xname", "yname"), [("XTRACE", "YTRACE"), ("XCOEF", "YCOEF"), ("XCOEFF", "YCOEFF")])
def test_traces_under_any_of_their_names(path, xname, yname):
    write_fits(path, [HDU(xname, X, {**DOMAIN, "NPIX_Y": 4128}), HDU(yname, Y, DOMAIN)])
    traces = read_xytraceset(path)
    np.testing.assert_array_equal(traces.ycoef, Y)
    assert traces.npix_y == 4128
    assert traces.xsigcoef is None


def test_bootcalib_files_have_their_traces_in_the_first_two_hdus(path):
    write_fits(path, [HDU("A", X, {**DOMAIN, "NPIX_Y": 9, "PSFTYPE": "bootcalib"}), HDU("B", Y, DOMAIN)])
    np.testing.assert_array_equal(read_xytraceset(path).ycoef, Y)


def test_widths_of_a_table_are_resampled_to_the_domain_of_the_traces(path):
    coef = RNG.normal(size=(3, 4))
    rows = np.zeros(2, dtype=[("PARAM", "S8"), ("COEFF", "f8", (3, 4))])
    rows["PARAM"], rows["COEFF"][0] = ["GHSIGX", "GHSIGY"], coef
    table = HDU("PSF", rows, {"WAVEMIN": 5540.0, "WAVEMAX": 7830.0, "NPIX_Y": 4128})
    write_fits(path, [HDU("XTRACE", X, {**DOMAIN, "PSFTYPE": "GAUSS-HERMITE"}), HDU("YTRACE", Y, DOMAIN), table])

    traces = read_xytraceset(path)

    expected = legendre.evaluate(coef, legendre.reduced(WAVE, 5540, 7830))
    np.testing.assert_allclose(traces.xsig_vs_wave(WAVE), expected, atol=1e-12)


def test_the_oldest_tables_hold_the_traces_too_each_row_with_its_domain(path):
    columns = [("PARAM", "S8"), ("WAVEMIN", "f8"), ("WAVEMAX", "f8"), ("COEFF", "f8", (3, 5))]
    rows = np.zeros(4, dtype=columns)
    rows["PARAM"] = ["X", "Y", "GHSIGX", "GHSIGY"]
    rows["WAVEMIN"], rows["WAVEMAX"] = 5543.0, [7826.0, 7827.0, 7827.0, 7827.0]
    rows["COEFF"] = X, Y, X, Y
    write_fits(path, [HDU("PSF", rows, {"NPIX_Y": 4128})])

    psf = read_psf(path)

    expected = legendre.evaluate(Y, legendre.reduced(WAVE, 5543, 7827))
    np.testing.assert_allclose(psf.traces.y_vs_wave(WAVE), expected, rtol=1e-12)


def test_widths_in_angstrom_become_widths_in_rows(path):
    wsigma = np.array([[0.6, 0.05, 0.01]] * 3)
    hdus = [HDU("XTRACE", X, {**DOMAIN, "NPIX_Y": 4128}), HDU("YTRACE", Y, DOMAIN), HDU("WSIGMA", wsigma, DOMAIN)]
    write_fits(path, hdus)

    traces = read_xytraceset(path)

    expected = legendre.evaluate(wsigma, legendre.reduced(WAVE, *DOMAIN.values())) * traces.dy_dwave(WAVE)
    np.testing.assert_allclose(traces.ysig_vs_wave(WAVE), expected, rtol=1e-10)


def test_a_polynomial_is_the_same_over_another_domain():
    moved = legendre.on_domain(X, (5543.0, 7826.0), (5600.0, 7700.0))
    before = legendre.evaluate(X, legendre.reduced(WAVE, 5543, 7826))
    np.testing.assert_allclose(legendre.evaluate(moved, legendre.reduced(WAVE, 5600, 7700)), before, rtol=1e-12)


BROKEN = {
    "no npix": ([HDU("XTRACE", X, DOMAIN), HDU("YTRACE", Y, DOMAIN)], "NPIX_Y"),
    "domains": (
        [HDU("XTRACE", X, DOMAIN | {"NPIX_Y": 1}), HDU("YTRACE", Y, DOMAIN | {"WAVEMAX": 7826.1})],
        r"YTRACE: domains differ \(WAVEMAX = 7826.1\)",
    ),
    "no y": ([HDU("XTRACE", X, DOMAIN | {"NPIX_Y": 1})], "YTRACE or YCOEF or YCOEFF"),
    "no wavemin": ([HDU("XTRACE", X), HDU("YTRACE", Y)], "missing keyword WAVEMIN"),
    "nan": ([HDU("XTRACE", X * np.nan, DOMAIN), HDU("YTRACE", Y, DOMAIN)], "XTRACE: coefficients"),
    "numbers": ([HDU("XTRACE", X, DOMAIN), HDU("YTRACE", Y[:2], DOMAIN)], "3 traces in x, 2 in y"),
}


@pytest.mark.parametrize(("hdus", "match"), BROKEN.values(), ids=BROKEN)
def test_broken_trace_files_say_what_is_wrong(path, hdus, match):
    write_fits(path, hdus)
    with pytest.raises(BadFile, match=match):
        read_xytraceset(path)


def test_a_trace_set_is_no_psf(path):
    write_fits(path, [HDU("XTRACE", X, {**DOMAIN, "NPIX_Y": 1}), HDU("YTRACE", Y, DOMAIN)])
    with pytest.raises(BadFile, match="HDU PSF: missing HDU"):
        read_psf(path)
