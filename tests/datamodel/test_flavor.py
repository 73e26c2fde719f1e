"""Kinds and programs of exposures."""

from __future__ import annotations

import pytest

from qlstream.datamodel.flavor import program_of, program_of_faflavor

SCIENCE = {"OBSTYPE": "SCIENCE"}


@pytest.mark.parametrize(
    ("faflavor", "program"),
    [
        ("maindark", "dark"), ("cmxelg", "dark"), ("sv1lrgqso2", "dark"), ("specialm31", "dark"),
        ("specialodin", "dark"), ("SV3BRIGHT ", "bright"), ("sv1bgsmws", "bright"), ("sv1unwisebluebright", "other"),
        ("mainbackup", "backup"), ("sv1backup1", "backup"), ("maindark1b", "dark1b"), ("mainbright1b", "bright1b"),
        ("specialtertiary", "other"), ("", "other"),
    ],
)  # fmt: skip
def test_programs_of_tiles(faflavor, program):
    assert program_of_faflavor(faflavor) == program


@pytest.mark.parametrize(
    ("cards", "tile", "program"),
    [
        ({"PROGRAM": "DARK"}, {}, "dark"),
        ({"PROGRAM": "SV1 BGS+MWS tile 80616"}, {}, "bright"),
        ({"PROGRAM": "SV1 ELG tile"}, {"FAFLAVOR": "sv1elg"}, "dark"),
        ({"PROGRAM": "GRAY"}, {"FAFLAVOR": "maingray"}, "gray"),
        ({"NTSPROG": "BACKUP", "PROGRAM": "dark of the moon"}, {}, "backup"),
        ({"PROGRAM": "tertiary fields", "FAPRGRM": "tertiary2"}, {"GOALTYPE": "BRIGHT"}, "bright"),
        ({"PROGRAM": "repeat of the bright tile"}, {"FAFLAVOR": "maindark"}, "dark"),
        ({"FAFLAVOR": "mainbright1b"}, {}, "bright"),
        ({"PROGRAM": None, "NTSPROG": ""}, {}, "other"),
    ],
)
def test_the_program_of_an_exposure_is_what_its_tile_was_made_for(cards, tile, program):
    assert program_of(SCIENCE | cards, tile) == program


def test_calibrations_have_no_program():
    assert program_of({"OBSTYPE": "FLAT", "PROGRAM": "DARK"}) == ""
