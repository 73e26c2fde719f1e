"""`qlstream reduce`: the full offline reduction of a night."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from qlstream.cli.options import Night, calib_option, raw_option, redux_options
from qlstream.engine.pool import preload
from qlstream.instrument import Instrument, instrument_of, load_instrument
from qlstream.io.raw import read_exposure_header
from qlstream.logging import start_logging
from qlstream.pipeline.plan import PlanError
from qlstream.production.kinds import KINDS
from qlstream.production.plan import OfflinePlan
from qlstream.production.reduce import Production, prepare_night, raw_exposures
from qlstream.settings import Settings, load_settings
from qlstream.store import tasks as ledger
from qlstream.store.database import Store

_STATES = (ledger.DONE, ledger.FAILED, ledger.BLOCKED, ledger.READY, ledger.WAITING, ledger.RUNNING)


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
    """
    flags = {"raw": raw, "calib": calib, "redux": redux, "store": store}
    settings = load_settings(config, flags | {"instrument": instrument, "engine.workers": workers})
    settings.require("raw", "redux")
    assert settings.raw is not None
    assert settings.redux is not None  # `require` has seen to both
    start_logging(settings.logging.level, settings.logging.file)
    try:
        steps = OfflinePlan.load(plan or settings.offline.plan)
    except PlanError as error:
        raise click.ClickException(str(error)) from None
    settings.redux.mkdir(parents=True, exist_ok=True)
    preload(["qlstream.production.execute", *{path.partition(":")[0] for path in steps.steps.values()}])
    with Store.open(settings.store, settings.redux) as opened:
        graph, unusable = prepare_night(
            opened, settings.raw, settings.calib, night, _instrument(settings, night), steps, settings.instrument, redo
        )
        if not graph:
            raise click.ClickException(f"no exposure of {night} in {settings.raw} gives anything to do")
        _work(settings, opened, steps, graph, night)
        for reason in unusable:
            click.echo(f"left out: {reason}", err=True)
        good = _table(opened, night)
    if not good:
        raise SystemExit(1)


def _instrument(settings: Settings, night: int) -> Instrument:
    assert settings.raw is not None
    assert settings.redux is not None
    if settings.instrument != "auto":
        return load_instrument(settings.instrument)
    found, _ = raw_exposures(settings.raw, settings.redux, night)
    return instrument_of(read_exposure_header(found[0].raw) if found else {})


def _work(settings: Settings, store: Store, plan: OfflinePlan, graph: dict[str, Any], night: int) -> None:
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description:28s}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        already = ledger.states_of(store, graph)
        bar = progress.add_task(f"{night}", total=len(graph), completed=sum(s == ledger.DONE for s in already.values()))

        def told(name: str, state: str, reason: str) -> None:
            if state == ledger.RUNNING:
                progress.update(bar, description=name)
                return
            progress.advance(bar)
            if state == ledger.FAILED:
                console.print(f"[red]{name} failed[/]: {reason}", highlight=False)

        asyncio.run(Production(settings, store, plan, graph, told).run())


def _table(store: Store, night: int) -> bool:
    """Print what became of the tasks; whether all are done."""
    table = Table("task", *_STATES[:3], "left", title=f"Offline reduction of {night}", title_justify="left")
    left_over = False
    for kind, count in ledger.states(store, night).items():
        left = sum(count[s] for s in _STATES[3:])
        left_over |= bool(left or count[ledger.FAILED] or count[ledger.BLOCKED])
        colours = ("green", "red", "yellow")
        cells = [f"[{c}]{count[s]}[/]" if count[s] else "" for s, c in zip(_STATES[:3], colours, strict=True)]
        table.add_row(kind, *cells, str(left or ""))
    console = Console()
    console.print(table)
    for state in (ledger.FAILED, ledger.BLOCKED):
        rows = ledger.of_state(store, state, night)
        for row in rows[:20]:
            console.print(f"{row['name']} {state}: {row['reason']}", highlight=False)
        if len(rows) > 20:
            console.print(f"… and {len(rows) - 20} more {state}")
    return not left_over
