"""Each fault of the detector raises its alarm on the right amplifiers, and nowhere else."""

from dataclasses import replace

import pytest

from qlstream.configs import config_path
from qlstream.pipeline.learned import LearnedRanges, Provenance
from qlstream.pipeline.learning import PastValue, learn
from qlstream.pipeline.ranges import Ranges
from qlstream.simulate.schedule import Exposure

KINDS = ("zero", "dark", "arc", "flat", "science-dark")


def findings(results, least=30):
    return {(c.metric, c.element) for result in results.values() for c in result.checks if c.severity >= least}


@pytest.mark.parametrize(
    ("kind", "camera"),
    [(kind, "r0") for kind in KINDS] + [("dark", "b0"), ("arc", "b0"), ("dark", "z0"), ("science-dark", "z0")],
)
def test_a_healthy_camera_is_normal(look_at, kind, camera):
    results = look_at(kind, camera)

    assert findings(results, least=10) == set()
    assert results["Check_HDUs"].metrics["CHECKHDUS"] == 0


FAULTS = [
    ("noisy-amp:r0:B", "dark", {("NOISE_AMP", "B")}),
    ("noisy-amp:r0:C", "science-dark", {("NOISE_AMP", "C")}),
    ("dead-amp:r0:D", "flat", {("LITFRAC_AMP", "D"), ("LITRATIO_AMP", "D")}),
    ("dead-amp:r0:A", "arc", {("LITFRAC_AMP", "A")}),
    ("bias-jump:r0:C", "zero", {("BIAS_STEP_AMP", "C"), ("BIAS_DRIFT_AMP", "C"), ("BIAS_PATNOISE", "C")}),
    ("pickup:r0:B", "dark", {("BIAS_STEP_AMP", "B"), ("BIAS_PATNOISE", "B")}),
    ("no-readout:r0", "science-dark", {("FLATPIXELS", "")}),
    ("warm-ccd:r0", "zero", {("CCDTEMP", "")}),
    ("warm-ccd:r0", "flat", {("CCDTEMP", "")}),
    ("warm-ccd:r0", "dark", {("CCDTEMP", ""), *(("DARKLEVEL_AMP", a) for a in "ABCD")}),
    ("warm-ccd:b0", "dark", {("DARKLEVEL_AMP", a) for a in "ABCD"}),  # its header tells no temperature
    ("light-leak:b0", "dark", {("DARKLEVEL_AMP", a) for a in "ABCD"}),
    ("cosmic-storm:b0", "dark", {("COSMICS_RATE", a) for a in "ABCD"}),
    ("cosmic-storm:r0", "dark", {("COSMICS_RATE", a) for a in "ABCD"}),
]


@pytest.mark.parametrize(("fault", "kind", "expected"), FAULTS, ids=[f"{f}-{k}" for f, k, _ in FAULTS])
def test_a_fault_alarms_where_it_is(look_at, fault, kind, expected):
    camera, _, amp = fault.partition(":")[2].partition(":")

    found = findings(look_at(kind, camera, fault))

    assert expected <= found
    if amp:
        assert {element for _, element in found} <= {amp}


def test_pickup_correlates_the_pixels_of_bias_frames(look_at):
    assert ("CORR_MAX_AMP", "A") in findings(look_at("zero", "r0", "pickup:r0:A"), least=20)


@pytest.fixture(scope="module")
def learned(look_at, tmp_path_factory):
    """The shipped ranges with those that r0 learned from 24 bias frames of 4 nights."""
    shipped = Ranges.load(config_path("qa", "quicklook"))
    place = (("instrument", "mini"), ("camera", "r0"), ("flavor", "zero"))
    past = []
    for i in range(24):
        night = 20260101 + i % 4
        for result in look_at(Exposure("zero", night, 100 + i, 61041.9 + i % 4, 0.0)).values():
            for check in result.checks:
                there = (*place, ("amp", check.element)) if check.element else place
                past.append(PastValue(check.metric, there, night, 100 + i, check.measured))
    folder = tmp_path_factory.mktemp("ranges")
    made = Provenance(made_utc="", by="test", nights=(20260101,), exposures=24, taken="all", around="")
    LearnedRanges(20260105, made, learn(past, shipped).rules).write(folder / "ranges-20260105.yaml")
    return Ranges.load(config_path("qa", "quicklook"), folder).on(20260115)


def judged_anew(results, ranges):
    where = {"instrument": "mini", "camera": "r0", "arm": "r", "flavor": "zero", "program": ""}
    return {name: replace(r, checks=()).graded(ranges, where) for name, r in results.items()}


def test_amplifiers_taken_for_each_other_are_seen_by_learned_ranges_only(look_at, learned):
    healthy, swapped = look_at("zero"), look_at("zero", "r0", "swapped-amps:r0:AB")

    assert findings(swapped, least=10) == set()  # by the shipped ranges all is well
    assert findings(judged_anew(healthy, learned), least=10) == set()
    assert findings(judged_anew(swapped, learned)) == {("BIAS_AMP", "A"), ("BIAS_AMP", "B")}


def test_healthy_exposures_rarely_leave_the_learned_ranges(look_at, learned):
    checks = [
        check
        for i in range(12)
        for result in judged_anew(look_at(Exposure("zero", 20260115, 500 + i, 61055.9, 0.0)), learned).values()
        for check in result.checks
    ]

    warnings = [c.why for c in checks if c.severity == 20]
    print(f"{len(checks)} values, {len(warnings)} WARNING: {warnings}")
    assert [c.why for c in checks if c.severity == 30] == []
    assert len(warnings) <= 4 + 0.003 * len(checks)
