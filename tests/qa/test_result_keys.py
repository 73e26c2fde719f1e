"""Every number that the shipped metrics give is explained to the observer, and is judged or says why it is not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from dashboards.glossary import explain
from qlstream.configs import config_path
from qlstream.engine.camera import CameraRequest, reduce_camera
from qlstream.engine.warmup import _Nobody
from qlstream.instrument import load_instrument
from qlstream.pipeline.context import Buffers
from qlstream.pipeline.plan import load_plans
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.result import QASeverity
from qlstream.simulate.night import simulate_night

KINDS = ("zero", "dark", "arc", "flat", "science-dark", "science-gray", "science-bright")
CAMERAS = ("r0",)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, object]]:
    """(place, QAResult) of every metric of every plan."""
    folder: Path = tmp_path_factory.mktemp("night")
    files = simulate_night(load_instrument("mini"), 20260115, folder, CAMERAS, kinds=KINDS)
    plans, ranges, buffers = load_plans(), Ranges.load(config_path("qa", "quicklook")), Buffers()
    found = []
    for path, kind in zip(files, KINDS, strict=True):
        for camera in CAMERAS:
            request = CameraRequest(path, camera, folder / "redux", folder / "calib")
            reduced = reduce_camera(request, plans, ranges, _Nobody(), buffers)
            found += [(f"{kind} {camera}", result) for _, result in reduced.outcome.judged]
    return found


def keys_of(results: Iterable[tuple[str, object]]) -> dict[str, str]:
    """Result key -> the metric class that gives it."""
    found = {}
    for _, result in results:
        for table in (result.metrics, result.per_amp, result.per_class):  # type: ignore[attr-defined]
            found |= dict.fromkeys(table, result.name)  # type: ignore[attr-defined]
    return found


def test_every_result_key_is_explained(results: list[tuple[str, object]]) -> None:
    unexplained = {k: name for k, name in keys_of(results).items() if explain(k, name).what.startswith("A result of")}

    assert unexplained == {}, "dashboards/glossary.py needs an Entry for each"


def test_every_result_key_is_judged_or_says_why_it_is_not(results: list[tuple[str, object]]) -> None:
    shipped = Ranges.load(config_path("qa", "quicklook"))

    silent = {k: name for k, name in keys_of(results).items() if k not in shipped and k not in shipped.unjudged}

    assert silent == {}, "configs/qa/quicklook needs a rule or a line under `unjudged` for each"


def test_every_value_of_a_healthy_night_can_be_judged(results: list[tuple[str, object]]) -> None:
    unknown = [
        (place, check.why)
        for place, result in results
        for check in result.checks  # type: ignore[attr-defined]
        if check.severity == QASeverity.UNKNOWN
    ]

    assert unknown == []
