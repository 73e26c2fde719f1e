"""Camera words, row by row as the specification lists them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlstream.io.camword import (
    camword_intersection,
    camword_to_spectros,
    camword_union,
    create_camword,
    decode_camword,
    difference_camwords,
    good_camword,
    parse_cameras,
    promised_cameras,
    spectros_to_camword,
)

CAMERAS = st.sets(st.sampled_from([arm + str(n) for arm in "brz" for n in range(10)]))


@pytest.mark.parametrize(
    ("cameras", "word"), [("b0 r0 z0 b1 r1 z2", "a0b1r1z2"), ("b0 r0 z0 b0", "a0"), ("", ""), ("Z3 z1", "z13")]
)
def test_create(cameras, word):
    assert create_camword(cameras.split()) == word


@pytest.mark.parametrize("camera", ["x0", "b10", "b"])
def test_create_refuses_what_is_no_camera(camera):
    with pytest.raises(ValueError, match=camera):
        create_camword([camera])


@pytest.mark.parametrize(
    ("word", "cameras"),
    [
        ("a01b2z34", "b0 b1 b2 r0 r1 z0 z1 z3 z4"),
        ("a0b0", "b0 b0 r0 z0"),
        ("", ""),
        (None, ""),
        ("ab1", "b1"),
    ],
)
def test_decode(word, cameras):
    assert decode_camword(word) == cameras.split()


@pytest.mark.parametrize("word", ["x1", "12", "a0q"])
def test_decode_refuses_other_text(word):
    with pytest.raises(ValueError, match="camera word"):
        decode_camword(word)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("0,1,2", "a012"),
        ("012", "a012"),
        ("A01", "a01"),
        ("b0,r1,z2", "b0r1z2"),
        (["z2", "b0", "r1"], "b0r1z2"),
        (None, None),
        ("q", "aq"),
        ("a0,123", "a0123"),
    ],
)
def test_parse(text, word):
    assert parse_cameras(text) == word


@pytest.mark.parametrize("text", ["a0,b1,2,34", "34"])
def test_parse_refuses_two_digits_without_a_letter(text):
    with pytest.raises(ValueError, match="34"):
        parse_cameras(text)


@pytest.mark.parametrize(
    ("full", "remove", "left"),
    [("a012", "a1b2", "a0r2z2"), ("a0", "a0", ""), ("a0", "b5", "a0"), ("a01", None, "a01")],
)
def test_difference(full, remove, left):
    assert difference_camwords(full, remove) == left


def test_union():
    assert camword_union(["a0b1z1", "a3r1z2"]) == "a013z2"
    assert camword_union(["a0b1z1", "a3r1z2"], full_spectros_only=True) == "a013"
    assert camword_union(["b1", "r2"], full_spectros_only=True) == "a"
    assert camword_union("a0b1") == "a0b1"
    with pytest.raises(ValueError, match="at least one"):
        camword_union([])


def test_intersection():
    assert camword_intersection(["a012", "a12b0"]) == "a12b0"
    assert camword_intersection(["a012", "a12b0"], full_spectros_only=True) == "a12"


def test_spectrographs():
    assert camword_to_spectros("a03b5z7") == [0, 3, 5, 7]
    assert camword_to_spectros("a03b5z7", full_spectros_only=True) == [0, 3]
    assert spectros_to_camword("0-7,9") == "a012345679"
    assert spectros_to_camword([3, 1]) == "a13"


def test_good_cameras():
    assert good_camword("a0123", "b0", "r1A") == "a123r0z0"
    assert good_camword("a0123", "b0", "r1A", exclude_badamps=True) == "a23b1r0z01"


@settings(max_examples=25, deadline=None)
@given(cameras=CAMERAS, others=CAMERAS)
def test_words_are_sets(cameras, others):
    word, other = create_camword(cameras), create_camword(others)

    assert set(decode_camword(word)) == cameras
    assert set(decode_camword(difference_camwords(word, other))) == cameras - others
    assert set(decode_camword(camword_union([word, other]))) == cameras | others
    assert set(decode_camword(camword_intersection([word, other]))) == cameras & others
    assert parse_cameras(word) == word


@pytest.mark.parametrize(
    ("header", "cameras"),
    [
        ({"CAMERAS": "a0b1"}, "b0 b1 r0 z0"),
        ({"CAMERAS": "b0, r0", "SPCGRPHS": "SP3"}, "b0 r0"),
        ({"SPCGRPHS": "SP4, SP0"}, "b0 r0 z0 b4 r4 z4"),
        ({"CCDSPECS": "SP7"}, "b7 r7 z7"),
        ({"SPCGRPHS": ""}, ""),
        ({}, ""),
    ],
)
def test_a_header_promises_the_cameras_it_lists(header, cameras):
    assert promised_cameras(header) == tuple(cameras.split())
