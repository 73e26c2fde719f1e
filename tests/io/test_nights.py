"""Which night a moment belongs to, and lists of numbers."""

from __future__ import annotations

from datetime import date

import pytest

from qlstream.io.nights import header_to_night, validate_night
from qlstream.io.numberlist import parse_number_list


@pytest.mark.parametrize(
    ("header", "night"),
    [
        ({"DATE-OBS": "2022-01-14T18:59:00"}, 20220113),
        ({"DATE-OBS": "2022-01-14T19:30:00"}, 20220114),
        ({"DATE-OBS": "2022-01-14T11:04:17.830044160"}, 20220113),
        ({"DATE-OBS": "2022-01-14T12:30:00-07:00"}, 20220114),
        ({"DATE-OBS": "2022-01-14T19:00:00Z"}, 20220114),
        ({"MJD-OBS": 59593.461317476}, 20220113),
        ({"MJD-OBS": 59593.8}, 20220114),
        ({"NIGHT": 20200101, "MJD-OBS": 59593.8}, 20200101),
        ({"NIGHT": "20200101"}, 20200101),
        ({"NIGHT": "None", "DATE-OBS": "2022-01-14T19:30:00", "MJD-OBS": 1.0}, 20220114),
        ({"NIGHT": None, "DATE-OBS": "nonsense", "MJD-OBS": 59593.8}, 20220114),
    ],
)
def test_night_of_a_header(header, night):
    assert header_to_night(header) == night


@pytest.mark.parametrize("header", [{}, {"NIGHT": "None"}, {"DATE-OBS": 3, "MJD-OBS": float("nan")}])
def test_a_header_that_tells_no_night_is_refused_with_its_values(header):
    with pytest.raises(ValueError, match="MJD-OBS"):
        header_to_night(header)


def test_validate():
    assert validate_night("20200131") == date(2020, 1, 31)
    with pytest.raises(TypeError):
        validate_night(20200131)  # type: ignore[arg-type]


@pytest.mark.parametrize("night", ["2020-01-01", "202001", "20201301", "00000000", " 2020101"])
def test_badly_formatted_nights(night):
    with pytest.raises(ValueError, match="Badly formatted night"):
        validate_night(night)


def test_number_lists():
    assert parse_number_list("1,3:5,7-9,10..12") == [1, 3, 4, 7, 8, 10, 11]
    assert parse_number_list(" 1, 3 : 5 ", include_end=True) == [1, 3, 4, 5]
    assert parse_number_list("") == []
    with pytest.raises(ValueError, match="no number nor range"):
        parse_number_list("1,two")
