import numpy as np
import pytest

from qa.pixels import Count_Pixels
from qlstream.datamodel.masks import CCDMask

NY, NX = 200, 240
QUARTER = {"A": (slice(0, 100), slice(0, 120)), "B": (slice(0, 100), slice(120, 240)),
           "C": (slice(100, 200), slice(0, 120)), "D": (slice(100, 200), slice(120, 240))}  # fmt: skip


@pytest.fixture
def count(make_context, image_of):
    def run(pix=None, mask=None, amps=None, flavor="science", **params):
        return Count_Pixels(params).run(image_of(pix, mask, amps=amps), make_context(flavor=flavor))

    return run


def light(fractions, level=100.0, noise=None):
    """(ny, nx) this fraction of each amplifier lit, on noise [electron] of each amplifier."""
    rng = np.random.default_rng(3)
    pix = rng.normal(size=(NY, NX))
    for amp, window in QUARTER.items():
        pix[window] *= (noise or {}).get(amp, 3.0)
        lit = pix[window].ravel()
        lit[: round(fractions.get(amp, 0.3) * lit.size)] += level
        pix[window] = lit.reshape(100, 120)
    return pix


def test_fractions_of_lit_saturated_and_masked_pixels_are_those_put_in(count):
    mask = np.zeros((NY, NX), np.uint16)
    mask[0:10, 120:240] = CCDMask.SATURATED  # a tenth of B
    mask[100:120, :120] = CCDMask.BAD  # a fifth of C
    mask[100:200, 120:240] = CCDMask.BADREADNOISE  # takes nothing out

    result = count(light({"A": 0.6, "B": 0.0, "C": 0.5, "D": 0.123}), mask)

    lit = result.per_amp["LITFRAC_AMP"]
    assert lit["A"] == pytest.approx(0.6, abs=1e-6)  # exact, not rounded
    assert lit["D"] == pytest.approx(0.123, abs=1e-4)
    assert lit["C"] == pytest.approx((0.5 - 0.2) / 0.8, abs=1e-4)  # of the usable pixels, the masked fifth was lit
    assert result.per_amp["SATFRAC_AMP"] == {"A": 0, "B": pytest.approx(0.1), "C": 0, "D": 0}
    assert result.per_amp["MASKFRAC_AMP"] == {"A": 0, "B": pytest.approx(0.1), "C": pytest.approx(0.2), "D": 0}


def test_the_cut_is_in_units_of_the_amplifiers_read_noise(count):
    pix = light(dict.fromkeys("ABCD", 0.5), level=40.0, noise=dict.fromkeys("ABCD", 0.01))

    lit = count(pix, amps={"B": {"readnoise": 12.0}}, CUTPIX=4.0).per_amp["LITFRAC_AMP"]

    assert lit == {"A": 0.5, "B": 0.0, "C": 0.5, "D": 0.5}  # 4 x 3 and 4 x 12 electron


@pytest.mark.parametrize("level", [25.0, 60.0, 500.0])
def test_a_noisy_amplifier_is_as_lit_as_its_neighbours(count, level):
    pix = light(dict.fromkeys("ABCD", 0.3), level, noise={"C": 18.0})

    ratio = count(pix, amps={"C": {"readnoise": 18.0}}).per_amp["LITRATIO_AMP"]

    # of the lit pixels only those count that the noise leaves above the cut of 15 electron, as many as it lifts above
    print(f"level {level} e: {ratio}")
    assert ratio["C"] == pytest.approx(1, abs=0.35 if level < 30 else 0.06)
    assert [ratio[a] for a in "ABD"] == pytest.approx([1, 1, 1], abs=0.02)


def test_an_amplifier_without_light_is_an_alarm_only_there(count):
    result = count(light({"D": 0.0}))

    assert {(c.metric, c.element) for c in result.checks if c.severity == 30} == {
        ("LITRATIO_AMP", "D"), ("LITFRAC_AMP", "D"),
    }  # fmt: skip


def test_amplifiers_of_a_dark_camera_are_not_compared(count):
    assert count(light(dict.fromkeys("ABCD", 0.001))).per_amp["LITRATIO_AMP"] == {}


def test_a_wholly_masked_amplifier_has_no_lit_fraction(count):
    mask = np.zeros((NY, NX), np.uint16)
    mask[QUARTER["B"]] = CCDMask.BADAMP

    result = count(light({}), mask)

    assert np.isnan(result.per_amp["LITFRAC_AMP"]["B"])
    assert {c.metric: c.severity.name for c in result.checks if c.element == "B"} == {
        "LITFRAC_AMP": "UNKNOWN", "LITRATIO_AMP": "UNKNOWN", "SATFRAC_AMP": "NORMAL", "MASKFRAC_AMP": "ALARM",
    }  # fmt: skip
    assert result.per_amp["LITFRAC_AMP"]["A"] == pytest.approx(0.3, abs=1e-3)
