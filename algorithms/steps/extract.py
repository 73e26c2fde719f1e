"""Step: preprocessed image and PSF to a frame."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from algorithms.barycentric import barycentric_factor
from algorithms.extract.boxcar import BoxcarExtract
from algorithms.extract.twodimensional import Extraction_2d
from algorithms.scores import frame_scores
from algorithms.steps.surroundings import Surroundings, context_of, stage_params
from qlstream.io.frame import write_frame
from qlstream.io.image import read_image
from qlstream.io.psf import read_psf
from qlstream.pipeline.filestep import FileStep, Port, Report, StepFiles


class ExtractStep(FileStep):
    """As the stages `Extraction_2d` and `BoxcarExtract`, with the parameters of the former."""

    title = "Extract the spectra of one camera: two-dimensional, with resolution; or quickly by a boxcar."
    inputs = (
        Port("preproc", "preprocessed image"),
        Port("psf", "PSF with the traces of this exposure"),
        Port("fibermap", "fibermap of the exposure", optional=True),
    )
    outputs = (Port("frame", "frame: spectra on a common grid"),)

    class Params(Surroundings, Extraction_2d.Params):
        barycentric: bool = Field(False, description="put science spectra on the wavelengths of the barycenter")
        method: Literal["2d", "boxcar"] = Field(
            "2d", description="2d (spectroperfectionism) or boxcar (a sum over columns)"
        )

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        report(0.0, "reading")
        image, psf = read_image(files["preproc"]), read_psf(files["psf"])
        context = context_of(image.meta | {"CAMERA": image.camera}, self.params, files.get("fibermap"), PSF=psf)
        image = replace(image, traces=psf.traces)
        report(0.05, "extracting")
        if self.params.method == "boxcar":
            grid = {"wavelength": self.params.wavelength, "delta_wave": self.params.delta_wave}
            frame = BoxcarExtract(grid).run(image, context)
        else:
            params = stage_params(Extraction_2d, self.params)
            if self.params.barycentric and context.flavor == "science":
                image = replace(image, meta={**image.meta, "HELIOCOR": barycentric_factor(image.meta)})
                params["options"] = {**params["options"], "barycentric": True}
            frame = Extraction_2d(params).run(image, context)
        report(0.95, "writing")
        frame = replace(frame, meta={**frame.meta, "FLAVOR": context.flavor})
        write_frame(files.outputs["frame"], replace(frame, scores=frame_scores(frame, "RAW")))
