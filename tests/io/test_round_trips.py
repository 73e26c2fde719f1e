"""Every product comes back as it was written: hypothesis-generated shapes and values, and realistic content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlstream.datamodel.amplifier import Amp, Section
from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.fluxcalib import FluxCalib, FrameFluxCalib
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.image import AmpReadout, Image
from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.datamodel.qframe import CALIBRATED, QFrame
from qlstream.datamodel.sky import SkyModel
from qlstream.datamodel.traces import XYTraceSet
from qlstream.io.fiberflat import read_fiberflat, write_fiberflat
from qlstream.io.fibermap import read_fibermap, write_fibermap
from qlstream.io.fluxcalib import (
    read_average_fluxcalib,
    read_fluxcalib,
    write_average_fluxcalib,
    write_fluxcalib,
)
from qlstream.io.frame import read_frame, write_frame
from qlstream.io.image import read_image, write_image
from qlstream.io.products import write_product
from qlstream.io.psf import read_psf, write_psf
from qlstream.io.qframe import read_qframe, write_qframe
from qlstream.io.sky import read_sky, write_sky
from qlstream.io.xytraceset import read_xytraceset, write_xytraceset

QUICK = settings(max_examples=12, deadline=None)
ADDED_CARDS = ("DEPNAM00", "DEPVER00", "DEPNAM01", "DEPVER01")

CARDS = st.dictionaries(
    st.sampled_from(["NIGHT", "EXPTIME", "PROGRAM", "AIRMASS", "ISGOOD", "TILEID", "DATE-OBS", "MJD-OBS", "OBJECT"]),
    st.one_of(
        st.integers(-(2**62), 2**62),
        st.booleans(),
        st.integers(-(10**6), 10**6).map(lambda n: n / 64),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=150).map(str.rstrip),
    ),
)
SHAPE = st.tuples(st.integers(1, 6), st.integers(2, 40))
SEEDS = st.integers(0, 2**31)


def _fibermap(fibers: np.ndarray) -> Fibermap:
    columns = [("TARGETID", "i8"), ("FIBER", "i4"), ("OBJTYPE", "U3"), ("TARGET_RA", "f8"), ("FLUX_R", "f4")]
    rows = np.zeros(len(fibers), dtype=columns)
    rows["FIBER"], rows["OBJTYPE"] = fibers, np.resize(["TGT", "SKY", "BAD"], len(fibers))
    rows["TARGETID"], rows["TARGET_RA"], rows["FLUX_R"] = -(2**60) + fibers.astype(np.int64), 180.0 / 7, np.nan
    return Fibermap(rows, {"TILEID": 4403, "SURVEY": "main"})


def _f4(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Values that float32 holds exactly, with some infinities of a broken detector among them."""
    values = rng.normal(0, 1e3, shape).astype(np.float32)
    return np.where(rng.random(shape) < 0.02, np.float32(np.nan), values)


def _mask(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 2**32, shape, dtype=np.uint32)


def make_image(rng: np.random.Generator, shape: tuple[int, int], meta: dict[str, Any]) -> Image:
    mask = rng.integers(0, 2**10, shape, dtype=np.uint16)
    return Image(_f4(rng, *shape), _f4(rng, *shape), mask, "r3", (), meta, np.abs(_f4(rng, *shape)))


def make_qframe(rng: np.random.Generator, shape: tuple[int, int], meta: dict[str, Any]) -> QFrame:
    fibers = (1500 + rng.permutation(500)[: shape[0]]).astype(np.int32)
    wave = 5760 + np.cumsum(rng.uniform(0.4, 0.7, shape), axis=1)
    some = rng.random() < 0.5
    return QFrame(
        wave, _f4(rng, *shape), _f4(rng, *shape), _mask(rng, *shape), fibers,
        ysigma=np.float32(1 + rng.random(shape)) if some else None, fibermap=_fibermap(fibers),
        bunit=CALIBRATED if some else "electron", meta=meta,
    )  # fmt: skip


