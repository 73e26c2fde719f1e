"""Raw exposures: what is written comes back, and every variation of real files is understood."""

from __future__ import annotations

import pickle

import fitsio
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qlstream.io.errors import BadFile
from qlstream.io.fitsfile import HDU, write_fits
from qlstream.io.raw import list_cameras, read_exposure_header, read_raw, write_raw


@pytest.mark.parametrize("dtype", ["u2", "i2", "i4"])
def test_pixels_and_cards_come_back(tmp_path, primary, raw_camera, dtype):
    path = tmp_path / "desi-00118526.fits.fz"
    cameras = {"r3": raw_camera(1, dtype), "z0": raw_camera(2, dtype)}

    write_raw(path, primary, cameras)

    raw = read_raw(path, "z0")
    np.testing.assert_array_equal(raw.pix, cameras["z0"][0])
    assert raw.pix.dtype == np.dtype(dtype)
    assert raw.pix.dtype.isnative
    assert raw.camera == raw.header["CAMERA"] == "z0"
    assert raw.hdus == ("", "SPEC", "R3", "Z0")
    assert list_cameras(path) == ("r3", "z0")
    assert [a.name for a in raw.amps] == list("ABCD")
    assert raw.amps[0].orsec.shape == (2, 20)
    assert raw.trimmed_shape == (30, 40)
    assert read_exposure_header(path).items() >= primary.items()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31), low=st.integers(0, 65535), spread=st.integers(1, 65536))
def test_any_16_bit_image_survives_compression(tmp_path, primary, raw_camera, seed, low, spread):
    pix = np.random.default_rng(seed).integers(low, min(low + spread, 65536), (36, 64)).astype(np.uint16)

    write_raw(tmp_path / "d.fits.fz", primary, {"b0": (pix, raw_camera()[1])})

    np.testing.assert_array_equal(read_raw(tmp_path / "d.fits.fz", "b0").pix, pix)


def test_the_file_looks_like_those_of_the_instrument(tmp_path, primary, raw_camera):
    path = tmp_path / "d.fits.fz"

    write_raw(path, primary, {"r3": raw_camera()})

    with fitsio.FITS(path) as fits:
        assert not fits[0].has_data()
        np.testing.assert_array_equal(fits["SPEC"].read(), np.arange(10))
        header = fits["R3"].read_header()
        assert (header["ZCMPTYPE"], header["ZTILE1"], header["ZTILE2"]) == ("RICE_1", 64, 1)
        assert (header["ZBITPIX"], header["BZERO"], header["NAXIS2"]) == (16, 32768, 36)
        for hdu in fits:
            hdu.verify_checksum()


def test_cards_of_the_camera_win_and_those_of_the_exposure_complete_them(tmp_path, primary, raw_camera):
    write_raw(tmp_path / "d.fits.fz", primary, {"r3": raw_camera()})

    raw = read_raw(tmp_path / "d.fits.fz", "r3")

    assert raw.header["EXPTIME"] == 579.193
    assert raw.primary["EXPTIME"] == 579.1588
    assert raw.header["PROGRAM"] == "DARK"


def _as_hdus(primary, cameras, name="SPEC", first=None, extra=()):
    hdus = [HDU("", None, first or {})]
    if name:
        hdus.append(HDU(name, np.arange(10, dtype=np.int32), primary, compress_rows=True))
    hdus += [HDU(c.upper(), pix, {**cards, "CAMERA": c}, compress_rows=True) for c, (pix, cards) in cameras.items()]
    return [*hdus, *extra]


@pytest.mark.parametrize("name", ["SPEC", "SPS", None])
def test_the_exposure_header_is_the_first_with_exptime(tmp_path, primary, raw_camera, name):
    hdus = _as_hdus(primary, {"r3": raw_camera()}, name, first=None if name else primary)

    write_fits(tmp_path / "d.fits", hdus)

    assert read_exposure_header(tmp_path / "d.fits")["EXPTIME"] == 579.1588
    assert read_raw(tmp_path / "d.fits", "r3").primary["PROGRAM"] == "DARK"


def test_cards_of_hdu_0_and_plc_are_merged_and_old_names_replaced(tmp_path, primary, raw_camera):
    primary["EPOCH"] = 2000.0
    plc = HDU("PLC", np.zeros(2, np.int32), {"PLCTEMP": 17.5, "PROGRAM": "not this"})
    hdus = _as_hdus(primary, {"r3": raw_camera(INHERIT=True)}, first={"TELESCOP": "KPNO"}, extra=[plc])

    write_fits(tmp_path / "d.fits", hdus)

    header = read_raw(tmp_path / "d.fits", "r3").header
    assert (header["TELESCOP"], header["PLCTEMP"], header["EQUINOX"]) == ("KPNO", 17.5, 2000.0)
    assert "EPOCH" not in header
    assert "INHERIT" not in header


