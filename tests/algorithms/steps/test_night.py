"""Every step on the files of one simulated night, from raw exposures to coadds, against the truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fitsio
import numpy as np
import pytest

from algorithms.steps.cframe import ProcessExposureStep
from algorithms.steps.extract import ExtractStep
from algorithms.steps.psf import FitPSFStep
from algorithms.steps.redshift import RedshiftStep
from algorithms.steps.spectra import CoaddStep
from algorithms.steps.stars import StarStep
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.qframe import CALIBRATED, ELECTRON
from qlstream.instrument import load_instrument
from qlstream.io.fluxcalib import read_fluxcalib
from qlstream.io.frame import read_frame, write_frame
from qlstream.io.image import read_image
from qlstream.io.psf import read_psf
from qlstream.io.sky import read_sky
from qlstream.io.spectra import read_spectra
from qlstream.io.stdstars import read_stdstars
from qlstream.pipeline.filestep import StepFiles
from qlstream.production.execute import gather
from qlstream.production.graph import Task, build_graph
from qlstream.production.night import raw_exposures
from qlstream.production.plan import OfflinePlan
from qlstream.settings import Settings
from qlstream.simulate.night import simulate_night
from qlstream.simulate.schedule import CLEAR, plan_night
from qlstream.simulate.targets import assign_targets
from qlstream.simulate.throughput import atmosphere, build_throughput

NIGHT = 20260115
CAMERAS = ("b0", "r0", "z0")
KINDS = ("arc", "flat", "science-dark")
SCIENCE = len(KINDS)


class Reduced:
    """A night whose tasks have all run, one after another in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.instrument = folder, load_instrument("mini")
        simulate_night(self.instrument, NIGHT, folder, CAMERAS, kinds=KINDS)
        self.settings = Settings.model_validate(
            {"raw": folder / "raw", "calib": folder / "calib", "redux": folder / "redux"}
        )
        self.plan = OfflinePlan.load()
        exposures, unusable = raw_exposures(folder / "raw", folder / "redux", NIGHT)
        assert not unusable
        kinds, self.left_out = self.plan.available({"calib": folder / "calib", "redux": folder / "redux"})
        self.tasks: dict[str, Task] = build_graph(exposures, self.instrument, folder / "redux", kinds)
        self.reports: list[tuple[float, str]] = []
        for task in self.tasks.values():
            if task.kind != "redshift":
                self.run(task)

    def run(self, task: Task) -> None:
        for _, path in task.outputs:
            path.parent.mkdir(parents=True, exist_ok=True)
        around = {"camera": task.camera, "calib": self.settings.calib, "redux": self.settings.redux}
        step = self.plan.step(task.kind, task.arm, around)
        step.run(self.files(task), lambda share, what: self.reports.append((share, what)))

    def files(self, task: Task) -> StepFiles:
        return StepFiles(gather(task, self.settings), dict(task.outputs))

    def task(self, kind: str, camera: str = "") -> Task:
        (found,) = (
            t for t in self.tasks.values() if t.kind == kind and t.camera == camera and t.expid in (None, SCIENCE)
        )
        return found

    def output(self, kind: str, camera: str = "") -> Path:
        return self.task(kind, camera).outputs[0][1]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Reduced:
    return Reduced(tmp_path_factory.mktemp("night"))


def test_every_task_of_the_graph_leaves_its_product(night: Reduced) -> None:
    made = {task.kind for task in night.tasks.values() if all(path.exists() for _, path in task.outputs)}
    assert made == {
        "preproc", "psf", "psfnight", "traceshift", "extract", "fiberflat", "fiberflatnight", "sky", "starfit",
        "fluxcalib", "cframe", "spectra", "coadd",
    }  # fmt: skip
    assert all(0 <= share <= 1 and what for share, what in night.reports)


def test_the_psf_of_an_arc_is_the_same_when_it_is_fitted_again(night: Reduced, tmp_path: Path) -> None:
    """That of the night, which came of it, does not serve as its start."""
    (task,) = (t for t in night.tasks.values() if t.kind == "psf" and t.camera == "r0")
    assert night.output("psfnight", "r0").exists()
    night.run(replace(task, outputs=(("psf", tmp_path / "again.fits"),)))
    first, again = read_psf(task.output("psf")), read_psf(tmp_path / "again.fits")
    np.testing.assert_array_equal(again.traces.xcoef, first.traces.xcoef)
    np.testing.assert_array_equal(again.traces.ycoef, first.traces.ycoef)


def test_products_know_camera_and_exposure(night: Reduced) -> None:
    for camera in CAMERAS:
        assert read_image(night.output("preproc", camera)).camera == camera
        frame, cframe = read_frame(night.output("extract", camera)), read_frame(night.output("cframe", camera))
        for product in (
            frame,
            cframe,
            read_sky(night.output("sky", camera)),
            read_fluxcalib(night.output("fluxcalib", camera)),
        ):
            assert product.meta["CAMERA"].strip().lower() == camera
            assert product.meta["EXPID"] == SCIENCE
        assert cframe.bunit == CALIBRATED
        assert frame.resolution is not None
        names = cframe.scores.dtype.names
        assert {"SUM_RAW_COUNT", "MEDIAN_SKYSUB_SNR", "MEDIAN_CALIB_FLUX"} <= {n.rpartition("_")[0] for n in names}


