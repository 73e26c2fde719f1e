import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from algorithms.extract.twodimensional import Extraction_2d
from qlstream.calibration.served import Calibration, MissingCalibration
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.image import Image
from qlstream.instrument import load_instrument
from qlstream.pipeline.algorithm import PipelineAlg
from qlstream.simulate.optics import build_optics


@pytest.fixture
def stand_in(monkeypatch):
    """A module with an extraction that only notes what it was asked for."""
    asked = {}

    def extract_frame(image, psf, wave, **given):
        asked.update(given, image=image, psf=psf, wave=wave)
        shape = len(given["fibers"]), len(wave)
        return Frame(wave, np.zeros(shape), np.ones(shape), np.zeros(shape, np.uint32), given["fibers"], meta={"A": 1})

    module = ModuleType("standin")
    module.extract_frame = extract_frame
    monkeypatch.setitem(sys.modules, "standin", module)
    return asked


@pytest.fixture
def exposure(make_context, make_fibermap):
    """An image whose traces and widths differ from those of the calibration PSF, and its context."""
    optics = build_optics(load_instrument("mini"), "r1", seed=3)
    traces = optics.traces.shifted(np.full((40, 3), 0.3), np.full((40, 3), -0.2), np.array([5800.0, 6500.0, 7500.0]))
    traces = replace(traces, ysigcoef=1.1 * traces.ysigcoef)
    empty = np.zeros((500, 400), np.float32)
    image = Image(empty, empty, np.zeros((500, 400), np.uint16), "r1", meta={"EXPID": 82}, traces=traces)
    calibration = Calibration("r1", 20260114, {"PSF": optics.psf})
    fibermap = make_fibermap(["ELG"] * 40, first_fiber=40)
    return image, make_context(camera="r1", calibration=calibration, fibermap=fibermap), optics.psf


def test_the_backend_gets_the_psf_of_this_exposure_and_the_grid(stand_in, exposure):
    image, context, psf = exposure
    stage = Extraction_2d(
        {"backend": "standin:extract_frame", "Specmin": 8, "Nspec": 4, "Nwavestep": 30, "psf_error": 0.02}
    )

    frame = stage.run(image, context)

    wave = np.array([5900.0, 7400.0])
    handed = stand_in["psf"]
    assert handed.nspec == 4
    np.testing.assert_allclose(handed.traces.x_vs_wave(wave), image.traces.x_vs_wave(wave)[8:12])
    np.testing.assert_allclose(handed.parameter("GHSIGY", wave), 1.1 * psf.parameter("GHSIGY", wave)[8:12], rtol=1e-9)
    np.testing.assert_allclose(handed.parameter("GH-4-4", wave), psf.parameter("GH-4-4", wave)[8:12])
    assert stand_in["wave"][0] == 5760.0
    assert stand_in["bundle"].tolist() == [0, 0, 1, 1]
    assert (stand_in["nwavestep"], stand_in["psf_error"], stand_in["doppler"]) == (30, 0.02, 1.0)
    assert frame.fibers.tolist() == frame.fibermap.fiber.tolist() == [48, 49, 50, 51]
    assert frame.meta == {"FLAVOR": "science", "EXPID": 82, "A": 1, "CAMERA": "r1", "NSPEC": 4}


@pytest.mark.parametrize(
    ("backend", "told"),
    [
        ("nowhere.at.all:extract_frame", "not installed: there is no module nowhere"),
        ("algorithms.extract.nothing:extract_frame", "no module algorithms.extract.nothing"),
        ("standin:other", "standin has no such function"),
    ],
)
def test_without_the_backend_the_stage_is_skipped_and_says_why(stand_in, exposure, backend, told):
    image, context, _ = exposure

    with pytest.raises(MissingCalibration, match=told):
        Extraction_2d({"backend": backend}).run(image, context)


def test_a_broken_installation_is_not_taken_for_none(exposure, tmp_path, monkeypatch):
    (tmp_path / "halfinstalled.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    image, context, _ = exposure

    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        Extraction_2d({"backend": "halfinstalled:extract_frame"}).run(image, context)


def test_it_needs_a_psf(stand_in, exposure, make_context):
    image, _, _ = exposure

    with pytest.raises(MissingCalibration, match="no PSF for r3"):
        Extraction_2d({"backend": "standin:extract_frame"}).run(image, make_context())


def test_it_is_a_stage_that_makes_frames_of_images():
    assert issubclass(Extraction_2d, PipelineAlg)
    assert Extraction_2d.types() == (Image, Frame)
