"""The detector obeys its own numbers: sections, gain, noise, cross-talk, saturation."""

from dataclasses import replace

import numpy as np
import pytest

from qlstream.datamodel.amplifier import amplifiers, trimmed_shape
from qlstream.datamodel.masks import CCDMask
from qlstream.instrument import load_instrument
from qlstream.simulate.detector import build_detector, collect, layout, raw_shape, read_out

REAL = {  # spec raw-and-calib §2.1
    "r": {
        "DATASECA": "[8:2064,2:2065]", "DATASECB": "[2193:4249,2:2065]", "DATASECC": "[8:2064,2130:4193]",
        "DATASECD": "[2193:4249,2130:4193]", "CCDSECD": "[2058:4114,2065:4128]", "BIASSECA": "[2065:2128,2:2065]",
        "BIASSECD": "[2129:2192,2130:4193]", "ORSECA": "[8:2064,2066:2097]", "ORSECD": "[2193:4249,2098:2129]",
        "PRESECB": "[4250:4256,2:2065]", "PRRSECC": "[8:2064,4194:4194]",
    },
    "b": {
        "DATASECA": "[5:2052,2:2049]", "DATASECD": "[2181:4228,2114:4161]", "BIASSECB": "[2117:2180,2:2049]",
        "ORSECC": "[5:2052,2082:2113]", "PRESECD": "[4229:4232,2114:4161]", "PRRSECA": "[5:2052,1:1]",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def detector(mini):
    return build_detector(mini, "r0", seed=4)


@pytest.mark.parametrize(("arm", "shape"), [("r", (4194, 4256)), ("b", (4162, 4232))])
def test_desi_sections_are_those_of_real_files(arm, shape):
    desi = load_instrument("desi")

    cards = layout(desi.arm(arm))

    assert {key: cards[key] for key in REAL[arm]} == REAL[arm]
    assert raw_shape(desi.arm(arm)) == shape


def test_the_photon_transfer_curve_gives_gain_and_read_noise(detector):
    rng = np.random.default_rng(8)
    means, variances = {a.name: [] for a in detector.amps}, {a.name: [] for a in detector.amps}
    for level in (0.0, 500.0, 2000.0, 6000.0):
        light = np.full(detector.dark.shape, level, dtype=np.float32)
        first, second = (read_out(detector, collect(detector, light, 0.0, rng), rng).astype(float) for _ in range(2))
        for amp in detector.amps:
            good = (detector.mask == 0)[amp.ccdsec.slices]
            a, b = first[amp.datasec.slices][good], second[amp.datasec.slices][good]
            means[amp.name].append(0.5 * (a + b).mean())
            variances[amp.name].append(0.5 * (a - b).var())

    for name in detector.gain:
        slope, _ = np.polyfit(np.array(means[name]) - means[name][0], variances[name], 1)
        assert 1.0 / slope == pytest.approx(detector.gain[name], rel=0.02)  # 48000 pixels: 0.6 % per point
        noise = np.sqrt(variances[name][0] - 1 / 12 - 0.05**2) * detector.gain[name]  # less rounding and row noise
        assert noise == pytest.approx(detector.readnoise[name], rel=0.02)


def test_overscan_has_the_level_and_noise_of_its_amplifier_and_no_light(detector):
    rng = np.random.default_rng(2)
    bright = np.full(detector.dark.shape, 5e4, dtype=np.float32)

    raw = read_out(detector, bright, rng).astype(float) - detector.bias

    for amp in detector.amps:
        overscan = raw[amp.biassec.slices]
        assert overscan.mean() == pytest.approx(detector.level[amp.name], abs=5.0)  # levels drift by 1 ADU rms
        sigma = detector.readnoise[amp.name] / detector.gain[amp.name]
        assert overscan.std() == pytest.approx(np.hypot(sigma, 12**-0.5), rel=0.03)


def test_a_bright_pixel_saturates_and_leaves_its_faint_copy_on_the_other_amplifier(detector):
    wells = np.zeros(detector.dark.shape, dtype=np.float32)
    wells[10:40, 20:60] = 1e6

    with_light, dark = (read_out(detector, w, np.random.default_rng(5)) for w in (wells, 0 * wells))

    a, b = (detector.amps[i] for i in (0, 1))
    assert np.all(with_light[a.datasec.slices][10:40, 20:60] == 65535)
    copy = (with_light.astype(float) - dark)[b.datasec.slices][:, ::-1] * detector.gain["B"]
    assert copy[10:40, 20:60].mean() == pytest.approx(1e6 * detector.crosstalk["A", "B"], rel=0.02)
    assert np.abs(copy[60:]).max() == 0


def test_hot_pixels_and_bad_columns_are_in_the_mask_and_dead_ones_are_dark(detector):
    assert np.all(detector.dark[(detector.mask & CCDMask.HOT) == 0] <= 0.1)
    assert np.all(detector.pixflat[(detector.mask & CCDMask.DEAD) != 0] < 0.01)
    bad = (detector.mask & CCDMask.BAD) != 0
    assert bad.any()
    assert np.all(detector.response[bad] < 0.5 * detector.pixflat[bad] + 1e-6)
    assert np.all(detector.response[~bad] == detector.pixflat[~bad])
    assert (detector.mask != 0).mean() < 0.01


@pytest.mark.parametrize("names", ["ABCD", "1234", "AB", "CD", "AC", "BD", "AD", "BC", "12", "24"])
def test_any_readout_covers_the_ccd_once_and_its_sections_do_not_overlap(mini, names):
    arm = mini.arm("r")

    amps = amplifiers(layout(arm, names))

    read, ccd = np.zeros(raw_shape(arm), int), np.zeros(arm.shape, int)
    for amp in amps:
        ccd[amp.ccdsec.slices] += 1
        for section in (amp.datasec, amp.biassec, amp.orsec):
            read[section.slices] += 1
    assert [amp.name for amp in amps] == list(names)
    assert trimmed_shape(amps) == arm.shape
    assert np.all(ccd == 1)
    assert read.max() == 1
    assert read.sum() == sum(np.prod(s.shape) for amp in amps for s in (amp.datasec, amp.biassec, amp.orsec))


def test_a_readout_that_no_ccd_has_is_refused(mini):
    with pytest.raises(ValueError, match="no readout by the amplifiers 'ABC'"):
        layout(mini.arm("r"), "ABC")


@pytest.mark.parametrize("name", ["A", "D"])
def test_charge_leaves_a_dark_trail_in_what_is_read_after_it(detector, name):
    trailing = replace(detector, trail={name: (0.01, 5.0)}, crosstalk={})
    amp = next(a for a in detector.amps if a.name == name)
    wells = np.zeros(detector.dark.shape, dtype=np.float32)
    in_order = slice(None, None, 1 if amp.reads_left else -1)
    wells[amp.ccdsec.slices][:, in_order][:, -10] = 40000.0  # ten columns before the overscan

    missing = np.zeros(30)
    for seed in range(5):  # the same noise with and without; what is left is rounding, 0.4 ADU on 250 rows
        without, raw = (read_out(d, wells, np.random.default_rng(seed)).astype(float) for d in (detector, trailing))
        columns = np.hstack([(without - raw)[amp.datasec.slices], (without - raw)[amp.biassec.slices]])
        if not amp.reads_left:
            columns = np.hstack([(without - raw)[amp.biassec.slices], (without - raw)[amp.datasec.slices]])[:, ::-1]
        missing += columns.mean(axis=0)[190:220] * detector.gain[name] / 5

    d = np.arange(30)
    expected = 40000.0 * 0.01 * d / 5.0 * np.exp(-d / 5.0)
    np.testing.assert_allclose(missing, expected, atol=0.15)
    assert expected[12:].sum() > 400  # much of it lies in the overscan