@pytest.mark.parametrize("night", ["None", None, "unknown", "20220113"])
def test_a_broken_night_is_repaired(tmp_path, primary, raw_camera, night):
    primary["NIGHT"] = night
    camera = raw_camera(NIGHT=night, **{"DATE-OBS": primary["DATE-OBS"]})

    write_raw(tmp_path / "d.fits.fz", primary, {"r3": camera})

    assert read_exposure_header(tmp_path / "d.fits.fz")["NIGHT"] == 20220113
    assert read_raw(tmp_path / "d.fits.fz", "r3").header["NIGHT"] == 20220113


def test_amplifiers_may_have_their_old_names(tmp_path, primary, raw_camera):
    pix, cards = raw_camera()
    old = {k[:-1] + "1234"["ABCD".index(k[-1])] if "SEC" in k else k: v for k, v in cards.items()}

    write_raw(tmp_path / "d.fits.fz", primary, {"r3": (pix, old)})

    assert [a.name for a in read_raw(tmp_path / "d.fits.fz", "r3").amps] == list("1234")


WRONG = {
    "night differs": ({"NIGHT": 20220114}, "(NIGHT = 20220114); expected 20220113"),
    "section leaves": ({"BIASSECB": "[33:99,2:16]"}, "amplifier B leaves the image"),
    "no section": ({"BIASSECA": "nonsense"}, "BIASSECA = 'nonsense'"),
    "shapes differ": ({"CCDSECC": "[1:19,16:30]"}, "differ in shape"),
}


@pytest.mark.parametrize(("cards", "match"), WRONG.values(), ids=WRONG)
def test_a_broken_header_names_file_hdu_and_keyword(tmp_path, primary, raw_camera, cards, match):
    write_raw(tmp_path / "d.fits.fz", primary, {"r3": raw_camera(**cards)})

    with pytest.raises(BadFile) as caught:
        read_raw(tmp_path / "d.fits.fz", "r3")

    message = str(caught.value)
    assert match in message
    assert message.startswith(f"{tmp_path / 'd.fits.fz'}, HDU R3")
    assert str(pickle.loads(pickle.dumps(caught.value))) == message


def test_a_missing_camera_lists_those_that_are_there(tmp_path, primary, raw_camera):
    write_raw(tmp_path / "d.fits.fz", primary, {"r3": raw_camera()})
    with pytest.raises(BadFile, match=r"HDU Z9: missing HDU; expected Z9; the file has .*SPEC, R3"):
        read_raw(tmp_path / "d.fits.fz", "z9")


def test_no_exposure_header_at_all(tmp_path):
    write_fits(tmp_path / "d.fits", [HDU("", None, {"EXPID": 1})])
    with pytest.raises(BadFile, match="no HDU has EXPTIME"):
        read_exposure_header(tmp_path / "d.fits")


def test_flipped_bits_are_noticed(tmp_path, primary, raw_camera):
    path = tmp_path / "d.fits.fz"
    write_raw(path, primary, {"r3": raw_camera(1), "z3": raw_camera(2)})
    content = bytearray(path.read_bytes())
    content[-4000] ^= 0x10  # in the compressed pixels of z3
    path.write_bytes(content)

    with pytest.raises(BadFile, match="HDU Z3: corrupt data"):
        read_raw(path, "z3")
    assert read_raw(path, "r3").camera == "r3"


@pytest.mark.parametrize("keep", [0.05, 0.5, 0.8])
def test_a_truncated_file_is_refused(tmp_path, primary, raw_camera, keep):
    path = tmp_path / "d.fits.fz"
    write_raw(path, primary, {"r3": raw_camera()})
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])

    with pytest.raises(BadFile):
        read_raw(path, "r3")


def test_other_content_is_no_fits_file(tmp_path):
    (tmp_path / "d.fits").write_text("nothing of the kind")
    with pytest.raises(BadFile, match="no readable FITS file"):
        read_raw(tmp_path / "d.fits", "r3")
    with pytest.raises(FileNotFoundError, match="absent"):
        read_raw(tmp_path / "absent.fits", "r3")


def test_writing_names_all_missing_cards_and_refuses_floats(tmp_path, primary, raw_camera):
    pix, cards = raw_camera(DETECTOR=None, CCDSECB=None)
    with pytest.raises(KeyError, match=r"CCDSECB \(r3\), DETECTOR \(r3\)"):
        write_raw(tmp_path / "d.fits.fz", primary, {"r3": (pix, cards)})
    with pytest.raises(ValueError, match="integer image"):
        write_raw(tmp_path / "d.fits.fz", primary, {"r3": (pix.astype(float), raw_camera()[1])})
    with pytest.raises(ValueError, match="32 bits"):
        write_raw(tmp_path / "d.fits.fz", primary, {"r3": (pix.astype(np.int64) + 2**40, raw_camera()[1])})
    assert not list(tmp_path.iterdir())
