"""Calibration vectors from standard stars, against a known throughput."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from algorithms.fluxcal.corrections import flat_to_psf, psf_to_fiber
from algorithms.fluxcal.fiberloss import point_fraction, source_fraction
from algorithms.fluxcal.frame import apply_fluxcalib
from algorithms.fluxcal.vector import CalibrationLimits, compute_fluxcalib
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.qframe import CALIBRATED
from qlstream.datamodel.stars import StdStars
from qlstream.simulate import templates as shapes

Array = NDArray[np.float64]

SEEING, DIAMETER = 1.1, 1.5
LIMITS = CalibrationLimits()
FIRST = 500  # FIBER of the first spectrum
EVERY = 5  # of 60 fibers is a star
STARS = np.arange(2, 60, EVERY)


@dataclass
class Sky:
    """A flat-fielded, sky-subtracted exposure of stars whose calibration is known.

    `common` is the calibration before the resolution: a slope, an undulation and a telluric line of 8 Angstrom.
    """

    framing: Any
    gray: Array = field(init=False)
    offset: Array = field(init=False)

    def __post_init__(self) -> None:
        f = self.framing
        self.rng = np.random.default_rng(21)
        wave = f.wave
        line = 0.6 * np.exp(-0.5 * ((wave - 6000.0) / 3.4) ** 2)
        self.common = 90.0 * (1 + 3e-4 * (wave - 5900) + 0.05 * np.sin(wave / 40.0)) * (1 - line)
        self.offset = np.zeros((f.nspec, 2))
        self.gray = np.ones(f.nspec)

    @property
    def fibermap(self) -> Fibermap:
        f = self.framing
        rows = np.zeros(f.nspec, dtype=[("FIBER", "i4"), ("OBJTYPE", "U3"), ("DELTA_X", "f8"), ("DELTA_Y", "f8"),
                                        ("MORPHTYPE", "U3"), ("SHAPE_R", "f4")])  # fmt: skip
        rows["FIBER"], rows["OBJTYPE"], rows["MORPHTYPE"] = FIRST + np.arange(f.nspec), "TGT", "PSF"
        rows["DELTA_X"], rows["DELTA_Y"] = self.offset.T * 0.0704
        return Fibermap(rows)

    def models(self) -> Array:
        temperature = np.linspace(5900.0, 7100.0, STARS.size)
        flux = np.array([shapes.star(self.framing.wave, t) for t in temperature])
        return np.asarray(np.linspace(20.0, 80.0, STARS.size)[:, None] * flux / flux.mean(axis=1, keepdims=True))

    def caught(self) -> Array:
        """(nspec,) part of a star's light in each fiber, against the mean of all."""
        part = point_fraction(SEEING, np.hypot(*self.offset.T), DIAMETER)
        return part / (1.0 / (1.0 / part).mean())

    def observe(self) -> tuple[Frame, StdStars]:
        f = self.framing
        unresolved = np.zeros((f.nspec, f.nwave))
        unresolved[STARS] = self.models() * self.common
        density = np.array([r.dot(m) for r, m in zip(f.resolutions, unresolved, strict=True)])
        density *= (self.gray * self.caught())[:, None]
        frame = f.observe(density, fibermap=self.fibermap, fibers=(FIRST + np.arange(f.nspec)).astype(np.int32))
        return frame, stars(f.wave, self.models())

    def truth(self) -> Array:
        """(nspec, nwave) what each fiber's vector should be."""
        through = np.array([r.dot(self.common) / r.dot(np.ones_like(self.common)) for r in self.framing.resolutions])
        return np.asarray(through * self.caught()[:, None])


def stars(wave: Array, flux: Array, **columns: Any) -> StdStars:
    names = ("CHI2DOF", "DATA_G-R", "MODEL_G-R")
    table = np.zeros(STARS.size, dtype=[(name, "f8") for name in names])
    table["CHI2DOF"] = 1.0
    for name, values in columns.items():
        table[name.replace("_MINUS_", "-")] = values
    return StdStars(wave, flux, (FIRST + STARS).astype(np.int32), table, np.ones((STARS.size, 1)))


@pytest.fixture
def sky(framing: Any) -> Sky:
    return Sky(framing)


def inside(frame: Frame) -> slice:
    return slice(20, frame.wave.size - 20)


