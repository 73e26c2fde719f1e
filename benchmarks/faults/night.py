"""A simulated night, processed by the real service, and what was found wrong in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qlstream.instrument import Instrument
from qlstream.pipeline.result import QASeverity
from qlstream.simulate.faults import Fault
from qlstream.simulate.night import simulate_night
from qlstream.simulate.schedule import Exposure, plan_night
from qlstream.simulate.throughput import build_fibers
from qlstream.store import query
from qlstream.store.database import Store

KINDS = (
    "zero", "zero", "dark", "arc", "arc", "flat", "flat", "flat",
    "science-dark", "science-dark", "science-gray", "science-bright", "science-bright",
)  # fmt: skip
Place = tuple[int, str]  # exposure, camera
Finding = tuple[str, str]  # metric, element
# Waits of the service that a night which is already there need not sit through.
_QUICK = {
    "QLSTREAM_INGEST_SETTLE_S": "0.5",
    "QLSTREAM_INGEST_GIVE_UP_S": "8",
    "QLSTREAM_INGEST_FIBERMAP_WAIT_S": "4",
}


@dataclass(frozen=True)
class Night:
    """What became of a night.

    Attributes
    ----------
    plan : its exposures
    cameras : that were simulated
    alarms, warnings, unknowns : where -> checks of that severity
    exposures : exposure -> its row of the store: state, reason, missing ...
    jobs : where -> row of the store: state, reason ...
    known : camera -> fibers that FIBERSTATUS tells to be broken, weak or stuck, whatever the faults
    redux : production folder
    """

    plan: tuple[Exposure, ...]
    cameras: tuple[str, ...]
    alarms: dict[Place, set[Finding]] = field(default_factory=dict)
    warnings: dict[Place, set[Finding]] = field(default_factory=dict)
    unknowns: dict[Place, set[Finding]] = field(default_factory=dict)
    exposures: dict[int, dict[str, Any]] = field(default_factory=dict)
    jobs: dict[Place, dict[str, Any]] = field(default_factory=dict)
    known: dict[str, frozenset[int]] = field(default_factory=dict)
    redux: Path = Path()

    def fibers(self, place: Place, name: str, key: str) -> Any:
        """The per-fiber array `key` of the metric class `name`; None if there is none."""
        with Store.open(None, self.redux) as store:
            for row in query.qa_of(store, self.plan[0].night, *place):
                if row["name"] == name and row["vectors"]:
                    return query.vectors(store, row["vectors"])["per_fiber"].get(key)
        return None


def process_night(
    instrument: Instrument,
    folder: Path,
    faults: Sequence[Fault],
    cameras: Sequence[str] | None = None,
    kinds: Sequence[str] = KINDS,
    night: int = 20260115,
    seed: int = 1,
    learned: Path | None = None,
) -> Night:
    """Simulate a night with these faults and let `qlstream run --once` process it.

    Parameters
    ----------
    folder : gets raw, calib, truth and redux
    cameras : all of the instrument if not given
    learned : folder of learned reference ranges, if these shall judge
    """
    chosen = tuple(cameras or instrument.cameras)
    simulate_night(instrument, night, folder, chosen, seed, faults, kinds)
    _run(folder, {} if learned is None else {"QLSTREAM_ENGINE_LEARNED_RANGES": str(learned)})
    known = {camera: _known(instrument, camera, seed) for camera in chosen}
    return _read(Night(plan_night(night, seed, kinds), chosen, known=known, redux=folder / "redux"))


def learned_ranges(
    instrument: Instrument, folder: Path, nights: Sequence[int], cameras: Sequence[str] | None = None, seed: int = 1
) -> Path:
    """The folder of ranges that `qlstream ranges learn` makes from healthy nights of these cameras."""
    for night in nights:
        simulate_night(instrument, night, folder, cameras or instrument.cameras, seed, kinds=KINDS)
    _run(folder, {})
    few = ["--minimum", str(min(KINDS.count(kind) for kind in KINDS) * len(nights)), "--min-nights", str(len(nights))]
    _command(["ranges", "learn", "--redux", str(folder / "redux"), "--up-to", "warning", *few])
    return folder / "redux" / "qlstream" / "ranges"


def _run(folder: Path, settings: Mapping[str, str]) -> None:
    """Process all that lies in `folder`; some exposures may turn out to be of no use."""
    folders = [f"--{name}={folder / name}" for name in ("raw", "calib", "redux")]
    options = ["--once", "--no-dashboard", "--workers=2", "--log-level=ERROR"]
    _command(["run", *folders, *options], settings, may_end_with=(0, 1))


def _command(
    arguments: Sequence[str], settings: Mapping[str, str] | None = None, may_end_with: tuple[int, ...] = (0,)
) -> None:
    command = [sys.executable, "-m", "qlstream.cli.main", *arguments]
    environment = {**os.environ, **_QUICK, **(settings or {})}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode not in may_end_with:
        raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}\n{done.stderr[-2000:]}")


def _known(instrument: Instrument, camera: str, seed: int) -> frozenset[int]:
    state = build_fibers(instrument, instrument.spectrograph(camera), seed)
    return frozenset(np.flatnonzero(state.is_broken | state.is_low | state.is_stuck).tolist())


def _read(found: Night) -> Night:
    by_severity = {
        QASeverity.ALARM: found.alarms,
        QASeverity.WARNING: found.warnings,
        QASeverity.UNKNOWN: found.unknowns,
    }
    night = found.plan[0].night
    with Store.open(None, found.redux) as store:
        for check in query.checks_worse_than(store, night, QASeverity.NORMAL):
            place = check["expid"], check["camera"]
            by_severity[QASeverity(check["severity"])].setdefault(place, set()).add((check["metric"], check["element"]))
        found.exposures.update({row["expid"]: row for row in query.exposures_of(store, night)})
        found.jobs.update({(row["expid"], row["camera"]): row for row in query.jobs_of(store, night)})
    if not found.jobs:
        raise RuntimeError(f"{found.redux}: not one camera of night {night} was reduced")
    return found


def counted(findings: Iterable[set[Finding]]) -> dict[str, int]:
    """metric -> how often it was found, most often first."""
    total: dict[str, int] = {}
    for some in findings:
        for metric, _ in some:
            total[metric] = total.get(metric, 0) + 1
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
