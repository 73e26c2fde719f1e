"""Step: the PSF moved to where the spectra of an exposure are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import Field

from algorithms.extract.twodimensional import psf_with_traces
from algorithms.flexure.stage import Flexure
from algorithms.psffit.arclines import choose_lines
from algorithms.psffit.bundles import bundles_of
from algorithms.steps.surroundings import Surroundings, context_of, stage_params
from algorithms.traceshift.methods import Correlation, Method, by_correlation, by_spots
from algorithms.traceshift.reference import read_spectrum
from qlstream.datamodel.image import Image
from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.io.image import read_image
from qlstream.io.psf import read_psf, write_psf
from qlstream.lines import arc_lines, read_lines, sky_lines
from qlstream.pipeline.context import Context
from qlstream.pipeline.filestep import FileStep, Port, Report, StepFiles

_LINES = {"arc": arc_lines, "science": sky_lines}
_SEPARATION, _CONTAMINATION = 4.0, 0.05  # as in `fit-psf`


class TraceShiftStep(FileStep):
    """As the quicklook's stage `Flexure`, or by one of the methods that need more; the whole PSF is written."""

    title = """Measure how far the spectra of an exposure moved on the CCD, and move the PSF with them.

    Methods: "lines" takes columns from the profiles of the spectra, and rows from the emission lines of the lamps or of
    the sky; flats, which have none, keep their rows. "internal" compares the spectra with their median: fibers are
    aligned among each other. "reference" compares them with the spectrum that --reference names. "forward" takes both
    from the spots of single lines, by the PSF. "auto" is "reference" if one is given and the exposure is no flat, else
    "lines".
    """
    inputs = (
        Port("preproc", "preprocessed image", holds="preproc"),
        Port("psf", "PSF to start from", holds="psf"),
    )
    outputs = (Port("psf", "the same PSF on the traces of this exposure"),)

    class Params(Surroundings, Flexure.Params):
        method: Method = Field("auto", description="auto, lines, internal, reference or forward")
        reference: Path | None = Field(
            None, description="spectrum of sky or lamps: text of vacuum wavelength [Angstrom] and flux, may be .gz"
        )
        bins: int | None = Field(
            None, ge=1, le=100, description="bins of wavelength in which spectra are compared; default degyy + 4"
        )
        reach: float = Field(10.0, gt=0, le=100, description="shifts of spectra that are tried, both ways [Angstrom]")
        line_list: Path | None = Field(
            None, description="lines whose spots are taken (CSV: wave,name,strength); default our own of lamps or sky"
        )
        min_snr: float = Field(10.0, gt=0, description="least significance of such a spot [sigma]")

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        report(0.0, "reading")
        image, psf = read_image(files["preproc"]), read_psf(files["psf"])
        context = context_of(image.meta | {"CAMERA": image.camera}, self.params, PSF=psf, TRACES=psf.traces)
        report(0.3, "measuring")
        moved = self._measured(image, psf, context)
        assert moved.traces is not None
        assert moved.shifts is not None
        cards: dict[str, object] = {
            "IN_PSF": files["psf"].name,
            "IN_IMAGE": files["preproc"].name,
            "CAMERA": image.camera,
            "METHODX": moved.shifts.method_x,
            "METHODY": moved.shifts.method_y,
        }
        for axis, shift in (("DX", moved.shifts.dx), ("DY", moved.shifts.dy)):
            cards |= {f"MEAN{axis}": float(np.mean(shift)), f"MIN{axis}": float(shift.min())}
            cards[f"MAX{axis}"] = float(shift.max())
        report(0.9, "writing")
        out = psf_with_traces(psf, moved.traces)
        write_psf(files.outputs["psf"], replace(out, meta={**psf.meta, **cards}))

    def _measured(self, image: Image, psf: GaussHermitePSF, context: Context) -> Image:
        p = self.params
        flexure = Flexure(stage_params(Flexure, p))
        method: Method = p.method
        if method == "auto":
            method = "lines" if p.reference is None or context.flavor not in _LINES else "reference"
        if method == "lines":
            return flexure.run(image, context)
        if context.flavor not in _LINES:
            raise ValueError(
                f"a {context.flavor} exposure has no lines: method {method} cannot serve; take lines or auto"
            )
        if method == "forward":
            table = read_lines(p.line_list) if p.line_list else _LINES[context.flavor]()
            lines = choose_lines(table, psf, image.ny, p.max_lines, _SEPARATION, _CONTAMINATION)
            bundles = bundles_of(psf, context.instrument, context.camera)
            return by_spots(image, context, flexure, psf, lines, bundles, p.min_snr)
        spectrum = None
        if method == "reference":
            if p.reference is None:
                raise ValueError(
                    "method reference compares with a spectrum of sky or lamps; name its file by --reference"
                )
            spectrum = (*read_spectrum(p.reference), p.reference.name)
        return by_correlation(image, context, flexure, Correlation(p.bins or p.degyy + 4, p.reach, spectrum))
