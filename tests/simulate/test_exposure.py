"""Simulated cameras: deterministic, realistic, and true to their truth."""

import numpy as np
import pytest

from qlstream.datamodel.flavor import flavor_of, program_of
from qlstream.simulate.exposure import simulate_camera
from qlstream.simulate.schedule import plan_night

KINDS = ["zero", "dark", "arc", "flat", "science-dark", "science-gray", "science-bright"]
# fmt: off
CAMERA_CARDS = {
    "CAMERA", "SPECGRPH", "SPECID", "DETECTOR", "CCDNAME", "CCDCFG", "CCDTMING", "FEEVER", "DOSVER", "CCDSIZE",
    "CCDTEMP", "DIGITIME", "EXPTIME", "NIGHT", "EXPID", "DATE-OBS", "MJD-OBS", "OBSID", "FLAVOR", "PROGRAM", "DATASECA",
    "CCDSECB", "BIASSECC", "ORSECD", "PRESECA", "PRRSECB", "DETSECC", "TRIMSECD",
}
EXPOSURE_CARDS = {
    "EXPID", "NIGHT", "OBSTYPE", "FLAVOR", "PROGRAM", "EXPTIME", "REQTIME", "DATE-OBS", "MJD-OBS", "ST", "SPCGRPHS",
    "CAMERAS",
}
SCIENCE_CARDS = {
    "TILEID", "AIRMASS", "SEEING", "ETCSEENG", "MOONSEP", "TARGTRA", "TARGTDEC", "SKYRA", "MOUNTEL", "ZD", "TRANSPAR",
    "NTSPROG", "FIBASSGN",
}
# fmt: on


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others(mini, make_exposure):
    first, again, other = (simulate_camera(mini, "b1", make_exposure("arc"), seed).raw.pix for seed in (1, 1, 2))

    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_exposures_cameras_and_nights_differ(mini, make_exposure):
    pixels = [
        simulate_camera(mini, camera, make_exposure("zero", expid=expid, night=night)).raw.pix
        for camera, expid, night in (("r0", 1, 20260115), ("r1", 1, 20260115), ("r0", 2, 20260115), ("r0", 1, 20260116))
    ]

    for other in pixels[1:]:
        assert (pixels[0] == other).mean() < 0.4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("camera", ["b0", "r0", "z0"])
def test_headers_are_complete_and_tell_what_it_is(simulated, kind, camera):
    raw = simulated(kind, camera).raw

    assert raw.header.keys() >= CAMERA_CARDS
    assert raw.primary.keys() >= EXPOSURE_CARDS
    if kind.startswith("science"):
        assert raw.primary.keys() >= SCIENCE_CARDS
        assert program_of(raw.primary) == kind.split("-")[1]
    assert flavor_of(raw.primary) == kind.split("-")[0]
    assert "SIM" not in raw.header["DETECTOR"]
    assert raw.pix.dtype == np.uint16


def test_the_raw_image_is_its_truth_seen_through_the_detector(simulated):
    """Poisson, read noise and gain explain every good pixel: the pulls of an exposure are standard normal."""
    from qlstream.instrument import load_instrument
    from qlstream.simulate.exposure import build_camera

    simulation = simulated("science-dark", "z0")
    detector = build_camera(load_instrument("mini"), "z0", 3).detector
    image = np.zeros(simulation.truth.image.shape)
    variance = np.zeros_like(image)
    cross = np.zeros_like(image)
    for amp in detector.amps:
        level = np.mean(simulation.raw.pix[amp.biassec.slices] - detector.bias[amp.biassec.slices])
        data = simulation.raw.pix[amp.datasec.slices] - detector.bias[amp.datasec.slices] - level
        image[amp.ccdsec.slices] = data * detector.gain[amp.name]
        variance[amp.ccdsec.slices] = detector.readnoise[amp.name] ** 2 + detector.gain[amp.name] ** 2 / 12
    expected = simulation.truth.image * detector.response + 900.0 * detector.dark + cross
    variance += expected
    good = (simulation.truth.cosmics < 0.1) & (detector.mask == 0)

    pull = ((image - expected) / np.sqrt(variance))[good]

    print(f"pull mean {pull.mean():.4f}, std {pull.std():.4f}, n {pull.size}")
    assert abs(pull.mean()) < 0.02  # levels of four overscans are known to 0.02 electrons, cross-talk adds a little
    assert pull.std() == pytest.approx(1.0, abs=0.01)


def test_the_noiseless_image_holds_the_electrons_of_the_spectra(simulated):
    truth = simulated("flat").truth

    np.testing.assert_allclose(truth.image.sum(axis=1, dtype=float), truth.flux.sum(axis=0), rtol=1e-5)


def test_counts_are_those_of_a_real_night(simulated):
    flat, arc, dark_sky = (simulated(kind, "r0").truth for kind in ("flat", "arc", "science-dark"))

    assert 7e3 < flat.image.max() < 1.3e4
    assert 1e3 < arc.image.max() < 5e4
    continuum = np.percentile(dark_sky.sky[dark_sky.fiberflat > 0.5], 20)
    assert 40 < continuum < 110  # electrons per row in 900 s


def test_fiberflat_truth_has_median_one_and_follows_the_flat(simulated):
    truth = simulated("flat").truth
    lit = truth.fiberflat[:, 0] > 0

    common = np.linspace(6000.0, 7400.0, 50)
    on_grid = np.stack([np.interp(common, w, f) for w, f in zip(truth.wave, truth.fiberflat, strict=True)])
    spectra = np.stack([np.interp(common, w, f / np.gradient(w)) for w, f in zip(truth.wave, truth.flux, strict=True)])
    np.testing.assert_allclose(np.median(on_grid, axis=0), 1.0, atol=2e-3)
    ratio = spectra[lit] / on_grid[lit]
    np.testing.assert_allclose(ratio / ratio.mean(axis=0), 1.0, atol=2e-3)


def test_a_night_of_exposures_has_realistic_times(mini):
    plan = plan_night(20260115, seed=1)

    starts = np.array([e.mjd for e in plan])
    ends = starts + np.array([e.exptime for e in plan]) / 86400
    assert np.all(starts[1:] - ends[:-1] > 55 / 86400)
    assert all(int((e.mjd - 19 / 24) // 1) == 61055 for e in plan)  # the night 20260115 by the rule of 19 h UT
    assert {e.flavor for e in plan} == {"zero", "dark", "arc", "flat", "science"}
    assert len(plan) == 12


def test_a_wrong_night_or_kind_is_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match="YYYYMMDD"):
        plan_night(20261341, 1)
    with pytest.raises(ValueError, match="science-dark"):
        plan_night(20260115, 1, ("zero", "twilight"))
