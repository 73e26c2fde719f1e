"""Steps: calibrated frames to spectra of a tile, and their coadd."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from algorithms.coadd.cameras import coadd_cameras
from algorithms.coadd.exposures import coadd
from algorithms.coadd.resample import linear_grid, log_grid, resample_spectra, spectroperf_coadd
from algorithms.group.frames import frames2spectra
from algorithms.group.tiles import group_cards
from algorithms.scores import coadd_scores
from qlstream.datamodel.spectra import Spectra
from qlstream.io.frame import read_frame
from qlstream.io.nights import header_to_night
from qlstream.io.spectra import read_spectra, write_spectra
from qlstream.pipeline.algorithm import StageParams
from qlstream.pipeline.filestep import FileStep, Port, Report, StepFiles


class GroupStep(FileStep):
    """Regroup frames."""

    title = "Gather the calibrated frames of a petal, all arms and exposures, into one file of spectra."
    inputs = (Port("frames", "calibrated frames (cframe)", many=True),)
    outputs = (Port("spectra", "spectra, one row per target and exposure"),)

    class Params(StageParams):
        group: str = Field("cumulative", description="what the spectra are grouped by; goes into the header as SPGRP")

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        frames = {}
        given = files.all("frames")
        for n, path in enumerate(given):
            report(0.8 * n / len(given), f"reading {path.name}")
            frame = read_frame(path)
            frames[(header_to_night(frame.meta), int(frame.meta["EXPID"]), frame.camera)] = frame
        spectra = frames2spectra(frames)
        report(0.8, "writing")
        night, expid, _ = max(frames)
        cards = group_cards(self.params.group, night, expid)
        write_spectra(files.outputs["spectra"], replace(spectra, meta={**spectra.meta, **cards}))


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
        together = coadd(spectra, p.nsig, p.normalize)
        if p.grid == "native":
            return coadd_cameras(together) if p.cameras else together
        make = log_grid if p.grid == "log" else linear_grid
        wave = make(p.wave_start, p.wave_stop, p.step)
        if p.fast:
            return resample_spectra(together, wave)
        # one fit to all exposures, then the tables of the coadd
        return replace(together, bands=spectroperf_coadd(spectra, wave).bands)
