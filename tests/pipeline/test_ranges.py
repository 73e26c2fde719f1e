import math

import pytest

from qlstream.configs import config_path
from qlstream.pipeline.ranges import Ranges, Rule
from qlstream.pipeline.result import QAResult, QASeverity

NOISE = Rule(metric="NOISE_AMP", normal=(2, 4), warn=(1, 6), why="noisy")
NOISE_OF_R3_C = Rule(metric="NOISE_AMP", where={"camera": ["r3"], "amp": ["C"]}, normal=(2, 8), warn=(1, 9))
WHERE = {"camera": "r3", "arm": "r", "flavor": "dark", "program": ""}


@pytest.mark.parametrize(
    ("value", "severity"),
    [(2.0, 0), (4.0, 0), (1.0, 20), (6.0, 20), (0.99, 30), (6.01, 30)],
)
def test_intervals_include_both_ends(value, severity):
    check = Ranges([NOISE]).judge("NOISE_AMP", "A", value, WHERE)

    assert check.severity == severity


def test_the_last_rule_that_matches_counts():
    ranges = Ranges([NOISE, NOISE_OF_R3_C])

    severities = {amp: ranges.judge("NOISE_AMP", amp, 7.0, {**WHERE, "amp": amp}).severity for amp in "AC"}

    assert severities == {"A": QASeverity.ALARM, "C": QASeverity.NORMAL}


def test_a_nan_is_unknown_and_spoils_no_other_value():
    result = QAResult("Get_RMS", per_amp={"NOISE_AMP": {"A": math.nan, "B": 3.0, "C": 9.0}})

    graded = result.graded(Ranges([NOISE]), WHERE)

    assert [c.severity.name for c in graded.checks] == ["UNKNOWN", "NORMAL", "ALARM"]
    assert graded.severity == QASeverity.ALARM
    assert "no value" in graded.checks[0].why
    assert graded.checks[2].why == "NOISE_AMP of C = 9, above the normal 4: noisy"


def test_two_swapped_amplifiers_are_noticed():
    ranges = Ranges([NOISE, NOISE_OF_R3_C])
    healthy = QAResult("Get_RMS", per_amp={"NOISE_AMP": {"A": 3.0, "C": 7.0}}).graded(ranges, WHERE)
    swapped = QAResult("Get_RMS", per_amp={"NOISE_AMP": {"A": 7.0, "C": 3.0}}).graded(ranges, WHERE)

    assert healthy.severity == QASeverity.NORMAL
    assert swapped.severity == QASeverity.ALARM


def test_a_class_without_fibers_is_not_judged():
    ranges = Ranges([Rule(metric="FIDSNR_TGT", normal=(1, 9), warn=(0, 10))])

    result = QAResult("Calculate_SNR", per_class={"FIDSNR_TGT": {"ELG": 2.0, "LRG": None}}).graded(ranges, WHERE)

    assert [(c.element, c.severity.name) for c in result.checks] == [("ELG", "NORMAL")]


def test_a_metric_whose_rules_all_hold_elsewhere_is_unknown_with_its_reason():
    ranges = Ranges([Rule(metric="BIAS_AMP", where={"flavor": ["zero"]}, normal=(0, 1), warn=(0, 1))])

    check = ranges.judge("BIAS_AMP", "A", 0.5, WHERE)

    assert check.severity == QASeverity.UNKNOWN
    assert check.why == "no range for camera r3, arm r, flavor dark"


def test_every_mistake_of_a_range_file_is_named(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text(
        "version: '1'\nrules:\n"
        "- {metric: A, normal: [0, 5], warn: [1, 6]}\n"
        "- {metric: B, normal: [0, 5]}\n"
        "- {metric: C, normal: [0, 1], warn: [0, 1], wher: {}}\n"
    )

    with pytest.raises(ValueError, match="3 wrong entries") as error:
        Ranges.load(path)

    assert all(text in str(error.value) for text in (str(path), "rules.0", "rules.1.warn", "rules.2.wher"))


def test_the_shipped_ranges_load():
    assert "NOISE_AMP" in Ranges.load(config_path("qa", "quicklook"))


def test_every_shipped_rule_and_reason_is_complete():
    shipped = Ranges.load(config_path("qa", "quicklook"))

    assert not set(shipped.unjudged) & set(shipped.metrics)
    assert all(reason.strip() for reason in shipped.unjudged.values())


@pytest.mark.parametrize("learn", [-0.1, "many", "-5 %"])
def test_how_far_a_learned_range_reaches_is_a_number_or_percent(learn):
    with pytest.raises(ValueError, match="learn"):
        Rule(metric="A", normal=(0, 1), warn=(0, 1), learn=learn)


def test_json_of_a_result_has_no_nan():
    result = QAResult("X", {"A": math.nan, "B": 1.5}, per_class={"T": {"ELG": None, "LRG": math.inf}})

    data = result.to_json()

    assert data["metrics"] == {"A": None, "B": 1.5}
    assert data["per_class"] == {"T": {"ELG": None, "LRG": None}}
