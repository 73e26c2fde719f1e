"""Is a night that was disturbed the same as one that was not?

    python -m benchmarks.offline.interrupted [--instrument mini] [--cameras a012] [--folder DIR] [--workers 2]

Simulates a night (3 spectrographs x 3 arms, 2 tiles, 4 science exposures), reduces it by `qlstream reduce` undisturbed,
and again, each time in a production folder of its own,

    killed   with all its processes (SIGKILL) after a third and after two thirds of the products, and started again
    worker   while worker processes are killed one by one
    two      by two commands at the same time

Every array and table of every product must equal that of the undisturbed night, no temporary file may be left as a
product, and no task may be done twice but for what was in hand when it was killed. Ends with status 1 otherwise.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import fitsio
import numpy as np
import psutil

from qlstream.store import tasks as ledger
from qlstream.store.database import Store

NIGHT = 20260115
KINDS = ("arc", "arc", "flat", "flat", "science-dark", "science-dark", "science-bright", "science-bright")
COMMAND = (sys.executable, "-c", "from qlstream.cli.main import main; main()")


@click.command()
@click.option("--instrument", default="mini", show_default=True)
@click.option("--cameras", default="a012", show_default=True)
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="keep everything here")
@click.option("--workers", default=2, show_default=True)
def main(instrument: str, cameras: str, folder: Path | None, workers: int) -> None:
    """Print what became of each night."""
    with tempfile.TemporaryDirectory() as scratch:
        trial = Trial(folder or Path(scratch), workers)
        trial.simulate(instrument, cameras)
        undisturbed = trial.redux("undisturbed")
        trial.reduce("undisturbed").wait()
        expected = products(undisturbed)
        print(f"undisturbed: {len(expected)} products, {len(tasks(undisturbed))} tasks", flush=True)
        good = [trial.tell(name, disturb, expected) for name, disturb in DISTURBANCES.items()]
    raise SystemExit(0 if all(good) else 1)


class Trial:
    """A simulated night, and its productions.

    Parameters
    ----------
    folder : gets raw/, calib/, truth/ and a folder for each production
    workers : of each command
    """

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder, self.workers = folder, workers

    def simulate(self, instrument: str, cameras: str) -> None:
        """The raw exposures, if they are not there."""
        if not (self.folder / "raw").exists():
            options = ["--instrument", instrument, "--cameras", cameras, "--exposures", ",".join(KINDS)]
            subprocess.run(
                [*COMMAND, "simulate", "--night", str(NIGHT), *options, "--out", str(self.folder)], check=True
            )

    def redux(self, name: str) -> Path:
        return self.folder / name

    def reduce(self, name: str) -> subprocess.Popen[bytes]:
        """The command, begun in a process group of its own; what it tells goes to NAME.log."""
        command = [*COMMAND, "reduce", str(NIGHT), "--redux", str(self.redux(name)), "--workers", str(self.workers)]
        for kind in ("raw", "calib"):
            command += [f"--{kind}", str(self.folder / kind)]
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def tell(self, name: str, disturb: Callable[[Trial, str, int], list[int]], expected: dict[str, Path]) -> bool:
        """Whether all went well; one line about it."""
        start = time.monotonic()
        statuses = disturb(self, name, len(expected))
        found = products(self.redux(name))
        other = [n for n in expected.keys() & found.keys() if differ(found[n], expected[n])]
        attempts = [row["attempt"] for row in tasks(self.redux(name))]
        twice = sum(attempts) - len(attempts)
        good = not any(statuses) and found.keys() == expected.keys() and not other and twice <= 2 * self.workers
        print(
            f"{name}: status {statuses}, {len(found)} products, {len(other)} differ, {twice} attempts too many, "
            f"{time.monotonic() - start:.0f} s: {'ok' if good else 'WRONG'}",
            *(f"  differs: {path}" for path in other[:10]),
            sep="\n",
            flush=True,
        )
        return good


def killed(trial: Trial, name: str, number: int) -> list[int]:
    """Kill the whole process group twice on the way."""
    for share in (1 / 3, 2 / 3):
        process = trial.reduce(name)
        while len(products(trial.redux(name))) < share * number and process.poll() is None:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return [trial.reduce(name).wait()]


def worker(trial: Trial, name: str, number: int) -> list[int]:
    """Kill the youngest worker process now and then."""
    process = trial.reduce(name)
    for share in (0.2, 0.4, 0.6, 0.8):
        while len(products(trial.redux(name))) < share * number and process.poll() is None:
            time.sleep(0.1)
        workers = [p for p in psutil.Process(process.pid).children(recursive=True) if not p.children()]
        max(workers, key=lambda p: p.create_time()).kill()
    return [process.wait()]


def two(trial: Trial, name: str, _number: int) -> list[int]:
    """Two commands, the second a little later."""
    first = trial.reduce(name)
    time.sleep(5.0)
    second = trial.reduce(name)
    return [first.wait(), second.wait()]


DISTURBANCES: dict[str, Callable[[Trial, str, int], list[int]]] = {"killed": killed, "worker": worker, "two": two}


def products(redux: Path) -> dict[str, Path]:
    """Product, relative to its production -> file."""
    folders = ("preproc", "exposures", "calibnight", "tiles")
    found = [path for folder in folders for path in (redux / folder).rglob("*.fits*") if "_tmp" not in path.name]
    return {str(path.relative_to(redux)): path for path in found}


def tasks(redux: Path) -> list[dict[str, Any]]:
    """All tasks of the store."""
    with Store.open(None, redux) as store:
        return [dict(row) for state in (ledger.DONE, ledger.FAILED) for row in ledger.of_state(store, state, NIGHT)]


def differ(one: Path, two: Path) -> bool:
    """Whether any array or table of two files differs, bit by bit."""
    with fitsio.FITS(str(one)) as mine, fitsio.FITS(str(two)) as other:
        if [hdu.get_extname() for hdu in mine] != [hdu.get_extname() for hdu in other]:
            return True
        pairs = [(a.read(), b.read()) for a, b in zip(mine, other, strict=True) if a.has_data()]
    return any(
        a.shape != b.shape or np.ascontiguousarray(a).tobytes() != np.ascontiguousarray(b).tobytes() for a, b in pairs
    )


if __name__ == "__main__":
    main()
