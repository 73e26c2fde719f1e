"""Lists of fibers to be flagged in FIBERSTATUS: those of a night, and those of single exposures."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

from qlstream.datamodel.masks import FiberMask
from qlstream.io.errors import BadFile
from qlstream.io.numberlist import parse_number_list

FiberBits = dict[int, int]  # FIBER -> FIBERSTATUS bits


def read_badfibers(path: Path | str) -> FiberBits:
    """`badfibers-NIGHT.csv`: columns FIBER and FIBERSTATUS (spec raw-and-calib §8.1).

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : a column is missing, or holds no whole number
    """
    flagged: FiberBits = {}

    def take(row: dict[str, str]) -> None:
        fiber, bits = int(row["FIBER"]), int(row["FIBERSTATUS"])
        flagged[fiber] = flagged.get(fiber, 0) | bits

    _each_row(Path(path), take, "whole numbers in FIBER and FIBERSTATUS")
    return flagged


def read_flagged_fibers(path: Path | str, expid: int) -> FiberBits:
    """`ccd/flagged_fibers.ecsv`, the rows of one exposure: FIBERS as a number list whose ranges include their end,
    FIBERSTATUS_BITNAME as names of bits joined by `|` (spec raw-and-calib §7).

    Raises
    ------
    FileNotFoundError : no such file
    BadFile : a column is missing, EXPID is no number, or a fiber list or a bit name makes no sense
    """
    flagged: FiberBits = {}

    def take(row: dict[str, str]) -> None:
        if int(row["EXPID"]) != expid:
            return
        bits = 0
        for name in row["FIBERSTATUS_BITNAME"].split("|"):
            bits |= int(FiberMask[name.strip().upper()])
        for fiber in parse_number_list(row["FIBERS"], include_end=True):
            flagged[fiber] = flagged.get(fiber, 0) | bits

    _each_row(Path(path), take, "EXPID, FIBERS such as 3,7-9, and names of FIBERSTATUS bits in FIBERSTATUS_BITNAME")
    return flagged


def _each_row(path: Path, take: Callable[[dict[str, str]], None], expected: str) -> None:
    """Rows of a table as text; comment lines (the header of ECSV) are passed over."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = [line for line in file if line.strip() and not line.startswith("#")]
    for number, row in enumerate(_rows(lines), start=1):
        try:
            take(row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadFile(path, f"row {number} ({row}): {error!r}", expected=expected) from None


def _rows(lines: list[str]) -> Iterable[dict[str, str]]:
    delimiter = "," if lines and "," in lines[0] else " "  # ECSV's own default is the space
    return csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True)
