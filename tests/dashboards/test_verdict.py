"""The sentences that an observer reads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dashboards.records import Camera, Exposure, Finding
from dashboards.status import Status
from dashboards.verdict import alerts_of, camera_list, headline, interval, quantity

NIGHT = 20260115


def finding(expid: int, camera: str = "r3", element: str = "C", severity: int = 30, measured: float = 9.3) -> Finding:
    why = f"NOISE_AMP of {element} = {measured} electron, above the normal 4.1: read noise unusual"
    return Finding(expid, camera, "Get_RMS", "NOISE_AMP", element, severity, measured, (1.7, 4.1), "electron", why, 0.0)


def exposure(expid: int, *cameras: Camera, flavor: str = "science", state: str = "done", reason: str = "") -> Exposure:
    found = {camera.camera: camera for camera in cameras}
    return Exposure(NIGHT, expid, state, reason, flavor=flavor, cameras=found)


def camera(name: str, *findings: Finding, state: str = "done") -> Camera:
    severity = max((f.severity for f in findings), default=0)
    return Camera(name, state, severity=severity, findings=findings)


def test_noise_that_stays_is_one_alert_however_many_exposures_show_it():
    night = [exposure(expid, camera("r3", finding(expid)), camera("b0")) for expid in (1, 2, 3)]

    (alert,) = alerts_of(night)

    assert (alert.status, alert.first, alert.last, alert.count, alert.is_open) == (Status.ALARM, 1, 3, 3, True)
    assert alert.sentence == "Read noise of r3 amp C is 9.3 electron, normal is 1.7 to 4.1"
    assert alert.detail == "Read noise unusual"


def test_an_alert_is_past_once_a_later_exposure_of_the_same_kind_is_free_of_it():
    night = [exposure(1, camera("r3", finding(1))), exposure(2, camera("r3"))]

    (alert,) = alerts_of(night)

    assert not alert.is_open


def test_an_alert_stays_open_while_later_exposures_are_of_another_kind_or_not_done():
    night = [
        exposure(1, camera("r3", finding(1)), flavor="flat"),
        exposure(2, camera("r3"), flavor="science"),
        exposure(3, camera("r3", state="running"), flavor="flat", state="ready"),
    ]

    assert [alert.is_open for alert in alerts_of(night)] == [True]


def test_the_same_trouble_in_many_cameras_is_one_alert_that_names_the_worst():
    names = [f"{arm}{n}" for arm in "brz" for n in range(10)]
    cameras = [camera(n, finding(5, n, measured=12.0 if n == "z4" else 8.0)) for n in names]

    (alert,) = alerts_of([exposure(5, *cameras)])

    assert alert.sentence.startswith("Read noise high in 30 cameras (b0 to z9); worst is z4 amp C with 12 electron")
    assert len(alert.cameras) == 30


def test_worst_comes_first_and_unknown_values_raise_no_alert():
    night = [
        exposure(1, camera("b0", finding(1, "b0", "A", severity=20, measured=4.5)), camera("r3", finding(1))),
        exposure(2, camera("b0", state="failed")),
        exposure(3, camera("z0", finding(3, "z0", severity=10)), flavor="dark"),
    ]

    ranks = [alert.status for alert in alerts_of(night)]

    assert ranks == [Status.FAILED, Status.ALARM, Status.WARNING]


def test_the_cause_is_told_before_what_it_brings_about():
    """A noisy amplifier shows fewer lit pixels, too, since what is lit is told from the noise."""
    unlit = replace(finding(9), metric="LITFRAC_AMP", result="Count_Pixels", measured=0.02, normal=(0.1, 0.65), unit="")

    assert headline(exposure(9, camera("r3", unlit, finding(9)))).startswith("Read noise of r3 amp C is 9.3 electron")


def test_an_exposure_is_as_bad_as_its_worst_camera_and_good_only_at_the_end():
    running = exposure(1, camera("b0"), camera("r0", state="running"), state="ready")
    alarmed = exposure(1, camera("b0", finding(1, "b0")), camera("r0", state="running"), state="ready")

    assert running.status is Status.RUNNING
    assert headline(running) == "1 of 2 cameras ready, nothing wrong so far."
    assert alarmed.status is Status.ALARM
    assert exposure(1, camera("b0")).status is Status.NORMAL
    assert exposure(1, state="incomplete", reason="gave up").status is Status.FAILED


def test_one_trouble_of_different_severity_in_several_flavors_is_one_alert_as_bad_as_the_worst():
    night = [
        exposure(1, camera("r3", finding(1)), flavor="flat"),
        exposure(2, camera("r3", finding(2, severity=20, measured=4.5)), flavor="science"),
    ]

    (alert,) = alerts_of(night)

    assert (alert.status, alert.count, alert.last) == (Status.ALARM, 2, 2)


def test_a_missing_camera_is_told_as_such():
    gone = Camera("r1", "missing", reason="promised by the header")

    (alert,) = alerts_of([exposure(1, camera("b0"), gone)])

    assert alert.status is Status.MISSING
    assert alert.sentence == "r1 is missing from the file"


def test_a_finding_without_a_value_or_range_has_a_sentence_too():
    lost = replace(finding(1), measured=None, normal=None)

    (alert,) = alerts_of([exposure(1, camera("r3", lost))])

    assert "no value" in alert.sentence


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (3.14159, "3.14"), (1990.2, "1 990"), (2.36e-4, "2.4e-4"), (-0.0925, "-0.0925"), (None, "no value")],
)
def test_numbers_read_like_numbers(value, text):
    assert quantity(value) == text


def test_ranges_and_lists_read_like_speech():
    assert interval((1.7, 4.1)) == "1.7 to 4.1"
    assert interval((None, 2.0)) == "at most 2"
    assert interval((0.5, None)) == "at least 0.5"
    assert interval((0.0, 0.0)) == "0"
    assert camera_list(["z0", "b0", "r0"]) == "b0, r0 and z0"
    assert camera_list(["r3"]) == "r3"
