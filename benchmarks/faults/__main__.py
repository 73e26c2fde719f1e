"""Print the fault table: which alarm each simulated fault raises, over whole nights of 30 cameras.

    python -m benchmarks.faults [--instrument mini] [--cameras a0123456789] [--seed 1] [--only NAME] [--markdown FILE]

Simulates a night without faults and three nights that share all faults among them (see `nights`), and lets
`qlstream run --once` process each. The first shows how many alarms a healthy night raises: none. For each fault the
table tells what must be found, at how many places (cameras times exposures), what was not, and what was found there
that it does not explain. Alarms at places without a fault are listed below.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.faults.judge import Verdict, judged
from benchmarks.faults.night import Night, counted, process_night
from benchmarks.faults.nights import NIGHTS
from qlstream.instrument import load_instrument
from qlstream.io.camword import decode_camword, parse_cameras
from qlstream.simulate.faults import parse_fault

COLUMNS = ("fault", "must be found", "at places", "missed", "unexplained there", "right")
_SHOWN = 4  # of a list in one cell


@click.command()
@click.option("--instrument", "name", default="mini", show_default=True)
@click.option("--cameras", default="a0123456789", show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(NIGHTS)), help="these nights; repeatable")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="write the tables to this file too")
def main(name: str, cameras: str, seed: int, only: tuple[str, ...], markdown: Path | None) -> None:
    """Compare the alarms of simulated nights with the faults that were put into them."""
    instrument = load_instrument(name)
    chosen = decode_camword(parse_cameras(cameras))
    table = Table(*COLUMNS, title=f"{name}, {len(chosen)} cameras, seed {seed}")
    text = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    notes: list[str] = []
    for title in only or NIGHTS:
        faults = [parse_fault(fault, instrument) for fault in NIGHTS[title]]
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            night = process_night(instrument, Path(folder), faults, chosen, seed=seed)
            verdicts, spurious = judged(night, faults)
        notes += [f"{title} ({time.monotonic() - started:.0f} s): {summary(night, spurious)}", *spurious]
        for verdict in verdicts:
            table.add_row(*cells(verdict))
            text.append("| " + " | ".join(cells(verdict)) + " |")
        print(notes[-1 - len(spurious)], flush=True)
    console = Console(width=200, markup=False)
    console.print(table)
    print("\n".join(notes))
    if markdown:
        markdown.write_text("\n".join([*text, "", *(f"- {note}" for note in notes)]) + "\n")


def summary(night: Night, spurious: list[str]) -> str:
    """What the night showed in all, in one sentence."""
    places = len(night.jobs)
    alarms, warnings, unknowns = (counted(f.values()) for f in (night.alarms, night.warnings, night.unknowns))
    return (
        f"{places} cameras reduced; alarms where there is no fault: {len(spurious)}; "
        f"ALARM {_counts(alarms)}; WARNING {_counts(warnings)}; UNKNOWN {_counts(unknowns)}"
    )


def cells(verdict: Verdict) -> tuple[str, ...]:
    """A verdict as text."""
    return (
        verdict.fault,
        verdict.expected,
        str(verdict.places),
        _some(verdict.missed),
        _some(verdict.stray),
        "yes" if verdict.is_right else "NO",
    )


def _counts(counts: dict[str, int]) -> str:
    return f"{sum(counts.values())}" + (f" ({', '.join(f'{k} {n}' for k, n in counts.items())})" if counts else "")


def _some(texts: tuple[str, ...]) -> str:
    more = f" … {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return "; ".join(texts[:_SHOWN]) + more


if __name__ == "__main__":
    main()
