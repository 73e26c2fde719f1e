"""Step: preprocessed image and PSF to a frame."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from algorithms.barycentric import barycentric_factor
from algorithms.extract.boxcar import BoxcarExtract
from algorithms.extract.profile import ProfileExtract
from algorithms.extract.twodimensional import Extraction_2d
from algorithms.scores import frame_scores
from algorithms.steps.surroundings import Surroundings, context_of
from qlstream.io.frame import write_frame
from qlstream.io.image import read_image
from qlstream.io.psf import read_psf
from qlstream.pipeline.filestep import FileStep, Port, Report, StepFiles

METHODS: dict[str, type[Extraction_2d | ProfileExtract | BoxcarExtract]] = {
    "2d": Extraction_2d,
    "profile": ProfileExtract,
    "boxcar": BoxcarExtract,
}


class ExtractStep(FileStep):
    """As the stages `Extraction_2d`, `ProfileExtract` and `BoxcarExtract`, with the parameters of the first."""

    title = "Extract the spectra of one camera: two-dimensional, with resolution; or row by row, by profile or boxcar."
    inputs = (
        Port("preproc", "preprocessed image", holds="preproc"),
        Port("psf", "PSF with the traces of this exposure", holds="psf"),
        Port("fibermap", "fibermap of the exposure", optional=True),
    )
    outputs = (Port("frame", "frame: spectra on a common grid"),)

    class Params(Surroundings, Extraction_2d.Params):
        method: Literal["2d", "profile", "boxcar"] = Field(
            "2d", description="2d (spectroperfectionism), profile (optimal weights row by row) or boxcar (plain sums)"
        )

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        report(0.0, "reading")
        image, psf = read_image(files["preproc"]), read_psf(files["psf"])
        context = context_of(image.meta | {"CAMERA": image.camera}, self.params, files.get("fibermap"), PSF=psf)
        image = replace(image, traces=psf.traces)
        params = self.params.model_dump()
        if self.params.barycentric and context.flavor == "science":
            image = replace(image, meta={**image.meta, "HELIOCOR": barycentric_factor(image.meta)})
        else:
            params["barycentric"] = False  # lamps do not move
        report(0.05, "extracting")
        stage = METHODS[self.params.method]
        known = {name: params[name] for name in stage.Params.model_fields if name in params}
        frame = stage(known).run(image, context)
        report(0.95, "writing")
        frame = replace(frame, meta={**frame.meta, "FLAVOR": context.flavor})
        write_frame(files.outputs["frame"], replace(frame, scores=frame_scores(frame, "RAW")))
