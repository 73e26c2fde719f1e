from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa.headers import Check_HDUs
from qlstream.datamodel.amplifier import Section
from qlstream.instrument import load_instrument

MINI = load_instrument("mini")


@pytest.fixture
def check(make_context, raw_of):
    """Run the check on a raw camera whose CCD has the format that the instrument promises."""
    arms = tuple(arm.model_copy(update={"nx": 240, "ny": 200}) for arm in MINI.arms)
    instrument = MINI.model_copy(update={"arms": arms})

    def run(raw, **given):
        given.setdefault("header", {"EXPTIME": raw.header.get("EXPTIME", 900.0)})
        return Check_HDUs().run(raw, make_context(instrument=instrument, **given))

    return run


def severities(result):
    return {c.metric: c.severity.name for c in result.checks if c.severity}


def test_a_healthy_header_is_normal_and_its_telemetry_is_told(check, raw_of, path_of):
    raw = replace(raw_of(), path=path_of(), hdus=("", "SPEC", "B3", "R3", "Z3"))
    raw.primary["CAMERAS"] = "a3"

    result = check(raw)

    assert result.metrics["CHECKHDUS"] == result.metrics["MISSINGCAMERAS"] == 0
    assert (result.metrics["CCDTEMP"], result.metrics["CRYOTEMP"]) == (-137.5, 140.0)
    assert result.metrics["CRYOPRES"] == 7.36e-8
    assert result.units["CCDTEMP"] == "degC"
    assert severities(result) == {}
    assert result.summary == "header complete, layout consistent"


@pytest.mark.parametrize(
    ("cards", "metric", "severity", "sentence"),
    [
        ({"CCDTEMP": None}, "CHECKHDUS_STATUS", "WARNING", "CCDTEMP is missing"),
        ({"CAMERA": "b1"}, "EXPNUM_STATUS", "ALARM", "the HDU of r3 says CAMERA = 'b1'"),
        ({"EXPID": 83}, "EXPNUM_STATUS", "ALARM", "EXPID = 83, expected 82"),
        ({"OBSTYPE": "FLAT"}, "CHECKHDUS_STATUS", "ALARM", "OBSTYPE = 'FLAT', but the exposure's is 'SCIENCE'"),
        ({"EXPTIME": 450.0}, "CHECKHDUS_STATUS", "WARNING", "EXPTIME = 450 s, but the exposure's is 900 s"),
        ({"MJD-OBS": 61054.5}, "CHECKHDUS_STATUS", "WARNING", "MJD-OBS = 61054.50000, but the exposure's is 61054.3"),
        ({"DATE-OBS": "2026-01-14T07:12:00"}, "EXPNUM_STATUS", "WARNING", "is of night 20260113, NIGHT says 20260114"),
        ({"VCCD": "OFF"}, "CHECKHDUS_STATUS", "ALARM", "VCCD = 'OFF': the voltage of the CCD is off"),
        ({"CCDSIZE": "400,500"}, "CHECKHDUS_STATUS", "WARNING", "CCDSIZE = '400,500', but the readout has 200 x 320"),
    ],
)
def test_every_problem_is_a_sentence_and_as_bad_as_it_is(check, raw_of, cards, metric, severity, sentence):
    result = check(raw_of(**cards))

    found = next(c for c in result.checks if c.metric == metric)
    assert (found.severity.name, result.metrics["CHECKHDUS"]) == (severity, 1)
    assert sentence in found.why
    assert sentence in result.summary


def test_the_worst_problem_is_told_first(check, raw_of):
    result = check(raw_of(CCDTEMP=None, AIRMASS=None, VCCD="OFF"))

    (found,) = [c for c in result.checks if c.severity]
    assert found.severity.name == "ALARM"
    assert found.why.startswith("VCCD = 'OFF'")
    assert "AIRMASS is missing" in found.why
    assert result.metrics["MISSINGKEYS"] == 2


@pytest.mark.parametrize(("night", "expid"), [(20260113, 82), (20260114, 81)])
def test_a_file_in_another_exposures_place_alarms(check, raw_of, path_of, night, expid):
    result = check(replace(raw_of(), path=path_of(night, expid)))

    assert severities(result) == {"EXPNUM_STATUS": "ALARM"}
    assert f"{night}/{expid:08d}" in result.summary


def test_real_exposures_say_flavor_science_whatever_they_are_but_nothing_else(check, raw_of):
    def as_flat(flavor):
        raw = raw_of(OBSTYPE="FLAT")
        raw.primary.update(OBSTYPE="FLAT", FLAVOR=flavor)
        return check(raw, flavor="flat", program="")

    assert severities(as_flat("science")) == severities(as_flat("flat")) == {}
    assert severities(as_flat("arc")) == {"EXPNUM_STATUS": "WARNING"}
    assert "FLAVOR = 'arc', but OBSTYPE = 'FLAT'" in as_flat("arc").summary


