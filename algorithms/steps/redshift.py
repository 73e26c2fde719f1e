"""Step: a coadd to redshifts, by redrock, which is run as a program of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from pydantic import Field

from qlstream.calibration.served import MissingCalibration
from qlstream.io.atomic import atomic_path
from qlstream.io.redshifts import read_redshifts
from qlstream.pipeline.algorithm import StageParams
from qlstream.pipeline.filestep import FileStep, Port, Report, StepFiles

TEMPLATES = "RR_TEMPLATE_DIR"  # redrock's own variable
_INSTALL = "pip install 'qlstream[redshift]' beside desispec, or give the program's path"


class RedshiftStep(FileStep):
    """Run redrock's `rrdesi` and read its result back."""

    title = "Measure redshifts of a coadd with redrock, if it is installed."
    inputs = (Port("coadd", "coadd of the petal"),)
    outputs = (Port("redrock", "redshifts"), Port("rrdetails", "all that redrock tells (HDF5)", optional=True))

    class Params(StageParams):
        program: str = Field("rrdesi", description="redrock's program: a name on the path, or a file")
        templates: Path | None = Field(None, description="folder of templates; default: RR_TEMPLATE_DIR")
        processes: int = Field(1, ge=1, description="processes that redrock may use")
        targets: int | None = Field(None, ge=1, description="only the first so many targets")

    @classmethod
    def unavailable(cls, params: StageParams) -> str:
        """Why it cannot run here."""
        assert isinstance(params, cls.Params)
        if _program(params.program) is None:
            return f"redrock is not installed: no program {params.program!r}; {_INSTALL}"
        folder = params.templates or os.environ.get(TEMPLATES)
        if not folder:
            return f"redrock has no templates: set {TEMPLATES} to their folder"
        if not Path(folder).is_dir():
            return f"redrock has no templates: no folder {folder}; set {TEMPLATES} or --templates to it"
        return ""

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        """Raises MissingCalibration if redrock is not installed, RuntimeError with its last words if it fails."""
        p = self.params
        if why := self.unavailable(p):
            raise MissingCalibration(why)
        program = _program(p.program)
        assert program is not None
        report(0.1, "redrock")
        out = files.outputs["redrock"]
        with atomic_path(out) as temporary:
            command = [program, "-i", str(files["coadd"]), "-o", str(temporary), "--mp", str(p.processes)]
            if p.templates is not None:
                command += ["-t", str(p.templates)]
            if (details := files.out("rrdetails")) is not None:
                command += ["-d", str(details)]
            if p.targets is not None:
                command += ["-n", str(p.targets)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0 or not Path(temporary).exists():
                last = (done.stderr or done.stdout).strip().splitlines()[-3:]
                raise RuntimeError(f"redrock ended with status {done.returncode}: {' / '.join(last) or 'no message'}")
            found = read_redshifts(temporary)
        report(1.0, f"{len(found)} targets")


def _program(name: str) -> str | None:
    """The program's path: as given, on the path, or beside this Python."""
    beside = Path(sys.executable).parent / name
    return shutil.which(name) or (str(beside) if beside.exists() else None)
