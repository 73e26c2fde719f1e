"""How long after its file is complete does an exposure show? `python -m benchmarks.latency [--exposures N]`.

Runs the real command on a simulated `mini` night, drops science exposures of three cameras by rename, one after the
other, and reads from the event log when the dispatcher took the first camera, when the first and the last verdict were
there, and when the exposure was done. The dashboard follows the log within 50 ms.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sqlalchemy import select

from qlstream.instrument import load_instrument
from qlstream.simulate.night import simulate_night
from qlstream.store.database import Store
from qlstream.store.events import last_event_id
from qlstream.store.schema import events

NIGHT = 20260115
MOMENTS = {
    "first camera started": ("camera.started", min),
    "first verdict": ("qa.result", min),
    "last verdict": ("qa.result", max),
    "exposure done": ("exposure.done", max),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exposures", type=int, default=20, help="science exposures to drop")
    parser.add_argument("--cameras", default="b0,r0,z0")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="qlstream-latency-") as name:
        night = Path(name, "night")
        kinds = ("arc", "flat") + ("science-dark",) * options.exposures
        print(f"simulating {len(kinds)} exposures of {options.cameras} ...", flush=True)
        simulate_night(load_instrument("mini"), NIGHT, night, options.cameras.split(","), kinds=kinds)
        _report(_measure(night, Path(name), len(kinds)))


def _measure(night: Path, folder: Path, count: int) -> dict[str, list[float]]:
    """Seconds from the rename of each science exposure to each of MOMENTS."""
    raw, redux = folder / "raw", folder / "redux"
    (raw / str(NIGHT)).mkdir(parents=True)
    folders = ["--raw", raw, "--calib", night / "calib", "--redux", redux]
    command = [sys.executable, "-m", "qlstream.cli.main", "run", *map(str, folders), "--no-dashboard"]
    service = subprocess.Popen([*command, "--log-level", "ERROR"])
    found: dict[str, list[float]] = {moment: [] for moment in MOMENTS}
    try:
        while not (redux / "qlstream.db").exists():
            time.sleep(0.1)
        with Store.open(None, redux) as store:
            for expid in range(1, count + 1):
                before = last_event_id(store)
                dropped = _drop(night / "raw", raw, expid)
                times = _times(store, expid, before)
                if expid > 2:  # arc and flat come first and meet a cold start
                    for moment, (kind, which) in MOMENTS.items():
                        found[moment].append(which(times[kind]) - dropped)
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait()
    return found


def _drop(source: Path, raw: Path, expid: int) -> float:
    """Bring an exposure as a transfer does: all under temporary names, the raw file renamed last; returns when."""
    name = Path(str(NIGHT), f"{expid:08d}")
    (raw / name).mkdir()
    for path in sorted((source / name).iterdir(), key=lambda path: path.name.startswith("desi")):
        temporary = raw / name / f".{path.name}.part"
        shutil.copy(path, temporary)
        os.rename(temporary, raw / name / path.name)
    return time.time()


def _times(store: Store, expid: int, after: int) -> dict[str, list[float]]:
    """Times [s since 1970] of the exposure's events, by kind, once it is done."""
    query = select(events.c.kind, events.c.time_utc).where(events.c.id > after, events.c.expid == expid)
    while True:
        with store.read() as conn:
            rows = conn.execute(query).all()
        if any(row.kind == "exposure.done" for row in rows):
            return {kind: [row.time_utc for row in rows if row.kind == kind] for kind, _ in MOMENTS.values()}
        time.sleep(0.05)


def _report(found: dict[str, list[float]]) -> None:
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    count = len(found["first verdict"])
    print(f"{count} exposures; seconds after the file was complete; load per core {load:.1f}")
    print(f"{'':22s} {'p50':>7s} {'p95':>7s} {'worst':>7s}")
    for moment, values in found.items():
        p50, p95 = np.percentile(values, (50, 95))
        print(f"{moment:22s} {p50:7.2f} {p95:7.2f} {max(values):7.2f}")


if __name__ == "__main__":
    main()