def make_frame(rng: np.random.Generator, shape: tuple[int, int], meta: dict[str, Any]) -> Frame:
    scores = np.zeros(shape[0], dtype=[("SUM_RAW_COUNT_R", "f8"), ("MEDIAN_RAW_SNR_R", "f4")])
    scores["SUM_RAW_COUNT_R"] = rng.normal(size=shape[0])
    wave = 5760 + 0.8 * np.arange(shape[1])
    fibers = (1500 + np.arange(shape[0])).astype(np.int32)
    images = [_f4(rng, *shape).astype(float) for _ in range(3)]
    return Frame(
        wave, images[0], images[1], _mask(rng, *shape), fibers,
        resolution=_f4(rng, shape[0], 11, shape[1]).astype(float), fibermap=_fibermap(fibers), chi2pix=images[2],
        scores=scores, meta=meta | {"FLAVOR": "science", "CAMERA": "r3"},
    )  # fmt: skip


def make_fiberflat(rng: np.random.Generator, shape: tuple[int, int], meta: dict[str, Any]) -> FiberFlat:
    fibers = np.arange(500, 500 + shape[0], dtype=np.int32)
    wave = np.float32(3600 + 0.8 * np.arange(shape[1])).astype(float)
    flat, ivar = _f4(rng, *shape).astype(float), _f4(rng, *shape).astype(float)
    return FiberFlat(
        wave, flat, ivar, _mask(rng, *shape), _f4(rng, shape[1]).astype(float), fibers, 1.25, _fibermap(fibers), meta
    )


def make_sky(rng: np.random.Generator, shape: tuple[int, int], meta: dict[str, Any]) -> SkyModel:
    wave = np.float32(7520 + 0.8 * np.arange(shape[1])).astype(float)
    flux, ivar, stat = (_f4(rng, *shape).astype(float) for _ in range(3))
    vectors = [np.float32(rng.normal(size=n)).astype(float) for n in (shape[0], shape[0], 4, 4, 4)]
    targets = rng.integers(-(2**62), 2**62, 3)
    return SkyModel(wave, flux, ivar, _mask(rng, *shape), stat, *vectors, skytargetid=targets, meta=meta)


def make_fluxcalib(rng: np.random.Generator, shape: tuple[int, int], meta: dict[str, Any]) -> FluxCalib:
    wave = np.float32(3600 + np.arange(shape[1])).astype(float)
    vectors = [np.float32(rng.random(shape[1])).astype(float) for _ in range(3)]
    return FluxCalib(wave, *vectors, airmass=1.125, seeing=1.0625, meta=meta)


def make_frame_fluxcalib(rng: np.random.Generator, shape: tuple[int, int], meta: dict[str, Any]) -> FrameFluxCalib:
    wave = np.float32(3600 + np.arange(shape[1])).astype(float)
    table = np.zeros(shape[0], dtype=[("FLAT_TO_PSF_FLUX", "f8"), ("PSF_TO_FIBER_FLUX", "f8")])
    table["FLAT_TO_PSF_FLUX"] = rng.random(shape[0])
    stars = _fibermap(np.arange(shape[0])).rows
    value, ivar = rng.random(shape), _f4(rng, *shape).astype(float)
    return FrameFluxCalib(wave, value, ivar, _mask(rng, *shape), table, stars, rng.random(shape[1]), meta)


def make_traces(rng: np.random.Generator, shape: tuple[int, int], meta: dict[str, Any]) -> XYTraceSet:
    n = (shape[0], 1 + shape[1] % 7)
    coefs = [np.float32(rng.normal(100, 50, n)).astype(float) for _ in range(4)]
    xsig, ysig = (coefs[2], coefs[3]) if rng.random() < 0.7 else (None, None)
    return XYTraceSet(coefs[0], coefs[1], 5543.0, 7826.5, 4128, xsig, ysig, meta)


def make_psf(rng: np.random.Generator, shape: tuple[int, int], meta: dict[str, Any]) -> GaussHermitePSF:
    names = ["GHSIGX", "GHSIGY", *(f"GH-{i}-{j}" for j in range(3) for i in range(3)), "TAILAMP", "BUNDLE", "STATUS"]
    coef = {name: rng.normal(size=(shape[0], 4)) for name in names}
    same = {"xsigcoef": coef["GHSIGX"], "ysigcoef": coef["GHSIGY"], "meta": {}}
    domain = (5543.0, 7826.0)
    traces = XYTraceSet(rng.normal(size=(shape[0], 7)), rng.normal(size=(shape[0], 7)), *domain, 4128, **same)
    return GaussHermitePSF(traces, coef, *domain, 2, 2, 6, 5, meta)


