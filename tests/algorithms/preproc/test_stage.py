from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from algorithms.preproc.stage import Preproc
from qlstream.calibration.finder import find_calibration
from qlstream.calibration.served import Calibration, MissingCalibration
from qlstream.datamodel.masks import CCDMask
from qlstream.io.raw import read_raw, write_raw
from qlstream.simulate.calibration import write_calibration, write_spectrograph_map

GAINS = {f"GAIN{a}": 1.5 for a in "ABCD"}


@pytest.fixture
def preprocess(make_context: Callable[..., Any]) -> Callable[..., Any]:
    """Run Preproc on a raw camera with these calibration parts and cards."""

    def run(
        raw: Any, parts: Any = None, cards: Any = None, flavor: str = "science", bad_amps: str = "", **params: Any
    ) -> Any:
        cards = GAINS if cards is None else cards
        calibration = Calibration("r3", 20260114, parts or {}, cards, bad_amps=bad_amps)
        context = make_context(header=raw.header, calibration=calibration, flavor=flavor)
        return Preproc(params).run(raw, context)

    return run


def nmad(values: Any) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


@pytest.mark.parametrize("light", [0.0, 3.0, 50.0, 3000.0])
def test_pulls_are_standard_normal_from_dark_to_bright(
    make_readout: Callable[..., Any], preprocess: Callable[..., Any], light: float
) -> None:
    image = preprocess(make_readout(light=light, readnoise=6.0).expose(), cosmics=False)

    pull = (image.pix - light) * np.sqrt(image.ivar)
    weighted = np.average(image.pix, weights=image.ivar) - light
    error = np.sqrt(light + 36) / 200
    level = 6.0 / np.sqrt(4 * 3200)  # of the four overscans
    print(f"{light} e: pull mean {pull.mean():.3f}, rms {pull.std():.4f}; weighted mean off by {weighted:.3f} e")
    assert pull.std() == pytest.approx(1, abs=5 / np.sqrt(2 * pull.size) + 0.01)
    assert abs(weighted) < 5 * np.hypot(error, level) + 0.1  # the pixel's own value as its variance: 1 e low
    assert (image.ivar > 0).all()


def test_pixels_at_saturlev_are_flagged_in_raw_adu_bias_included(
    make_readout: Callable[..., Any], preprocess: Callable[..., Any]
) -> None:
    readout = make_readout(cards={"SATURLEVB": 40000.0})

    def saturate(raw: Any) -> None:
        raw[readout.amps[0].datasec.slices][50, 10:20] = 65535.0
        raw[readout.amps[1].datasec.slices][50, 10:20] = 40000.0
        raw[readout.amps[1].datasec.slices][60, 10:20] = 39999.0

    raw = readout.expose(saturate)
    image = preprocess(raw, parts={"BIAS": np.full(raw.pix.shape, 3.0, np.float32)})

    saturated = (image.mask & CCDMask.SATURATED) != 0
    assert saturated[50, 10:20].all()
    assert saturated[50, 110:120].all()
    assert saturated.sum() == 20
    assert image.meta["SATULEVB"] == 40000.0
    assert image.meta["SATULEVA"] == 65535.0
    assert image.meta["SATUELEB"] == pytest.approx(1.5 * (40000 - 1970), abs=1)


@pytest.mark.parametrize("names", ["A", "AB", "AC", "CD", "ABCD", "1234", "34"])
def test_readouts_of_any_number_of_amplifiers_come_out_whole(
    make_readout: Callable[..., Any], preprocess: Callable[..., Any], names: str
) -> None:
    readout = make_readout(names=names, light=100.0)

    image = preprocess(readout.expose(), cards={f"GAIN{a}": 1.5 for a in names}, cosmics=False)

    assert image.pix.shape == readout.shape
    assert image.pix.mean() == pytest.approx(100, abs=1)
    assert [r.name for r in image.readouts] == list(names)
    assert set(np.unique(image.mask)) == {0}