def test_vectors_are_the_throughput_through_each_resolution_within_their_errors(sky: Sky) -> None:
    """One noise serves all fibers, so a pull is taken of one fiber; 560 bins, correlated over about three.

    The errors allow for models that are off by 2 %, which these are not: so the pulls are narrow.
    """
    frame, models = sky.observe()
    calib = compute_fluxcalib(frame, models, SEEING, DIAMETER, LIMITS)
    truth, here = sky.truth(), inside(frame)
    pull = ((calib.value - truth) * np.sqrt(calib.ivar))[30, here]
    error = (calib.value / truth - 1)[:, here]
    print(f"pull mean {pull.mean():+.2f} rms {pull.std():.2f}; relative error rms {100 * error.std():.3f} %")
    assert (calib.mask == 0).all()
    assert abs(pull.mean()) < 5 * np.sqrt(3 / pull.size)
    assert 0.4 < pull.std() < 1.1
    assert error.std() < 0.007, "12 stars of S/N 50 a bin"
    assert abs(error[:, 350:390].mean()) < 0.005, "in the telluric line, which is narrower than two bins' worth of R"
    assert calib.meta["NSTDSTAR"] == STARS.size


def test_wider_fibers_get_a_shallower_telluric_line(sky: Sky) -> None:
    frame, models = sky.observe()
    calib = compute_fluxcalib(frame, models, SEEING, DIAMETER, LIMITS)
    bottom = calib.value.min(axis=1) / np.median(calib.value, axis=1)
    expected = sky.truth().min(axis=1) / np.median(sky.truth(), axis=1)
    np.testing.assert_allclose(bottom, expected, atol=0.01)
    assert np.corrcoef(bottom, expected)[0, 1] > 0.9


def test_a_fiber_beside_its_star_is_corrected_and_a_lost_one_is_not_invented(sky: Sky) -> None:
    sky.offset[7] = 0.5, -0.3  # a star
    sky.offset[8] = -0.6, 0.2
    frame, models = sky.observe()
    calib = compute_fluxcalib(frame, models, SEEING, DIAMETER, LIMITS)
    error = (calib.value / sky.truth() - 1)[[7, 8, 20], inside(frame)]
    print("offset fibers, mean error", error.mean(axis=1))
    assert abs(error.mean(axis=1)).max() < 0.005
    assert calib.fibercorr is not None
    assert calib.fibercorr["FLAT_TO_PSF_FLUX"][8] > 1.2
    sky.offset[11] = 4.0, 0.0
    lost = compute_fluxcalib(replace(frame, fibermap=sky.fibermap), models, SEEING, DIAMETER, LIMITS)
    assert (lost.ivar[11] == 0).all()
    assert lost.fibercorr is not None
    assert lost.fibercorr["FLAT_TO_PSF_FLUX"][11] == 0


def test_stars_whose_model_has_another_colour_or_fits_badly_take_no_part(sky: Sky) -> None:
    frame, models = sky.observe()
    wrong = models.flux.copy()
    wrong[3] *= np.linspace(0.5, 1.5, frame.wave.size)
    wrong[6] *= np.linspace(1.5, 0.5, frame.wave.size)
    color, chi2 = np.zeros(STARS.size), np.ones(STARS.size)
    color[3], chi2[6] = 0.4, 5.0
    calib = compute_fluxcalib(
        frame, stars(frame.wave, wrong, DATA_G_MINUS_R=color, CHI2DOF=chi2), SEEING, DIAMETER, LIMITS
    )
    assert calib.meta["NSTDSTAR"] == STARS.size - 2
    assert abs((calib.value / sky.truth() - 1)[:, inside(frame)]).max() < 0.03


def test_a_star_whose_scale_stands_out_is_dropped(sky: Sky) -> None:
    """A fiber that lost half of its light, or a variable star: its scale would drag the others along."""
    sky.gray[STARS[4]] = 0.5
    frame, models = sky.observe()
    calib = compute_fluxcalib(frame, models, SEEING, DIAMETER, LIMITS)
    assert calib.meta["NSTDSTAR"] == STARS.size - 1
    assert abs((calib.value / sky.truth() - 1)[:, inside(frame)].mean()) < 0.005


def test_cosmic_rays_and_masked_bins_leave_no_trace(sky: Sky) -> None:
    frame, models = sky.observe()
    flux, mask = frame.flux.copy(), frame.mask.copy()
    flux[STARS[2], 200:203] *= 4.0
    mask[STARS[5], 100:140], flux[STARS[5], 100:140] = 1, -1e5
    calib = compute_fluxcalib(replace(frame, flux=flux, mask=mask), models, SEEING, DIAMETER, LIMITS)
    assert abs((calib.value / sky.truth() - 1)[:, inside(frame)]).max() < 0.03


