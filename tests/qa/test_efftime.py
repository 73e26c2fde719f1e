from dataclasses import dataclass, replace

import numpy as np
import pytest

from algorithms.tsnr2.nominal import NOMINAL_SEEING, NOMINAL_TIME, dark_sky
from algorithms.tsnr2.tracers import template_of
from qa.efftime import Effective_Time
from qa.fiberlight import aperture_fraction
from qlstream.calibration.served import Calibration
from qlstream.datamodel.fluxcalib import FluxCalib
from qlstream.instrument import load_instrument
from qlstream.pipeline.result import QASeverity

ARM = load_instrument("mini").arm("r3")
DIAMETER = load_instrument("mini").fiber_diameter
RESPONSE = 0.8  # electrons per second and Angstrom for 1e-17 erg/s/cm2/Angstrom of a point source at the zenith
NSTAR, NSPEC = 10, 40


@dataclass(frozen=True)
class Conditions:
    exptime: float = NOMINAL_TIME
    airmass: float = 1.0
    seeing: float = NOMINAL_SEEING
    sky: float = 1.0
    clouds: float = 1.0
    readout: float = 2 * 3.5 * ARM.readnoise**2


def fluxcalib():
    wave = np.arange(5500.0, 7900.0, 2.0)
    flat = np.ones_like(wave)
    return FluxCalib(wave, RESPONSE * flat, 0.1 * flat, 0.0 * flat, airmass=1.0, seeing=NOMINAL_SEEING)


def observe(make_qframe, make_fibermap, c, **columns):
    """Sky-subtracted counts of stars of magnitude 18 and of blank fibers, with the noise of sky and readout."""
    row = 0.5 * sum(ARM.dispersion)
    wave = np.arange(ARM.wave_science[0] - 20, ARM.wave_science[1] + 20, row)
    extinction = 10 ** (-0.4 * 0.1 * (c.airmass - 1))
    per_flux = RESPONSE * c.exptime * row * extinction * aperture_fraction(DIAMETER, c.seeing)
    per_flux = per_flux / aperture_fraction(DIAMETER, NOMINAL_SEEING)
    area = np.pi * (DIAMETER / 2) ** 2
    to_ground = 10 ** (0.4 * 0.1)  # sky light is not dimmed by the air, and all of it enters
    sky = RESPONSE * c.exptime * row * area * to_ground / aperture_fraction(DIAMETER, NOMINAL_SEEING)
    sky = c.sky * sky * np.interp(wave, *_sky_on_grid())
    star = 10 ** (0.4 * 4.5) * 1e-9 * 0.10885 / wave**2 / 1e-17 * per_flux * c.clouds
    signal = np.zeros((NSPEC, wave.size))
    signal[:NSTAR] = star
    variance = signal + sky + c.readout
    flux = signal + np.random.default_rng(3).normal(size=signal.shape) * np.sqrt(variance)
    inside = float(aperture_fraction(1.5, 1.0))
    given = {"FLUX_R": np.zeros(NSPEC), "FIBERFLUX_R": np.zeros(NSPEC), "EBV": np.zeros(NSPEC)} | columns
    given["FLUX_R"][:NSTAR], given["FIBERFLUX_R"][:NSTAR] = 10**1.8, 10**1.8 * inside
    fibermap = make_fibermap(["STAR"] * NSTAR + ["SKY"] * 5 + ["ELG"] * (NSPEC - NSTAR - 5), **given)
    sky = np.broadcast_to(sky, flux.shape).astype(np.float32)
    return make_qframe(flux, 1 / variance, wave, fibermap=fibermap, sky=sky)


def _sky_on_grid():
    wave = template_of("ELG", ARM).wave
    return wave, dark_sky(ARM, wave[0], wave[-1], wave.size)


@pytest.fixture
def measure(make_context, make_qframe, make_fibermap):
    def run(c=None, fluxcal=None, meta=None, program="dark", **columns):
        c = c or Conditions()
        qframe = observe(make_qframe, make_fibermap, c, **columns)
        if meta:
            qframe = replace(qframe, fibermap=replace(qframe.fibermap, meta=meta))
        parts = {"FLUXCALIB": fluxcal or fluxcalib()}
        header = {"EXPTIME": c.exptime, "AIRMASS": c.airmass, "SEEING": c.seeing}
        calibration = Calibration("r3", 20260114, parts)
        return Effective_Time().run(qframe, make_context(calibration=calibration, header=header, program=program))

    return run