def test_calibration_images_take_out_what_they_describe(
    make_readout: Callable[..., Any], preprocess: Callable[..., Any]
) -> None:
    rng = np.random.default_rng(3)
    pixflat = rng.normal(1, 0.05, (200, 200)).astype(np.float32)
    dark = np.full((200, 200), 0.01, np.float32)
    dark[70, 80] = 2.0
    mask = np.zeros((200, 200), np.uint16)
    mask[70, 80], pixflat[20, 30], pixflat[20, 31] = CCDMask.HOT, 0.0, 0.05
    readout = make_readout(light=400 * pixflat + 900 * dark)
    bias = 20 * np.sin(np.arange(readout.expose().pix.size)).reshape(readout.expose().pix.shape).astype(np.float32)

    raw = readout.expose(lambda pix: np.add(pix, bias, out=pix))
    image = preprocess(raw, {"BIAS": bias, "DARK": dark, "PIXFLAT": pixflat, "MASK": mask}, cosmics=False)

    good = image.mask == 0
    pull = ((image.pix - 400) * np.sqrt(image.ivar))[good]
    assert pull.std() == pytest.approx(1, abs=5 / np.sqrt(2 * pull.size) + 0.01)
    assert abs(pull.mean()) < 0.05
    assert image.mask[70, 80] == CCDMask.HOT
    assert image.ivar[70, 80] == pytest.approx(1 / (400 + 1800 + 16), rel=0.3)  # its own dark current counts
    assert image.mask[20, 30] == CCDMask.PIXFLATZERO
    assert image.ivar[20, 30] == 0
    assert image.mask[20, 31] == CCDMask.PIXFLATLOW
    assert {image.meta[k] for k in ("PPBIAS", "PPDARK", "PPFLAT", "PPMASK")} == {"done"}


def test_cross_talk_is_taken_from_the_uncorrected_amplifiers(
    make_readout: Callable[..., Any], preprocess: Callable[..., Any]
) -> None:
    light = np.full((200, 200), 100.0)
    light[10, 5], light[150, 170] = 60000.0, 60000.0  # in A and in D
    readout = make_readout(light=light)
    electrons = light.copy()
    electrons[10, 194] += 0.01 * 60000  # A -> B mirrors columns
    electrons[10 + 180 - 1, 5] += 0.01 * 60000  # A -> C mirrors rows
    electrons[49, 29] += 0.01 * 60000  # D -> A mirrors both
    readout.light = electrons
    cards = GAINS | {"CROSSTALKAB": 0.01, "CROSSTALKAC": 0.01, "CROSSTALKDA": 0.01}

    image = preprocess(readout.expose(), cards=cards, cosmics=False)

    for y, x in ((10, 194), (189, 5), (49, 29)):
        assert image.pix[y, x] == pytest.approx(100, abs=5 * np.sqrt(700 + 16) + 5)


def test_missing_calibrations_are_left_out_and_recorded_unless_required(
    make_readout: Callable[..., Any], preprocess: Callable[..., Any]
) -> None:
    raw = make_readout(light=50.0).expose()

    image = preprocess(raw, mask="skip")

    assert image.meta["PPBIAS"].startswith("left out: no BIAS for r3")
    assert image.meta["PPMASK"] == "left out: not wanted"
    with pytest.raises(MissingCalibration, match="no PIXFLAT"):
        preprocess(raw, pixflat="required")
    with pytest.raises(MissingCalibration, match="no gain for amplifier A"):
        preprocess(raw, cards={})


def test_the_header_overrules_the_tree_and_the_cards_say_what_was_used(
    make_readout: Callable[..., Any], preprocess: Callable[..., Any]
) -> None:
    readout = make_readout(gain=2.0, cards={f"GAIN{a}": 2.0 for a in "ABCD"})

    image = preprocess(readout.expose())

    assert {image.meta[f"GAIN{a}"] for a in "ABCD"} == {2.0}
    assert image.meta["OBSRDNA"] == pytest.approx(np.hypot(4.0, 2 / 12**0.5), rel=5 / np.sqrt(2 * 3200))
    assert image.meta["OVERSCNC"] == pytest.approx(1970, abs=0.5)
    assert image.meta["OMETHD"] == "AVERAGE"
    assert image.meta["OSTEPB"] < 2


