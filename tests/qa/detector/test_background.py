import numpy as np
import pytest

from qa.background import Check_Background
from qlstream.datamodel.masks import CCDMask


@pytest.mark.parametrize("flavor", ["zero", "dark"])
def test_a_dark_level_is_the_median_of_the_usable_pixels(make_context, image_of, flavor):
    rng = np.random.default_rng(1)
    pix = rng.normal(0, 3, (200, 240))
    pix[100:, :120] += 5.0
    mask = np.zeros((200, 240), np.uint16)
    mask[:, ::3] = CCDMask.HOT
    pix[:, ::3] = 1e4

    result = Check_Background({"sample": 1}).run(image_of(pix, mask), make_context(flavor=flavor, program=""))

    level = result.per_amp["DARKLEVEL_AMP"]
    assert level["C"] == pytest.approx(5.0, abs=5 * 1.25 * 3 / np.sqrt(8000))
    assert {(c.element, c.severity.name) for c in result.checks if c.severity} == {("C", "ALARM")}


def test_light_between_the_fiber_blocks_is_passed_on_where_preprocessing_measured_it(make_context, image_of):
    meta = {"BBKGMINA": 0.4, "BBKGMINB": 0.1, "BBKGMAXA": 2.5, "BBKGMAXB": 1.5, "BBKGMAXC": 3.0}

    result = Check_Background().run(image_of(meta=meta), make_context())

    assert "DARKLEVEL_AMP" not in result.per_amp
    assert result.per_amp["BBKGMAX_AMP"] == {"A": 2.5, "B": 1.5, "C": 3.0, "D": pytest.approx(np.nan, nan_ok=True)}
    assert result.per_amp["BBKGMIN_AMP"]["A"] == 0.4
    assert Check_Background().run(image_of(), make_context()).per_amp == {}
