"""Past values come from cameras that were as they should be, of current versions, with their place."""

import math

import pytest

from qlstream.pipeline.result import Check, QAResult, QASeverity
from qlstream.pipeline.runner import Cost
from qlstream.store import jobs
from qlstream.store.jobs import Policy, claim_next
from qlstream.store.reference import past_values
from qlstream.store.results import JobRecord

NIGHT = 20260115


def a_result(value, severity=QASeverity.NORMAL):
    return QAResult(
        "Get_RMS",
        metrics={"SKYCONT": 2 * value},
        per_amp={"NOISE_AMP": {"A": value, "B": math.nan}},
        per_class={"FIDSNR_TGT": {"ELG": value / 2, "LRG": None}},
        checks=(
            Check("NOISE_AMP", "A", QASeverity.NORMAL, value),
            Check("NOISE_AMP", "B", QASeverity.UNKNOWN, math.nan),
            Check("FIDSNR_TGT", "ELG", QASeverity.NORMAL, value / 2),
            Check("SKYCONT", "", severity, 2 * value),
        ),
    )


@pytest.fixture
def process(store):
    """Every camera that waits, each with the result of its number."""

    def run(severity_of=lambda expid: QASeverity.NORMAL, state_of=lambda expid: "done"):
        while (job := claim_next(store, "test", Policy())) is not None:
            record = JobRecord(store, job, "worker-1")
            record.qa_result("Preproc", a_result(float(job.expid), severity_of(job.expid)), Cost(0.1, 0.1, 1.0))
            jobs.close(store, "test", job.id, job.attempt, state_of(job.expid))

    return run


def found(store, nights=(NIGHT,), worst=QASeverity.UNKNOWN):
    return list(past_values(store, nights, lambda name: (name or "desi").lower(), worst))


def test_every_judged_value_comes_with_its_place(store, add_exposure, process):
    add_exposure(4, "dark", cameras=("r3",))

    process()

    place = (("instrument", "desi"), ("camera", "r3"), ("flavor", "dark"))
    assert [(v.metric, v.place, v.night, v.expid, v.value) for v in found(store)] == [
        ("NOISE_AMP", (*place, ("amp", "A")), NIGHT, 4, 4.0),
        ("FIDSNR_TGT", (*place, ("class", "ELG")), NIGHT, 4, 2.0),
        ("SKYCONT", place, NIGHT, 4, 8.0),
    ]


def test_only_cameras_that_were_well_teach(store, add_exposure, process):
    order = ("NORMAL", "UNKNOWN", "WARNING", "ALARM", "NORMAL")
    severities = {n + 1: QASeverity[name] for n, name in enumerate(order)}
    for expid in severities:
        add_exposure(expid, "dark")

    process(severities.get, lambda expid: "failed" if expid == 5 else "done")

    # a value that could not be judged does not make the others worse; an alarm does
    assert {v.expid for v in found(store)} == {1, 2}
    assert {v.expid for v in found(store, worst=QASeverity.WARNING)} == {1, 2, 3}
    assert {v.expid for v in found(store, worst=QASeverity.NORMAL)} == set()  # B has no value


def test_only_the_nights_and_versions_that_count(store, add_exposure, process):
    add_exposure(1, "dark")
    add_exposure(2, "dark", night=20260116)
    add_exposure(3, "dark", night=20260117)
    process()
    add_exposure(1, "dark", identity="sent again")  # its new version is not processed yet

    assert {v.expid for v in found(store, (NIGHT, 20260116))} == {2}
    assert found(store, ()) == []
