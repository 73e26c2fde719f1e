"""FITS files in and out: HDUs by name, cards as plain dictionaries, one error class, atomic writes with checksums."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import fitsio
import numpy as np
from numpy.typing import NDArray

from qlstream import __version__
from qlstream.io.atomic import atomic_path
from qlstream.io.compression import existing_file, packing, unpacked
from qlstream.io.errors import BadFile

Cards = dict[str, Any]

_STRUCTURAL = re.compile(
    r"^(SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|TFIELDS|THEAP|BZERO|BSCALE|BLANK|EXTNAME|CHECKSUM|DATASUM"
    r"|(TTYPE|TFORM|TUNIT|TDIM|TNULL|TSCAL|TZERO|TDISP|TCOMM)\d+|LONGSTRN|CONTINUE|COMMENT|HISTORY|END"
    r"|Z(IMAGE|SIMPLE|TENSION|EXTEND|BITPIX|NAXIS\d*|TILE\d+|CMPTYPE|NAME\d+|VAL\d+|PCOUNT|GCOUNT|QUANTIZ|DITHER0"
    r"|HECKSUM|DATASUM|MASKCMP|BLANK|TABLE|TILELEN|FORM\d+|CTYP\d+|THEAP))?$"
)


@dataclass(frozen=True)
class HDU:
    """One HDU to be written.

    Attributes
    ----------
    name : EXTNAME
    data : an image, a structured array (written as a binary table), or None
    cards : header cards; structural ones are left out, None and NaN cannot be said in FITS and are left out
    compress_rows : Rice-compress the image, one tile per row
    units : unit of each column of a table
    """

    name: str
    data: NDArray[Any] | None
    cards: Mapping[str, Any] = field(default_factory=dict)
    compress_rows: bool = False
    units: Mapping[str, str] = field(default_factory=dict)


def write_fits(path: Path | str, hdus: Sequence[HDU]) -> None:
    """Write HDUs in order, atomically, each with CHECKSUM and DATASUM; the first one gets qlstream's version cards."""
    with atomic_path(path) as temporary, packing(temporary) as plain, fitsio.FITS(str(plain), "rw") as fits:
        for i, hdu in enumerate(hdus):
            cards = with_version(hdu.cards) if i == 0 else hdu.cards
            header = _header(cards)
            if hdu.data is None:
                fits.write(None, header=header, extname=hdu.name or None)
            elif hdu.data.dtype.names is not None:
                columns = hdu.data.dtype.names
                fits.write(hdu.data, header=header, extname=hdu.name, units=[hdu.units.get(c, "") for c in columns])
            elif hdu.compress_rows:
                tile = [1] * (hdu.data.ndim - 1) + [hdu.data.shape[-1]]
                fits.write(hdu.data, header=header, extname=hdu.name, compress="RICE_1", tile_dims=tile)
            else:
                fits.write(hdu.data, header=header, extname=hdu.name or None)
        for written in fits:
            written.write_checksum()


def with_version(cards: Mapping[str, Any]) -> Cards:
    """The cards with DEPNAMnn = qlstream, DEPVERnn = its version, at the number it has or the next free one."""
    cards = dict(cards)
    number = 0
    while f"DEPNAM{number:02d}" in cards and str(cards[f"DEPNAM{number:02d}"]).strip() != "qlstream":
        number += 1
    return cards | {f"DEPNAM{number:02d}": "qlstream", f"DEPVER{number:02d}": __version__}


def _header(cards: Mapping[str, Any]) -> list[dict[str, Any]]:
    header = []
    for name, value in cards.items():
        if isinstance(value, np.generic):
            value = value.item()
        if _STRUCTURAL.match(name.upper()) or value is None:
            continue
        if isinstance(value, float) and not math.isfinite(value):
            continue
        header.append({"name": name, "value": value})
    return header


