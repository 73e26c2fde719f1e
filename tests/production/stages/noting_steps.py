"""Steps that only note what they were given: for tests of the production itself."""

from __future__ import annotations

import os
import signal

import numpy as np

from qlstream.io.fitsfile import HDU, write_fits
from qlstream.pipeline.filestep import FileStep, Port, Report, StepFiles


class Note(FileStep):
    """Writes a file that lists the names of its inputs."""

    title = "note the inputs"
    inputs = tuple(
        Port(name, "any", many=True, optional=True)
        for name in ("raw", "preproc", "psf", "psfs", "frame", "frames", "fiberflat", "fiberflats", "sky", "skies",
                     "stdstars", "fluxcalib", "spectra", "coadd")
    )  # fmt: skip
    outputs = (Port("out", "the note"),)

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        names = {f"IN{n:03d}": p.name for n, p in enumerate(p for port in self.inputs for p in files.all(port.name))}
        for path in files.outputs.values():
            write_fits(path, [HDU("", None, names), HDU("NOTE", np.zeros(3, np.float32))])


class FailsOnR1(Note):
    """As Note, but breaks on camera r1."""

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        if any("r1-" in path.name for path in files.outputs.values()):
            raise ValueError("r1 cannot be extracted")
        super().run(files, report)


class DiesOnR1(Note):
    """As Note, but takes its process with it on camera r1."""

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        if any("r1-" in path.name for path in files.outputs.values()):
            os.kill(os.getpid(), signal.SIGKILL)
        super().run(files, report)


class DiesOnce(Note):
    """As Note, but the first process that comes by dies."""

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        (first, *_) = files.outputs.values()
        try:
            (first.parents[2] / "died").touch(exist_ok=False)
        except FileExistsError:
            super().run(files, report)
        else:
            os.kill(os.getpid(), signal.SIGKILL)