def test_spectra_hold_every_target_and_the_coadd_each_once(night: Reduced) -> None:
    spectra, coadd = read_spectra(night.output("spectra")), read_spectra(night.output("coadd"))
    assert list(spectra.bands) == list(coadd.bands) == ["b", "r", "z"]
    assert len(coadd.fibermap) == 40
    np.testing.assert_array_equal(coadd.target_ids(), spectra.target_ids())
    assert coadd.scores is not None


def test_sky_fibers_hold_nothing_once_the_sky_is_off(night: Reduced) -> None:
    """39 stars and galaxies aside, 5 sky fibers of 430 bins: chi2/dof has an error of 0.03 a camera."""
    for camera in CAMERAS[:2]:
        frame = read_frame(night.output("cframe", camera))
        assert frame.fibermap is not None
        good = (frame.ivar > 0) & (frame.mask == 0) & frame.fibermap.is_sky[:, None]
        square = frame.flux[good] ** 2 * frame.ivar[good]
        print(f"{camera}: chi2/dof {square.mean():.3f} of {good.sum()}")
        assert square.mean() == pytest.approx(1.0, abs=0.15)


def test_stars_are_found_and_have_their_temperature(night: Reduced) -> None:
    """Three stars of S/N 20 and more a bin of 5 Angstrom: some 200 K and 80 km/s, as the fit says itself."""
    (task,) = (t for t in night.tasks.values() if t.kind == "starfit")
    stars = read_stdstars(task.outputs[0][1])
    targets = assign_targets(night.instrument, plan_night(NIGHT, 1, KINDS)[-1], 1)
    assert (targets.kind[stars.fibers] == "STD").all()
    assert len(stars.fibers) == 3
    table = stars.metadata
    error = table["TEFF"] - targets.shape[stars.fibers]
    print("T less truth", error.round(), "±", table["TEFF_ERR"].round(), "redshift", table["REDSHIFT"])
    assert abs(error).max() < 400
    assert abs(error / table["TEFF_ERR"]).max() < 4
    assert abs(table["REDSHIFT"] / table["REDSHIFT_ERR"]).max() < 4
    assert table["REDSHIFT_ERR"].max() < 6e-4


def test_calibrated_stars_have_their_true_flux(night: Reduced) -> None:
    """Photometry of 1 %, three stars, and what the fiber lost: the median over the band within 4 %."""
    exposure = plan_night(NIGHT, 1, KINDS)[-1]
    targets = assign_targets(night.instrument, exposure, 1)
    for camera in CAMERAS:
        frame = read_frame(night.output("cframe", camera))
        points = np.flatnonzero(np.isin(targets.kind[frame.fibers], ("STD",)))
        truth = targets.spectra(frame.fibers[points], frame.wave)
        good = (frame.ivar[points] > 0) & (frame.mask[points] == 0)
        ratio = np.nanmedian(np.where(good, frame.flux[points] / truth, np.nan), axis=1)
        print(camera, ratio.round(3))
        assert ratio == pytest.approx(np.ones(len(points)), abs=0.04)


def test_flux_calibrations_tell_throughput_and_zero_point(night: Reduced) -> None:
    """Of the median fiber at the middle of the arm, with the air: three stars and their photometry, within 4 %."""
    exposure = plan_night(NIGHT, 1, KINDS)[-1]
    for camera in CAMERAS:
        cards = read_fluxcalib(night.output("fluxcalib", camera)).meta
        wave = np.array([cards["CALWAVE"]])
        through = build_throughput(night.instrument, camera, 1)
        air = atmosphere(wave, exposure.airmass) * exposure.transparency / CLEAR
        expected = float((through.of_arm(wave) * air * np.median(through.of_fibers(wave)))[0])
        print(camera, {k: cards[k] for k in ("CALZP", "CALTHRU", "NSTDSTAR", "STARSNR", "CALAVG")}, f"{expected:.4f}")
        assert cards["CALTHRU"] == pytest.approx(expected, rel=0.04)
        assert cards["CALAVG"] == 0


def test_stars_of_too_little_light_get_the_average_of_the_tree(night: Reduced, tmp_path: Path) -> None:
    """A frame that knows a thirtieth of what it did: the tree's vector takes over, on the scale of the stars."""
    task = night.task("fluxcalib", "r0")
    files, dim, out = night.files(task), tmp_path / "frame.fits", tmp_path / "fluxcalib.fits"
    frame = read_frame(files["frame"])
    write_frame(dim, replace(frame, ivar=1e-3 * frame.ivar))
    step = night.plan.step("fluxcalib", "r", {"camera": "r0", "calib": night.settings.calib, "redux": None})
    step.run(StepFiles({**files.inputs, "frame": (dim,)}, {"fluxcalib": out}))
    average, own = read_fluxcalib(out), read_fluxcalib(night.output("fluxcalib", "r0"))
    print({k: average.meta[k] for k in ("CALAVG", "STARSNR")})
    assert average.meta["STARSNR"] < 2
    assert average.meta["CALAVG"] == pytest.approx(1.0, abs=0.1)
    np.testing.assert_allclose(average.ivar * average.value**2, np.where(average.value > 0, 1.0, 0.0), rtol=1e-4)
    both = (own.ivar > 0) & (own.mask == 0) & (average.value > 0)
    assert np.median(average.value[both] / own.value[both]) == pytest.approx(1.0, abs=0.03)


