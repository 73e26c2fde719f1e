"""Steps: the standard stars of a petal, and the flux calibration of a camera."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StringConstraints

from algorithms.fiberflat.stage import ApplyFiberFlat_QL
from algorithms.fluxcal.choose import StarCuts
from algorithms.fluxcal.stage import first_number, seeing_of
from algorithms.fluxcal.starfit import FitLimits
from algorithms.fluxcal.vector import CalibrationLimits, compute_fluxcalib
from algorithms.fluxcal.zeropoint import calibration_cards
from algorithms.group.frames import rows_of
from algorithms.sky.framemodel import subtract_model
from algorithms.stars.fit import Choice, fit_stars, star_targets
from algorithms.stars.match import MatchLimits
from algorithms.steps.surroundings import Surroundings, context_of
from qlstream.calibration.served import Calibration, MissingCalibration
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.sky import SkyModel
from qlstream.io.fiberflat import read_fiberflat
from qlstream.io.fluxcalib import write_fluxcalib
from qlstream.io.frame import read_frame
from qlstream.io.sky import read_sky
from qlstream.io.stdstars import read_star_templates, read_stdstars, write_stdstars
from qlstream.pipeline.algorithm import StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.filestep import FileStep, Port, Report, StepFiles

Array = NDArray[np.float64]

_LINE_LEVEL = 3.0  # as by default in `cframe` and `sky`
_WINDOW = r"^\d+(\.\d+)?-\d+(\.\d+)?$"


class StarStep(FileStep):
    """Match the standard stars of a petal."""

    title = "Fit model spectra to the standard stars of a petal."
    inputs = (
        Port("frames", "frames of the petal, all arms", many=True, holds="frame"),
        Port("fiberflats", "fiber flats of these cameras", many=True, holds="fiberflat"),
        Port("skies", "sky models of these frames", many=True, holds="sky"),
    )
    one_camera = False
    outputs = (Port("stdstars", "models of the stars"),)

    class Params(Surroundings):
        templates: Path | None = Field(None, description="grid of star templates; default: TREE/stars/templates.fits")
        max_stars: int = Field(50, ge=1, description="the brightest so many stars")
        min_snr: float = Field(4.0, gt=0, description="S/N per bin in the bluest arm that a star needs")
        delta_color: float = Field(0.4, gt=0, description="templates within this of a star's colour are tried [mag]")
        z_max: float = Field(0.005, gt=0, lt=0.1, description="largest redshift of a star")
        template_error: float = Field(0.02, ge=0, description="what templates are off, of the continuum")
        knot_step: float = Field(150.0, gt=0, description="distance of the knots of a star's response [Angstrom]")
        left_out: tuple[Annotated[str, StringConstraints(pattern=_WINDOW)], ...] = Field(
            (), description="where the response is not smooth, LOW-HIGH [Angstrom]; for DESI's b 4300-4500"
        )

    @classmethod
    def unavailable(cls, params: StageParams) -> str:
        """Why it cannot run here."""
        assert isinstance(params, cls.Params)
        return _no_templates(params)

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        p = self.params
        if why := _no_templates(p):
            raise MissingCalibration(why)
        path = _templates(p)
        assert path is not None
        templates = read_star_templates(path)
        frames = []
        flats = {flat.meta["CAMERA"].strip().lower(): flat for flat in map(read_fiberflat, files.all("fiberflats"))}
        skies = {(s.meta["CAMERA"].strip().lower(), int(s.meta["EXPID"])): s for s in map(read_sky, files.all("skies"))}
        for n, file in enumerate(files.all("frames")):
            report(0.3 * n / len(files.all("frames")), f"reading {file.name}")
            frame = read_frame(file)
            key = (frame.camera, int(frame.meta["EXPID"]))
            if frame.camera not in flats or key not in skies:
                continue  # its sky could not be made: the other arms serve
            context = context_of(frame.meta, p, FIBERFLAT=flats[frame.camera])
            ready = _without_sky(ApplyFiberFlat_QL().run(frame, context), skies[key])
            if ready.fibermap is not None:  # all other fibers are let go: a tile may have many exposures
                frames.append(rows_of(ready, star_targets(ready.fibermap)))
        if not frames:
            raise MissingCalibration("none of these frames has a fibermap, a fiber flat and a sky model")
        windows = [(min(ends), max(ends)) for ends in ([float(end) for end in w.split("-")] for w in p.left_out)]
        limits = MatchLimits(z_max=p.z_max, template_error=p.template_error, knot_step=p.knot_step, left_out=windows)
        choice = Choice(p.max_stars, p.min_snr, p.delta_color)
        stars = fit_stars(frames, templates, limits, choice, lambda share: report(0.3 + 0.65 * share, "stars"))
        write_stdstars(files.outputs["stdstars"], stars)


class FluxCalibStep(FileStep):
    """Compute the calibration vectors of a camera."""

    title = "Compute the flux calibration of a frame from the standard stars of its petal."
    inputs = (
        Port("frame", "frame of a science exposure", holds="frame", same_exposure=True),
        Port("fiberflat", "fiber flat", holds="fiberflat"),
        Port("sky", "sky model of this frame", holds="sky", same_exposure=True),
        Port("stdstars", "models of the standard stars", holds="stdstars", same_exposure=True),
    )
    outputs = (Port("fluxcalib", "flux calibration"),)

    class Params(Surroundings):
        nsig: float = Field(10.0, gt=0, alias="nsig_clipping", description="reject bins that deviate by more [sigma]")
        nsig_scale: float = Field(3.0, gt=0, description="reject stars whose scale deviates by more [sigma]")
        bend: float = Field(
            0.01, gt=0, description="how far the response leaves its tangent in 50 Angstrom, outside telluric bands"
        )
        color: float = Field(0.2, gt=0, description="largest difference of model and observed colour [mag]")
        min_color: float = Field(-1.0, description="bluest colour of a star without dust [mag]")
        chi2dof: float = Field(3.0, gt=0, description="largest chi2 per degree of freedom of a star's model")
        chi2_nsig: float = Field(5.0, gt=0, description="largest chi2/dof above the median star's [sigma of all stars]")
        seeing: float | None = Field(None, gt=0, description="FWHM [arcsec]; default: SEEING of the header, else 1.1")

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        p = self.params
        report(0.0, "reading")
        frame, flat, sky = read_frame(files["frame"]), read_fiberflat(files["fiberflat"]), read_sky(files["sky"])
        context = context_of(frame.meta, p)
        parts = Calibration(context.camera, context.night, {"FIBERFLAT": flat}, context.calibration.cards)
        ready = _without_sky(ApplyFiberFlat_QL().run(frame, replace(context, calibration=parts)), sky)
        report(0.4, "fitting")
        seeing = p.seeing or seeing_of(frame.meta)
        limits = CalibrationLimits(
            StarCuts(p.color, p.chi2dof, p.chi2_nsig, p.min_color), FitLimits(p.nsig, p.nsig_scale, bend=p.bend)
        )
        exptime, diameter = float(frame.meta.get("EXPTIME", 0.0)), context.instrument.fiber_diameter
        average = _average(ready, context, seeing, exptime)
        calib = compute_fluxcalib(ready, read_stdstars(files["stdstars"]), seeing, diameter, limits, average)
        cards = calibration_cards(calib, exptime, context.instrument.mirror_area, seeing, diameter)
        write_fluxcalib(files.outputs["fluxcalib"], replace(calib, meta={**calib.meta, **cards}))


def _average(frame: Frame, context: Context, seeing: float, exptime: float) -> Array | None:
    """(nwave,) the calibration tree's vector for this exposure, or None; the air stands still on the ground's grid."""
    try:
        average = context.calibration.fluxcalib
    except MissingCalibration:
        return None
    ground = frame.wave / float(frame.meta.get("HELIOCOR") or 1.0)
    return average.at(ground, first_number(frame.meta, ("AIRMASS",), 1.0), seeing) * exptime


def _without_sky(frame: Frame, sky: SkyModel) -> Frame:
    return subtract_model(frame, sky, _LINE_LEVEL)


def _templates(params: StarStep.Params) -> Path | None:
    if params.templates is not None:
        return params.templates
    return params.calib / "stars" / "templates.fits" if params.calib is not None else None


def _no_templates(params: StarStep.Params) -> str:
    path = _templates(params)
    if path is None or not path.exists():
        where = f"{path} is not there" if path else "give --templates FILE, or --calib TREE with stars/templates.fits"
        return f"no star templates: {where}"
    return ""
