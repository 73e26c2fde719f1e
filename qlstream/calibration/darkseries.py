"""A series of darks and biases beside the tree, `DESI_SPECTRO_DARK`, that overrides its DARK and BIAS."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qlstream.calibration.tree import CalibrationTreeError

_MAX_TEMPERATURE_STEP = 3.0  # CCD temperatures that differ by more do not serve each other [K]
_READOUT = ("DETECTOR", "CCDCFG", "CCDTMING")
_NAME = re.compile(r"(sm\d+-[a-z])\d?-.*?(\d{8})\.")


def latest_pair(dark_dir: Path, unit: str, entry: Mapping[str, Any], ccdtemp: float, night: int) -> dict[str, Path]:
    """DARK and BIAS of the latest date, not after the night, for which the series has both (spec raw-and-calib §7).

    Parameters
    ----------
    dark_dir : folder with dark_table.csv and bias_table.csv
    unit : as in the names of the files, e.g. "sm4-r"
    entry : the tree's, whose DETECTOR, CCDCFG and CCDTMING must agree with the tables
    ccdtemp : CCDTEMP of the exposure [deg C]

    Returns
    -------
    {} if there is no such pair

    Raises
    ------
    CalibrationTreeError : a table lacks a column or has a wrong value
    """
    found = [_by_date(dark_dir / f"{kind.lower()}_table.csv", unit, entry, ccdtemp, night) for kind in ("DARK", "BIAS")]
    both = found[0].keys() & found[1].keys()
    return {kind: files[max(both)] for kind, files in zip(("DARK", "BIAS"), found, strict=True)} if both else {}


def _by_date(table: Path, unit: str, entry: Mapping[str, Any], ccdtemp: float, night: int) -> dict[int, Path]:
    """Date -> file of the rows that fit."""
    files: dict[int, Path] = {}
    if not table.exists():
        return files
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            try:
                match = _NAME.search(Path(row["FILENAME"]).name)
                fits = all(str(entry[k]).strip() == row[k].strip() for k in _READOUT if k in entry)
                near = abs(float(row["CCDTEMP"]) - ccdtemp) <= _MAX_TEMPERATURE_STEP
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                wanted = f"FILENAME, {', '.join(_READOUT)} and a number in CCDTEMP"
                raise CalibrationTreeError(f"{table}: {row}: {error!r}; expected {wanted}") from None
            if match and match[1] == unit and int(match[2]) <= night and fits and near:
                files[int(match[2])] = table.parent / row["FILENAME"].strip()
    return files
