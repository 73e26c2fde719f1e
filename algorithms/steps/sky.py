"""Step: a science frame to the model of its sky."""

from __future__ import annotations

from pydantic import Field

from algorithms.cosmics import mask_cosmics
from algorithms.fiberflat.stage import ApplyFiberFlat_QL
from algorithms.sky.stage import ComputeSky
from algorithms.steps.surroundings import Surroundings, context_of, stage_params
from qlstream.io.fiberflat import read_fiberflat
from qlstream.io.frame import read_frame
from qlstream.io.sky import write_sky
from qlstream.pipeline.filestep import FileStep, Port, Report, StepFiles


class SkyStep(FileStep):
    """As the stage `ComputeSky` on the flat-fielded frame, with its parameters."""

    title = "Model the sky of a science frame from its sky fibers."
    inputs = (
        Port("frame", "frame of a science exposure", holds="frame"),
        Port("fiberflat", "fiber flat", holds="fiberflat"),
    )
    outputs = (Port("sky", "sky model"),)

    class Params(Surroundings, ComputeSky.Params):
        cosmics_nsig: float = Field(0.0, ge=0, description="mask narrow spikes of the spectra first [sigma]; 0: no")

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        report(0.0, "reading")
        frame, flat = read_frame(files["frame"]), read_fiberflat(files["fiberflat"])
        context = context_of(frame.meta, self.params, FIBERFLAT=flat)
        report(0.2, "fitting")
        if self.params.cosmics_nsig > 0:
            frame = mask_cosmics(frame, self.params.cosmics_nsig)
        flattened = ApplyFiberFlat_QL().run(frame, context)
        sky = ComputeSky(stage_params(ComputeSky, self.params)).run(flattened, context)
        write_sky(files.outputs["sky"], sky)
