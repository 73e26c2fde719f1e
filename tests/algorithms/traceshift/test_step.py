"""The command `trace-shifts`: methods, and what it writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from algorithms.steps.traceshift import TraceShiftStep
from qlstream.io.image import write_image
from qlstream.io.psf import read_psf, write_psf
from qlstream.lines import sky_lines
from qlstream.pipeline.filestep import StepFiles
from qlstream.simulate.optics import build_optics

DX, DY = (0.2, 0.0, 0.0), (-0.3, 0.0, 0.0)


class Files:
    """An exposure on disk, with the PSF from before its spectra moved."""

    def __init__(self, folder: Path, exposure: Any) -> None:
        self.folder, self.exposure = folder, exposure
        context = exposure.context
        site = context.instrument.model_copy(update={"name": "fine"})
        (folder / "fine.yaml").write_text(yaml.safe_dump(site.model_dump(mode="json")))
        header = {"NIGHT": 20260114, "EXPID": 7, "OBSTYPE": context.flavor.upper(), "FLAVOR": context.flavor}
        write_image(folder / "preproc.fits", replace(exposure.image, meta=header))
        psf = build_optics(context.instrument, "r1", seed=3).psf
        write_psf(folder / "start.fits", replace(psf, meta={**psf.meta, "CAMERA": "r1"}))

    def run(self, **params: Any) -> Any:
        step = TraceShiftStep({"instrument": str(self.folder / "fine.yaml"), **params})
        inputs = {"preproc": (self.folder / "preproc.fits",), "psf": (self.folder / "start.fits",)}
        step.run(StepFiles(inputs, {"psf": self.folder / "psf.fits"}))
        return read_psf(self.folder / "psf.fits")


@pytest.fixture
def science(moved: Callable[..., Any], tmp_path: Path) -> Files:
    return Files(tmp_path, moved("science", DX, DY))


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({}, "sky lines"),
        ({"reference": "sky.dat", "reach": 3.0}, "sky.dat"),
        ({"method": "forward"}, "spots"),
        ({"method": "forward", "line_list": "lines.csv"}, "spots"),
    ],
)
def test_the_psf_moves_with_the_spectra_and_its_header_says_how(
    science: Files, params: dict[str, Any], told: str
) -> None:
    wave = np.arange(6800.0, 7700.0, 0.1)
    near = sky_lines()[(sky_lines()["wave"] > 6810) & (sky_lines()["wave"] < 7690)]
    flux = np.full(wave.size, 10.0)
    for line in near:
        flux += line["strength"] * np.exp(-0.5 * ((wave - line["wave"]) / 0.15) ** 2)
    np.savetxt(science.folder / "sky.dat", np.transpose([wave, flux]))
    rows = [f"{line['wave']},{line['name']},{line['strength']}" for line in near]
    (science.folder / "lines.csv").write_text("\n".join(["wave,name,strength", *rows]))
    files = {k: science.folder / v if k in ("reference", "line_list") else v for k, v in params.items()}

    psf = science.run(**files)

    assert psf.meta["METHODY"] == told
    assert psf.meta["MEANDX"] == pytest.approx(DX[0], abs=0.01)
    assert psf.meta["MEANDY"] == pytest.approx(DY[0], abs=0.02)
    assert psf.meta["MINDY"] < psf.meta["MEANDY"] < psf.meta["MAXDY"]
    assert (psf.meta["IN_PSF"], psf.meta["IN_IMAGE"]) == ("start.fits", "preproc.fits")
    at = np.linspace(6950.0, 7500.0, 20)
    true = science.exposure.truth
    assert np.abs(psf.traces.x_vs_wave(at) - true.x_vs_wave(at)).mean() < 0.01
    assert np.abs(psf.traces.y_vs_wave(at) - true.y_vs_wave(at)).mean() < 0.02


def test_what_a_method_needs_is_asked_for(science: Files, moved: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name its file by --reference"):
        science.run(method="reference")
    (tmp_path / "lines.csv").write_text("wave,name,strength\n7245.2;Ne;100\n")
    with pytest.raises(ValueError, match=r"lines.csv, row 2: .* is not wave,name,strength"):
        science.run(method="forward", line_list=tmp_path / "lines.csv")
    flat = Files(tmp_path, moved("flat", DX))
    with pytest.raises(ValueError, match="a flat exposure has no lines"):
        flat.run(method="internal")
    assert flat.run(method="auto", reference=tmp_path / "unused.dat").meta["METHODY"] == "carried over"


def test_the_psf_of_another_camera_is_refused(science: Files) -> None:
    psf = read_psf(science.folder / "start.fits")
    write_psf(science.folder / "start.fits", replace(psf, meta={**psf.meta, "CAMERA": "b7"}))
    with pytest.raises(ValueError, match="the PSF is of b7"):
        science.run(method="forward")
