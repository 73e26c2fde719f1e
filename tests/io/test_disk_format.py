"""What the files look like to other programs: names, types and units of the data model, checksums, valid FITS."""

from __future__ import annotations

import fitsio
import numpy as np
import pytest
from astropy.io import fits

from qlstream import __version__
from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.image import Image
from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.datamodel.qframe import QFrame
from qlstream.datamodel.sky import SkyModel
from qlstream.datamodel.traces import XYTraceSet
from qlstream.io.fiberflat import write_fiberflat
from qlstream.io.fibermap import write_fibermap
from qlstream.io.frame import write_frame
from qlstream.io.image import write_image
from qlstream.io.psf import write_psf
from qlstream.io.qframe import write_qframe
from qlstream.io.sky import write_sky
from qlstream.io.xytraceset import write_xytraceset

META = {"CAMERA": "r3", "FLAVOR": "science", "NIGHT": 20260115, "LONG": "x" * 200, "NOTHING": None, "BAD": float("nan")}
N, W = 4, 30
F4, F8, U4, I2, TABLE = ">f4", ">f8", "uint32", "int16", "table"

_grid = 5760 + 0.8 * np.arange(W)
_fibers = np.arange(1500, 1500 + N, dtype=np.int32)
_f, _m = np.ones((N, W)), np.zeros((N, W), np.uint32)
_rows = np.zeros(N, dtype=[("FIBER", "i4"), ("TARGET_RA", "f8"), ("FLUX_R", "f4"), ("OBJTYPE", "U3")])
_rows["FIBER"], _rows["OBJTYPE"] = _fibers, "SKY"
_map = Fibermap(_rows, {"TILEID": 7})
_coef = np.ones((N, 7)) * 100
_traces = XYTraceSet(_coef, _coef, 5543.0, 7826.0, 4128, _coef, _coef)
_f4 = _f.astype(np.float32)
_qframe = QFrame(_f * _grid, _f4, _f4, _m, _fibers, _f4, _map, meta=META)

