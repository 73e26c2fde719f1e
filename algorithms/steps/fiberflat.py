"""Steps: a flat frame to a fiber flat, the flats of a night to one, and those of all petals to one scale."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from algorithms.fiberflat.autocalib import autocalib_fiberflat
from algorithms.fiberflat.average import average_fiberflat
from algorithms.fiberflat.stage import ComputeFiberflat
from algorithms.steps.surroundings import Surroundings, context_of, stage_params
from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.io.fiberflat import read_fiberflat, write_fiberflat
from qlstream.io.fibermap import read_fibermap
from qlstream.io.fitsfile import FitsFile
from qlstream.io.frame import read_frame
from qlstream.io.nights import header_to_night
from qlstream.io.paths import findfile
from qlstream.pipeline.algorithm import StageParams
from qlstream.pipeline.filestep import FileStep, Port, Report, StepFiles


class FiberFlatStep(FileStep):
    """As the stage `ComputeFiberflat`, with its parameters."""

    title = "Compute the relative throughput of the fibers from the frame of a lamp exposure."
    inputs = (Port("frame", "frame of a flat", holds="frame", flavor="flat"),)
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
    inputs = (Port("fiberflats", "fiber flats of the same camera and lamp", many=True, holds="fiberflat"),)
    outputs = (Port("fiberflat", "their average"),)

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        flats = [read_fiberflat(path) for path in files.all("fiberflats")]
        report(0.5, "averaging")
        write_fiberflat(files.outputs["fiberflat"], average_fiberflat(flats))


class AutocalibFiberFlatStep(FileStep):
    """Flats of all petals of an arm, and of several lamps, to one flat per camera."""

    title = "Bring the fiber flats of all petals of an arm to one scale, averaged over lamps of different places."
    inputs = (
        Port("fiberflats", "fiber flats of one arm: all petals, lamps and exposures", many=True, holds="fiberflat"),
        Port("fibermap", "fibermap with the positions of the fibers, if the flats have none", optional=True),
    )
    one_camera = False
    outputs = (Port("folder", "folder for the files fiberflatnight-CAMERA-NIGHT.fits"),)

    class Params(StageParams):
        knot_step: float = Field(22.0, gt=0, description="knots of the ratios of the petals' lamp spectra [Angstrom]")

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        """Lamps, told by PROGRAM, count alike however many exposures each has."""
        exposures: dict[tuple[str, int], list[Path]] = defaultdict(list)
        for path in files.all("fiberflats"):
            with FitsFile(path) as fits:
                cards = fits.header(0)
            exposures[str(cards.get("PROGRAM", "")).strip(), int(cards.get("EXPID", 0))].append(path)
        lamps = Counter(lamp for lamp, _ in exposures)
        where = files.get("fibermap")

        made = autocalib_fiberflat(
            _Exposures(list(exposures.values()), report),
            [1.0 / lamps[lamp] for lamp, _ in exposures],
            None if where is None else read_fibermap(where),
            self.params.knot_step,
        )
        folder = files.outputs["folder"]
        for flat in made:
            camera, night = str(flat.meta["CAMERA"]).strip().lower(), header_to_night(flat.meta)
            write_fiberflat(findfile("fiberflatnight", night=night, camera=camera, outdir=folder), flat)


class _Exposures:
    """The flats of exposure after exposure, read when they are asked for."""

    def __init__(self, paths: list[list[Path]], report: Report) -> None:
        self._paths, self._report = paths, report
        self._read = 0

    def __iter__(self) -> Iterator[list[FiberFlat]]:
        for paths in self._paths:
            self._report(0.45 * self._read / len(self._paths), paths[0].name)
            self._read += 1
            yield [read_fiberflat(path) for path in paths]
