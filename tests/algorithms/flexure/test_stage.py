import numpy as np
import pytest

from algorithms.flexure.stage import Flexure
from qlstream.calibration.served import Calibration, MissingCalibration
from qlstream.datamodel.masks import CCDMask
from qlstream.instrument import load_instrument

DX, DY = (0.31, 0.06, -0.05), (-0.42, 0.05, 0.07)


def rms(error):
    return float(np.sqrt(np.mean(error**2)))


@pytest.mark.parametrize(("flavor", "wave_aim"), [("arc", 0.005), ("science", 0.004)])
def test_shifts_of_lamp_and_sky_exposures_are_found(moved, flavor, wave_aim):
    exposure = moved(flavor, DX, DY)

    image = Flexure().run(exposure.image, exposure.context)

    x, wave = exposure.errors(image)
    print(f"{flavor}: x {rms(x):.4f} pixel, wave {rms(wave):.4f} Angstrom, {image.shifts.npoints_y} lines")
    assert rms(x) < 0.005
    assert rms(wave) < wave_aim  # 40 fibers: sqrt(500 / 40) times the error of a full camera
    assert image.shifts.warnings == ()
    assert image.shifts.dx.mean() == pytest.approx(DX[0], abs=0.01)
    assert image.shifts.dy.mean() == pytest.approx(DY[0], abs=0.01)
    assert image.shifts.npoints_y == image.shifts.points_y["used"].sum() > 500
    assert exposure.image.traces is None  # the input stays as it was


def test_flats_move_in_x_and_carry_their_wavelengths_over(moved):
    exposure = moved("flat", DX)

    image = Flexure().run(exposure.image, exposure.context)

    x, wave = exposure.errors(image)
    assert rms(x) < 0.002
    assert np.abs(wave).max() < 1e-3
    assert image.shifts.method_y == "carried over"
    assert (image.shifts.dy == 0).all()


@pytest.mark.parametrize("far", [1.0, -3.4])
def test_offsets_of_pixels_converge(moved, far):
    exposure = moved("arc", (far, 0.05, 0.0), (-far, 0.0, 0.05))

    image = Flexure().run(exposure.image, exposure.context)

    x, wave = exposure.errors(image)
    assert rms(x) < 0.005
    assert rms(wave) < 0.005


def test_the_mini_instrument_reaches_a_twentieth_of_a_pixel_though_its_lines_blend(moved):
    exposure = moved("science", DX, (0.2, 0.03, 0.02), instrument=load_instrument("mini"))

    image = Flexure().run(exposure.image, exposure.context)

    x, wave = exposure.errors(image)
    print(f"mini: x {rms(x):.4f} pixel, wave {rms(wave) / 4.36:.4f} pixel, {image.shifts.warnings}")
    assert rms(x) < 0.005
    assert rms(wave) < 0.05 * 4.36


def test_galaxy_lines_stars_and_unflagged_cosmic_rays_do_not_pull(moved):
    def spoil(clean):
        rng = np.random.default_rng(2)
        for row, column in zip(rng.integers(0, 1200, 400), rng.integers(0, 400, 400), strict=True):
            clean[row : row + 3, column : column + 3] += 3000.0  # cosmic rays
        clean[:, 100:104] *= 30.0  # a star

    exposure = moved("science", DX, DY, spoil=spoil)

    image = Flexure().run(exposure.image, exposure.context)

    x, wave = exposure.errors(image)
    print(f"spoiled: x {rms(x):.4f} pixel, wave {rms(wave):.4f} Angstrom")
    assert rms(x) < 0.01
    assert rms(wave) < 0.006


def test_masked_columns_leave_no_bias(moved):
    exposure = moved("flat", DX)
    exposure.image.mask[:, 90:130:7] = int(CCDMask.BAD)
    exposure.image.pix[:, 90:130:7] = 60000.0

    image = Flexure().run(exposure.image, exposure.context)

    assert rms(exposure.errors(image)[0]) < 0.002


@pytest.mark.parametrize("flavor", ["arc", "science", "flat"])
def test_without_light_the_traces_stay_and_a_warning_says_why(moved, flavor):
    exposure = moved(flavor, light=0.0)

    image = Flexure().run(exposure.image, exposure.context)

    assert (image.shifts.dx == 0).all()
    assert (image.shifts.dy == 0).all()
    np.testing.assert_allclose(image.traces.xcoef, exposure.context.calibration.traces.xcoef, atol=1e-9)
    assert len(image.shifts.warnings) == (1 if flavor == "flat" else 2)
    assert "dx is not measured" in image.shifts.warnings[0]


def test_a_dead_camera_makes_no_exception(moved):
    exposure = moved("science")
    exposure.image.ivar[:] = 0.0

    image = Flexure().run(exposure.image, exposure.context)

    assert len(image.shifts.warnings) == 2
    assert image.shifts.npoints_x == image.shifts.npoints_y == 0


def test_traces_to_start_from_are_needed(moved, make_context):
    exposure = moved("flat")
    nothing = make_context(camera="r1", flavor="flat", calibration=Calibration("r1", 20260114, {}))

    with pytest.raises(MissingCalibration):
        Flexure().run(exposure.image, nothing)
