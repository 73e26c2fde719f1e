"""Ranges learned from past exposures, against values whose distribution is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlstream.pipeline.learning import PastValue, learn, learn_rule, small_sample_factor
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.rule import LearnedRule, Rule

WIDE = Rule(metric="NOISE_AMP", normal=(-1000, 1000), warn=(-2000, 2000), learn=0)
PLACE = (("camera", "r3"), ("flavor", "dark"), ("amp", "A"))


@pytest.mark.parametrize("n", [20, 60, 300])
def test_a_healthy_value_leaves_its_normal_range_as_rarely_as_three_sigma_say(n):
    rng = np.random.default_rng(n)
    outside, alarms, trials = 0, 0, 500
    for _ in range(trials):
        rule = learn_rule(3.0 + 0.1 * rng.normal(size=n), WIDE, PLACE)
        new = 3.0 + 0.1 * rng.normal(size=100)
        outside += int(((new < rule.normal[0]) | (new > rule.normal[1])).sum())
        alarms += int(((new < rule.warn[0]) | (new > rule.warn[1])).sum())

    rate = outside / (100 * trials)
    print(f"{n} exposures: {100 * rate:.2f} % of healthy values are not NORMAL, {alarms} of {100 * trials} ALARM")
    assert 0.001 < rate < 0.004  # 0.27 % for a Gaussian whose width is known
    assert alarms <= 6  # 0.03 expected; a width from 20 values is too small by half now and then


def test_outliers_among_the_past_do_not_widen_the_range():
    rng = np.random.default_rng(2)
    values = 3.0 + 0.1 * rng.normal(size=100)
    clean = learn_rule(values, WIDE, PLACE)
    values[:10] = 500.0

    rule = learn_rule(values, WIDE, PLACE)

    assert rule.normal == pytest.approx(clean.normal, abs=0.12)
    assert rule.learned.sigma == pytest.approx(0.1, rel=0.35)


@pytest.mark.parametrize(
    ("learn_at_least", "reach"), [(0.0, 0.0), (0.3, 0.3), ("5 %", 0.15), ("10%", 0.3), (1e9, 1000.0)]
)
def test_a_metric_that_never_changes_keeps_a_range_of_some_width(learn_at_least, reach):
    written = Rule(metric="X", normal=(-1000, 1000), warn=(-2000, 2000), learn=learn_at_least)

    rule = learn_rule([3.0] * 30, written, PLACE)

    assert rule.normal == pytest.approx((3.0 - reach, 3.0 + reach), rel=1e-5)
    assert rule.warn == pytest.approx((3.0 - reach / 3 * 5, 3.0 + reach / 3 * 5), rel=1e-5)


def test_a_range_is_never_wider_than_the_written_one_but_may_lie_elsewhere():
    written = Rule(metric="X", normal=(2, 4), warn=(1, 9), learn=0.1)

    rule = learn_rule(np.linspace(4.0, 8.0, 50), written, PLACE)

    assert rule.normal == pytest.approx((5.0, 7.0))
    assert rule.warn == pytest.approx((6 - 5 / 3, 6 + 5 / 3))


def test_what_cannot_be_too_small_stays_so():
    written = Rule(metric="BIAS_PATNOISE", normal=(0, 1), warn=(0, 2), learn=0.1)

    rule = learn_rule([0.8] * 30, written, PLACE)

    assert (rule.normal, rule.warn) == ((0, pytest.approx(0.9)), (0, pytest.approx(0.8 + 0.5 / 3)))


@given(
    values=st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=40),
    edges=st.lists(st.floats(-100, 100), min_size=4, max_size=4).map(sorted),
    floor=st.floats(0, 50),
    probe=st.floats(-1e4, 1e4),
)
def test_what_the_written_range_calls_alarm_stays_an_alarm(values, edges, floor, probe):
    written = Rule(metric="X", normal=(edges[1], edges[2]), warn=(edges[0], edges[3]), learn=floor)
    median = float(np.median(values))
    if not edges[0] <= median <= edges[3]:
        return  # such places are not learned

    rule = learn_rule(values, written, PLACE)

    assert edges[0] <= rule.warn[0] <= rule.normal[0] <= rule.normal[1] <= rule.warn[1] <= edges[3]
    written_alarm = not edges[0] <= probe <= edges[3]
    assert not (written_alarm and rule.warn[0] <= probe <= rule.warn[1])


def past(values, metric="NOISE_AMP", camera="r3", nights=4, amp="A"):
    place = (("camera", camera), ("flavor", "dark"), ("amp", amp))
    return [PastValue(metric, place, 20260101 + i % nights, i, float(v)) for i, v in enumerate(values)]


RANGES = Ranges(
    [
        Rule(metric="NOISE_AMP", normal=(2, 5), warn=(1, 8), learn=0.2),
        Rule(metric="CHECKHDUS_STATUS", normal=(0, 0), warn=(0, 20)),
    ],
    "written 1",
)


def test_each_camera_and_amplifier_learns_its_own_range():
    rng = np.random.default_rng(4)
    values = [*past(rng.normal(3.0, 0.02, 40), amp="A"), *past(rng.normal(4.0, 0.02, 40), amp="B")]
    values += past(rng.normal(3.5, 0.02, 40), camera="b3")

    lesson = learn(values, RANGES)

    found = {(r.where["camera"][0], r.where["amp"][0]): r.learned.median for r in lesson.rules}
    assert found == {
        ("r3", "A"): pytest.approx(3.0, abs=0.02),
        ("r3", "B"): pytest.approx(4.0, abs=0.02),
        ("b3", "A"): pytest.approx(3.5, abs=0.02),
    }
    assert (lesson.nights, lesson.exposures) == ((20260101, 20260102, 20260103, 20260104), 40)
    assert all(isinstance(rule, LearnedRule) for rule in lesson.rules)


def test_the_written_rule_of_the_cameras_arm_is_the_one_that_counts():
    ranges = Ranges(
        [
            Rule(metric="NOISE_AMP", where={"arm": ["r"]}, normal=(2, 5), warn=(1, 8), learn=0.2),
            Rule(metric="NOISE_AMP", where={"arm": ["b"]}, normal=(2, 5), warn=(1, 8)),
        ]
    )

    lesson = learn([*past([3.0] * 30), *past([3.0] * 30, camera="b3")], ranges)

    assert [rule.where["camera"] for rule in lesson.rules] == [["r3"]]


def test_too_few_exposures_or_nights_teach_nothing():
    lesson = learn([*past([3.0] * 19), *past([3.0] * 30, amp="B", nights=2), *past([3.0] * 20, amp="C")], RANGES)

    assert [r.where["amp"] for r in lesson.rules] == [["C"]]
    assert lesson.too_few == {"NOISE_AMP": 2}


def test_only_rules_that_say_so_are_learned():
    lesson = learn(past([0.0] * 50, metric="CHECKHDUS_STATUS") + past([1.0] * 50, metric="UNHEARD_OF"), RANGES)

    assert (lesson.rules, lesson.too_few, lesson.outside) == ([], {}, [])


def test_what_is_usually_an_alarm_is_not_learned_and_told():
    lesson = learn(past([9.0] * 50), RANGES)

    assert lesson.rules == []
    assert lesson.outside == [
        "NOISE_AMP of r3 dark A is usually 9, but the written range calls everything outside 1 to 8 an ALARM"
    ]


def test_values_that_are_none_do_not_count():
    lesson = learn(past([3.0] * 19 + [np.nan] * 30), RANGES)

    assert lesson.too_few == {"NOISE_AMP": 1}


def test_the_factor_for_small_samples_falls_to_one():
    factors = [small_sample_factor(n) for n in (5, 10, 20, 50, 100, 1000, 10**6)]

    assert factors == sorted(factors, reverse=True)
    assert factors[2] == pytest.approx(1.54, abs=0.01)
    assert factors[-1] == pytest.approx(1, abs=1e-3)
