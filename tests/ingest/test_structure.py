"""Every cut of a file is noticed, but for those between two HDUs."""

import numpy as np
import pytest
from astropy.io import fits

from qlstream.ingest.structure import BLOCK, read_structure


@pytest.fixture
def whole(tmp_path):
    """A primary image, a compressed image, a table with a heap, an empty image; written by another library."""
    rng = np.random.default_rng(1)
    table = fits.BinTableHDU.from_columns([fits.Column("V", "PJ()", array=[np.arange(5), np.arange(700)])], name="HEAP")
    hdus = fits.HDUList(
        [
            fits.PrimaryHDU(np.zeros((10, 10), np.int16)),
            fits.CompImageHDU(rng.integers(0, 99, (50, 60)).astype(np.int16), name="B0"),
            table,
            fits.ImageHDU(name="IT'S"),
        ]
    )
    path = tmp_path / "whole.fits"
    hdus.writeto(path)
    return path


def test_a_whole_file_is_whole_and_its_hdus_are_named(whole):
    structure = read_structure(whole)

    assert structure.is_whole
    assert structure.names[1:3] == ("B0", "HEAP")
    assert structure.declared == structure.size == whole.stat().st_size


def test_every_cut_is_noticed_but_for_those_between_hdus(whole, tmp_path):
    content = whole.read_bytes()
    with fits.open(whole) as hdus:
        ends = {h._data_offset + h._data_size for h in hdus}
    ends = {-(-end // BLOCK) * BLOCK for end in ends}
    cut = tmp_path / "cut.fits"

    for length in sorted({*range(0, len(content), 499), *ends, *(e - 1 for e in ends), *(e + 1 for e in ends)}):
        if length >= len(content):
            continue
        cut.write_bytes(content[:length])
        structure = read_structure(cut)
        assert structure.broken == ""
        assert structure.is_whole == (length in ends), length


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"SIMPLE  =", b"SIMPEL  =", "expected the keyword SIMPLE"),
        (b"XTENSION=", b"\0\0\0\0\0\0\0\0\0", "HDU 1 at byte 5760 begins with"),
        (b"BITPIX  =                   16", b"BITPIX  =                   17", "BITPIX = 17; expected 8, 16"),
        (b"NAXIS1  =                   10", b"NAXIS1  =                   -1", "NAXIS1 = -1; expected 0 to any"),
        (b"NAXIS   =                    2", b"NAXIS   =                    T", "NAXIS = T; expected a whole number"),
    ],
)
def test_what_can_never_become_a_fits_file_is_broken(whole, tmp_path, old, new, why):
    path = tmp_path / "broken.fits"
    path.write_bytes(whole.read_bytes().replace(old, new, 1))

    structure = read_structure(path)

    assert why in structure.broken
    assert not structure.is_whole
