from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from algorithms.initialize import Initialize
from qlstream.datamodel.amplifier import amplifiers
from qlstream.datamodel.image import RawCamera

CARDS = {"DATASECA": "[1:8,1:10]", "CCDSECA": "[1:8,1:10]", "BIASSECA": "[9:16,1:10]"}


def raw_camera(**cards: Any) -> RawCamera:
    header = {"CAMERA": "R3", "EXPID": 82, "NIGHT": 20260114, "EXPTIME": 900.0, "FLAVOR": "science"} | CARDS | cards
    header = {key: value for key, value in header.items() if value is not None}
    return RawCamera(np.zeros((10, 16), np.uint16), "r3", header, {}, amplifiers(header))


def test_a_good_header_gains_the_true_flavor_and_the_counts_of_targets(
    make_context: Callable[..., Any], make_fibermap: Callable[..., Any]
) -> None:
    raw = raw_camera()
    context = make_context(flavor="flat", fibermap=make_fibermap(["SKY", "SKY", "ELG", "STAR"]))

    out = Initialize().run(raw, context)

    assert out.header["FLAVOR"] == "flat"
    assert (out.header["NSKY"], out.header["NELG"], out.header["NSTAR"], out.header["NQSO"]) == (2, 1, 1, 0)
    assert "NSKY" not in raw.header  # the input stays as it was


def test_every_mistake_of_a_header_is_named_at_once(make_context: Callable[..., Any]) -> None:
    raw = raw_camera(EXPID=None, EXPTIME=float("nan"), CAMERA="b1", BIASSECA="[9:17,1:10]")

    with pytest.raises(ValueError, match="R3, exposure 82") as caught:
        Initialize().run(raw, make_context())

    for part in ("EXPID is missing", "EXPTIME = nan", "'b1', expected 'r3'", "BIASSECA"):
        assert part in str(caught.value)


@pytest.mark.parametrize(("flavor", "exptime", "good"), [("zero", 0.0, True), ("dark", 0.0, False), ("arc", -1, False)])
def test_only_a_zero_may_take_no_time(
    make_context: Callable[..., Any], flavor: str, exptime: float, good: bool
) -> None:
    raw, context = raw_camera(EXPTIME=exptime), make_context(flavor=flavor)

    if good:
        Initialize().run(raw, context)
    else:
        with pytest.raises(ValueError, match="EXPTIME"):
            Initialize().run(raw, context)
