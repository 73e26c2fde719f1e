"""Steps: an arc to the PSF of its camera, and the PSFs of a night to one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from algorithms.psffit.combine import mean_psf
from algorithms.psffit.fit import FitLimits, fit_psf
from algorithms.steps.surroundings import Surroundings, context_of
from qlstream import lines
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.masks import EXTRACT_MASK
from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.io.image import read_image
from qlstream.io.psf import read_psf, write_psf
from qlstream.pipeline.algorithm import StageParams
from qlstream.pipeline.filestep import FileStep, Port, Report, StepFiles

_MERGED = 1.5  # [sigma of a spot]; lines that stand closer are one spot


class FitPSFStep(FileStep):
    """Fit the Gauss-Hermite PSF of all bundles."""

    title = "Fit the Gauss-Hermite PSF of a camera to the lines of an arc."
    inputs = (
        Port("preproc", "preprocessed arc"),
        Port("psf", "PSF to start from; default that of the calibration tree", optional=True),
    )
    outputs = (Port("psf", "the fitted PSF"),)

    class Params(Surroundings):
        gh_degree: int = Field(6, ge=2, le=8, description="degree of the Hermite terms")
        legendre_degree_wave: int = Field(3, ge=0, le=6, description="degree of the widths over wavelength")
        legendre_degree_x: int = Field(1, ge=0, le=4, description="degree of widths and shape over a bundle's fibers")
        trace_degree_wave: int = Field(5, ge=0, le=9, description="degree of the move of the traces over wavelength")
        max_lines: int = Field(60, ge=4, description="the brightest so many lines are used")
        separation: float = Field(4.0, gt=0, description="lines with nearer neighbours are not measured [sigma]")
        contamination: float = Field(
            0.05, ge=0, description="light of such neighbours that is tolerated, of the line's"
        )

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        p = self.params
        report(0.0, "reading")
        image = read_image(files["preproc"])
        header = image.meta | {"CAMERA": image.camera}
        given = files.get("psf")
        start = read_psf(given) if given else context_of(header, p).calibration.psf
        context = context_of(header, p, PSF=start)
        wave, alone = self._lines(start, image.pix.shape[0])
        fibers = context.instrument.fibers(context.camera)
        step = np.flatnonzero(np.diff(context.instrument.bundle_of(fibers))) + 1
        bundles = np.r_[0, step, len(fibers)]
        ivar = np.where(image.mask & np.uint16(EXTRACT_MASK) == 0, image.ivar, np.float32(0.0))
        limits = FitLimits(
            gh_degree=p.gh_degree,
            degree_fiber=p.legendre_degree_x,
            degree_wave=p.legendre_degree_wave,
            # few lines cannot bend a trace: its own form then stays that of the start
            trace_degree_wave=min(p.trace_degree_wave, int(alone.sum()) // 3),
            own_degree=min(3, int(alone.sum()) // 6),
        )
        number = len(bundles) - 1
        fitted = fit_psf(
            image.pix,
            ivar,
            start,
            wave,
            bundles,
            limits,
            alone,
            lambda n: report(0.1 + 0.8 * n / number, f"bundle {n}"),
        )
        failed = np.flatnonzero(fitted.status)
        if len(failed) == number:
            raise MissingCalibration(f"no bundle of {context.camera} has enough arc lines; were the lamps on?")
        for n in failed:
            context.log.warning("bundle %d: too few spots (%d); the PSF it started from stays", n, fitted.nspots[n])
        cards: dict[str, object] = {f"B{n:02d}RCHI2": float(c) for n, c in enumerate(fitted.rchi2) if np.isfinite(c)}
        cards |= {f"B{n:02d}NSPOT": int(c) for n, c in enumerate(fitted.nspots)}
        keep = {k: header[k] for k in ("NIGHT", "EXPID", "MJD-OBS", "INSTRUME") if k in header}
        meta = {**start.meta, **keep, **cards, "CAMERA": image.camera, "NBUNDLE": number}
        write_psf(files.outputs["psf"], replace(fitted.psf, meta=meta))

    def _lines(self, start: GaussHermitePSF, ny: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The brightest lines on the CCD, increasing; and which of them stand alone at the widths of the spots."""
        table = lines.arc_lines()
        y = start.traces.y_vs_wave(table["wave"])
        inside = ((y > start.hsizey) & (y < ny - start.hsizey - 1)).all(axis=0)
        inside &= (table["wave"] > start.traces.wavemin) & (table["wave"] < start.traces.wavemax)
        middle = start.nspec // 2
        dispersion = start.traces.dy_dwave(table["wave"])[middle]
        width = np.where(inside, start.parameter("GHSIGY", table["wave"])[middle] / dispersion, 1.0)
        alone = lines.is_isolated(table, self.params.separation * width, self.params.contamination)
        chosen: list[int] = []
        for k in np.argsort(table["strength"])[::-1]:
            apart = all(abs(table["wave"][k] - table["wave"][n]) > _MERGED * width[k] for n in chosen)
            if inside[k] and apart and len(chosen) < self.params.max_lines:
                chosen.append(int(k))
        order = np.array(sorted(chosen), dtype=np.int64)
        return table["wave"][order], alone[order]


class MeanPSFStep(FileStep):
    """Average PSFs."""

    title = "Average the PSFs that were fitted to the arcs of a night."
    inputs = (Port("psfs", "PSFs of one camera", many=True),)
    outputs = (Port("psf", "their mean"),)

    class Params(StageParams):
        pass

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        psfs = [read_psf(path) for path in files.all("psfs")]
        number = int(psfs[0].meta.get("NBUNDLE", 1))
        rchi2 = np.array([[_number(psf.meta.get(f"B{n:02d}RCHI2")) for n in range(number)] for psf in psfs])
        size = psfs[0].nspec // number
        bundles = np.r_[np.arange(number) * size, psfs[0].nspec]
        report(0.5, "averaging")
        write_psf(files.outputs["psf"], mean_psf(psfs, rchi2, bundles))


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")
