"""Files of learned ranges: which one judges a night, and how it lies over the written rules."""

import json
import logging

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from qlstream.pipeline.learned import LearnedRanges, Provenance, learned_for, learned_nights, learned_path
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.rule import Learned, LearnedRule, Rule
from qlstream.settings import Settings

WRITTEN = Rule(metric="NOISE_AMP", normal=(2, 4), warn=(1, 6), why="noisy", learn=0.1)
WHERE = {"instrument": "desi", "camera": "r3", "arm": "r", "flavor": "dark", "program": "", "amp": "C"}
MADE = Provenance(
    made_utc="2026-01-15T12:00:00+00:00", by="qlstream", nights=(20260101, 20260110), exposures=31,
    taken="NORMAL", around="quicklook 1",
)  # fmt: skip


def a_rule(normal=(2.8, 3.2), warn=(2.6, 3.4), metric="NOISE_AMP", median=3.0, **where):
    place = {"instrument": ["desi"], "camera": ["r3"], "flavor": ["dark"], "amp": ["C"]}
    place |= {key: [value] for key, value in where.items()}
    learned = Learned(n=31, median=median, sigma=0.05)
    return LearnedRule(metric=metric, where=place, normal=normal, warn=warn, learned=learned)


def put(folder, valid_from, *rules):
    LearnedRanges(valid_from, MADE, rules or (a_rule(),)).write(learned_path(folder, valid_from))


@pytest.fixture
def ranges(tmp_path):
    return Ranges([WRITTEN], "site 1", folder=tmp_path)


def test_a_file_is_read_back_as_it_was_written(tmp_path):
    rules = [a_rule(), a_rule(amp="D", normal=(2.5, float("inf")), warn=(2.5, float("inf")))]
    put(tmp_path, 20260115, *rules)

    found = LearnedRanges.load(learned_path(tmp_path, 20260115))

    assert (found.valid_from, found.provenance, list(found.rules)) == (20260115, MADE, rules)
    assert found.version.startswith("learned 20260115 (")
    text = learned_path(tmp_path, 20260115).read_text()
    assert yaml.safe_load(text) == json.loads(text)  # any tool that reads YAML reads it
    lines = text.splitlines()
    assert sum("NOISE_AMP" in line for line in lines) == 2  # a line for each rule, so that differences read well


def test_a_file_edited_by_hand_may_be_plain_yaml(tmp_path):
    path = learned_path(tmp_path, 20260115)
    path.write_text(
        "valid_from: 20260115\n"
        "learned: {made_utc: '2026-01-15', by: me, nights: [20260101], exposures: 9, taken: all, around: 'site 1'}\n"
        "rules:\n- {metric: NOISE_AMP, where: {camera: [r3]}, normal: [2, 3], warn: [1, 4],\n"
        "   learned: {n: 9, median: 2.5, sigma: 0.1}}\n"
    )

    rule = LearnedRanges.load(path).find("NOISE_AMP", WHERE)

    assert rule is not None
    assert rule.normal == (2, 3)


def test_the_newest_file_not_after_the_night_judges_it(tmp_path, ranges):
    put(tmp_path, 20260110, a_rule(normal=(2.9, 3.1)))
    put(tmp_path, 20260120)

    limits = {
        n: ranges.on(n).judge("NOISE_AMP", "C", 3.0, WHERE).normal for n in (20260109, 20260110, 20260119, 20260201)
    }

    assert limits == {20260109: (2, 4), 20260110: (2.9, 3.1), 20260119: (2.9, 3.1), 20260201: (2.8, 3.2)}
    assert learned_nights(tmp_path) == [20260110, 20260120]


def test_replay_after_more_was_learned_is_judged_as_the_night_was(tmp_path, ranges):
    put(tmp_path, 20260110)
    live = ranges.on(20260112).judge("NOISE_AMP", "C", 3.3, WHERE)
    put(tmp_path, 20260113, a_rule(normal=(3.2, 3.4)))

    assert ranges.on(20260112).judge("NOISE_AMP", "C", 3.3, WHERE) == live
    assert ranges.on(20260113).judge("NOISE_AMP", "C", 3.3, WHERE) != live


def test_a_check_names_the_version_and_what_is_usual(tmp_path, ranges):
    put(tmp_path, 20260110)
    there = ranges.on(20260112)

    tight, other = there.judge("NOISE_AMP", "C", 3.3, WHERE), there.judge("NOISE_AMP", "A", 3.3, {**WHERE, "amp": "A"})

    assert (tight.severity.name, other.severity.name) == ("WARNING", "NORMAL")
    assert tight.why == "NOISE_AMP of C = 3.3, above the normal 3.2: noisy (usual here 3, 31 exposures)"
    assert tight.rule.startswith("learned 20260110 (")
    assert other.rule == "site 1"
    assert there.version == f"site 1, {tight.rule}"


