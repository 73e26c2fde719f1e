"""Ranges of a site: its own rules behind the shipped ones, and nothing told of what it knows to be bad."""

from __future__ import annotations

from qlstream.configs import config_path
from qlstream.pipeline.ranges import Ranges, Rule
from qlstream.pipeline.result import QAResult, QASeverity

WHERE = {"camera": "r3", "arm": "r", "flavor": "dark", "program": "", "instrument": "desi"}


def test_rules_of_a_site_follow_the_shipped_ones(tmp_path):
    path = tmp_path / "ranges.yaml"
    path.write_text(
        'version: "site 3"\n'
        "extends: quicklook\n"
        "rules:\n"
        "  - {metric: GHOST, normal: [0, 1], warn: [0, 2]}\n"
        "  - {metric: NOISE_AMP, where: {camera: [r3]}, normal: [9, 10], warn: [8, 11]}\n"
    )
    shipped = Ranges.load(config_path("qa", "quicklook"))

    ranges = Ranges.load(path)

    assert set(ranges.metrics) == {*shipped.metrics, "GHOST"}
    assert ranges.judge("NOISE_AMP", "A", 9.5, WHERE).severity == QASeverity.NORMAL
    elsewhere = WHERE | {"camera": "r4"}
    assert ranges.judge("NOISE_AMP", "A", 9.5, elsewhere).severity == QASeverity.ALARM
    assert shipped.version in ranges.version
    assert "site 3" in ranges.version
    assert ranges.unjudged == shipped.unjudged


def test_amplifiers_that_are_known_to_be_bad_are_not_judged():
    ranges = Ranges([Rule(metric="NOISE_AMP", normal=(2, 4), warn=(1, 6))])
    result = QAResult("Get_RMS", per_amp={"NOISE_AMP": {"A": 99.0, "B": 3.0, "C": 99.0, "D": 3.0}})

    graded = result.graded(ranges, WHERE | {"bad_amps": "AD"})

    assert {check.element: check.severity.name for check in graded.checks} == {"B": "NORMAL", "C": "ALARM"}
    assert graded.per_amp == result.per_amp
