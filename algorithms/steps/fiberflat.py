"""Steps: a flat frame to a fiber flat, and the flats of a night to one."""

from __future__ import annotations

from algorithms.fiberflat.average import average_fiberflat
from algorithms.fiberflat.stage import ComputeFiberflat
from algorithms.steps.surroundings import Surroundings, context_of, stage_params
from qlstream.io.fiberflat import read_fiberflat, write_fiberflat
from qlstream.io.frame import read_frame
from qlstream.pipeline.filestep import FileStep, Port, Report, StepFiles


class FiberFlatStep(FileStep):
    """As the stage `ComputeFiberflat`, with its parameters."""

    title = "Compute the relative throughput of the fibers from the frame of a lamp exposure."
    inputs = (Port("frame", "frame of a flat"),)
    outputs = (Port("fiberflat", "fiber flat"),)

    class Params(Surroundings, ComputeFiberflat.Params):
        pass

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        report(0.0, "reading")
        frame = read_frame(files["frame"])
        context = context_of(frame.meta, self.params)
        report(0.2, "fitting")
        flat = ComputeFiberflat(stage_params(ComputeFiberflat, self.params)).run(frame, context)
        write_fiberflat(files.outputs["fiberflat"], flat)


class AverageFiberFlatStep(FileStep):
    """Average flats."""

    title = "Average the fiber flats of one camera."
    inputs = (Port("fiberflats", "fiber flats of the same camera and lamp", many=True),)
    outputs = (Port("fiberflat", "their average"),)

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        flats = [read_fiberflat(path) for path in files.all("fiberflats")]
        report(0.5, "averaging")
        write_fiberflat(files.outputs["fiberflat"], average_fiberflat(flats))