def test_swapped_amplifiers_are_noticed(tmp_path, ranges):
    put(tmp_path, 20260110, a_rule(amp="A", normal=(2.4, 2.6), warn=(2.3, 2.7)), a_rule(amp="B"))
    there = ranges.on(20260112)

    swapped = [
        there.judge("NOISE_AMP", a, v, {**WHERE, "amp": a}).severity.name for a, v in {"A": 3.0, "B": 2.5}.items()
    ]

    assert swapped == ["ALARM", "ALARM"]


@pytest.mark.parametrize(
    ("normal", "warn", "effective"),
    [
        ((2.8, 3.2), (2.6, 3.4), ((2.8, 3.2), (2.6, 3.4))),
        ((5.5, 7.0), (5.0, 8.0), ((5.5, 6.0), (5.0, 6.0))),  # cut at what is written as ALARM
        ((0.0, 9.0), (-1.0, 10.0), ((1.0, 6.0), (1.0, 6.0))),
        ((7.0, 8.0), (6.5, 9.0), ((2.0, 4.0), (1.0, 6.0))),  # nothing is left: the written rule
    ],
)
def test_the_written_warn_range_stays_the_outer_limit(tmp_path, ranges, normal, warn, effective):
    put(tmp_path, 20260110, a_rule(normal=normal, warn=warn))

    rule = ranges.on(20260112).find("NOISE_AMP", WHERE)

    assert (rule.normal, rule.warn) == effective


EDGES = st.lists(st.floats(-100, 100), min_size=4, max_size=4).map(sorted)


@given(inner=EDGES, outer=EDGES, probe=st.floats(-150, 150))
def test_no_learned_rule_calls_a_written_alarm_anything_else(inner, outer, probe):
    learned = a_rule(normal=(inner[1], inner[2]), warn=(inner[0], inner[3]))
    written = Rule(metric="NOISE_AMP", normal=(outer[1], outer[2]), warn=(outer[0], outer[3]), learn=1)

    rule = learned.within(written)

    if not outer[0] <= probe <= outer[3]:
        assert not rule.warn[0] <= probe <= rule.warn[1]


def test_a_rule_that_may_not_be_learned_is_not(tmp_path):
    put(tmp_path, 20260110)
    ranges = Ranges([WRITTEN.model_copy(update={"learn": None})], folder=tmp_path)

    assert ranges.on(20260112).find("NOISE_AMP", WHERE).normal == (2, 4)
    assert Ranges([], folder=tmp_path).on(20260112).find("NOISE_AMP", WHERE) is None


def test_a_broken_file_is_passed_over_with_one_error(tmp_path, ranges, caplog):
    put(tmp_path, 20260110)
    learned_path(tmp_path, 20260112).write_text('{"valid_from": 20260112, "rules": []')

    with caplog.at_level(logging.ERROR, "qlstream"):
        found = [ranges.on(20260113).learned for _ in range(3)]

    assert [f.valid_from for f in found] == [20260110] * 3
    assert len([r for r in caplog.records if "passed over" in r.getMessage()]) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"valid_from": 20260110, "rules": []}', "learned: Field required"),
        ("valid_from: [", "is no YAML"),
        ("rules: 5", "valid_from: Field required"),
    ],
)
def test_mistakes_of_a_file_are_named(tmp_path, text, says):
    path = tmp_path / "ranges-20260110.yaml"
    path.write_text(text)

    with pytest.raises(ValueError, match="ranges-20260110") as error:
        LearnedRanges.load(path)
    assert says in str(error.value)


def test_a_file_that_was_renamed_to_another_night_is_passed_over(tmp_path, ranges, caplog):
    put(tmp_path, 20260110)
    learned_path(tmp_path, 20260110).rename(learned_path(tmp_path, 20260101))

    assert ranges.on(20260112).learned is None
    assert "valid_from is 20260110, but the name says 20260101" in caplog.text


def test_other_files_and_a_missing_folder_are_no_ranges(tmp_path):
    (tmp_path / "notes.yaml").write_text("hello")
    (tmp_path / "ranges-20260110_tmp12.yaml").write_text("half a fi")

    assert learned_for(tmp_path, 20260112) is None
    assert learned_for(tmp_path / "none", 20260112) is None


def test_settings_tell_where_learned_ranges_are(tmp_path):
    def settings(**engine):
        return Settings.model_validate({"redux": tmp_path, "engine": engine})

    put(tmp_path / "qlstream" / "ranges", 20260110)
    put(tmp_path / "own", 20260111)

    by_default = Ranges.from_settings(settings())
    by_setting = Ranges.from_settings(settings(learned_ranges=tmp_path / "own"))

    assert by_default.on(20260112).learned.valid_from == 20260110
    assert by_setting.on(20260112).learned.valid_from == 20260111
    with pytest.raises(ValueError, match=r"engine\.learned_ranges: no folder .*typo"):
        Ranges.from_settings(settings(learned_ranges=tmp_path / "typo"))
