"""Raw files with something wrong in them: cut off, unreadable in one HDU, or short of a keyword."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import fitsio

from qlstream.simulate.faults import Fault

DAMAGES = ("truncated", "corrupt-hdu", "missing-keyword")
_CARD = 80


def damage(path: Path, faults: Sequence[Fault], cameras: Sequence[str]) -> None:
    """Spoil a raw file as those of the faults tell that are among DAMAGES; a cut comes last.

    Parameters
    ----------
    faults : that concern this exposure
    cameras : in the file; a fault that names no camera hits the first
    """
    for fault in sorted((f for f in faults if f.kind in DAMAGES), key=lambda f: f.kind == "truncated"):
        camera = fault.camera or cameras[0]
        if camera not in cameras:
            continue
        with fitsio.FITS(str(path)) as fits:
            place = fits[camera.upper()].get_offsets()
        header, data, end = place["header_start"], place["data_start"], place["data_end"]
        if fault.kind == "truncated":
            with path.open("r+b") as file:
                file.truncate((data + end) // 2)
        elif fault.kind == "corrupt-hdu":
            _overwrite(path, data, b"\xff" * min(4096, end - data))
        else:
            _drop_card(path, header, data, (fault.part or "CCDSECA").upper())


def _drop_card(path: Path, header: int, data: int, keyword: str) -> None:
    """Make a card a blank one.

    Raises
    ------
    ValueError : the header has no such card
    """
    with path.open("rb") as file:
        file.seek(header)
        cards = file.read(data - header)
    for at in range(0, len(cards), _CARD):
        if cards[at : at + 8].decode("ascii").strip() == keyword:
            return _overwrite(path, header + at, b" " * _CARD)
    raise ValueError(f"fault missing-keyword: the camera's header has no {keyword} that could be left out")


def _overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)
