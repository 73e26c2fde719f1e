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
from qlstream.datamodel.sky import SkyModel
from qlstream.datamodel.stars import StdStars
from qlstream.numeric.deconvolution import spread
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


def test_absorption_that_no_list_names_is_found_and_kept(sky: Sky) -> None:
    """A dip of 6 % and 5 Angstrom where a response should be smooth; the rest stays smooth."""
    where = abs(sky.framing.wave - 5800.0)
    sky.common = sky.common * (1 - 0.06 * np.exp(-0.5 * (where / 2.0) ** 2))
    frame, models = sky.observe()
    calib = compute_fluxcalib(frame, models, SEEING, DIAMETER, LIMITS)
    error = (calib.value / sky.truth() - 1)[30]
    print(f"at the dip {100 * abs(error[where < 4]).max():.2f} %")
    assert abs(error[where < 4]).max() < 0.02
    smooth = calib.ivar[30] * calib.value[30] ** 2
    assert np.median(smooth[(where > 20) & (where < 60)]) > 5 * np.median(smooth[where < 3])


def test_a_handful_of_stars_is_no_worse_than_its_errors_say(sky: Sky) -> None:
    """Three faint stars: a bin tells 6 %, the smooth vector 1 %, and its pulls are those of its errors."""
    sky.common = 0.02 * sky.common
    pulls = []
    for seed in range(4):
        sky.framing.rng = np.random.default_rng(seed)
        frame, models = sky.observe()
        few = StdStars(models.wave, models.flux[:3], models.fibers[:3], models.metadata[:3], models.coef[:3])
        calib = compute_fluxcalib(frame, few, SEEING, DIAMETER, LIMITS)
        away = (abs(frame.wave - 6000.0) > 40) & (calib.ivar[30] > 0)
        truth = sky.truth()[30]
        scale = np.median((calib.value[30] / truth)[away])  # three stars share their common scale by their models
        pulls.append(((calib.value[30] / scale - truth) * np.sqrt(calib.ivar[30]))[away])
        assert calib.meta["NSTDSTAR"] == 3
    told = np.concatenate(pulls)
    error = np.median(1 / np.sqrt(calib.ivar[30]) / calib.value[30])
    print(f"pull rms {told.std():.2f}, relative error {100 * error:.2f} %")
    assert 0.5 < told.std() < 1.6, "correlated over some 40 Angstrom: 4 vectors have 40 independent places"


def test_the_light_from_beyond_the_ends_is_no_light_of_the_last_bins(sky: Sky) -> None:
    """A response that rises by 2 % a bin towards both ends, and goes on beyond them, as spectra do."""
    f = sky.framing
    more = f.ndiag // 2
    n = np.arange(-more, f.nwave + more)
    steep = 90.0 * (1 + 0.02 * (np.maximum(20 - n, 0) + np.maximum(n - (f.nwave - 21), 0)))
    density, truth = np.zeros((f.nspec, f.nwave)), np.zeros((f.nspec, f.nwave))
    for k, resolution in enumerate(f.resolutions):
        bands = np.pad(resolution.data, ((0, 0), (more, more)), "edge")
        truth[k] = spread(bands, steep)[more:-more]
        if k in STARS:
            model = np.pad(sky.models()[np.flatnonzero(k == STARS)[0]], more, "edge")
            density[k] = spread(bands, steep * model)[more:-more]
    frame = f.observe(density, fibermap=sky.fibermap, fibers=(FIRST + np.arange(f.nspec)).astype(np.int32))
    calib = compute_fluxcalib(frame, stars(f.wave, sky.models()), SEEING, DIAMETER, LIMITS)
    ends = np.r_[0:6, -6:0]
    error = (calib.value / truth - 1)[:, ends]
    print(f"at the ends {100 * abs(error).max():.2f} %")
    assert (calib.ivar[:, ends] > 0).all()
    assert abs(error).max() < 0.02


