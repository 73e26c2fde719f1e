import numpy as np
import pytest

from qa.photometry import Integrate_Spec
from qlstream.datamodel.qframe import CALIBRATED


def ab_spectrum(wave, magnitude):
    return 0.10885 / wave**2 * 10 ** (-0.4 * np.asarray(magnitude)[:, None]) / 1e-17


def test_a_flat_ab_spectrum_has_its_magnitude_whatever_part_of_the_band_is_covered(
    make_context, make_qframe, make_fibermap
):
    magnitude = np.linspace(17, 23, 40)
    wave = np.linspace(5760, 7620, 700) * np.ones((40, 1))
    ivar = np.ones_like(wave)
    ivar[:20, 100:300] = 0
    fibermap = make_fibermap(["ELG"] * 20 + ["STAR"] * 20, FLUX_R=10 ** (0.4 * (22.5 - magnitude + 0.3)))
    qframe = make_qframe(ab_spectrum(wave, magnitude), ivar, wave, fibermap=fibermap, bunit=CALIBRATED)

    result = Integrate_Spec().run(qframe, make_context())

    np.testing.assert_allclose(result.per_fiber["SPEC_MAGS"], magnitude, atol=1e-3)
    assert result.metrics["DELTAMAG_MEDIAN"] == pytest.approx(0.3, abs=1e-3)  # of the stars
    assert result.per_class["DELTAMAG_TGT"]["ELG"] == pytest.approx(0.3, abs=1e-3)
    assert result.per_class["DELTAMAG_TGT"]["LRG"] is None
    np.testing.assert_allclose(result.per_fiber["SPECFLUX"], 10 ** (0.4 * (22.5 - magnitude)), rtol=1e-3)
    assert result.metrics["NSTDSTAR"] == 20
    assert result.metrics["STARRMS"] == pytest.approx(0, abs=1e-3)
    assert result.vectors["STD_FIBERID"].tolist() == list(range(20, 40))


def test_a_target_without_positive_flux_is_counted_and_has_no_magnitude(make_context, make_qframe, make_fibermap):
    wave = np.linspace(5760, 7620, 700) * np.ones((40, 1))
    flux = ab_spectrum(wave, np.full(40, 20.0))
    flux[3] *= -1
    fibermap = make_fibermap(["ELG"] * 40, FLUX_R=np.full(40, 10.0))

    result = Integrate_Spec().run(make_qframe(flux, 1.0, wave, fibermap=fibermap, bunit=CALIBRATED), make_context())

    assert result.metrics["NFIBNOTGT"] == 1
    assert np.isnan(result.per_fiber["SPEC_MAGS"][3])


def test_throughput_is_that_of_electrons_per_photon_for_bright_targets(make_context, make_qframe, make_fibermap):
    wave = np.linspace(5760, 7620, 700) * np.ones((40, 1))
    magnitude = np.where(np.arange(40) < 30, 18.0, 21.0)
    flux = ab_spectrum(wave, magnitude)
    flux[0] *= 0.5  # half of this star's light missed the fiber
    fibermap = make_fibermap(["STAR"] * 40, FLUX_R=10 ** (0.4 * (22.5 - magnitude)))
    context = make_context()
    # 25 % of the photons of 6500 Angstrom: 1e-17 erg/s/cm2/Angstrom are 1e-17 6500 / (h c) photons
    photons = 1e-17 * 6500 / 1.98644586e-8 * context.instrument.mirror_area
    meta = {"CAMERA": "r3", "CALWAVE": 6500.0, "CALVALUE": 0.25 * photons * context.exptime}
    qframe = make_qframe(flux, 1.0, wave, fibermap=fibermap, bunit=CALIBRATED, meta=meta)

    result = Integrate_Spec().run(qframe, context)

    assert result.metrics["THRU_MEDIAN"] == pytest.approx(0.25, rel=1e-3)
    assert result.per_fiber["THRU"][0] == pytest.approx(0.125, rel=1e-3)
    assert np.isnan(result.per_fiber["THRU"][30:]).all()  # too faint


def test_rows_beyond_the_dichroics_do_not_count(make_context, make_qframe, make_fibermap):
    wave = np.linspace(5600, 7750, 700) * np.ones((40, 1))
    flux = ab_spectrum(wave, np.full(40, 19.0))
    flux[:, (wave[0] < 5750) | (wave[0] > 7630)] *= -300.0  # noise that the calibration blew up
    fibermap = make_fibermap(["STAR"] * 40, FLUX_R=np.full(40, 10**1.4))

    result = Integrate_Spec().run(make_qframe(flux, 1.0, wave, fibermap=fibermap, bunit=CALIBRATED), make_context())

    assert result.metrics["DELTAMAG_MEDIAN"] == pytest.approx(0, abs=1e-3)


def test_uncalibrated_spectra_are_refused(make_context, make_qframe):
    with pytest.raises(ValueError, match="in electron; Integrate_Spec needs"):
        Integrate_Spec().run(make_qframe(np.ones((4, 50)), 1.0), make_context())
