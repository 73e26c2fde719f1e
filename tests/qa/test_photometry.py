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


def test_a_target_without_positive_flux_is_counted_and_has_no_magnitude(make_context, make_qframe, make_fibermap):
    wave = np.linspace(5760, 7620, 700) * np.ones((40, 1))
    flux = ab_spectrum(wave, np.full(40, 20.0))
    flux[3] *= -1
    fibermap = make_fibermap(["ELG"] * 40, FLUX_R=np.full(40, 10.0))

    result = Integrate_Spec().run(make_qframe(flux, 1.0, wave, fibermap=fibermap, bunit=CALIBRATED), make_context())

    assert result.metrics["NFIBNOTGT"] == 1
    assert np.isnan(result.per_fiber["SPEC_MAGS"][3])


def test_uncalibrated_spectra_are_refused(make_context, make_qframe):
    with pytest.raises(ValueError, match="in electron; Integrate_Spec needs"):
        Integrate_Spec().run(make_qframe(np.ones((4, 50)), 1.0), make_context())
