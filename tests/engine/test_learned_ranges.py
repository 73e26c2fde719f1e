"""A camera is judged by the ranges that were valid on its night, whenever it is processed."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from qlstream.configs import config_path
from qlstream.engine.camera import CameraRequest, Reduced, reduce_camera
from qlstream.engine.warmup import _Nobody
from qlstream.instrument import load_instrument
from qlstream.pipeline.context import Buffers
from qlstream.pipeline.learned import LearnedRanges, Provenance, learned_path
from qlstream.pipeline.plan import load_plans
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.result import Check
from qlstream.pipeline.rule import Learned, LearnedRule
from qlstream.simulate.night import simulate_night

NIGHT = 20260115


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("night")
    (path,) = simulate_night(load_instrument("mini"), NIGHT, folder, ("r0",), kinds=("zero",))
    return folder, path


def reduce(night: tuple[Path, Path], folder: Path, first_night: int) -> Reduced:
    """With ranges valid from `first_night` on, by which the read noise of amplifier B is far too large."""
    place = {"instrument": ["mini"], "camera": ["r0"], "flavor": ["zero"], "amp": ["B"]}
    tight = LearnedRule(
        metric="NOISE_AMP", where=place, normal=(2.0, 2.1), warn=(1.9, 2.2),
        learned=Learned(n=40, median=2.05, sigma=0.01),
    )  # fmt: skip
    made = Provenance(made_utc="", by="test", nights=(20260101,), exposures=40, taken="all", around="")
    LearnedRanges(first_night, made, [tight]).write(learned_path(folder, first_night))
    ranges = Ranges.load(config_path("qa", "quicklook"), folder)
    request = CameraRequest(night[1], "r0", folder, night[0] / "calib")
    return reduce_camera(request, load_plans(), ranges, _Nobody(), Buffers())


def noise_checks(reduced: Reduced) -> dict[str, Check]:
    return {
        check.element: check
        for _, result in reduced.outcome.judged
        for check in result.checks
        if check.metric == "NOISE_AMP"
    }


def test_ranges_valid_on_the_night_judge_it_and_are_on_record(night: tuple[Path, Path], tmp_path: Path) -> None:
    reduced = reduce(night, tmp_path, NIGHT)

    checks = noise_checks(reduced)
    assert [c.severity.name for c in checks.values()] == ["NORMAL", "ALARM", "NORMAL", "NORMAL"]
    assert "usual here 2.05, 40 exposures" in checks["B"].why
    assert checks["B"].rule.startswith(f"learned {NIGHT} (")
    assert checks["A"].rule.startswith("quicklook ")
    assert f"learned {NIGHT} (" in orjson.dumps(orjson.loads(reduced.written["qa"].read_bytes())).decode()


def test_ranges_of_a_later_night_do_not(night: tuple[Path, Path], tmp_path: Path) -> None:
    checks = noise_checks(reduce(night, tmp_path, NIGHT + 1))

    assert {c.severity.name for c in checks.values()} == {"NORMAL"}