def test_missing_cameras_are_counted_and_named_but_judge_no_other_camera(check, raw_of):
    raw = replace(raw_of(), hdus=("", "SPEC", "R3"))
    raw.primary["SPCGRPHS"] = "SP3"

    result = check(raw)

    assert result.metrics["MISSINGCAMERAS"] == 2
    assert "b3, z3 promised, but not in the file" in result.summary
    assert severities(result) == {}


def test_sections_that_overlap_leave_gaps_or_leave_the_readout_are_told(check, raw_of):
    raw = raw_of()
    a, b, c, d = raw.amps
    moved = replace(b, ccdsec=Section(110, 230, 0, 100))
    outside = replace(d, orsec=Section(0, 400, 90, 100))
    in_data = replace(c, biassec=Section(100, 140, 100, 200))

    result = check(replace(raw, amps=(a, moved, in_data, outside)))

    for sentence in (
        "CCDSECA [1:120,1:100] overlaps CCDSECB [111:230,1:100]",
        "ORSECD [1:400,91:100] lies outside the 200 x 320 readout",
        "BIASSECC [101:140,101:200] overlaps DATASECC [1:120,101:200]",
    ):
        assert sentence in result.summary
    assert severities(result) == {"CHECKHDUS_STATUS": "ALARM"}
    assert "cover 36000 of the 48000 pixels" in check(replace(raw, amps=(a, b, d))).summary


def test_a_ccd_of_another_format_than_the_instruments_alarms(make_context, raw_of):
    result = Check_HDUs().run(raw_of(), make_context())

    assert "the CCD has 200 x 240 pixels, mini's arm r 500 x 400" in result.summary


def test_two_amplifiers_that_tile_the_ccd_are_as_good_as_four(check, raw_of):
    raw = raw_of()
    a, b = raw.amps[:2]
    tall = (
        replace(a, datasec=Section(0, 120, 0, 200), ccdsec=Section(0, 120, 0, 200), biassec=Section(120, 160, 0, 200)),
        replace(
            b, datasec=Section(200, 320, 0, 200), ccdsec=Section(120, 240, 0, 200), biassec=Section(160, 200, 0, 200)
        ),
    )

    assert severities(check(replace(raw, amps=tall))) == {}


@pytest.mark.parametrize(
    ("temperature", "severity"), [(-137.5, None), (-131.0, "WARNING"), (-117.5, "ALARM"), (-160.0, "ALARM")]
)
def test_a_ccd_that_is_not_cold_enough_is_judged(check, raw_of, temperature, severity):
    result = check(raw_of(CCDTEMP=temperature))

    assert severities(result).get("CCDTEMP") == severity


def test_a_sensor_that_is_not_there_gives_no_value(check, raw_of):
    result = check(raw_of(CCDTEMP=850.0, CRYOPRES="None", VCCDSEC=None))

    assert not {"CCDTEMP", "CRYOPRES", "VCCDSEC"} & set(result.metrics)
    assert severities(result) == {}


def test_a_ccd_just_switched_on_and_a_poor_vacuum_warn(check, raw_of):
    result = check(raw_of(VCCDSEC=600.0, CRYOPRES=3e-6))

    assert severities(result) == {"VCCDSEC": "WARNING", "CRYOPRES": "WARNING"}


@pytest.mark.parametrize(("exposed", "severity"), [(900.0, None), (300.0, "WARNING"), (45.0, "ALARM")])
def test_the_time_exposed_is_compared_with_the_time_asked_for(check, raw_of, exposed, severity):
    raw = raw_of(EXPTIME=exposed)
    raw.primary["EXPTIME"] = exposed

    assert severities(check(raw)).get("EXPTIME_FRACTION") == severity


def test_a_readout_of_one_value_is_an_alarm(check, raw_of):
    raw = raw_of()
    raw.pix[raw.amps[2].datasec.slices] = 2000

    result = check(raw)

    assert result.metrics["FLATPIXELS"] == 1
    assert severities(result) == {"FLATPIXELS": "ALARM"}


NONSENSE = st.one_of(st.none(), st.booleans(), st.floats(), st.integers(-(10**9), 10**9), st.text(max_size=12))


@settings(max_examples=60, deadline=None)
@given(cards=st.dictionaries(st.sampled_from(
    ["CAMERA", "EXPID", "NIGHT", "OBSTYPE", "DATE-OBS", "MJD-OBS", "CCDTEMP", "CRYOPRES", "VCCD", "CCDSIZE", "TILEID"]
), NONSENSE, min_size=1))  # fmt: skip
def test_no_card_however_strange_breaks_the_check(raw_once, cards):
    raw, context = raw_once
    strange = replace(raw, header=raw.header | cards, primary=raw.primary | cards)

    result = Check_HDUs().run(strange, context)

    assert all(np.isfinite(value) for value in result.metrics.values())


@pytest.fixture(scope="module")
def raw_once(raw_of, make_context):
    return raw_of(), make_context()