# file: (writer, data, [(EXTNAME, type on disk, BUNIT)])
FORMATS = {
    "preproc": (
        write_image,
        Image(_f4, _f4, _m.astype(np.uint16), "r3", (), META, _f4),
        [("IMAGE", F4, None), ("IVAR", F4, None), ("MASK", I2, None), ("READNOISE", F4, None)],
    ),
    "qframe": (
        write_qframe,
        _qframe,
        [("FLUX", F4, "electron"), ("IVAR", F4, None), ("MASK", U4, None), ("YSIGMA", F4, "pixel"),
         ("WAVELENGTH", F8, "Angstrom"), ("FIBERMAP", TABLE, None)],
    ),
    "fiberflat": (
        write_fiberflat,
        FiberFlat(_grid, _f, _f, _m, _grid, _fibers, 1.1, _map, META),
        [("FIBERFLAT", F4, ""), ("IVAR", F4, ""), ("MASK", U4, None), ("MEANSPEC", F4, "electron/Angstrom"),
         ("WAVELENGTH", F4, "Angstrom"), ("FIBERMAP", TABLE, None)],
    ),
    "frame": (
        write_frame,
        Frame(_grid, _f, _f, _m, _fibers, np.ones((N, 11, W)), None, 21, _map, _f, _rows, meta=META),
        [("FLUX", F4, "electron/Angstrom"), ("IVAR", F4, None), ("MASK", U4, None), ("WAVELENGTH", F8, "Angstrom"),
         ("RESOLUTION", F4, None), ("FIBERMAP", TABLE, None), ("CHI2PIX", F4, None), ("SCORES", TABLE, None)],
    ),
    "sky": (
        write_sky,
        SkyModel(_grid, _f, _f, _m, _f, _f[:, 0], _f[:, 0], np.ones(4), np.ones(4), np.ones(4), np.ones(3, int), META),
        [("SKY", F4, "electron/Angstrom"), ("IVAR", F4, None), ("MASK", U4, None), ("WAVELENGTH", F4, "Angstrom"),
         ("STATIVAR", F4, None), ("THRPUTCORR", F4, None), ("THRPUTCORR_MOD", F4, None), ("DWAVECOEFF", F4, None),
         ("DLSFCOEFF", F4, None), ("SKYGRADPCACOEFF", F4, None), ("SKYTARGETID", ">i8", None)],
    ),
    "xytraceset": (
        write_xytraceset,
        _traces,
        [("XTRACE", F4, None), ("YTRACE", F4, None), ("XSIG", F4, None), ("YSIG", F4, None)],
    ),
    "psf": (
        write_psf,
        GaussHermitePSF(_traces, {"GHSIGX": _coef, "GHSIGY": _coef, "GH-0-0": _coef}, 5543.0, 7827.0, meta=META),
        [("XTRACE", F8, None), ("YTRACE", F8, None), ("PSF", TABLE, None)],
    ),
    "fibermap": (write_fibermap, _map, [("", None, None), ("FIBERMAP", TABLE, None)]),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
def test_hdus_types_and_units_are_those_of_the_data_model(tmp_path, kind):
    write, data, expected = FORMATS[kind]

    write(tmp_path / "file.fits", data)

    with fitsio.FITS(tmp_path / "file.fits") as hdus:
        for hdu in hdus:
            hdu.verify_checksum()
    with fits.open(tmp_path / "file.fits") as hdus:
        hdus.verify("exception")
        found = []
        for hdu in hdus:
            header = hdu.header
            is_table = isinstance(hdu, fits.BinTableHDU) and not isinstance(hdu, fits.CompImageHDU)
            dtype = None if hdu.data is None else TABLE if is_table else hdu.data.dtype
            found.append((header.get("EXTNAME", ""), dtype, header.get("BUNIT")))
        assert found == [(n, t if t in (TABLE, None) else np.dtype(t), u) for n, t, u in expected]
        assert (hdus[0].header["DEPNAM00"], hdus[0].header["DEPVER00"]) == ("qlstream", __version__)


def test_the_mask_of_an_image_is_compressed_and_the_table_has_units(tmp_path):
    write_image(tmp_path / "p.fits", FORMATS["preproc"][1], _map)

    with fits.open(tmp_path / "p.fits", disable_image_compression=True) as hdus:
        assert hdus["MASK"].header["ZCMPTYPE"] == "RICE_1"
        assert hdus["FIBERMAP"].columns["TARGET_RA"].unit == "deg"
        assert hdus["FIBERMAP"].columns["FLUX_R"].unit == "nanomaggy"
        assert hdus["FIBERMAP"].columns["OBJTYPE"].format == "3A"
        assert hdus["FIBERMAP"].header["TILEID"] == 7


def test_cards_survive_except_what_fits_cannot_say(tmp_path):
    write_qframe(tmp_path / "q.fits", _qframe)

    header = fits.getheader(tmp_path / "q.fits")
    assert header["LONG"] == "x" * 200
    assert (header["FIBERMIN"], header["NSPEC"]) == (1500, N)
    assert "NOTHING" not in header
    assert "BAD" not in header


def test_the_version_card_keeps_those_of_others(tmp_path):
    meta = {"DEPNAM00": "other", "DEPVER00": "1.0", "DEPNAM01": "qlstream", "DEPVER01": "0.0.1"}
    traces = XYTraceSet(_coef, _coef, 5543.0, 7826.0, 4128, meta=meta)

    write_xytraceset(tmp_path / "x.fits", traces)

    header = fits.getheader(tmp_path / "x.fits")
    assert [header[k] for k in ("DEPNAM00", "DEPVER00", "DEPNAM01", "DEPVER01")] == [
        "other", "1.0", "qlstream", __version__,
    ]  # fmt: skip
    assert "DEPNAM02" not in header


def test_the_psf_table_has_the_columns_and_keys_of_the_real_one(tmp_path):
    write_psf(tmp_path / "psf.fits", FORMATS["psf"][1])

    with fits.open(tmp_path / "psf.fits") as hdus:
        table = hdus["PSF"]
        assert table.columns.names == ["PARAM", "COEFF", "LEGDEGX", "LEGDEGW"]
        assert table.data["COEFF"].shape == (3, N, 7)
        keys = ("PSFTYPE", "PSFVER", "NPIX_Y", "HSIZEX", "HSIZEY", "FIBERMIN", "FIBERMAX", "NPARAMS", "LEGDEG")
        assert [table.header[k] for k in keys] == ["GAUSS-HERMITE", "3", 4128, 8, 5, 0, N - 1, 3, 6]
        assert (table.header["WAVEMAX"], hdus["XTRACE"].header["WAVEMAX"]) == (7827.0, 7826.0)
        assert hdus["XTRACE"].header["PSFTYPE"] == "GAUSS-HERMITE"