class FitsFile:
    """A FITS file open for reading, as a context manager; what is wrong with it is raised as BadFile.

    `NAME` and `NAME.gz` stand for each other: the one that exists is read.

    Raises
    ------
    FileNotFoundError : neither form exists
    BadFile : not a FITS file
    """

    def __init__(self, path: Path | str) -> None:
        self.path = existing_file(path)
        with ExitStack() as opened:
            try:
                self._fits = fitsio.FITS(opened.enter_context(unpacked(self.path)))
                opened.callback(self._fits.close)
                self._fits.update_hdu_list()
            except (OSError, ValueError, EOFError) as error:
                raise BadFile(self.path, f"no readable FITS file: {_first_line(error)}") from error
            self._opened = opened.pop_all()
        self.names: tuple[str, ...] = tuple(hdu.get_extname() for hdu in self._fits)

    def __enter__(self) -> FitsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def __contains__(self, name: str) -> bool:
        return self.find(name) is not None

    def __len__(self) -> int:
        return len(self.names)

    def find(self, *names: str) -> int | None:
        """Number of the first HDU that has one of these names, the earlier name first; None if there is none."""
        upper = [n.upper() for n in self.names]
        for name in names:
            if name.upper() in upper:
                return upper.index(name.upper())
        return None

    def require(self, *names: str) -> int:
        """As `find`.

        Raises
        ------
        BadFile : there is none; the message lists the HDUs that are there
        """
        index = self.find(*names)
        if index is None:
            there = ", ".join(n or f"(unnamed {i})" for i, n in enumerate(self.names))
            raise BadFile(self.path, "missing HDU", names[0], expected=f"{' or '.join(names)}; the file has {there}")
        return index

    def full_header(self, hdu: int | str) -> Cards:
        """All cards of an HDU, the structural ones included; undefined values are None."""
        index = self.require(hdu) if isinstance(hdu, str) else hdu
        try:
            header = self._fits[index].read_header()
        except (OSError, ValueError) as error:
            raise BadFile(self.path, f"unreadable header: {_first_line(error)}", self._label(index)) from error
        return {name: header[name] for name in header.keys() if name}  # noqa: SIM118 - FITSHDR iterates over cards

    def header(self, hdu: int | str) -> Cards:
        """The cards of an HDU less those that only describe its storage."""
        return {name: value for name, value in self.full_header(hdu).items() if not _STRUCTURAL.match(name)}

    def image(self, hdu: int | str, shape: tuple[int, ...] | None = None, verify: bool = False) -> NDArray[Any]:
        """The pixels of an image HDU, in native byte order.

        Parameters
        ----------
        hdu : number or name
        shape : if given, it must have this shape
        verify : compare with DATASUM if the HDU has one (2 ms per MB)

        Raises
        ------
        BadFile : missing, no image, unreadable, or of the wrong shape
        """
        index = self.require(hdu) if isinstance(hdu, str) else hdu
        label = self._label(index)
        try:
            if verify:
                self._verify(index)
            data = self._fits[index].read()
        except (OSError, ValueError, RuntimeError) as error:
            if isinstance(error, BadFile):
                raise
            raise BadFile(self.path, f"unreadable data: {_first_line(error)}", label) from error
        if data is None or data.dtype.names is not None:
            raise BadFile(self.path, "no image", label, expected="an image HDU with data")
        if shape is not None and data.shape != shape:
            raise BadFile(self.path, f"shape {data.shape}", label, expected=f"shape {shape}")
        return data if data.dtype.isnative else data.astype(data.dtype.newbyteorder("="))

    def table(self, hdu: int | str) -> NDArray[Any]:
        """The rows of a binary table as a structured array in native byte order, text as str.

        Raises
        ------
        BadFile : missing, no table, or unreadable
        """
        index = self.require(hdu) if isinstance(hdu, str) else hdu
        label = self._label(index)
        try:
            rows = self._fits[index].read()
        except (OSError, ValueError, RuntimeError) as error:
            raise BadFile(self.path, f"unreadable table: {_first_line(error)}", label) from error
        if rows is None or rows.dtype.names is None:
            raise BadFile(self.path, "no table", label, expected="a binary table")
        return np.asarray(rows.astype(rows.dtype.newbyteorder("=")))

    def _verify(self, index: int) -> None:
        if "DATASUM" not in self.full_header(index):
            return
        try:
            self._fits[index].verify_checksum()
        except ValueError as error:
            if "data" in str(error):  # an edited header alone does no harm
                raise BadFile(
                    self.path, "corrupt data: they do not match DATASUM", self._label(index), expected="intact data"
                ) from None

    def _label(self, index: int) -> str | int:
        return self.names[index] if 0 <= index < len(self.names) and self.names[index] else index


def required(path: Path, cards: Mapping[str, Any], keyword: str, kind: type, hdu: str | int | None = None) -> Any:
    """A card that must be there, as `kind` (int, float or str); numbers must be finite.

    Raises
    ------
    BadFile : missing, undefined, or of another kind
    """
    value = cards.get(keyword)
    wanted = {int: "an integer", float: "a finite number", str: "text"}[kind]
    if value is None:
        raise BadFile(path, f"missing keyword {keyword}", hdu, expected=wanted)
    try:
        converted = kind(value)
    except (TypeError, ValueError):
        raise BadFile(path, "wrong keyword", hdu, keyword, value, wanted) from None
    if kind is not str and not math.isfinite(converted):
        raise BadFile(path, "wrong keyword", hdu, keyword, value, wanted)
    return converted


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
