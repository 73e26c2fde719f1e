"""First headers, of plain and of packed files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from qlstream.io.errors import BadFile
from qlstream.io.firstheader import read_first_header
from qlstream.io.fitsfile import HDU, FitsFile, write_fits


@pytest.mark.parametrize("name", ["frame.fits", "frame.fits.gz"])
def test_cards_are_those_that_a_whole_reading_gives(tmp_path: Path, name: str) -> None:
    cards = {"TILEID": 80600, "CAMERA": "r3", "EXPTIME": 900.5, "SURVEY": "main"}
    write_fits(tmp_path / name, [HDU("FLUX", np.zeros((3, 4), np.float32), cards), HDU("IVAR", np.ones(5))])

    found = read_first_header(tmp_path / name)

    with FitsFile(tmp_path / name) as fits:
        whole = fits.header(0)
    assert {key: found[key] for key in whole} == whole
    assert {key: found[key] for key in cards} == cards


def test_no_more_is_unpacked_than_the_header(tmp_path: Path) -> None:
    write_fits(tmp_path / "frame.fits", [HDU("FLUX", np.random.default_rng(1).normal(size=(100, 400)), {"TILEID": 7})])
    packed = gzip.compress((tmp_path / "frame.fits").read_bytes())
    (tmp_path / "cut.fits.gz").write_bytes(packed[: len(packed) // 2])

    assert read_first_header(tmp_path / "cut.fits.gz")["TILEID"] == 7


@pytest.mark.parametrize("content", [b"", b"no FITS at all" * 500])
def test_what_is_no_fits_file_is_told(tmp_path: Path, content: bytes) -> None:
    for name, written in (
        ("plain.fits", content),
        ("packed.fits.gz", gzip.compress(content)),
        ("bad.fits.gz", content),
    ):
        (tmp_path / name).write_bytes(written)
        with pytest.raises(BadFile, match=name):
            read_first_header(tmp_path / name)