def test_without_a_flux_calibration_a_frame_is_sky_subtracted_counts(night: Reduced, tmp_path: Path) -> None:
    files = night.files(night.task("cframe", "r0"))
    inputs = {port: paths for port, paths in files.inputs.items() if port != "fluxcalib"}
    out = tmp_path / "sframe.fits"
    ProcessExposureStep({"camera": "r0"}).run(StepFiles(inputs, {"cframe": out}))
    assert "electron" in read_frame(out).bunit.lower() or read_frame(out).bunit == ELECTRON


@pytest.mark.parametrize("method", ["profile", "boxcar"])
def test_spectra_by_row_stand_on_the_same_grid(night: Reduced, tmp_path: Path, method: str) -> None:
    files, out = night.files(night.task("extract", "r0")), tmp_path / "frame.fits"
    ExtractStep({"method": method}).run(StepFiles(files.inputs, {"frame": out}))
    quick, full = read_frame(out), read_frame(night.output("extract", "r0"))
    np.testing.assert_allclose(quick.wave, full.wave)
    both = (quick.ivar > 0) & (full.ivar > 0) & (full.mask == 0) & (quick.mask == 0)
    assert np.median(quick.flux[both] / full.flux[both]) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("method", ["2d", "profile"])
def test_barycentric_extraction_says_by_how_much(night: Reduced, tmp_path: Path, method: str) -> None:
    files, out = night.files(night.task("extract", "z0")), tmp_path / "frame.fits"
    ExtractStep({"barycentric": True, "method": method}).run(StepFiles(files.inputs, {"frame": out}))
    moved = read_frame(out)
    assert moved.meta["HELIOCOR"] != 1
    assert abs(moved.meta["HELIOCOR"] - 1) < 1.1e-4


@pytest.mark.parametrize(
    ("params", "step"),
    [
        ({"grid": "log", "fast": True, "wave_start": 5900.0, "wave_stop": 7500.0, "step": 3e-4}, None),
        ({"grid": "linear", "fast": True, "wave_start": 5900.0, "wave_stop": 7500.0, "step": 5.0}, 5.0),
    ],
)
def test_coadds_can_be_resampled(night: Reduced, tmp_path: Path, params: dict[str, object], step: float | None) -> None:
    out = tmp_path / "coadd.fits"
    CoaddStep(params).run(StepFiles({"spectra": (night.output("spectra"),)}, {"coadd": out}))
    found = read_spectra(out)
    (band,) = found.bands.values()
    if step is not None:
        assert np.diff(band.wave) == pytest.approx(step)
    else:
        assert np.diff(np.log10(band.wave)) == pytest.approx(3e-4)
    assert np.isfinite(band.flux).all()


def test_arms_on_different_grids_cannot_be_stitched(night: Reduced, tmp_path: Path) -> None:
    """Those of this small instrument have steps of their own."""
    step = CoaddStep({"cameras": True})
    with pytest.raises(ValueError, match="misses that of b"):
        step.run(StepFiles({"spectra": (night.output("spectra"),)}, {"coadd": tmp_path / "coadd.fits"}))


def test_a_psf_from_an_exposure_without_lines_is_refused(night: Reduced, tmp_path: Path) -> None:
    preproc = tmp_path / "preproc.fits"
    night.output("preproc", "r0")
    with fitsio.FITS(str(night.output("preproc", "r0"))) as given, fitsio.FITS(str(preproc), "rw") as dark:
        for hdu in given:
            data, header = hdu.read(), hdu.read_header()
            blank = data * 0 if hdu.get_extname() == "IMAGE" else data
            dark.write(blank, header=header, extname=hdu.get_extname())
    with pytest.raises(MissingCalibration, match="lamps"):
        FitPSFStep({"calib": night.settings.calib}).run(
            StepFiles({"preproc": (preproc,)}, {"psf": tmp_path / "psf.fits"})
        )


def test_steps_say_why_they_cannot_run_here(night: Reduced, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "no star templates" in StarStep.unavailable(StarStep.Params(calib=tmp_path))
    monkeypatch.delenv("RR_TEMPLATE_DIR", raising=False)
    params = RedshiftStep.Params(program="no-such-program")
    assert "redrock is not installed" in RedshiftStep.unavailable(params)
    with pytest.raises(MissingCalibration, match="not installed"):
        RedshiftStep(params).run(StepFiles({"coadd": (night.output("coadd"),)}, {"redrock": tmp_path / "rr.fits"}))
