"""TSNR2 of frames whose light, throughput and noise are known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import erf

from algorithms.coadd.tables import as_table
from algorithms.fluxcal.fiberloss import point_fraction, source_fraction
from algorithms.tsnr2.frame import efftime_columns, frame_tsnr2, nominal_cards, tsnr2_columns
from algorithms.tsnr2.nominal import NOMINAL_SEEING, NOMINAL_TIME, boxcar_variance, dark_sky, fitted_variance
from algorithms.tsnr2.tracers import TRACERS, template_of
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.fluxcalib import FluxCalib, FrameFluxCalib
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.sky import SkyModel
from qlstream.instrument import Arm, load_instrument

Array = NDArray[np.float64]
INSTRUMENT = load_instrument("mini")
DIAMETER = INSTRUMENT.fiber_diameter
RESPONSE, AIR = 0.8, 0.1  # electrons per second and Angstrom for a unit flux of a point source; mag per airmass
NSPEC = 30


@dataclass
class Observed:
    frame: Frame
    calib: FrameFluxCalib
    variance: Array  # (nwave,) of a bin, without any target [electron^2]


def fluxcalib(arm: Arm) -> FluxCalib:
    wave = np.arange(arm.wave_science[0] - 200, arm.wave_science[1] + 200, 2.0)
    flat = np.ones_like(wave)
    return FluxCalib(wave, RESPONSE * flat, AIR * flat, 0.0 * flat, airmass=1.0, seeing=NOMINAL_SEEING)


def observe(
    camera: str = "r0",
    exptime: float = NOMINAL_TIME,
    bright: float = 1.0,
    seeing: float = NOMINAL_SEEING,
    target: float = 0.0,
    **columns: Array,
) -> Observed:
    """Fibers on nothing, or on targets of `target` electrons per Angstrom, under a sky that is `bright` times dark."""
    arm = INSTRUMENT.arm(camera)
    step = 0.5 * sum(arm.dispersion)
    wave = np.arange(arm.wave_science[0] - 20, arm.wave_science[1] + 20, step)
    response = RESPONSE * exptime * point_fraction(seeing, 0.0, DIAMETER)
    response /= point_fraction(NOMINAL_SEEING, 0.0, DIAMETER)
    grid = template_of("ELG", arm).wave
    area = np.pi * (DIAMETER / 2) ** 2
    glow = np.interp(wave, grid, dark_sky(arm, grid[0], grid[-1], grid.size)) * area * 10 ** (0.4 * AIR)
    sky = bright * RESPONSE * exptime * glow / point_fraction(NOMINAL_SEEING, 0.0, DIAMETER)
    variance = fitted_variance(sky * step, arm.readnoise, arm.xsigma)
    shape = (NSPEC, wave.size)
    total = variance + target * step
    noise = np.random.default_rng(4).normal(size=shape) * np.sqrt(total) / step
    ones = np.ones(shape)
    rows = np.zeros(NSPEC, [("FIBER", "i4"), ("OBJTYPE", "U3"), ("EBV", "f4"), ("DELTA_X", "f8"), ("DELTA_Y", "f8")])
    rows["FIBER"], rows["OBJTYPE"] = np.arange(NSPEC), "TGT"
    for name, values in columns.items():
        rows[name] = values
    frame = Frame(
        wave, target + noise, ones * step**2 / total, np.zeros(shape, np.uint32), rows["FIBER"].copy(),
        fibermap=Fibermap(rows), sky=SkyModel(wave, ones * sky, ones, np.zeros(shape, np.uint32)),
        meta={"CAMERA": camera},
    )  # fmt: skip
    return Observed(frame, FrameFluxCalib(wave, ones * response, ones, np.zeros(shape, np.uint32)), variance)


def expected(observed: Observed, name: str, seeing: float = NOMINAL_SEEING) -> float:
    """The sum over bins, from the truth."""
    arm = INSTRUMENT.arm(observed.frame.camera)
    template, wave = template_of(name, arm), observed.frame.wave
    share = source_fraction(seeing, 0.0, DIAMETER, template.half_light) / point_fraction(seeing, 0.0, DIAMETER)
    electrons = share * observed.calib.value[0] * np.gradient(wave)
    signal2 = electrons**2 * np.interp(wave, template.wave, template.contrast2)
    noise = observed.variance + electrons * np.interp(wave, template.wave, template.flux)
    inside = (wave > arm.wave_science[0]) & (wave < arm.wave_science[1])
    return float((signal2 / noise)[inside].sum())


@pytest.mark.parametrize("camera", ["b0", "r0", "z0"])
@pytest.mark.parametrize("seeing", [1.1, 1.6])
def test_every_tracer_has_the_information_that_light_and_noise_imply(camera: str, seeing: float) -> None:
    observed = observe(camera, bright=2.0, seeing=seeing)
    found = frame_tsnr2(observed.frame, observed.calib, INSTRUMENT, seeing)
    assert tuple(found) == TRACERS
    for name, values in found.items():
        truth = expected(observed, name, seeing)
        print(f"{camera} {name:9s} truth {truth:9.3g} found / truth {np.mean(values) / truth:.4f}")
        assert np.mean(values) == pytest.approx(truth, rel=0.002)
        assert np.std(values) < 0.03 * truth


def test_the_light_of_a_fibers_own_target_does_not_count_as_noise() -> None:
    blank, bright = observe(), observe(target=2.0)
    of_blank, of_bright = (frame_tsnr2(o.frame, o.calib, INSTRUMENT, NOMINAL_SEEING)["ELG"] for o in (blank, bright))
    assert np.mean(of_bright) == pytest.approx(np.mean(of_blank), rel=0.02)


def test_dust_masks_and_fibers_beside_their_targets_take_information_away() -> None:
    dusty = observe(EBV=np.full(NSPEC, 0.1))
    plain = observe()
    ratio = (
        frame_tsnr2(dusty.frame, dusty.calib, INSTRUMENT, 1.1)["QSO"]
        / frame_tsnr2(plain.frame, plain.calib, INSTRUMENT, 1.1)["QSO"]
    )
    assert np.median(ratio) == pytest.approx(10 ** (-0.8 * 0.1 * 2.3), rel=0.05)  # A_r = 2.3 E(B-V) at 6700 Angstrom

    half = plain.frame.wave > np.median(plain.frame.wave)
    mask = plain.frame.mask.copy()
    mask[0, half], mask[1] = SpecMask.COSMIC, SpecMask.COSMIC
    found = frame_tsnr2(replace(plain.frame, mask=mask), plain.calib, INSTRUMENT, 1.1)["GPBDARK"]
    assert 0.3 < found[0] / found[2] < 0.7
    assert found[1] == 0


def test_effective_times_of_arms_add_up_to_the_exposure_time_of_nominal_conditions() -> None:
    cards = {arm.name: nominal_cards(INSTRUMENT, arm, fluxcalib(arm)) for arm in INSTRUMENT.arms}
    columns = {}
    for arm in INSTRUMENT.arms:
        observed = observe(f"{arm.name}0")
        found = frame_tsnr2(observed.frame, observed.calib, INSTRUMENT, NOMINAL_SEEING)
        columns |= tsnr2_columns(found, arm.name.upper())
    times = efftime_columns(as_table(columns), cards)
    total = {name: sum(float(np.median(times[f"EFFTIME_{name}_{x}"])) for x in "BRZ") for name in ("ELG", "BGS")}
    print({name: round(value, 1) for name, value in total.items()})
    assert total["ELG"] == pytest.approx(NOMINAL_TIME, rel=0.03)
    assert total["BGS"] == pytest.approx(NOMINAL_TIME, rel=0.03)


def test_without_the_calibration_of_an_arm_no_effective_time_is_claimed() -> None:
    cards = nominal_cards(INSTRUMENT, INSTRUMENT.arm("r0"), fluxcalib(INSTRUMENT.arm("r0")))
    scores = as_table(tsnr2_columns({"ELG": np.ones(2)}, "R"))
    assert list(efftime_columns(scores, {"r": cards})) == ["EFFTIME_ELG_R"]
    assert efftime_columns(scores, {"r": cards, "z": {}}) == {}


def test_a_frame_without_fibermap_is_refused() -> None:
    observed = observe()
    with pytest.raises(ValueError, match="no fibermap"):
        frame_tsnr2(replace(observed.frame, fibermap=None), observed.calib, INSTRUMENT, 1.1)


def test_a_fit_has_the_variance_of_its_weighted_sum() -> None:
    """Noise of photons and readout, drawn; and the limits without the one or the other."""
    sigma, readnoise, electrons = 1.1, 3.0, 150.0
    x = np.arange(-8, 9)
    profile = 0.5 * (erf((x + 0.5) / sigma / np.sqrt(2)) - erf((x - 0.5) / sigma / np.sqrt(2)))
    rng = np.random.default_rng(2)
    pixels = rng.poisson(electrons * profile, (40_000, x.size)) + readnoise * rng.normal(size=(40_000, x.size))
    weight = profile / (electrons * profile + readnoise**2)
    found = (pixels @ weight) / (profile @ weight)

    expected = float(fitted_variance(np.array([electrons]), readnoise, sigma)[0])

    assert np.var(found) == pytest.approx(expected, rel=5 * np.sqrt(2 / 40_000))
    assert fitted_variance(np.array([electrons]), 1e-6, sigma)[0] == pytest.approx(electrons, rel=1e-3)
    narrow = np.sqrt(4 * np.pi * (sigma**2 + 1 / 12))  # pixels of a Gaussian
    assert fitted_variance(np.array([0.0]), readnoise, sigma)[0] == pytest.approx(narrow * readnoise**2, rel=0.01)
    assert boxcar_variance(np.array([10.0]), 3.0, 2.5)[0] == 55.0
