"""Lists of bad amplifiers, as the specification lists them."""

from __future__ import annotations

import pytest

from qlstream.io.badamps import amps_of_camera, parse_badamps, validate_badamps


@pytest.mark.parametrize(
    ("text", "amps"),
    [
        ("b7D,z8A", [("b", 7, "D"), ("z", 8, "A")]),
        (" B7d , z8a ", [("b", 7, "D"), ("z", 8, "A")]),
        ("", []),
        (None, []),
    ],
)
def test_parse(text, amps):
    assert parse_badamps(text) == amps


@pytest.mark.parametrize("text", ["b7", "x7A", "b7E", "b77A"])
def test_parse_refuses_what_is_no_amplifier(text):
    with pytest.raises(ValueError, match=text):
        parse_badamps(text)


def test_parse_refuses_what_is_no_text():
    with pytest.raises(TypeError, match="text"):
        parse_badamps(7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "clean"),
    [("b7D; z8A", "b7D,z8A"), ("b7D|z8A.r1B", "b7D,z8A,r1B"), ("b7D:z8A-r1B_b0A", "b7D,z8A,r1B,b0A"), (None, "")],
)
def test_validate(text, clean):
    assert validate_badamps(text) == clean


def test_amps_of_one_camera():
    assert amps_of_camera("b7A,z3B,b7C", "b7") == "AC"
    assert amps_of_camera("AD", "b7") == "AD"
    assert amps_of_camera("z3B", "b7") == ""
