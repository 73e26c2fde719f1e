from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from algorithms.preproc.stage import Preproc
from qlstream.calibration.served import Calibration, MissingCalibration
from qlstream.datamodel.masks import CCDMask

GAINS = {f"GAIN{a}": 1.5 for a in "ABCD"}


@pytest.fixture
def preprocess(make_context: Callable[..., Any]) -> Callable[..., Any]:
    """Run Preproc on a raw camera with these calibration parts and cards."""

    def run(raw: Any, parts: Any = None, cards: Any = None, flavor: str = "science", **params: Any) -> Any:
        calibration = Calibration("r3", 20260114, parts or {}, GAINS if cards is None else cards)
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


@pytest.mark.parametrize("names", ["A", "AB", "AC", "CD", "ABCD"])
def test_readouts_of_any_number_of_amplifiers_come_out_whole(
    make_readout: Callable[..., Any], preprocess: Callable[..., Any], names: str
) -> None:
    readout = make_readout(names=names, light=100.0)

    image = preprocess(readout.expose(), cosmics=False)

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
