"""Steps: calibrated frames to spectra of a tile, and their coadd."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from algorithms.coadd.cameras import coadd_cameras
from algorithms.coadd.exposures import coadd
from algorithms.coadd.resample import linear_grid, log_grid, resample_spectra, spectroperf_coadd
from algorithms.group.frames import Key, frames2spectra
from algorithms.group.pixels import NSIDE, spectra_of_pixel
from algorithms.group.tiles import group_cards
from algorithms.scores import coadd_scores
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.spectra import Spectra
from qlstream.io.frame import read_frame
from qlstream.io.nights import header_to_night
from qlstream.io.spectra import read_spectra, write_spectra
from qlstream.pipeline.algorithm import StageParams
from qlstream.pipeline.filestep import FileStep, Port, Report, StepFiles


class GroupStep(FileStep):
    """Regroup frames."""

    title = "Gather the calibrated frames of a petal, all arms, exposures and nights, into one file of spectra."
    inputs = (
        Port("frames", "calibrated frames (cframe)", many=True),
        Port("existing", "with --healpix: spectra of the pixel, to which what they lack is added", optional=True),
    )
    outputs = (Port("spectra", "spectra, one row per target and exposure"),)

    class Params(StageParams):
        group: str = Field("cumulative", description="what the spectra are grouped by; goes into the header as SPGRP")
        healpix: int | None = Field(None, ge=0, description="take the targets on this pixel of the sky only (nested)")
        nside: int = Field(NSIDE, gt=0, description="of the pixel")

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        """Raises LookupError if no target lies on the pixel."""
        frames: dict[Key, Frame] = {}
        given = files.all("frames")
        for n, path in enumerate(given):
            report(0.8 * n / len(given), f"reading {path.name}")
            frame = _slim(read_frame(path))
            frames[(header_to_night(frame.meta), int(frame.meta["EXPID"]), frame.camera)] = frame
        report(0.8, "writing")
        write_spectra(files.outputs["spectra"], self._grouped(frames, files.get("existing")))

    def _grouped(self, frames: dict[Key, Frame], existing: Path | None) -> Spectra:
        p = self.params
        if p.healpix is not None:
            known = None if existing is None else read_spectra(existing)
            return spectra_of_pixel(p.healpix, frames, known, p.nside)
        spectra = frames2spectra(frames)
        night, expid, _ = max(frames)
        return replace(spectra, meta={**spectra.meta, **group_cards(p.group, night, expid)})


def _slim(frame: Frame) -> Frame:
    """A frame without what spectra do not have, its resolution as exact as in the file: half of the memory."""
    resolution = None if frame.resolution is None else frame.resolution.astype(np.float32)
    return replace(frame, resolution=resolution, chi2pix=None, sky=None)


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
