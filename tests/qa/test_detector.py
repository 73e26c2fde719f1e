import numpy as np
import pytest

from qa.bias import Bias_From_Overscan
from qa.headers import Check_HDUs
from qa.pixels import Count_Pixels
from qa.readnoise import Get_RMS
from qlstream.datamodel.amplifier import Amp, Section
from qlstream.datamodel.image import AmpReadout, Image, RawCamera
from qlstream.datamodel.masks import CCDMask
from qlstream.pipeline.result import QASeverity

ny, nx = 100, 120
SECTIONS = {"A": (0, 60, 0, 50), "B": (60, 120, 0, 50), "C": (0, 60, 50, 100), "D": (60, 120, 50, 100)}


def readout(name, readnoise=3.0, overscan=1970.0):
    section = Section(*SECTIONS[name])
    amp = Amp(name, section, section, Section(0, 8, section.y0, section.y1))
    return AmpReadout(amp, 1.5, overscan, readnoise, 0.4, 65535.0, np.zeros(50, np.float32))


def image(pix, mask=None, readouts=None):
    mask = np.zeros((ny, nx), np.uint16) if mask is None else mask
    readouts = readouts or tuple(readout(a) for a in "ABCD")
    return Image(pix.astype(np.float32), np.ones((ny, nx), np.float32), mask, "r3", readouts)


def test_only_the_noisy_amplifier_alarms(make_context):
    readouts = (readout("A"), readout("B", 11.0), readout("C"), readout("D"))

    result = Get_RMS().run(image(np.zeros((ny, nx)), readouts=readouts), make_context(flavor="dark", program=""))

    alarms = [(c.metric, c.element) for c in result.checks if c.severity == QASeverity.ALARM]
    assert alarms == [("NOISE_AMP", "B")]
    assert list(result.per_amp["NOISE_AMP"]) == ["A", "B", "C", "D"]


def test_a_dead_amplifiers_bias_alarms(make_context):
    readouts = (readout("A"), readout("B"), readout("C", 0.0, 0.0), readout("D"))

    bias = Bias_From_Overscan().run(image(np.zeros((ny, nx)), readouts=readouts), make_context())

    assert [c.element for c in bias.checks if c.severity == QASeverity.ALARM] == ["C"]


def test_fractions_of_lit_saturated_and_hit_pixels_are_those_put_in(make_context):
    pix = np.zeros((ny, nx))
    pix[:30, :60] = 100  # 60 % of A
    mask = np.zeros((ny, nx), np.uint16)
    mask[0:5, 60:120] = CCDMask.SATURATED  # 10 % of B
    for k in range(12):  # a diagonal track and a lone pixel in C
        mask[55 + k, 5 + k] = CCDMask.COSMIC
    mask[90, 50] = CCDMask.COSMIC

    result = Count_Pixels().run(image(pix, mask), make_context(header={"EXPTIME": 90.0}))

    assert result.per_amp["LITFRAC_AMP"]["A"] == pytest.approx(0.6)
    assert result.per_amp["SATFRAC_AMP"]["B"] == pytest.approx(0.1)
    assert result.per_amp["COSMICS_RATE"]["C"] == pytest.approx(2 / 2.0)  # 90 s and half a minute of readout
    assert result.per_amp["COSMICS_RATE"]["D"] == 0


def raw_camera(**cards):
    header = {
        "CAMERA": "r3",
        "EXPTIME": 900.0,
        "MJD-OBS": 61054.3,
        "DATE-OBS": "2026-01-14T07:12:00",
        "OBSTYPE": "SCIENCE",
        "PROGRAM": "DARK",
        "DETECTOR": "M1-53",
        "CCDTEMP": -137.5,
        "AIRMASS": 1.1,
        "TILEID": 5,
    }
    header |= cards
    header = {k: v for k, v in header.items() if v is not None}
    pix = np.random.default_rng(1).integers(1900, 2000, (ny, nx)).astype(np.uint16)
    amps = tuple(readout(a).amp for a in "ABCD")
    return RawCamera(pix, "r3", header, {"REQTIME": 900.0}, amps)


def test_a_healthy_header_is_normal(make_context):
    result = Check_HDUs().run(raw_camera(), make_context(header={"EXPTIME": 900.0}))

    assert result.metrics["CHECKHDUS"] == 0
    assert result.severity == QASeverity.NORMAL


def test_missing_cards_and_the_wrong_camera_are_told_by_name(make_context):
    result = Check_HDUs().run(raw_camera(CCDTEMP=None, CAMERA="b1"), make_context(header={"EXPTIME": 300.0}))

    assert "CCDTEMP is missing" in result.summary
    assert "the HDU of r3 says CAMERA = 'b1'" in result.summary
    assert {c.metric: c.severity.name for c in result.checks}["EXPTIME_FRACTION"] == "WARNING"


def test_a_readout_of_one_value_is_an_alarm(make_context):
    raw = raw_camera()
    raw.pix[:50, :60] = 2000

    result = Check_HDUs().run(raw, make_context(header={"EXPTIME": 900.0}))

    assert result.metrics["FLATPIXELS"] == 1
    assert result.severity == QASeverity.ALARM
