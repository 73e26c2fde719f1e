"""Every fault raises its alarm where it strikes and nowhere else: the fault table of the benchmarks, made small."""

from __future__ import annotations

import pytest

from benchmarks.faults.expected import EXPECTED
from benchmarks.faults.judge import judged
from benchmarks.faults.night import process_night
from benchmarks.faults.nights import NIGHTS
from qlstream.instrument import load_instrument
from qlstream.simulate.faults import KINDS, parse_fault

CAMERAS = ("b0", "r0", "z0", "b1", "r1", "z1")
EXPOSURES = ("zero", "dark", "arc", "flat", "science-dark", "science-dark")  # numbered from 1
FAULTS = (
    "noisy-amp:r0:B",
    "dead-amp:b1:C",
    "pickup:b0:D",
    "warm-ccd:z0@2",
    "light-leak:z1@2",
    "no-readout:b1@1",
    "corrupt-hdu:r1@1",
    "missing-keyword:z1@1",
    "out-of-focus:z1",
    "dead-lamp:r1:Ne@3",
    "dim-lamp:r1@4",
    "dead-fibers:r0:6-10",
    "mispositioned:r1:0-9@5",
    "clouds@6",
)


@pytest.mark.parametrize("faults", [(), FAULTS], ids=["healthy", "faulty"])
def test_alarms_are_where_the_faults_are_and_nowhere_else(tmp_path, faults):
    mini = load_instrument("mini")
    parsed = [parse_fault(text, mini) for text in faults]

    night = process_night(mini, tmp_path, parsed, CAMERAS, EXPOSURES, seed=2)

    verdicts, spurious = judged(night, parsed)
    assert spurious == []
    assert {v.fault: (v.missed, v.stray) for v in verdicts if not v.is_right} == {}
    assert len(night.jobs) == len(CAMERAS) * len(EXPOSURES)


def test_the_fault_table_knows_every_fault_that_can_be_simulated():
    struck = {parse_fault(text, load_instrument("mini")).kind for faults in NIGHTS.values() for text in faults}

    assert struck == set(KINDS) == set(EXPECTED)
