"""Steps: calibrated frames to spectra of a tile, and their coadd."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from algorithms.coadd.cameras import coadd_cameras
from algorithms.coadd.exposures import coadd, coadd_on_grid
from algorithms.coadd.resample import linear_grid, log_grid, resample_spectra
from algorithms.group.frames import Key, frames2spectra
from algorithms.group.pixels import NSIDE, FrameCache, spectra_of_pixel
from algorithms.group.tiles import group_cards
from algorithms.scores import coadd_scores
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.spectra import Spectra
from qlstream.io.errors import BadFile
from qlstream.io.firstheader import read_first_header
from qlstream.io.frame import read_frame
from qlstream.io.nights import header_to_night
from qlstream.io.spectra import read_spectra, write_spectra
from qlstream.pipeline.algorithm import StageParams
from qlstream.pipeline.filestep import FileStep, Port, Report, StepFiles


class GroupStep(FileStep):
    """Regroup frames."""

    title = "Gather the calibrated frames of a petal, all arms, exposures and nights, into one file of spectra."
    inputs = (
        Port("frames", "calibrated frames", many=True, holds="cframe"),
        Port("existing", "with --healpix: spectra of the pixel, to which what they lack is added", optional=True),
    )
    one_camera = False
    outputs = (Port("spectra", "spectra, one row per target and exposure"),)

    class Params(StageParams):
        group: str = Field("cumulative", description="what the spectra are grouped by; goes into the header as SPGRP")
        healpix: int | None = Field(None, ge=0, description="take the targets on this pixel of the sky only (nested)")
        nside: int = Field(NSIDE, gt=0, description="of the pixel")

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        """Raises LookupError if no target lies on the pixel."""
        given = files.all("frames")
        paths = {_key(path): path for path in given}

        def read(path: Path) -> Frame:
            report(0.8 * given.index(path) / len(given), f"reading {path.name}")
            return read_frame(path)

        spectra = self._grouped(FrameCache(paths, read, size=1), files.get("existing"))
        report(0.8, "writing")
        write_spectra(files.outputs["spectra"], spectra)

    def _grouped(self, frames: Mapping[Key, Frame], existing: Path | None) -> Spectra:
        p = self.params
        if p.healpix is not None:
            known = None if existing is None else read_spectra(existing)
            return spectra_of_pixel(p.healpix, frames, known, p.nside)
        spectra = frames2spectra(frames)
        night, expid, _ = max(frames)
        return replace(spectra, meta={**spectra.meta, **group_cards(p.group, night, expid)})


def _key(path: Path) -> Key:
    """Night, exposure and camera of a frame, from its first header."""
    cards = read_first_header(path)
    missing = [name for name in ("CAMERA", "EXPID") if name not in cards]
    if missing:
        raise BadFile(path, f"missing keyword {missing[0]}", 0, expected="the header of a calibrated frame")
    return header_to_night(cards), int(cards["EXPID"]), str(cards["CAMERA"]).strip().lower()


class CoaddStep(FileStep):
    """Coadd the exposures of each target."""

    title = "Coadd the exposures of each target; on request stitch the arms or resample."
    inputs = (Port("spectra", "spectra, one row per target and exposure"),)
    outputs = (Port("coadd", "coadd, one row per target"),)

    class Params(StageParams):
        nsig: float = Field(
            4.0, ge=0, description="mask cosmic rays of single exposures beyond this [sigma]; 0 for none"
        )
        normalize: bool = Field(True, description="bring exposures of variable objects to their mean brightness")
        cameras: bool = Field(False, description="stitch the arms to one spectrum")
        grid: Literal["native", "linear", "log"] = Field("native", description="resample to such a grid")
        wave_start: float = Field(3600.0, gt=0, description="of the new grid [Angstrom]")
        wave_stop: float = Field(9824.0, gt=0, description="of the new grid [Angstrom]")
        step: float = Field(0.8, gt=0, description="of the new grid [Angstrom], or in log10(wave)")
        fast: bool = Field(False, description="resample bin by bin, without resolution")

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        report(0.0, "reading")
        spectra = read_spectra(files["spectra"])
        report(0.2, "coadding")
        out = self._coadded(spectra)
        write_spectra(files.outputs["coadd"], replace(out, scores=coadd_scores(out)))

    def _coadded(self, spectra: Spectra) -> Spectra:
        p = self.params
        if p.grid == "native":
            together = coadd(spectra, p.nsig, p.normalize)
            return coadd_cameras(together) if p.cameras else together
        make = log_grid if p.grid == "log" else linear_grid
        wave = make(p.wave_start, p.wave_stop, p.step)
        if p.fast:
            return resample_spectra(coadd(spectra, p.nsig, p.normalize), wave)
        return coadd_on_grid(spectra, wave, p.nsig, p.normalize)