def test_a_dead_amplifier_gives_no_information_and_spoils_no_other(
    make_readout: Callable[..., Any], preprocess: Callable[..., Any]
) -> None:
    readout = make_readout(light=20.0)
    dead, full = readout.amps[1], readout.amps[2]

    def spoil(raw: Any) -> None:
        for amp, value in ((dead, 0.0), (full, 65535.0)):
            raw[amp.datasec.slices] = value
            raw[amp.biassec.slices] = value

    image = preprocess(readout.expose(spoil))

    for amp in (dead, full):
        assert (image.ivar[amp.ccdsec.slices] == 0).all()
        assert (image.mask[amp.ccdsec.slices] & CCDMask.BADAMP).all()
    assert np.isfinite(image.pix).all()
    alive = image.ivar[readout.amps[0].ccdsec.slices]
    assert alive[:90].mean() == pytest.approx(1 / 36, rel=0.05)


def test_a_noisy_amplifier_is_flagged_and_weighs_little(
    make_readout: Callable[..., Any], preprocess: Callable[..., Any]
) -> None:
    image = preprocess(make_readout(readnoise=25.0).expose(), cosmics=False)

    assert (image.mask == CCDMask.BADREADNOISE).all()
    assert np.median(image.ivar) == pytest.approx(1 / 625, rel=0.1)


def test_calibration_pixels_without_value_are_bad_not_nan(
    make_readout: Callable[..., Any], preprocess: Callable[..., Any]
) -> None:
    raw = make_readout(light=20.0).expose()
    dark = np.zeros((200, 200), np.float32)
    dark[10, 10] = np.nan
    bias = np.zeros(raw.pix.shape, np.float32)
    bias[30, 30] = np.inf

    image = preprocess(raw, {"DARK": dark, "BIAS": bias})

    assert np.isfinite(image.pix).all()
    assert np.isfinite(image.ivar).all()
    assert image.mask[10, 10] & CCDMask.BAD
    assert ((image.mask & CCDMask.BAD) != 0).sum() == 2
    assert (image.ivar == 0).sum() == 2


def test_a_zero_goes_through_without_dark_and_cosmic_search(
    make_readout: Callable[..., Any], preprocess: Callable[..., Any]
) -> None:
    readout = make_readout(cards={"EXPTIME": 0.0})

    image = preprocess(readout.expose(), flavor="zero", cosmics=False)

    assert "PPDARK" not in image.meta
    assert "NCOSMIC" not in image.meta
    assert image.pix.std() == pytest.approx(4.0, rel=0.05)


def test_a_calibration_of_another_detector_is_refused(
    make_readout: Callable[..., Any], preprocess: Callable[..., Any]
) -> None:
    with pytest.raises(ValueError, match=r"pixflat has shape \(100, 100\), this readout needs \(200, 200\)"):
        preprocess(make_readout().expose(), {"PIXFLAT": np.ones((100, 100), np.float32)})


def test_the_raw_camera_stays_as_it_was(make_readout: Callable[..., Any], preprocess: Callable[..., Any]) -> None:
    raw = make_readout(light=20.0).expose()
    before = replace(raw, pix=raw.pix.copy(), header=dict(raw.header))

    preprocess(raw)

    np.testing.assert_array_equal(raw.pix, before.pix)
    assert raw.header == before.header


