"""`qlstream status`: a night as a table, exposures by cameras; offline tasks by state; worst news below it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qlstream.cli.options import Night, redux_options
from qlstream.io.camword import decode_camword
from qlstream.pipeline.result import QASeverity
from qlstream.settings import load_settings
from qlstream.store import query
from qlstream.store import tasks as ledger
from qlstream.store.database import Store

# shape, letter, style: color is never alone
_VERDICTS = {
    QASeverity.NORMAL: ("●", "N", "green"),
    QASeverity.UNKNOWN: ("◆", "U", "cyan"),
    QASeverity.WARNING: ("▲", "W", "yellow"),
    QASeverity.ALARM: ("■", "A", "bold red"),
}
_STATES = {
    "ready": ("○", "Q", "dim"),
    "running": ("◌", "R", "blue"),
    "failed": ("✕", "F", "bold red"),
    "missing": ("✕", "M", "magenta"),
    "none": (" ", " ", ""),
}
_FAILURES = 20  # failed tasks that are told
_LEGEND = "●N normal  ▲W warning  ■A alarm  ◆U unknown  ✕F failed  ✕M missing  ◌R running  ○Q queued"


@click.command()
@redux_options
@click.argument("night", type=Night(), required=False)
@click.option("--alerts", type=int, default=10, show_default=True, metavar="N", help="list the N worst values")
@click.option("--costs", type=int, metavar="EXPID", help="print what each stage of an exposure took instead")
def status(
    redux: Path | None, store: str | None, config: Path | None, night: int | None, alerts: int, costs: int | None
) -> None:
    """Print NIGHT (YYYYMMDD; default the newest) as a table of exposures and cameras."""
    settings = load_settings(config, {"redux": redux, "store": store})
    settings.require("redux")
    assert settings.redux is not None
    if settings.store is None and not (settings.redux / "qlstream.db").exists():
        raise click.ClickException(f"no night is stored in {settings.redux}: it has no qlstream.db; check --redux")
    with Store.open(settings.store, settings.redux) as opened:
        nights: list[int] = [row["night"] for row in query.nights(opened)]
        if night is None and nights:
            night = nights[0]
        if night is None or night not in nights:
            there = ", ".join(map(str, nights)) or "no night yet"
            raise click.ClickException(f"nothing of {night or 'any night'} in {opened.name}; it holds {there}")
        console = Console(width=None if sys.stdout.isatty() else 200)
        if costs is not None:
            console.print(_cost_table(opened, night, costs))
            return
        if query.exposures_of(opened, night):
            console.print(_night_table(opened, night))
            console.print(_LEGEND, style="dim", highlight=False)
        _print_offline(console, opened, night)
        _print_reasons(console, opened, night)
        _print_alerts(console, opened, night, alerts)


def _night_table(store: Store, night: int) -> Table:
    exposures = query.exposures_of(store, night)
    jobs = {(row["expid"], row["camera"]): row for row in query.jobs_of(store, night)}
    missing = {row["expid"]: decode_camword(row["missing"]) if row["missing"] else () for row in exposures}
    cameras = sorted({camera for _, camera in jobs} | {camera for some in missing.values() for camera in some})
    cameras.sort(key=lambda camera: (camera[1:], camera[0]))
    table = Table(title=f"night {night}", title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("expid", justify="right")
    for column in ("flavor", "program"):
        table.add_column(column)
    table.add_column("exptime", justify="right")
    table.add_column("state")
    for camera in cameras:
        table.add_column(camera, justify="center", min_width=2)
    for row in exposures:
        exptime = "" if row["exptime"] is None else f"{row['exptime']:.0f} s"
        cells = [_cell(jobs.get((row["expid"], camera)), camera in missing[row["expid"]]) for camera in cameras]
        plain = (str(row["expid"]), row["flavor"] or "?", row["program"] or "", exptime, row["state"])
        table.add_row(*plain, *cells)
    return table


def _print_offline(console: Console, store: Store, night: int) -> None:
    """Tasks of the offline reduction by kind and state, if there are any, and why some failed."""
    kinds = ledger.states(store, night)
    if not kinds:
        return
    states = (ledger.DONE, ledger.RUNNING, ledger.READY, ledger.WAITING, ledger.FAILED, ledger.BLOCKED)
    shown = [state for state in states if any(count[state] for count in kinds.values())]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task")
    for state in shown:
        table.add_column(state, justify="right")
    for kind, count in kinds.items():
        table.add_row(kind, *(str(count[state] or "") for state in shown))
    console.print(f"offline reduction of {night}", style="italic", highlight=False)
    console.print(table)
    failed = ledger.of_state(store, ledger.FAILED, night)
    for row in failed[:_FAILURES]:
        console.print(f"{row['name']}: failed: {row['reason']}", style="bold red", highlight=False, markup=False)
    if len(failed) > _FAILURES:
        console.print(f"... and {len(failed) - _FAILURES} more failed", style="dim", highlight=False)


def _cost_table(store: Store, night: int, expid: int) -> Table:
    """Wall time, CPU time and peak memory of each stage; what the whole camera took stands below its stages."""
    rows = query.stage_costs(store, night, expid)
    if not rows:
        raise click.ClickException(f"nothing of exposure {expid} of {night} was processed")
    whole = {row["camera"]: row for row in query.jobs_of(store, night, expid)}
    table = Table(title=f"exposure {expid} of {night}", title_justify="left", box=None, header_style="bold")
    for column in ("camera", "stage"):
        table.add_column(column)
    for column in (r"wall \[s]", r"CPU \[s]", r"peak \[MB]"):
        table.add_column(column, justify="right")
    for camera in dict.fromkeys(row["camera"] for row in rows):
        for row in rows:
            if row["camera"] == camera:
                numbers = (row["wall_s"], row["cpu_s"], row["peak_mb"])
                table.add_row(camera, row["stage"], *_numbers(*numbers) if row["state"] == "done" else [row["state"]])
        job = whole[camera]
        wall = None if job["ended_utc"] is None else job["ended_utc"] - job["started_utc"]
        table.add_row(camera, "in all", *_numbers(wall, job["cpu_s"], job["peak_mb"]), style="bold", end_section=True)
    return table


def _numbers(wall_s: float | None, cpu_s: float | None, peak_mb: float | None) -> list[str]:
    given = ((wall_s, ".3f"), (cpu_s, ".3f"), (peak_mb, ".0f"))
    return ["" if value is None else format(value, form) for value, form in given]


def _cell(job: dict[str, Any] | None, is_missing: bool) -> Text:
    if job is None:
        shape, letter, style = _STATES["missing" if is_missing else "none"]
    elif job["state"] == "done":
        shape, letter, style = _VERDICTS[QASeverity(job["severity"] or 0)]
    else:
        shape, letter, style = _STATES.get(job["state"], _STATES["none"])
    return Text(f"{shape}{letter}", style=style)


def _print_reasons(console: Console, store: Store, night: int) -> None:
    for row in query.exposures_of(store, night):
        if row["state"] in ("waiting", "incomplete", "failed"):
            console.print(f"{row['expid']}: {row['state']}: {row['reason']}", style="magenta", highlight=False)
    for row in query.jobs_of(store, night):
        if row["state"] == "failed":
            text = f"{row['expid']} {row['camera']}: failed: {row['reason']}"
            console.print(text, style="bold red", highlight=False)


def _print_alerts(console: Console, store: Store, night: int, count: int) -> None:
    found = query.checks_worse_than(store, night, QASeverity.UNKNOWN)
    for check in found[:count]:
        shape, letter, style = _VERDICTS[QASeverity(check["severity"])]
        console.print(
            f"{shape}{letter} {check['expid']} {check['camera']}: {check['why']}", style=style, highlight=False
        )
    if len(found) > count:
        console.print(f"... and {len(found) - count} more (--alerts N lists N)", style="dim", highlight=False)
