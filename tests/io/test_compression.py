"""Gzip files: the same content whoever packed them, deterministic, and told about when broken."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import fitsio
import numpy as np
import pytest

from qlstream.io import compression
from qlstream.io.compression import packing, unpacked
from qlstream.io.errors import BadFile
from qlstream.io.fitsfile import HDU, FitsFile, write_fits

PIXELS = np.random.default_rng(1).normal(size=(300, 400)).astype(np.float32)


@pytest.fixture
def packed_file(tmp_path: Path) -> Path:
    path = tmp_path / "image.fits.gz"
    write_fits(path, [HDU("IMAGE", PIXELS)])
    return path


def test_other_programs_read_what_we_pack(packed_file: Path) -> None:
    np.testing.assert_array_equal(fitsio.read(str(packed_file)), PIXELS)


def test_we_read_what_other_programs_pack(tmp_path: Path) -> None:
    write_fits(tmp_path / "plain.fits", [HDU("IMAGE", PIXELS)])
    path = tmp_path / "theirs.fits.gz"
    path.write_bytes(gzip.compress((tmp_path / "plain.fits").read_bytes()))
    with FitsFile(path) as fits:
        np.testing.assert_array_equal(fits.image("IMAGE", verify=True), PIXELS)


def test_without_files_in_memory_the_file_itself_is_opened(packed_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(compression.os, "memfd_create", raising=False)
    with unpacked(packed_file) as name, FitsFile(packed_file) as fits:
        assert name == str(packed_file)
        np.testing.assert_array_equal(fits.image(0), PIXELS)


def test_only_the_packed_form_is_left_and_neither_time_nor_name_is_in_it(tmp_path: Path, packed_file: Path) -> None:
    again = tmp_path / "elsewhere" / "other.fits.gz"
    write_fits(again, [HDU("IMAGE", PIXELS)])
    assert again.read_bytes() == packed_file.read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [packed_file.name]


def test_nothing_is_left_when_writing_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with packing(tmp_path / "image.fits.gz") as plain:
            plain.write_bytes(b"half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["cut", "flipped", "overwritten", "rubbish", "empty"])
def test_a_broken_gzip_file_is_a_bad_file(packed_file: Path, damage: str) -> None:
    content = bytearray(packed_file.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    elif damage == "overwritten":
        content[100:200] = bytes(range(100, 200))
    else:
        content = bytearray(b"this is no gzip file" if damage == "rubbish" else b"")
    packed_file.write_bytes(content)
    descriptors = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    with pytest.raises(BadFile, match=r"image\.fits\.gz"):
        FitsFile(packed_file)
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) == descriptors
