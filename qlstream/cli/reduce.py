"""`qlstream reduce`: the full offline reduction of a night."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from qlstream.cli.nightbar import NightBar
from qlstream.cli.options import Night, calib_option, raw_option, redux_options
from qlstream.engine.pool import NoWorker, preload
from qlstream.engine.sweep import sweep_temporary
from qlstream.engine.worker import DiskFull
from qlstream.instrument import Instrument, instrument_of, load_instrument
from qlstream.io.raw import read_exposure_header
from qlstream.logging import start_logging
from qlstream.production.execute import log_of
from qlstream.production.graph import Exposure, Task, build_graph
from qlstream.production.kinds import KINDS
from qlstream.production.night import enter, lacking_calibrations, raw_exposures
from qlstream.production.plan import OfflinePlan
from qlstream.production.reduce import Production
from qlstream.settings import Settings, load_settings
from qlstream.store import tasks as ledger
from qlstream.store.database import Store, StoreAway

_LISTED = 20  # failed tasks that are told one by one


@click.command()
@click.argument("night", type=Night())
@raw_option
@calib_option
@redux_options
@click.option("--instrument", help="name, YAML file, or auto for what the header says")
@click.option("--workers", type=click.IntRange(min=1), help="worker processes; default one per core")
@click.option("--plan", type=click.Path(path_type=Path, exists=True), help="offline plan; default the shipped one")
@click.option("--redo", multiple=True, type=click.Choice([k.name for k in KINDS]), help="do this kind of task again")
def reduce(
    night: int,
    raw: Path | None,
    calib: Path | None,
    redux: Path | None,
    store: str | None,
    config: Path | None,
    instrument: str | None,
    workers: int | None,
    plan: Path | None,
    redo: tuple[str, ...],
) -> None:
    """Reduce the NIGHT (YYYYMMDD) completely: calibrations, frames, sky, flux calibration, spectra, coadds.

    What is whole already is skipped, so a run that was stopped goes on where it was; a failed camera stops nobody else.
    The status is 0 if all tasks are done and all raw files could be used.
    """
    flags = {"raw": raw, "calib": calib, "redux": redux, "store": store}
    settings = load_settings(config, flags | {"instrument": instrument, "engine.workers": workers})
    settings.require("raw", "redux")
    assert settings.raw is not None
    assert settings.redux is not None  # `require` has seen to both
    steps = OfflinePlan.load(plan or settings.offline.plan)
    exposures, faults = raw_exposures(settings.raw, settings.redux, night, settings.instrument)
    kinds, unavailable = steps.available({"calib": settings.calib, "redux": settings.redux})
    lacking = lacking_calibrations(exposures, settings.calib, settings.engine.allow_expired)
    graph = build_graph(exposures, _instrument(settings, exposures), settings.redux.resolve(), kinds, lacking)
    if not graph:
        why = "".join(f"\n  {fault}" for fault in faults)
        raise click.ClickException(f"no exposure of {night} in {settings.raw} gives anything to do{why}")
    settings.redux.mkdir(parents=True, exist_ok=True)
    preload(["qlstream.production.execute", *{path.partition(":")[0] for path in steps.steps.values()}])
    with Store.open(settings.store, settings.redux) as opened:
        sweep_temporary(opened.redux)
        _work(settings, opened, steps, graph, night, redo)
        good = _table(opened, night, graph)
    for reason in faults:
        click.secho(reason, fg="red", err=True)
    for camera, calibration in sorted(lacking):
        if not any(task.camera == camera and task.kind == "psfboot" for task in graph.values()):
            click.secho(
                f"{camera}: no {calibration} in the calibration tree, nor flat and arc to start from",
                fg="red",
                err=True,
            )
            good = False
    for kind, reason in unavailable.items():
        click.echo(f"left out: {kind}: {reason}", err=True)
    if faults or not good:
        raise SystemExit(1)


def _instrument(settings: Settings, exposures: list[Exposure]) -> Instrument:
    if settings.instrument != "auto":
        return load_instrument(settings.instrument)
    return instrument_of(read_exposure_header(exposures[0].raw) if exposures else {})


def _work(
    settings: Settings, store: Store, plan: OfflinePlan, graph: Mapping[str, Task], night: int, redo: tuple[str, ...]
) -> None:
    """Run the tasks, with a bar; SIGTERM ends them as Ctrl-C does."""
    before = time.time()
    with NightBar(store, night) as bar:
        start_logging(settings.logging.level, settings.logging.file)  # to the terminal above the bar
        enter(store, dict(graph), redo)

        async def run() -> None:
            working = asyncio.current_task()
            assert working is not None
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
            follow = asyncio.ensure_future(bar.follow())
            try:
                await Production(settings, store, plan, dict(graph), bar.told).run()
            finally:
                follow.cancel()

        try:
            asyncio.run(run())
        except (KeyboardInterrupt, asyncio.CancelledError):
            bar.print("stopped; the same command goes on where it was")
            raise click.Abort from None
        except (DiskFull, NoWorker, StoreAway) as trouble:
            raise click.ClickException(f"{trouble}; then the same command goes on where it was") from trouble
    click.echo(f"{night}: {_made_since(store, night, before)} of {len(graph)} tasks done now", err=True)


def _made_since(store: Store, night: int, utc: float) -> int:
    return sum((row["started_utc"] or 0.0) >= utc for row in ledger.of_state(store, ledger.DONE, night))


def _table(store: Store, night: int, graph: Mapping[str, Task]) -> bool:
    """Print what became of the tasks; whether all are done."""
    title = f"Offline reduction of {night}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("task")
    for name in ("done", "failed", "blocked", "left", r"CPU \[s]", r"peak \[MB]"):
        table.add_column(name, justify="right")
    costs = ledger.costs(store, night)
    bad = 0
    for kind, count in ledger.states(store, night).items():
        left = sum(count[state] for state in ledger.OPEN)
        bad += left + count[ledger.FAILED] + count[ledger.BLOCKED]
        cells = [
            f"[{color}]{number}[/]" if number else ""
            for color, number in (
                ("green", count[ledger.DONE]),
                ("red", count[ledger.FAILED]),
                ("yellow", count[ledger.BLOCKED]),
                ("blue", left),
            )
        ]
        cpu, peak = costs[kind]
        table.add_row(kind, *cells, f"{cpu:.0f}", f"{peak:.0f}")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    _tell_failures(console, store, night, graph)
    return not bad


def _tell_failures(console: Console, store: Store, night: int, graph: Mapping[str, Task]) -> None:
    failed, blocked = (ledger.of_state(store, state, night) for state in (ledger.FAILED, ledger.BLOCKED))
    for row in failed[:_LISTED]:
        console.print(f"[red]{row['name']} failed[/]: ", end="")
        console.print(row["reason"], markup=False, highlight=False, soft_wrap=True)
        if row["name"] in graph:
            console.print(f"  log: {log_of(graph[row['name']], store.redux)}", highlight=False, soft_wrap=True)
    if len(failed) > _LISTED:
        console.print(f"and {len(failed) - _LISTED} more failed")
    unknown = [row["name"] for row in ledger.of_state(store, ledger.READY, night) if row["name"] not in graph]
    if unknown:
        told = f"{len(unknown)} tasks are left to others, since this plan and these exposures do not ask for them"
        console.print(f"{told}: {', '.join(unknown[:3])}", highlight=False, soft_wrap=True)
    if blocked:
        console.print(f"{len(blocked)} tasks are blocked, since they need what failed; mend it and run this again")
