"""Step: the first PSF of a camera, from one flat and one arc."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from algorithms.bootcalib.camera import BootLimits, bootstrap
from qlstream import lines
from qlstream.instrument import instrument_of
from qlstream.io.image import read_image
from qlstream.io.psf import write_psf
from qlstream.logging import exposure_log
from qlstream.pipeline.algorithm import StageParams
from qlstream.pipeline.filestep import FileStep, Port, Report, StepFiles


class BootcalibStep(FileStep):
    """Traces, widths and wavelengths without any PSF to start from: good enough for `fit-psf`."""

    title = "Find traces, widths and wavelengths of a camera from one flat and one arc, without any PSF."
    inputs = (
        Port("flat", "preprocessed flat", holds="preproc", flavor="flat"),
        Port("arc", "preprocessed arc of the same camera", holds="preproc", flavor="arc"),
    )
    outputs = (
        Port("psf", "Gaussian PSF on the traces of the arc"),
        Port("qa", "plots of what was found (PDF)", optional=True),
    )

    class Params(StageParams):
        instrument: str = Field("auto", description="name, YAML file, or auto for what the header says")
        max_dark: int = Field(3, ge=0, description="fibers of a bundle that may be dark")
        trace_degree: int = Field(6, ge=1, le=9, description="Legendre degree of the columns")
        wave_degree: int = Field(5, ge=2, le=9, description="Legendre degree of the rows over wavelength")
        dispersion_tolerance: float = Field(
            0.2, gt=0, lt=0.5, description="how far the dispersion may be from the instrument's [relative]"
        )
        threshold: float = Field(7.0, gt=3, description="least height of an arc line [sigma]")
        max_lines: int = Field(80, ge=6, description="the brightest so many features are used")
        line_list: Path | None = Field(
            None, description="lines of the lamps (CSV: wave,name,strength); default our own"
        )
        exclude: tuple[str, ...] = Field((), description="lamps that were off, e.g. Xe")

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        p = self.params
        report(0.0, "reading")
        flat, arc = read_image(files["flat"]), read_image(files["arc"])
        instrument = instrument_of(arc.meta, p.instrument)
        table = lines.read_lines(p.line_list) if p.line_list else lines.arc_lines()
        unknown = set(p.exclude) - set(table["name"].tolist())
        if unknown:
            raise ValueError(f"no lamp {', '.join(sorted(unknown))}; there are {', '.join(sorted(set(table['name'])))}")
        for name in p.exclude:
            table = table[table["name"] != name]
        limits = BootLimits(p.max_dark, p.trace_degree, p.wave_degree, p.dispersion_tolerance, p.threshold, p.max_lines)
        boot = bootstrap(flat, arc, instrument, table, limits, report)
        log = exposure_log(int(arc.meta.get("EXPID", 0)), arc.camera)
        for warning in boot.warnings:
            log.warning("%s", warning)
        report(0.9, "writing")
        keep: dict[str, Any] = {k: arc.meta[k] for k in ("NIGHT", "EXPID", "MJD-OBS", "INSTRUME") if k in arc.meta}
        cards = {
            "CAMERA": arc.camera,
            "IN_FLAT": files["flat"].name,
            "IN_ARC": files["arc"].name,
            "NDARK": int(boot.dark.size),
            "DARKFIB": ",".join(map(str, boot.dark)),
            "LAMPSOFF": ",".join(name for name, bright in boot.lamps.items() if bright == 0),
            "NLINES": int(boot.lines.used.sum()),
        }
        write_psf(files.outputs["psf"], replace(boot.psf, meta={**keep, **cards}))
        qa = files.out("qa")
        if qa is not None:
            report(0.95, "plots")
            from algorithms.bootcalib.plots import draw_book  # slow to import, and not everybody wants plots

            where = f"{arc.camera}   flat {flat.meta.get('EXPID', '?')}, arc {arc.meta.get('EXPID', '?')}"
            draw_book(boot, instrument, where, qa)
