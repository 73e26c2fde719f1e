"""Step: the average flux calibration of a camera, for the calibration tree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from algorithms.fluxcal.average import Conditions, average_fluxcalib, mean_vector
from algorithms.fluxcal.stage import SEEING_CARDS, first_number
from qlstream.io.errors import BadFile
from qlstream.io.fluxcalib import read_fluxcalib, write_average_fluxcalib
from qlstream.pipeline.algorithm import StageParams
from qlstream.pipeline.filestep import FileStep, Port, Report, StepFiles

Array = NDArray[np.float64]

_UNIT = "10**+17 cm2 electron / erg"  # per second of exposure
_CONDITIONS = (("EXPTIME",), ("AIRMASS",), SEEING_CARDS, ("TRANSPAR", "ETCTRANS"))


class AverageFluxCalibStep(FileStep):
    """Average flux calibrations, with airmass and seeing terms."""

    title = "Average the flux calibrations of one camera over exposures, with what airmass and seeing do to them."
    inputs = (Port("fluxcalibs", "flux calibrations of the same camera", many=True, holds="fluxcalib"),)
    outputs = (Port("fluxcalib", "average, as spec/fluxcalib/ of a calibration tree holds it"),)

    class Params(StageParams):
        airmass_term: bool = Field(True, description="fit the change with airmass")
        seeing_term: bool = Field(True, description="fit the change with seeing")

    def run(self, files: StepFiles, report: Report = lambda share, what: None) -> None:
        """Conditions are those of the headers: EXPTIME, AIRMASS, SEEING, TRANSPAR. Averages do not count again."""
        given = files.all("fluxcalibs")
        vectors: list[Array] = []
        conditions: list[list[float]] = []
        cards: dict[str, Any] = {}
        wave = np.zeros(0)
        for n, path in enumerate(given):
            report(0.9 * n / len(given), f"reading {path.name}")
            calib = read_fluxcalib(path)
            if calib.meta.get("CALAVG", 0.0) > 0:
                continue
            wave = wave if vectors else calib.wave
            if calib.wave.shape != wave.shape or not np.allclose(calib.wave, wave, atol=1e-3):
                raise BadFile(path, f"{calib.wave.size} bins from {calib.wave[0]:.2f}", "WAVELENGTH",
                              expected=f"{wave.size} from {wave[0]:.2f}, as in the others")  # fmt: skip
            vectors.append(mean_vector(calib))
            conditions.append([first_number(calib.meta, names, np.nan) for names in _CONDITIONS])
            night = int(calib.meta.get("NIGHT", 0))
            cards = {"CAMERA": calib.meta.get("CAMERA", ""), "FSTNIGHT": min(night, cards.get("FSTNIGHT", night))}
        if not vectors:
            raise BadFile(given[0], "an average, as all the others are", expected="a calibration made from stars")
        average = average_fluxcalib(
            wave, np.array(vectors), Conditions(*np.array(conditions).T),
            self.params.airmass_term, self.params.seeing_term,
        )  # fmt: skip
        meta = {**average.meta, **cards, "MDSEEING": average.seeing, "BUNIT": _UNIT}
        write_average_fluxcalib(files.outputs["fluxcalib"], replace(average, meta=meta))