def test_nominal_conditions_are_worth_their_exposure_time(measure):
    result = measure()

    print({k: round(v, 3) for k, v in result.metrics.items()}, result.per_class["EFFTIME_TGT"])
    assert result.metrics["TRANSPARENCY"] == pytest.approx(1, abs=0.01)
    # sums on rows of 4 Angstrom against integrals; the stars' light is known to 0.3 %
    assert result.metrics["EFFTIME"] == pytest.approx(NOMINAL_TIME, rel=0.02)
    assert result.metrics["SPEED"] == pytest.approx(1, rel=0.02)
    for name, efftime in result.per_class["EFFTIME_TGT"].items():
        assert efftime == pytest.approx(NOMINAL_TIME, rel=0.03), name


@pytest.mark.parametrize(
    ("conditions", "expected", "tolerance"),
    [
        # without readout noise the information grows with time, and falls with the sky and with the square of clouds;
        # photons of the targets themselves are a few percent of the noise of the dark sky
        (Conditions(exptime=2000, readout=0.01), 2.0, 0.02),
        (Conditions(sky=4, readout=0.01), 0.25, 0.04),
        (Conditions(clouds=0.5, readout=0.01), 0.25, 0.03),
        (Conditions(airmass=2.0, readout=0.01), 10 ** (-0.8 * 0.1), 0.02),
    ],
)
def test_effective_time_scales_with_time_sky_clouds_and_air(measure, conditions, expected, tolerance):
    reference = measure(Conditions(readout=0.01)).metrics["EFFTIME"]

    efftime = measure(conditions).metrics["EFFTIME"]

    assert efftime / reference == pytest.approx(expected, rel=tolerance)


def test_throughput_that_the_calibration_knows_and_that_it_does_not(measure):
    """Half the mirror: sky and stars halve. Known to the calibration or not, the exposure is worth about half."""
    half = replace(fluxcalib(), value=fluxcalib().value * 2)  # a calibration from before the mirror got dirty

    unknown = measure(fluxcal=half)

    assert unknown.metrics["TRANSPARENCY"] == pytest.approx(0.5, abs=0.01)
    # (S/N)^2 of nominal conditions with twice the throughput: a bit more than twice, since the readout noise stays
    assert 400 < unknown.metrics["EFFTIME"] < 510


def test_seeing_costs_point_sources_more_than_galaxies(measure):
    result = measure(Conditions(seeing=1.8))

    efftime = result.per_class["EFFTIME_TGT"]
    expected = (aperture_fraction(DIAMETER, 1.8) / aperture_fraction(DIAMETER, NOMINAL_SEEING)) ** 2
    assert result.metrics["TRANSPARENCY"] < 1.0  # this calibration has no seeing term, so it counts as clouds
    assert efftime["QSO"] == pytest.approx(NOMINAL_TIME * expected, rel=0.08)  # the quasar's own photons are fewer
    assert efftime["QSO"] < efftime["ELG"] < efftime["BGS"]


def test_dust_and_goal_time_are_told(measure):
    meta = {"GOALTIME": 500.0}

    dusty = measure(meta=meta, EBV=np.full(NSPEC, 0.1))
    clear = measure(meta=meta)

    assert clear.metrics["EFFTIME_FRACTION"] == pytest.approx(2, rel=0.02)
    assert dusty.metrics["EFFTIME"] / clear.metrics["EFFTIME"] == pytest.approx(10 ** (-0.8 * 0.2165), rel=0.02)
    assert clear.severity == QASeverity.NORMAL


def test_clouds_alarm(measure):
    result = measure(Conditions(clouds=0.15))

    alarms = {c.metric for c in result.checks if c.severity == QASeverity.ALARM}
    assert {"TRANSPARENCY", "SPEED"} <= alarms


def test_without_a_flux_calibration_nothing_is_claimed(make_context, make_qframe, make_fibermap):
    result = Effective_Time().run(observe(make_qframe, make_fibermap, Conditions()), make_context())

    assert result.metrics == {}
    assert result.checks == ()
    assert "without a flux calibration" in result.summary


def test_templates_have_their_contrast_where_their_lines_are():
    desi = load_instrument("desi").arm("z0")
    template = template_of("ELG", desi)

    contrast = np.sqrt(template.contrast2) / template.flux
    inside = (template.wave > 7600) & (template.wave < 9700)  # [O II] at z = 1.04 to 1.6
    assert 0.1 < np.median(contrast[inside]) < 2
    assert np.all(template.contrast2[inside] > 0)
