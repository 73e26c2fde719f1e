"""Step: raw exposure to preprocessed image of one camera."""

from __future__ import annotations

from algorithms.preproc.stage import Preproc
from algorithms.steps.surroundings import Surroundings, context_of, stage_params
from qlstream.io.image import write_image
from qlstream.io.raw import read_raw
from qlstream.pipeline.filestep import FileStep, Port, Report, StepFiles


class PreprocStep(FileStep):
    """As the quicklook's stage `Preproc`, with its parameters."""

    title = "Preprocess one camera of a raw exposure: overscan, bias, dark, flat field, variance, cosmic rays."
    inputs = (
        Port("raw", "raw exposure"),
        Port("fibermap", "fibermap of the exposure, to go into the product", optional=True),
    )
    outputs = (Port("preproc", "preprocessed image"),)

    class Params(Surroundings, Preproc.Params):
        pass

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        if not self.params.camera:
            raise ValueError("which camera? a raw exposure holds many; give --camera")
        report(0.0, "reading")
        raw = read_raw(files["raw"], self.params.camera)
        context = context_of(raw.header, self.params, files.get("fibermap"))
        report(0.3, "preprocessing")
        image = Preproc(stage_params(Preproc, self.params)).run(raw, context)
        image.meta.setdefault("FLAVOR", context.flavor)
        report(0.8, "writing")
        write_image(files.outputs["preproc"], image, context.fibermap)
