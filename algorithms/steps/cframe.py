"""Step: frame, fiber flat, sky and flux calibration to a calibrated frame."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from algorithms.fiberflat.stage import ApplyFiberFlat_QL
from algorithms.fluxcal.frame import apply_fluxcalib
from algorithms.fluxcal.stage import first_number, seeing_of
from algorithms.scores import frame_scores, with_columns
from algorithms.sky.framemodel import subtract_model
from algorithms.steps.surroundings import Surroundings, context_of
from algorithms.tsnr2.frame import frame_tsnr2, nominal_cards, tsnr2_columns
from qlstream.io.fiberflat import read_fiberflat
from qlstream.io.fluxcalib import read_fluxcalib
from qlstream.io.frame import read_frame, write_frame
from qlstream.io.sky import read_sky
from qlstream.pipeline.filestep import FileStep, Port, Report, StepFiles


class ProcessExposureStep(FileStep):
    """Everything that a frame goes through once its calibrations are known, and how much it tells of redshifts."""

    title = "Divide a frame by the fiber flat, subtract its sky and, if given, apply its flux calibration."
    inputs = (
        Port("frame", "frame of a science exposure", holds="frame", same_exposure=True),
        Port("fiberflat", "fiber flat", holds="fiberflat"),
        Port("sky", "sky model of this frame", holds="sky", same_exposure=True),
        Port(
            "fluxcalib",
            "flux calibration of this frame; without it an sframe is written",
            optional=True,
            holds="fluxcalib",
            same_exposure=True,
        ),
    )
    outputs = (Port("cframe", "calibrated frame"),)

    class Params(Surroundings):
        line_level: float = Field(3.0, gt=1, description="sky above this many continua is a line, with its own error")

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        report(0.0, "reading")
        frame, flat, sky = read_frame(files["frame"]), read_fiberflat(files["fiberflat"]), read_sky(files["sky"])
        context = context_of(frame.meta, self.params, FIBERFLAT=flat)
        report(0.4, "calibrating")
        out = subtract_model(ApplyFiberFlat_QL().run(frame, context), sky, self.params.line_level)
        out = replace(out, scores=frame_scores(out, "SKYSUB"))
        calib, stage = files.get("fluxcalib"), "SKYSUB"
        if calib is not None:
            vectors = read_fluxcalib(calib)
            seeing = first_number(vectors.meta, ("SEEUSED",), seeing_of(context.header))
            found = frame_tsnr2(out, vectors, context.instrument, seeing)
            scores = with_columns(out.scores, tsnr2_columns(found, out.camera[:1].upper()))
            out, stage = apply_fluxcalib(replace(out, scores=scores), vectors), "CALIB"
            tree = context_of(frame.meta, self.params).calibration
            if "FLUXCALIB" in tree:
                cards = nominal_cards(context.instrument, context.arm, tree.fluxcalib)
                out = replace(out, meta={**out.meta, **cards})
        report(0.8, "writing")
        out = replace(out, meta={**out.meta, "FLAVOR": context.flavor})
        write_frame(files.outputs["cframe"], replace(out, scores=frame_scores(out, stage)))