@pytest.mark.parametrize("names", ["AC", "CD", "1234"])
def test_a_simulated_camera_read_in_any_way_comes_out_as_its_truth(observe: Any, tmp_path: Any, names: str) -> None:
    """Through its file, and a calibration tree with master frames of finite noise."""
    observed = observe("science-dark", 900.0, names=names)
    raw, model = observed.raw, observed.model
    path = tmp_path / "desi-00000005.fits.fz"
    write_raw(path, raw.primary, {"r0": (raw.pix, {k: v for k, v in raw.header.items() if k not in raw.primary})})
    write_spectrograph_map(tmp_path / "calib")
    write_calibration(tmp_path / "calib", model)
    read = read_raw(path, "r0")
    calibration = find_calibration(read.header, tmp_path / "calib")
    context = replace(observed.context, calibration=calibration, header=read.header)

    image = Preproc().run(read, context)

    pull = observed.pull(image)
    print(f"{names}: {pull.size} pixels, mean {pull.mean():+.4f}, rms {pull.std():.4f}")
    assert [r.name for r in image.readouts] == list(names)
    assert image.pix.shape == (500, 400)
    assert pull.size > 0.9 * image.pix.size
    assert abs(pull.mean()) < 0.05  # master frames and levels have errors that pixels share
    # what of a cosmic ray is too faint to find adds some per mille; mini packs many lines into a row
    assert pull.std() == pytest.approx(1, abs=0.03)
    assert {image.meta[k] for k in ("PPBIAS", "PPDARK", "PPFLAT", "PPMASK", "PPSATUR")} == {"done"}
    if names == "1234":
        assert image.meta["PPXTALK"] == "done"


@pytest.mark.parametrize("order", ["ABCD", "DCBA", "BDAC"])
def test_mutual_cross_talk_does_not_depend_on_the_order_of_the_amplifiers(
    make_readout: Callable[..., Any], preprocess: Callable[..., Any], order: str
) -> None:
    light = np.full((200, 200), 50.0)
    light[10, 5], light[10, 194] = 60000.0, 40000.0  # in A and in B, each where the other's copy falls
    seen = light.copy()
    seen[:, 100:] += 0.01 * light[:, 99::-1]
    seen[:, :100] += 0.02 * light[:, :99:-1]
    readout = make_readout(light=seen)
    readout.amps = tuple(sorted(readout.amps, key=lambda amp: order.index(amp.name)))
    cards = GAINS | {"CROSSTALKAB": 0.01, "CROSSTALKBA": 0.02, "CROSSTALKCD": 0.01, "CROSSTALKDC": 0.02}

    image = preprocess(readout.expose(), cards=cards, cosmics=False)
    alone = preprocess(replace(readout.expose(), amps=tuple(sorted(readout.amps, key=lambda a: a.name))), cards=cards,
                       cosmics=False)  # fmt: skip

    np.testing.assert_array_equal(image.pix, alone.pix)
    error = np.sqrt(60000.0)
    assert image.pix[10, 5] == pytest.approx(60000 * (1 - 2e-4), abs=5 * error)  # the observed aggressor serves
    assert image.pix[10, 194] == pytest.approx(40000 * (1 - 2e-4), abs=5 * error)
    assert preprocess(readout.expose(), cards=cards, nocrosstalk=True).meta["PPXTALK"] == "left out: not wanted"
    assert preprocess(readout.expose(), cosmics=False).meta["PPXTALK"] == "left out: none is known"


