"""Step: the PSF moved to where the spectra of an exposure are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from algorithms.extract.twodimensional import psf_with_traces
from algorithms.flexure.stage import Flexure
from algorithms.steps.surroundings import Surroundings, context_of, stage_params
from qlstream.io.image import read_image
from qlstream.io.psf import read_psf, write_psf
from qlstream.pipeline.filestep import FileStep, Port, Report, StepFiles


class TraceShiftStep(FileStep):
    """As the quicklook's stage `Flexure`, with its parameters; the whole PSF is written, on the shifted traces."""

    title = "Measure how far the spectra of an exposure moved on the CCD, and move the PSF with them."
    inputs = (
        Port("preproc", "preprocessed image", holds="preproc"),
        Port("psf", "PSF to start from", holds="psf"),
    )
    outputs = (Port("psf", "the same PSF on the traces of this exposure"),)

    class Params(Surroundings, Flexure.Params):
        pass

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        report(0.0, "reading")
        image, psf = read_image(files["preproc"]), read_psf(files["psf"])
        context = context_of(image.meta | {"CAMERA": image.camera}, self.params, PSF=psf, TRACES=psf.traces)
        report(0.3, "measuring")
        moved = Flexure(stage_params(Flexure, self.params)).run(image, context)
        assert moved.traces is not None
        assert moved.shifts is not None
        cards: dict[str, object] = {
            "IN_PSF": files["psf"].name,
            "IN_IMAGE": files["preproc"].name,
            "CAMERA": image.camera,
        }
        for axis, shift in (("DX", moved.shifts.dx), ("DY", moved.shifts.dy)):
            cards |= {f"MEAN{axis}": float(np.mean(shift)), f"MIN{axis}": float(shift.min())}
            cards[f"MAX{axis}"] = float(shift.max())
        report(0.9, "writing")
        out = psf_with_traces(psf, moved.traces)
        write_psf(files.outputs["psf"], replace(out, meta={**psf.meta, **cards}))