def test_calibrated_spectra_are_the_models_within_their_errors(sky: Sky) -> None:
    frame, models = sky.observe()
    calib = compute_fluxcalib(frame, models, SEEING, DIAMETER, LIMITS)
    out = apply_fluxcalib(frame, calib)
    expected = np.array(
        [r.dot(m) for r, m in zip([sky.framing.resolutions[k] for k in STARS], models.flux, strict=True)]
    )
    away = np.abs(frame.wave - 6000.0) > 25.0  # R (c m) is not R c R m where c is narrow
    away[:20] = away[-20:] = False
    pull = ((out.flux[STARS] - expected) * np.sqrt(out.ivar[STARS]))[:, away]
    print(f"pull mean {pull.mean():+.3f} rms {pull.std():.3f}")
    assert 0.8 < pull.std() < 1.05, "stars that made the vector agree with it, and its error allows for wrong models"
    assert out.bunit == CALIBRATED


def test_without_calibration_a_bin_has_no_flux_and_says_so(sky: Sky) -> None:
    frame, models = sky.observe()
    calib = compute_fluxcalib(frame, models, SEEING, DIAMETER, LIMITS)
    calib.value[4, 50:60] = 0.0
    out = apply_fluxcalib(frame, calib)
    assert (out.ivar[4, 50:60] == 0).all()
    assert (out.mask[4, 50:60] & np.uint32(SpecMask.LOWFLAT) != 0).all()
    with pytest.raises(ValueError, match="this very frame"):
        apply_fluxcalib(replace(frame, wave=frame.wave + 1), calib)


def test_without_good_stars_there_is_no_calibration(sky: Sky) -> None:
    frame, models = sky.observe()
    bad = stars(frame.wave, models.flux, CHI2DOF=np.full(STARS.size, 9.0))
    with pytest.raises(MissingCalibration, match="good enough"):
        compute_fluxcalib(frame, bad, SEEING, DIAMETER, LIMITS)
    clouds = replace(frame, flux=0.01 * np.random.default_rng(1).normal(size=frame.flux.shape))
    with pytest.raises(MissingCalibration, match="clouds"):
        compute_fluxcalib(clouds, models, SEEING, DIAMETER, LIMITS)


def test_fractions_of_light_are_those_of_a_monte_carlo() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(0, SEEING / 2.3548, (2, 400_000))
    for offset in (0.0, 0.4, 1.0):
        drawn = np.mean(np.hypot(x - offset, y) < 0.5 * DIAMETER)
        assert float(point_fraction(SEEING, offset, DIAMETER)) == pytest.approx(drawn, abs=4e-3)
    assert float(source_fraction(SEEING, 0.0, DIAMETER, 0.8)) < float(source_fraction(SEEING, 0.0, DIAMETER, 0.2))


def test_flux_in_a_nominal_fiber_is_that_of_the_imaging_surveys(sky: Sky) -> None:
    assert flat_to_psf(sky.fibermap, SEEING, DIAMETER) == pytest.approx(np.ones(60))
    point = psf_to_fiber(sky.fibermap, 1.0, DIAMETER)
    assert point == pytest.approx(np.full(60, 0.789))
    rows = sky.fibermap.rows.copy()
    rows["MORPHTYPE"], rows["SHAPE_R"] = "EXP", 1.0
    galaxy = psf_to_fiber(Fibermap(rows), 1.0, DIAMETER)
    # a spectrum that is right for a point holds too little of a galaxy; in the nominal fiber there is just as much
    assert galaxy == pytest.approx(np.full(60, 0.789))
    # bad seeing takes more from a point than from a galaxy, so the point's calibration makes too much of the galaxy
    assert (psf_to_fiber(Fibermap(rows), 1.6, DIAMETER) < galaxy).all()


def test_interstellar_lines_of_the_stars_do_not_enter_the_vector(sky: Sky) -> None:
    """Sodium of the Galaxy is in the stars, not in their models; the vector goes straight through."""
    sodium = 1 - 0.5 * np.exp(-0.5 * ((sky.framing.wave[:, None] - (5891.58, 5897.56)) / 0.6) ** 2).sum(axis=1)
    clear, sky.common = sky.common, sky.common * sodium
    frame, models = sky.observe()
    calib = compute_fluxcalib(frame, models, SEEING, DIAMETER, LIMITS)
    sky.common = clear
    near = abs(frame.wave - 5894.6) < 9
    error = (calib.value / sky.truth() - 1)[:, near]
    print(f"error at sodium {100 * abs(error).max():.2f} %")
    assert abs(error).max() < 0.02, "the undulation of 40 Angstrom bends by 1 % over the gap"
