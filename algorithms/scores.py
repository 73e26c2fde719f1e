"""Sums and medians of spectra per arm, the SCORES table (spec datamodel §7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algorithms.coadd.rows import Rows
from algorithms.coadd.tables import as_table
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.spectra import Band, Spectra

Array = NDArray[np.float64]

WINDOWS = {"B": (4000.0, 5800.0), "R": (5800.0, 7600.0), "Z": (7600.0, 9800.0)}  # [Angstrom], the upper end excluded
_ADDED = ("TSNR2_", "EFFTIME_")  # what adds up over exposures and arms
_STAGES = ("RAW", "FFLAT", "SKYSUB")


def frame_scores(frame: Frame, stage: str) -> NDArray[Any]:
    """Scores of a frame, added to those that it has: (nspec,) table with TARGETID.

    Before calibration SUM_x_COUNT [electron/Angstrom], MEDIAN_x_COUNT [electron/Angstrom] and MEDIAN_x_SNR [per
    sqrt(Angstrom)]; after it INTEG_CALIB_FLUX [1e-17 erg/s/cm2] and medians of flux and S/N.

    Parameters
    ----------
    stage : RAW, FFLAT, SKYSUB or CALIB

    Raises
    ------
    ValueError : another stage
    """
    if stage not in (*_STAGES, "CALIB"):
        raise ValueError(f"scores: no stage {stage!r}; there are {', '.join(_STAGES)}, CALIB")
    letter = frame.camera[:1].upper()
    columns: dict[str, NDArray[Any]] = {}
    if frame.scores is not None:
        columns |= {name: frame.scores[name] for name in frame.scores.dtype.names or ()}
    elif frame.fibermap is not None and "TARGETID" in frame.fibermap:
        columns["TARGETID"] = frame.fibermap.column("TARGETID")
    values = _scores(frame.wave, frame.flux, frame.ivar, frame.mask, letter)
    if stage == "CALIB":
        columns |= {f"INTEG_CALIB_FLUX_{letter}": values["INTEG"], f"MEDIAN_CALIB_FLUX_{letter}": values["MEDIAN"]}
    else:
        columns |= {f"SUM_{stage}_COUNT_{letter}": values["SUM"], f"MEDIAN_{stage}_COUNT_{letter}": values["MEDIAN"]}
    columns[f"MEDIAN_{stage}_SNR_{letter}"] = values["SNR"]
    return as_table(columns)


def with_columns(scores: NDArray[Any] | None, columns: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """`scores` with further columns, or these alone."""
    had = {} if scores is None else {name: scores[name] for name in scores.dtype.names or ()}
    return as_table(had | dict(columns))


def coadd_scores(spectra: Spectra) -> NDArray[Any]:
    """Scores of a coadd: TARGETID, those that it has, and INTEG_, MEDIAN_COADD_FLUX, MEDIAN_COADD_SNR of its arms."""
    columns: dict[str, NDArray[Any]] = {"TARGETID": spectra.fibermap["TARGETID"]}
    if spectra.scores is not None:
        columns |= {name: spectra.scores[name] for name in spectra.scores.dtype.names or ()}
    for name, band in spectra.bands.items():
        for letter in name.upper():
            if letter in WINDOWS:
                columns |= _of_band(band, letter)
    return as_table(columns)


def summed_scores(scores: NDArray[Any], rows: Rows, used: Mapping[str, NDArray[np.bool_]]) -> NDArray[Any]:
    """TARGETID and, summed over the exposures of each target, TSNR2 and EFFTIME: per arm, and over the arms.

    Parameters
    ----------
    scores : (nrow,) of the exposures
    used : band -> (nrow,) exposures that went into the coadd
    """
    columns: dict[str, NDArray[Any]] = {"TARGETID": rows.targets}
    for name in scores.dtype.names or ():
        quantity, _, letter = name.rpartition("_")
        if quantity.startswith(_ADDED) and letter.lower() in used:
            values = np.where(used[letter.lower()], scores[name], 0.0)
            columns[name] = np.bincount(rows.group, values, len(rows)).astype("f4")
            columns[quantity] = columns.get(quantity, np.float32(0)) + columns[name]
    return as_table(columns)


def _of_band(band: Band, letter: str) -> dict[str, NDArray[Any]]:
    values = _scores(band.wave, band.flux, band.ivar, band.mask, letter)
    names = {"INTEG": "INTEG_COADD_FLUX", "MEDIAN": "MEDIAN_COADD_FLUX", "SNR": "MEDIAN_COADD_SNR"}
    return {f"{names[key]}_{letter}": values[key].astype("f4") for key in names}


def _scores(wave: Array, flux: Array, ivar: Array, mask: NDArray[np.uint32], letter: str) -> dict[str, Array]:
    low, high = WINDOWS.get(letter, (wave[0], np.inf))
    inside = (wave >= low) & (wave < high)
    width = np.gradient(wave)[inside]
    values = np.ma.masked_array(flux[:, inside], mask[:, inside] != 0)
    snr = np.ma.masked_array(flux[:, inside] * np.sqrt(ivar[:, inside]) / np.sqrt(width), mask[:, inside] != 0)

    def plain(result: Any) -> Array:
        return np.asarray(np.ma.filled(result, 0.0), dtype=float)

    if not inside.any():
        nothing = np.zeros(len(flux))
        return {"SUM": nothing, "INTEG": nothing, "MEDIAN": nothing, "SNR": nothing}
    return {
        "SUM": plain(values.sum(axis=1)),
        "INTEG": plain((values * width).sum(axis=1)),
        "MEDIAN": plain(np.ma.median(values, axis=1)),
        "SNR": plain(np.ma.median(snr, axis=1)),
    }