def test_an_unknown_saturation_level_is_said(
    make_readout: Callable[..., Any], preprocess: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    known = {f"SATURLEV{a}": 60000.0 for a in "ABD"}

    image = preprocess(make_readout().expose(), cards=GAINS | known)

    assert image.meta["PPSATUR"] == "65535 ADU assumed for C"
    assert "no SATURLEV of amplifier C in the header nor in the calibration: 65535 ADU is assumed" in caplog.text
    caplog.clear()
    image = preprocess(make_readout().expose(), cards=GAINS | known | {"SATURLEVC": 50000.0})
    assert image.meta["PPSATUR"] == "done"
    assert "SATURLEV" not in caplog.text


def test_a_camera_without_a_usable_pixel_goes_on_and_says_so(
    make_readout: Callable[..., Any], preprocess: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    mask = np.full((200, 200), CCDMask.BAD, np.uint16)

    image = preprocess(make_readout(light=20.0).expose(), {"MASK": mask})

    assert image.meta["PPMASKED"] == "no pixel is usable; flags 1"
    assert "r3 has no usable pixel" in caplog.text
    assert np.isfinite(image.pix).all()
    assert np.isfinite(image.ivar).all()
    assert image.meta["OBSRDNA"] == pytest.approx(4.0, rel=0.05)  # so that the metrics can tell what is fine
    mask[0, 0] = 0
    assert "PPMASKED" not in preprocess(make_readout(light=20.0).expose(), {"MASK": mask}).meta


def test_without_gain_the_image_is_in_adu_and_so_is_its_variance(
    make_readout: Callable[..., Any], preprocess: Callable[..., Any]
) -> None:
    readout = make_readout(light=300.0)

    image = preprocess(readout.expose(), nogain=True, cosmics=False)
    blind = preprocess(readout.expose(), cards={}, nogain=True, cosmics=False)

    assert image.meta["BUNIT"] == "adu"
    assert image.pix.mean() == pytest.approx(200, rel=0.01)
    pull = (image.pix - 200) * np.sqrt(image.ivar)
    assert pull.std() == pytest.approx(1, abs=0.02)  # the gain is known, so the photons are counted right
    assert blind.meta["GAINA"] == 1.0
    assert preprocess(readout.expose()).meta["BUNIT"] == "electron"


def test_the_names_of_the_seed_work() -> None:
    params = Preproc({
        "nocosmic": True, "nogain": False, "nocrosstalk": True, "nodarktrail": True, "use_overscan_row": True,
        "use_savgol": False, "model_variance": True, "bkgsub_science": True, "bkgsub_dark": True, "bias": False,
        "dark": True, "remove_scattered_light": True, "cosmics_nsig": 6,
    }).params  # fmt: skip

    assert not params.cosmics
    assert params.gain
    assert not params.crosstalk
    assert not params.darktrail
    assert params.overscan_row is True
    assert params.savgol is False
    assert (params.bias, params.dark, params.pixflat) == ("skip", "optional", "optional")
    with pytest.raises(ValueError, match="nocosmic and cosmics say the same"):
        Preproc({"nocosmic": True, "cosmics": True})


def test_amplifiers_on_the_list_of_bad_ones_are_flagged(
    make_readout: Callable[..., Any], preprocess: Callable[..., Any]
) -> None:
    readout = make_readout(light=20.0)

    image = preprocess(readout.expose(), bad_amps="B")

    for amp in readout.amps:
        assert ((image.mask[amp.ccdsec.slices] & CCDMask.BADAMP) != 0).all() == (amp.name == "B")


def test_the_dark_current_gathers_for_the_time_that_the_calibration_names(
    make_readout: Callable[..., Any], preprocess: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    dark = np.full((200, 200), 0.05, np.float32)
    readout = make_readout(light=0.05 * 1000.0, cards={"EXPTIME": 900.0, "DARKTIME": 1000.0})

    image = preprocess(readout.expose(), {"DARK": dark}, GAINS | {"EXPTIMEKEY": "DARKTIME"}, cosmics=False)
    other = preprocess(readout.expose(), {"DARK": dark}, GAINS | {"EXPTIMEKEY": "NOSUCH"}, cosmics=False)

    assert image.pix.mean() == pytest.approx(0, abs=0.3)
    assert other.pix.mean() == pytest.approx(5, abs=0.3)
    assert "NOSUCH, which the header has as None: EXPTIME serves" in caplog.text


def test_another_overscan_section_of_the_calibration_serves(
    make_readout: Callable[..., Any], preprocess: Callable[..., Any]
) -> None:
    readout = make_readout(light=20.0)
    own = readout.amps[0].biassec

    def spoil(raw: Any) -> None:
        raw[own.y0 : own.y1, own.x0 : own.x0 + 16] += 50.0 * (np.arange(100)[:, None] > 60)

    raw = readout.expose(spoil)
    good = f"[{own.x0 + 17}:{own.x1},{own.y0 + 1}:{own.y1}]"

    image = preprocess(raw, cards=GAINS | {"GOODBIASSECA": good})
    spoiled = preprocess(raw)

    assert image.meta["OMETHA"] == "AVERAGE"
    assert image.pix[:100, :100].mean() == pytest.approx(20, abs=0.3)
    assert spoiled.meta["OMETHA"] == "PER_ROW"
    with pytest.raises(ValueError, match="GOODBIASSECA = 'left half' is no FITS section"):
        preprocess(raw, cards=GAINS | {"GOODBIASSECA": "left half"})
