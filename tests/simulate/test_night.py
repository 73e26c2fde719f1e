"""A night on disk: readable by the doors that everybody else uses."""

import numpy as np
import pytest
from click.testing import CliRunner

from qlstream.calibration.finder import find_calibration
from qlstream.cli.simulate import simulate
from qlstream.io.errors import BadFile
from qlstream.io.fibermap import read_fibermap
from qlstream.io.fitsfile import FitsFile
from qlstream.io.raw import list_cameras, read_exposure_header, read_raw
from qlstream.simulate.exposure import build_camera, simulate_camera
from qlstream.simulate.faults import parse_fault
from qlstream.simulate.night import simulate_night
from qlstream.simulate.schedule import plan_night

NIGHT = 20260115
KINDS = ("zero", "flat", "science-dark")


@pytest.fixture(scope="module")
def night(mini, tmp_path_factory):
    out = tmp_path_factory.mktemp("night")
    simulate_night(mini, NIGHT, out, ("r0", "z3"), seed=5, kinds=KINDS)
    return out


def raw_path(out, expid):
    return out / "raw" / str(NIGHT) / f"{expid:08d}" / f"desi-{expid:08d}.fits.fz"


def test_raw_files_read_back_as_they_were_simulated(mini, night):
    plan = plan_night(NIGHT, 5, KINDS)

    for exposure in plan:
        assert list_cameras(raw_path(night, exposure.expid)) == ("r0", "z3")
        read = read_raw(raw_path(night, exposure.expid), "z3")
        simulated = simulate_camera(mini, "z3", exposure, 5, cameras=("r0", "z3"))
        np.testing.assert_array_equal(read.pix, simulated.raw.pix)
        for key, value in simulated.raw.header.items():
            expected = pytest.approx(value) if isinstance(value, float) else value
            assert read.header[key] == expected, key


def test_the_fibermap_lies_beside_each_exposure_that_has_light(mini, night):
    assert not (raw_path(night, 1).parent / "fibermap-00000001.fits").exists()

    fibermap = read_fibermap(raw_path(night, 3).parent / "fibermap-00000003.fits")

    assert len(fibermap) == len(mini.spectrographs) * mini.nspec
    rows = fibermap.select(mini.fibers("z3"))
    assert rows.is_sky.sum() >= 5
    assert fibermap.meta["TILEID"] == read_exposure_header(raw_path(night, 3))["TILEID"]


def test_the_calibration_tree_serves_the_exposures(mini, night):
    raw = read_raw(raw_path(night, 3), "r0")
    model = build_camera(mini, "r0", 5)

    calibration = find_calibration(raw.header, night / "calib")

    np.testing.assert_allclose(calibration.bias, model.detector.bias, atol=1.0)
    np.testing.assert_allclose(calibration.pixflat, model.detector.pixflat, atol=1e-4)
    np.testing.assert_array_equal(calibration.mask, model.detector.mask)
    np.testing.assert_allclose(calibration.dark(100.0), 100.0 * model.detector.dark, atol=0.2)
    np.testing.assert_allclose(calibration.traces.xcoef, model.optics.traces.xcoef)
    assert calibration.cards["GAINC"] == model.detector.gain["C"]
    flat = calibration.fiberflat
    np.testing.assert_allclose(flat.fiberflat, model.throughput.relative(flat.wave), atol=1e-6)


def test_the_flux_calibration_turns_electrons_into_flux(mini, night):
    """Of a standard star: electrons / (calibration x seconds x Angstrom) is its flux, up to its positioner's offset."""
    exposure = plan_night(NIGHT, 5, KINDS)[2]
    simulated = simulate_camera(mini, "r0", exposure, 5)
    calib = find_calibration(simulated.raw.header, night / "calib").fluxcalib
    truth = simulated.truth
    from qlstream.simulate.targets import assign_targets

    targets = assign_targets(mini, exposure, 5)
    star = int(np.flatnonzero(truth.targets["KIND"] == b"STD")[0])

    wave = truth.wave[star]
    vector = calib.at(wave, exposure.airmass, exposure.seeing) * exposure.exptime * np.gradient(wave)
    flux = truth.target[star] / truth.fiberflat[star] / vector

    expected = targets.spectra(mini.fibers("r0")[[star]], wave)[0]
    inside = (wave > 6100) & (wave < 7400)
    assert np.median(flux[inside] / expected[inside]) == pytest.approx(1.0, abs=0.03)


def test_truth_is_beside(night):
    path = night / "truth" / str(NIGHT) / "00000003" / "truth-r0-00000003.fits"

    with FitsFile(path) as fits:
        wave, sky, target = (fits.image(fits.require(name)) for name in ("WAVELENGTH", "SKY", "TARGET"))
        assert {"XTRACE", "YTRACE", "DX", "DY", "FIBERFLAT", "COSMICS", "TARGETS"} <= set(fits.names)
    assert wave.shape == sky.shape == target.shape == (40, 500)


def test_damaged_files_are_damaged_as_told_and_only_there(mini, tmp_path):
    faults = [
        parse_fault(text, mini)
        for text in ("truncated:b0@1", "corrupt-hdu:r0@2", "missing-keyword:r0:EXPTIME@3", "missing-camera:b0@4")
    ]
    faults.append(parse_fault("missing-fibermap@5", mini))

    simulate_night(mini, NIGHT, tmp_path, ("b0", "r0"), 5, faults, ("zero", "zero", "zero", "zero", "science-dark"))

    with pytest.raises(BadFile):
        read_raw(raw_path(tmp_path, 1), "b0")
    with pytest.raises(BadFile):
        read_raw(raw_path(tmp_path, 2), "r0")
    assert read_raw(raw_path(tmp_path, 2), "b0").camera == "b0"
    with FitsFile(raw_path(tmp_path, 3)) as fits:
        assert "EXPTIME" not in fits.header("R0")
        assert "EXPTIME" in fits.header("B0")
    assert list_cameras(raw_path(tmp_path, 4)) == ("r0",)
    assert read_exposure_header(raw_path(tmp_path, 4))["CAMERAS"] == "b0r0"
    assert not list(raw_path(tmp_path, 5).parent.glob("fibermap*"))
    assert not list(tmp_path.rglob("*tmp*"))


def test_the_command_says_how_many_exposures_it_wrote(tmp_path):
    arguments = ["--out", str(tmp_path), "--cameras", "r0", "--exposures", "zero,arc", "--seed", "2"]

    result = CliRunner().invoke(simulate, arguments)

    assert result.exit_code == 0, result.output
    assert "2 exposures x 1 cameras" in result.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--fault", "on-fire"], "noisy-amp"),
        (["--fault", "lamp-off@9"], "9 science-dark"),
        (["--fault", "noisy-amp:z5"], "b0, r0, z0"),
        (["--cameras", "q1"], "no camera word"),
        (["--night", "20261341"], "YYYYMMDD"),
        (["--exposures", "twilight"], "science-dark"),
        (["--instrument", "maxi"], "mini"),
    ],
)
def test_the_command_explains_what_it_does_not_understand(tmp_path, arguments, says):
    result = CliRunner().invoke(simulate, ["--out", str(tmp_path), *arguments])

    assert result.exit_code == 1
    assert says in result.output
    assert not (tmp_path / "raw").exists()
