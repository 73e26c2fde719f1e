"""Whether all bytes of a FITS file are there, told from its headers alone; no pixel is read."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

BLOCK = 2880  # bytes; headers and data are padded to it
_CARD = 80
_MAX_HEADER = 4000 * BLOCK  # nothing real has a longer one; stops the search for END in rubbish


@dataclass(frozen=True)
class Structure:
    """What the headers of a file declare, against what is there.

    Attributes
    ----------
    names : EXTNAME of every HDU whose header is there, "" if it has none
    size : bytes of the file
    declared : bytes up to the end of the last HDU whose header is there
    broken : why it can be no FITS file, however many bytes follow; "" if it may be one
    """

    names: tuple[str, ...]
    size: int
    declared: int
    broken: str = ""

    @property
    def is_whole(self) -> bool:
        """Every HDU has its declared length. A file cut between two HDUs is whole, too."""
        return not self.broken and len(self.names) > 0 and self.size == self.declared

    @property
    def shortfall(self) -> str:
        """What is there and what is missing, in words."""
        if not self.names:
            return f"{self.size} bytes, the first header is not complete"
        last = self.names[-1] or f"number {len(self.names) - 1}"
        if self.size > self.declared:
            return f"{self.size} bytes, the header after HDU {last} is not complete"
        return f"{self.size} of {self.declared} bytes up to the end of HDU {last}"


def read_structure(path: Path) -> Structure:
    """Walk from header to header (FITS standard 4.0, §3 and §4.4; compressed images are tables with a heap).

    Raises
    ------
    OSError : the file cannot be read
    """
    names: list[str] = []
    declared = 0
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        while declared < size:
            begin = _read_at(file.fileno(), declared, 30)
            expected = b"SIMPLE  =" if not names else b"XTENSION="
            if begin[:9] != expected[: len(begin)]:
                key = expected[:8].decode().strip()
                where = f"HDU {len(names)} at byte {declared}"
                broken = f"{where} begins with {begin[:9]!r}; expected the keyword {key}"
                return Structure(tuple(names), size, declared, broken)
            header = _read_header(file.fileno(), declared, size)
            if header is None:
                return Structure(tuple(names), size, declared)
            cards, length = header
            try:
                data = _data_bytes(cards, is_primary=not names)
            except ValueError as error:
                return Structure(tuple(names), size, declared, f"HDU {len(names)}: {error}")
            names.append(cards.get("EXTNAME", "").strip().strip("'").rstrip())
            declared += length + data
    return Structure(tuple(names), size, declared)


def _read_header(descriptor: int, start: int, size: int) -> tuple[dict[str, str], int] | None:
    """The cards of the header at `start` and its length in bytes; None if its END is not there yet."""
    cards: dict[str, str] = {}
    position = start
    while position + BLOCK <= size and position - start < _MAX_HEADER:
        block = _read_at(descriptor, position, BLOCK)
        if len(block) < BLOCK:
            return None
        position += BLOCK
        for i in range(0, BLOCK, _CARD):
            card = block[i : i + _CARD].decode("latin-1")
            keyword = card[:8].rstrip()
            if keyword == "END":
                return cards, position - start
            if card[8:10] == "= ":
                cards.setdefault(keyword, _value(card[10:]))
    return None


def _value(text: str) -> str:
    """The value of a card without its comment; quoted text keeps its quotes."""
    text = text.strip()
    if text.startswith("'"):
        quoted = re.match(r"'(?:[^']|'')*'", text)
        return quoted.group() if quoted else text
    return text.split("/", 1)[0].strip()


def _data_bytes(cards: dict[str, str], is_primary: bool) -> int:
    """Length of the data with padding [byte].

    Raises
    ------
    ValueError : a structural keyword is missing or no number
    """
    bitpix = _integer(cards, "BITPIX")
    if bitpix not in (8, 16, 32, 64, -32, -64):
        raise ValueError(f"BITPIX = {bitpix}; expected 8, 16, 32, 64, -32 or -64")
    naxis = _integer(cards, "NAXIS", 0, 999)
    axes = [_integer(cards, f"NAXIS{i}", 0) for i in range(1, naxis + 1)]
    pixels = math.prod(axes) if axes else 0
    if not is_primary and axes:
        pixels = _integer(cards, "GCOUNT", 0, default=1) * (_integer(cards, "PCOUNT", 0, default=0) + pixels)
    return -(-(abs(bitpix) // 8 * pixels) // BLOCK) * BLOCK  # rounded up


def _integer(
    cards: dict[str, str], keyword: str, least: int | None = None, most: int | None = None, default: int | None = None
) -> int:
    text = cards.get(keyword)
    if text is None and default is not None:
        return default
    try:
        value = int(text or "")
    except ValueError:
        raise ValueError(f"{keyword} = {text}; expected a whole number") from None
    if (least is not None and value < least) or (most is not None and value > most):
        raise ValueError(f"{keyword} = {value}; expected {least} to {most if most is not None else 'any'}")
    return value


def _read_at(descriptor: int, position: int, count: int) -> bytes:
    return os.pread(descriptor, count, position)
