"""Steps: an arc to the PSF of its camera, and the PSFs of a night to one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from algorithms.psffit.arclines import choose_lines
from algorithms.psffit.bundles import bundles_of
from algorithms.psffit.combine import mean_psf
from algorithms.psffit.fit import TOO_FEW, FitLimits, fit_psf
from algorithms.psffit.moved import Stiffness
from algorithms.steps.surroundings import Surroundings, context_of
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.masks import EXTRACT_MASK, CCDMask
from qlstream.io.image import read_image
from qlstream.io.psf import read_psf, write_psf
from qlstream.lines import arc_lines, read_lines
from qlstream.pipeline.algorithm import StageParams
from qlstream.pipeline.filestep import FileStep, Port, Report, StepFiles


class FitPSFStep(FileStep):
    """Fit the Gauss-Hermite PSF of all bundles."""

    title = "Fit the Gauss-Hermite PSF of a camera to the lines of an arc."
    inputs = (
        Port("preproc", "preprocessed arc", holds="preproc", flavor="arc"),
        Port("psf", "PSF to start from; default that of the calibration tree", optional=True, holds="psf"),
    )
    outputs = (Port("psf", "the fitted PSF"),)

    class Params(Surroundings):
        gh_degree: int = Field(6, ge=2, le=8, description="degree of the Hermite terms")
        legendre_degree_wave: int = Field(3, ge=0, le=6, description="degree of widths and shape over wavelength")
        legendre_degree_x: int = Field(1, ge=0, le=4, description="degree of widths and shape over a bundle's fibers")
        trace_degree_wave: int = Field(5, ge=0, le=9, description="degree of the move of the traces over wavelength")
        half_size_x: int | None = Field(
            None, ge=4, le=40, description="half width of a spot; default the start's [pixel]"
        )
        half_size_y: int | None = Field(
            None, ge=4, le=40, description="half height of a spot; default the start's [pixel]"
        )
        tail_index: float | None = Field(
            None,
            gt=0,
            le=5,
            description="fit a tail that falls by this power of the distance; default: no tail is fitted",
        )
        line_list: Path | None = Field(
            None, description="lines of the lamps (CSV: wave,name,strength); default our own"
        )
        max_lines: int = Field(60, ge=4, description="the brightest so many lines are measured")
        separation: float = Field(4.0, gt=0, description="lines with nearer neighbours are not measured [sigma]")
        contamination: float = Field(
            0.05, ge=0, description="light of such neighbours that is tolerated, of the line's"
        )
        psf_error: float = Field(
            0.0, ge=0, lt=1, description="relative error of the PSF, in the variance of the pixels"
        )
        model_weights: bool = Field(
            True,
            description="weigh pixels by the light of the model: the counts themselves bias the shape of faint lines",
        )

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        p = self.params
        report(0.0, "reading")
        image = read_image(files["preproc"])
        header = image.meta | {"CAMERA": image.camera}
        given = files.get("psf")
        tree = p.model_copy(update={"redux": None})  # the night's PSF came of this arc; again has to be the same
        start = read_psf(given) if given else context_of(header, tree).calibration.psf
        context = context_of(header, p, PSF=start)
        start = replace(start, hsizex=p.half_size_x or start.hsizex, hsizey=p.half_size_y or start.hsizey)
        table = read_lines(p.line_list) if p.line_list else arc_lines()
        lines = choose_lines(table, start, image.ny, p.max_lines, p.separation, p.contamination)
        bundles = bundles_of(start, context.instrument, context.camera)
        readnoise = image.readnoise
        noise = readnoise**2 if p.model_weights and (readnoise > 0).all() else None
        number = len(bundles) - 1
        fitted = fit_psf(
            image.pix,
            np.where(image.mask & np.uint16(EXTRACT_MASK) == 0, image.ivar, np.float32(0.0)),
            start,
            lines,
            bundles,
            FitLimits(
                gh_degree=p.gh_degree,
                stiffness=Stiffness(
                    p.trace_degree_wave, 3, p.legendre_degree_x, p.legendre_degree_wave, p.legendre_degree_wave
                ),
                tail_index=p.tail_index,
                psf_error=p.psf_error,
            ),
            noise,
            lambda n: report(0.1 + 0.8 * n / number, f"bundle {n}"),
        )
        saturated = int(np.count_nonzero(image.mask & np.uint16(CCDMask.SATURATED)))
        if (fitted.status == TOO_FEW).all():
            why = f"{saturated} pixels are saturated: was the exposure too long" if saturated else "were the lamps on"
            raise MissingCalibration(f"no bundle of {context.camera} has enough arc lines; {why}?")
        if saturated > start.nspec:
            context.log.warning("%d pixels are saturated: lines that have such are not used", saturated)
        for n in np.flatnonzero(fitted.status).tolist():
            why = f"too few spots ({fitted.nspots[n]})" if fitted.status[n] == TOO_FEW else "the fit is no better"
            context.log.warning("bundle %d: %s; the PSF it started from stays", n, why)
        cards: dict[str, Any] = {f"B{n:02d}RCHI2": float(c) for n, c in enumerate(fitted.rchi2) if np.isfinite(c)}
        cards |= {f"B{n:02d}NSPOT": int(c) for n, c in enumerate(fitted.nspots)}
        for n, tail in enumerate(fitted.tails):
            if tail is not None:
                cards |= {f"B{n:02d}TAIL": tail.amplitude, f"B{n:02d}TAILE": tail.error}
        keep: dict[str, Any] = {k: header[k] for k in ("NIGHT", "EXPID", "MJD-OBS", "INSTRUME") if k in header}
        meta = {
            **start.meta,
            **keep,
            **cards,
            "CAMERA": image.camera,
            "NBUNDLE": number,
            "PSFERR": p.psf_error,
        }
        write_psf(files.outputs["psf"], replace(fitted.psf, meta=meta))


class MeanPSFStep(FileStep):
    """Average PSFs."""

    title = "Average the PSFs that were fitted to the arcs of a night."
    inputs = (Port("psfs", "PSFs of one camera", many=True, holds="psf"),)
    outputs = (Port("psf", "their mean"),)

    class Params(StageParams):
        pass

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        psfs = [read_psf(path) for path in files.all("psfs")]
        cameras = {str(psf.meta.get("CAMERA", "")) for psf in psfs}
        if len(cameras) > 1:
            told = ", ".join(
                f"{path.name}: {psf.meta.get('CAMERA')}" for path, psf in zip(files.all("psfs"), psfs, strict=True)
            )
            raise ValueError(f"these PSFs are of several cameras ({told}); give those of one")
        number = int(psfs[0].meta.get("NBUNDLE", 1))
        rchi2 = np.array([[_number(psf.meta.get(f"B{n:02d}RCHI2")) for n in range(number)] for psf in psfs])
        size = psfs[0].nspec // number
        bundles = np.r_[np.arange(number) * size, psfs[0].nspec]
        report(0.5, "averaging")
        write_psf(files.outputs["psf"], mean_psf(psfs, rchi2, bundles))


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")
