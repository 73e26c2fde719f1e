"""Which standard stars calibrate a frame, and what is said if none does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from algorithms.fluxcal.choose import StarCuts, choose_stars
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.stars import StdStars

WAVE = 5800 + 0.8 * np.arange(50)
FIBERS = np.array([3, 8, 12, 20, 31, 40])


def frame() -> Frame:
    shape = (60, WAVE.size)
    fibers = np.arange(60, dtype=np.int32)[::-1].copy()  # in any order
    return Frame(WAVE, np.ones(shape), np.ones(shape), np.zeros(shape, np.uint32), fibers, meta={"CAMERA": "r0"})


def stars(color: str = "G-R", **columns: Any) -> StdStars:
    names = ("CHI2DOF", f"DATA_{color}", f"MODEL_{color}", "EBV")
    table = np.zeros(len(FIBERS), dtype=[(name, "f8") for name in names])
    table["CHI2DOF"] = [0.9, 1.0, 1.1, 1.05, 0.95, 1.0]
    for name, values in columns.items():
        table[name.replace("_MINUS_", "-")] = values
    flux = np.arange(1.0, 7.0)[:, None] * np.ones(WAVE.size)
    return StdStars(WAVE, flux, FIBERS.astype(np.int32), table, np.ones((len(FIBERS), 1)))


def chosen(given: StdStars, **cuts: float) -> list[int]:
    which, index, models = choose_stars(frame(), given, StarCuts(**cuts))
    fibers = frame().fibers[index]
    np.testing.assert_array_equal(fibers, FIBERS[which])
    np.testing.assert_array_equal(models[:, 0], np.searchsorted(FIBERS, fibers) + 1)
    return [int(f) for f in fibers]


def test_good_stars_are_found_by_their_fibers_whatever_the_order() -> None:
    assert chosen(stars()) == FIBERS.tolist()


def test_models_of_another_colour_take_no_part_and_dust_makes_the_cut_wider() -> None:
    data = [0.0, 0.25, 0.0, -0.3, 0.0, 0.25]
    ebv = [0.0, 0.0, 0.0, 0.0, 0.0, 0.5]
    assert chosen(stars(DATA_G_MINUS_R=data, EBV=ebv)) == [3, 12, 31, 40]


def test_colours_of_gaia_serve_as_well() -> None:
    given = stars("GAIA-BP-RP")
    given.metadata["DATA_GAIA-BP-RP"][2] = 0.5
    assert chosen(given) == [3, 8, 20, 31, 40]


def test_bad_fits_go_by_the_absolute_and_by_the_common_limit() -> None:
    assert chosen(stars(CHI2DOF=[0.9, 1.0, 1.1, 3.5, 1.0, 1.0])) == [3, 8, 12, 31, 40]
    chi2 = [0.9, 1.0, 1.1, 2.2, 1.0, 1.0]  # below the limit, and far above all others
    assert chosen(stars(CHI2DOF=chi2)) == [3, 8, 12, 31, 40]
    assert chosen(stars(CHI2DOF=chi2), chi2_nsig=50.0) == FIBERS.tolist()


def test_stars_that_are_too_blue_can_be_left_out() -> None:
    color = [0.0, 0.3, 0.4, 0.5, 0.2, 0.1]
    given = stars(DATA_G_MINUS_R=color, MODEL_G_MINUS_R=color)
    assert chosen(given, min_color=0.15) == [8, 12, 20, 31]


def test_if_none_is_left_the_reasons_are_counted() -> None:
    given = stars(DATA_G_MINUS_R=[0.5, 0.5, 0.0, 0.0, 0.0, 0.0], CHI2DOF=[1, 1, 4, 4, 4, 4])
    with pytest.raises(
        MissingCalibration, match=r"none of the 6 .*calibrate r0: 2 have a model whose colour G-R .* 4 have"
    ):
        choose_stars(frame(), given, StarCuts())


def test_a_star_of_unknown_colour_takes_no_part() -> None:
    given = stars()
    given.metadata["DATA_G-R"][1] = np.nan
    assert chosen(given) == np.delete(FIBERS, 1).tolist()


def test_a_table_without_stars_or_columns_is_refused() -> None:
    given = stars()
    none = replace(
        given, flux=given.flux[:0], fibers=given.fibers[:0], metadata=given.metadata[:0], coef=given.coef[:0]
    )
    with pytest.raises(MissingCalibration, match="holds none"):
        chosen(none)
    names = given.metadata.dtype.names or ()
    for column in ("CHI2DOF", "DATA_G-R", "MODEL_G-R"):
        with pytest.raises(ValueError, match="are needed"):
            chosen(replace(given, metadata=given.metadata[[n for n in names if n != column]]))
