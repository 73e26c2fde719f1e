"""The detector obeys its own numbers: sections, gain, noise, cross-talk, saturation."""

import numpy as np
import pytest

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
