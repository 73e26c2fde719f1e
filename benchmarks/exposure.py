"""What one full-size exposure costs: `qlstream run --once`, then every camera's stages from the store.

    python -m benchmarks.exposure [--instrument desi] [--cameras b0,r0,z0] [--folder DIR]

Simulates an arc, a flat and a science exposure and processes them into two folders, the second of which has warm
kernels and unpacked calibration images. Prints wall time, CPU time and peak memory of each stage of the science
exposure. D is the median of five warm reads of the same HDU, measured in the same run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.timing import reading_time
from qlstream.instrument import load_instrument
from qlstream.io.camword import decode_camword, parse_cameras
from qlstream.simulate.night import simulate_night
from qlstream.store.database import Store
from qlstream.store.query import jobs_of, stage_costs

NIGHT = 20260115
KINDS = ("arc", "flat", "science-dark")


@click.command()
@click.option("--instrument", default="desi", show_default=True)
@click.option("--cameras", default="b0,r0,z0", show_default=True)
@click.option("--workers", default=1, show_default=True, help="one, so that cameras do not compete")
@click.option("--folder", type=click.Path(path_type=Path), help="keep the simulated exposures here")
def main(instrument: str, cameras: str, workers: int, folder: Path | None) -> None:
    """Print what each stage of a science exposure costs."""
    with tempfile.TemporaryDirectory() as scratch:
        night = folder or Path(scratch) / "night"
        if not (night / "raw").exists():
            chosen = decode_camword(parse_cameras(cameras))
            simulate_night(load_instrument(instrument), NIGHT, night, chosen, kinds=KINDS)
        redux = Path(scratch)
        for name in ("cold", "warm"):
            redux = Path(scratch) / name
            if name == "warm":
                shutil.copytree(Path(scratch, "cold", "qlstream", "cache"), redux / "qlstream" / "cache")
            command = ["run", "--raw", night / "raw", "--calib", night / "calib", "--redux", redux]
            options = ["--once", "--no-dashboard", "--workers", workers, "--log-level", "ERROR"]
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "qlstream.cli.main", *map(str, command + options)], check=True)
            print(f"{name} run of {len(KINDS)} exposures: {time.perf_counter() - start:.1f} s")
        expid = len(KINDS)
        raw = night / f"raw/{NIGHT}/{expid:08d}/desi-{expid:08d}.fits.fz"
        with Store.open(None, redux) as store:
            _print(store, expid, raw)


def _print(store: Store, expid: int, raw: Path) -> None:
    columns = ("camera", "stage", "wall [s]", "CPU [s]", "wall / D", "peak [MB]")
    table = Table(*columns, title=f"exposure {expid}, one worker")
    for job in jobs_of(store, NIGHT, expid):
        read_s = reading_time(raw, job["camera"])
        for cost in stage_costs(store, NIGHT, expid, job["camera"]):
            _add(table, job["camera"], cost["stage"], cost["wall_s"], cost["cpu_s"], cost["peak_mb"], read_s)
        told = f"all, with reading (D = {read_s:.3f} s), metrics and products"
        wall = job["ended_utc"] - job["started_utc"]
        _add(table, job["camera"], told, wall, job["cpu_s"], job["peak_mb"], read_s)
        table.add_section()
    Console(width=130).print(table)


def _add(
    table: Table, camera: str, what: str, wall: float | None, cpu: float | None, peak: float | None, read_s: float
) -> None:
    wall, cpu, peak = wall or 0.0, cpu or 0.0, peak or 0.0
    table.add_row(camera, what, f"{wall:.3f}", f"{cpu:.3f}", f"{wall / read_s:.2f}", f"{peak:.0f}")


if __name__ == "__main__":
    main()