PRODUCTS: dict[str, tuple[Callable[..., Any], Callable[..., None], Callable[..., Any]]] = {
    "preproc": (make_image, write_image, read_image),
    "qframe": (make_qframe, write_qframe, read_qframe),
    "frame": (make_frame, write_frame, read_frame),
    "fiberflat": (make_fiberflat, write_fiberflat, read_fiberflat),
    "sky": (make_sky, write_sky, read_sky),
    "average fluxcalib": (make_fluxcalib, write_average_fluxcalib, read_average_fluxcalib),
    "fluxcalib": (make_frame_fluxcalib, write_fluxcalib, read_fluxcalib),
    "xytraceset": (make_traces, write_xytraceset, read_xytraceset),
    "psf": (make_psf, write_psf, read_psf),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("products")


@pytest.mark.parametrize("kind", PRODUCTS)
@QUICK
@given(shape=SHAPE, meta=CARDS, seed=SEEDS)
def test_a_product_comes_back_as_it_was_written(folder, kind, shape, meta, seed):
    make, write, read = PRODUCTS[kind]
    data = make(np.random.default_rng(seed), shape, meta)

    write(folder / f"{kind}.fits", data)

    assert_same(read(folder / f"{kind}.fits"), data)


@QUICK
@given(nrow=st.integers(1, 30), seed=SEEDS)
def test_a_fibermap_comes_back_sorted_by_fiber(folder, nrow, seed):
    shuffled = _fibermap(np.random.default_rng(seed).permutation(5000)[:nrow])

    write_fibermap(folder / "fibermap.fits", shuffled)

    assert_same(read_fibermap(folder / "fibermap.fits"), shuffled.select(np.sort(shuffled.fiber)))


@pytest.mark.parametrize("kind", ["preproc", "frame", "sky", "fiberflat"])
def test_a_product_may_be_compressed_and_is_found_by_either_name(tmp_path, kind):
    make, write, read = PRODUCTS[kind]
    data = make(np.random.default_rng(1), (3, 20), {})

    write(tmp_path / "product.fits.gz", data)

    assert (tmp_path / "product.fits.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert_same(read(tmp_path / "product.fits"), data)


def test_an_image_keeps_what_was_measured_on_its_amplifiers(tmp_path):
    low, high = Section(0, 20, 0, 30), Section(20, 40, 0, 30)
    amps = [Amp("A", Section(4, 24, 0, 30), low, Section(24, 34, 0, 30)),
            Amp("B", Section(44, 64, 0, 30), high, Section(34, 44, 0, 30))]  # fmt: skip
    none = np.empty(0, dtype=np.float32)
    readouts = tuple(AmpReadout(a, 1.5, 1960.5, 2.75 + i, 0.5, 65535.0, none) for i, a in enumerate(amps))
    cards = {
        f"{kind}{a.name}": str(getattr(a, kind.lower())) for a in amps for kind in ("DATASEC", "CCDSEC", "BIASSEC")
    }
    zeros = np.zeros((30, 40), dtype=np.float32)
    image = Image(zeros, zeros, zeros.astype(np.uint16), "b1", readouts, cards)

    write_image(tmp_path / "p.fits", image)

    back = read_image(tmp_path / "p.fits")
    assert [r.name for r in back.readouts] == ["A", "B"]
    assert back.readouts[1].readnoise == 3.75
    assert back.readouts[1].amp == amps[1]
    np.testing.assert_array_equal(back.readnoise, image.readnoise)
    assert back.meta["SATUELEA"] == pytest.approx((65535 - 1960.5) * 1.5)


def test_fiber_numbers_come_from_a_range_from_a_table_or_from_the_camera(tmp_path):
    rng = np.random.default_rng(3)
    qframe = replace(make_qframe(rng, (4, 9), {"CAMERA": "r3"}), fibermap=None)
    contiguous = replace(qframe, fibers=np.arange(1500, 1504, dtype=np.int32))

    write_qframe(tmp_path / "scattered.fits", qframe)
    write_qframe(tmp_path / "contiguous.fits", contiguous)

    np.testing.assert_array_equal(read_qframe(tmp_path / "scattered.fits").fibers, qframe.fibers)
    back = read_qframe(tmp_path / "contiguous.fits")
    assert back.fibermap is None
    np.testing.assert_array_equal(back.fibers, contiguous.fibers)


def test_a_frame_with_widths_alone_gives_resolutions(tmp_path):
    frame = make_frame(np.random.default_rng(5), (2, 60), {})
    frame = replace(frame, resolution=None, ysigma=np.full((2, 60), 1.25), ndiag=15)

    write_frame(tmp_path / "f.fits", frame)

    back = read_frame(tmp_path / "f.fits")
    assert_same(back, frame)
    np.testing.assert_allclose(back.resolution_of(0).data[:, 30].sum(), 1, atol=1e-6)
    assert back.resolution_of(1).ndiag == 15


def test_a_frame_must_say_a_known_flavor(tmp_path):
    frame = make_frame(np.random.default_rng(5), (2, 6), {})
    with pytest.raises(OSError, match="FLAVOR = 'twilight'"):
        write_frame(tmp_path / "f.fits", replace(frame, meta={"FLAVOR": "twilight"}))
    assert not list(tmp_path.iterdir())


def test_the_outputs_of_stages_become_the_products_of_a_plan(tmp_path):
    rng = np.random.default_rng(7)
    qframe, traces = make_qframe(rng, (3, 30), {"MJD-OBS": 61055.25}), make_traces(rng, (3, 6), {})
    qframe = replace(qframe, sky=_f4(rng, 3, 30))
    image = replace(make_image(rng, (20, 30), {"MJD-OBS": 61055.25}), traces=traces)

    for kind, data in {"preproc": image, "psf": image, "qframe": qframe, "qsky": qframe, "qcframe": qframe}.items():
        write_product(kind, data, tmp_path / kind)
    write_product("qfiberflat", make_fiberflat(rng, (3, 30), {}), tmp_path / "qfiberflat")

    psf = read_xytraceset(tmp_path / "psf")
    np.testing.assert_array_equal(psf.xcoef, traces.xcoef)
    assert psf.meta["MJD-OBS"] == 61055.25  # by which a later exposure of the night finds it
    sky = read_qframe(tmp_path / "qsky")
    np.testing.assert_array_equal(sky.flux, qframe.sky)
    assert (sky.ivar == 1).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["preproc", "psf", "qcframe", "qfiberflat", "qframe", "qsky"]


@pytest.mark.parametrize(
    ("kind", "match"), [("preproc", "needs? Image"), ("nonsense", "unknown product"), ("qsky", "SkySub")]
)
def test_a_product_that_cannot_be_made_says_why(tmp_path, kind, match):
    with pytest.raises(ValueError, match=match):
        write_product(kind, make_qframe(np.random.default_rng(1), (2, 5), {}), tmp_path / "p.fits")
    assert not list(tmp_path.iterdir())


def test_a_realistic_camera_comes_back_bit_by_bit(tmp_path):
    rng = np.random.default_rng(11)
    fibers = np.arange(1500, 2000, dtype=np.int32)
    wave = 5760 + np.cumsum(rng.uniform(0.49, 0.57, (500, 1000)), axis=1)
    counts = np.float32(rng.poisson(40, wave.shape))
    ivar = np.float32(1 / (counts + 9))
    ivar[rng.random(ivar.shape) < 0.01] = 0
    meta = {"CAMERA": "r3", "NIGHT": 20260115, "EXPID": 118526, "DATE-OBS": "2022-01-14T11:04:17.830044160"}
    width = np.full(wave.shape, 1.1, np.float32)
    mask = np.uint32(ivar == 0)
    qframe = QFrame(wave, counts, ivar, mask, fibers, width, _fibermap(fibers), meta=meta)

    write_qframe(tmp_path / "q.fits", qframe)

    assert_same(read_qframe(tmp_path / "q.fits"), qframe)


def assert_same(back: Any, data: Any) -> None:
    """All attributes agree; headers may have gained the version cards, and lose what FITS cannot say."""
    if isinstance(data, np.ndarray):
        assert back.dtype == data.dtype or data.dtype.names
        if data.dtype.names:
            assert back.dtype.names == data.dtype.names
            for name in data.dtype.names:
                np.testing.assert_array_equal(back[name], data[name])
        else:
            np.testing.assert_array_equal(back, data)
    elif isinstance(data, dict):
        if data and all(isinstance(v, np.ndarray) for v in data.values()):
            assert list(back) == list(data)
            for name, value in data.items():
                np.testing.assert_array_equal(back[name], value)
        else:
            for name, value in data.items():
                assert back[name] == value, name
    elif hasattr(data, "__dataclass_fields__"):
        for f in fields(data):
            value = getattr(data, f.name)
            if value is None:
                assert getattr(back, f.name) is None, f.name
            else:
                assert_same(getattr(back, f.name), value)
    else:
        assert back == data