def test_what_fibers_are_dead_does_not_matter(sky: Sky) -> None:
    frame, models = sky.observe()
    calib = compute_fluxcalib(frame, models, SEEING, DIAMETER, LIMITS)
    ivar, resolution = frame.ivar.copy(), frame.resolution.copy()
    dead_star, dead = STARS[3], 8
    ivar[[dead_star, dead]] = 0.0
    resolution[dead] = 0.0
    broken = replace(frame, ivar=ivar, resolution=resolution)
    again = compute_fluxcalib(broken, models, SEEING, DIAMETER, LIMITS)
    assert again.meta["NSTDSTAR"] == STARS.size - 1
    assert abs(again.value[30] / calib.value[30] - 1).max() < 0.03
    assert (again.ivar[dead] == 0).all()
    assert (again.mask[dead] & np.uint32(SpecMask.LOWFLAT) != 0).all()


def test_bins_that_no_star_tells_have_no_calibration(sky: Sky) -> None:
    frame, models = sky.observe()
    mask = frame.mask.copy()
    mask[STARS, 300:304] = 1
    calib = compute_fluxcalib(replace(frame, mask=mask), models, SEEING, DIAMETER, LIMITS)
    assert (calib.ivar[:, 300:304] == 0).all()
    assert (calib.mask[:, 300:304] != 0).all()
    assert (calib.ivar[:, 310:] > 0).all()


def test_the_error_of_the_sky_is_all_stars_and_does_not_average_out(sky: Sky) -> None:
    """A sky line of which the model is uncertain: its bins tell less than so many stars would without."""
    frame, models = sky.observe()
    line = np.exp(-0.5 * ((frame.wave - 5760.0) / 1.0) ** 2)
    variance = np.tile(1e-6 + (300.0 * line) ** 2, (frame.nspec, 1))
    seen = replace(frame, ivar=1 / (1 / frame.ivar + variance), sky=SkyModel(
        frame.wave, np.tile(line, (frame.nspec, 1)), 1 / variance, np.zeros(variance.shape, np.uint32)))  # fmt: skip
    spoiled = replace(seen, flux=seen.flux + 300.0 * line)  # all fibers alike
    calib = compute_fluxcalib(spoiled, models, SEEING, DIAMETER, LIMITS)
    error = abs(calib.value / sky.truth() - 1)[30, abs(frame.wave - 5760.0) < 6].max()
    ignorant = compute_fluxcalib(replace(spoiled, sky=None), models, SEEING, DIAMETER, LIMITS)
    without = abs(ignorant.value / sky.truth() - 1)[30, abs(frame.wave - 5760.0) < 6].max()
    print(f"error at the line {100 * error:.1f} %, {100 * without:.1f} % without the sky's error")
    assert error < 0.02 < without


def test_under_clouds_the_average_serves_on_the_scale_of_the_stars(sky: Sky) -> None:
    """A thousandth of the light: S/N below 1 a bin, but 7000 bins tell the scale to 3 %."""
    sky.offset[8] = -0.6, 0.2
    average = sky.common
    sky.common = 0.002 * sky.common
    frame, models = sky.observe()
    calib = compute_fluxcalib(frame, models, SEEING, DIAMETER, LIMITS, average)
    print({k: calib.meta[k] for k in ("CALAVG", "STARSNR", "NSTDSTAR")})
    assert calib.meta["CALAVG"] == pytest.approx(0.002, rel=0.1)
    smooth = abs(frame.wave - 6000.0) > 20  # the average knows no resolution
    np.testing.assert_allclose((calib.value / sky.truth())[:, smooth], 1.0, atol=0.12)
    np.testing.assert_allclose(calib.ivar * calib.value**2, 1.0)
    assert calib.fibercorr is not None
    assert calib.fibercorr["FLAT_TO_PSF_FLUX"][8] > 1.2
    bright = compute_fluxcalib(*Sky(sky.framing).observe(), SEEING, DIAMETER, LIMITS, average)
    assert bright.meta["CALAVG"] == 0, "stars that tell it themselves do"


def test_an_average_that_does_not_fit_is_refused(sky: Sky) -> None:
    sky.common = 0.002 * sky.common
    frame, models = sky.observe()
    with pytest.raises(MissingCalibration, match="no wavelength in common"):
        compute_fluxcalib(frame, models, SEEING, DIAMETER, LIMITS, np.zeros(frame.wave.size))
    dark = replace(frame, flux=-np.abs(frame.flux))
    with pytest.raises(MissingCalibration, match="no light"):
        compute_fluxcalib(dark, models, SEEING, DIAMETER, LIMITS, sky.common)


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
