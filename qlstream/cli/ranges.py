"""`qlstream ranges`: what is normal for each camera, learned from past nights, and what judges a metric now."""

from __future__ import annotations

import difflib
import re
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from qlstream import __version__
from qlstream.cli.options import Night, redux_options
from qlstream.instrument import instrument_of
from qlstream.io.nights import validate_night
from qlstream.pipeline.learned import LearnedRanges, Provenance, learned_nights, learned_path
from qlstream.pipeline.learning import Lesson, learn
from qlstream.pipeline.plan import FLAVORS
from qlstream.pipeline.ranges import Ranges, learned_folder
from qlstream.pipeline.result import QASeverity
from qlstream.pipeline.rule import Interval, LearnedRule, Rule
from qlstream.settings import Settings, load_settings
from qlstream.store import query
from qlstream.store.database import Store
from qlstream.store.reference import past_values

_NEWEST = 30  # nights that are learned from if none are named
_PROGRAMS = ("dark", "gray", "bright", "backup", "other")
_LEVELS = {"normal": QASeverity.NORMAL, "unknown": QASeverity.UNKNOWN, "warning": QASeverity.WARNING}


class Nights(click.ParamType):  # type: ignore[type-arg]
    """Nights as "20260101-20260114,20260120": (first, last) of each span."""

    name = "nights"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[tuple[int, int]]:
        spans = []
        for part in str(value).replace(" ", "").split(","):
            match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
            if match is None:
                self.fail(f"{part!r} is no night and no range of nights; expected YYYYMMDD or YYYYMMDD-YYYYMMDD")
            first, last = match[1], match[2] or match[1]
            try:
                spans.append(
                    (int(validate_night(first).strftime("%Y%m%d")), int(validate_night(last).strftime("%Y%m%d")))
                )
            except ValueError as error:
                self.fail(str(error), param, ctx)
        return spans


@click.group()
def ranges() -> None:
    """Learn what is normal for each camera from past nights; show what judges a metric."""


@ranges.command("learn")
@redux_options
@click.option("--nights", type=Nights(), help=f"such as 20260101-20260114,20260120; default the {_NEWEST} newest")
@click.option(
    "--valid-from", type=Night(), help="first night to judge by them; default the day after the newest stored"
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="file; default where workers look for it")
@click.option("--minimum", type=click.IntRange(3), default=20, show_default=True, help="exposures that a range needs")
@click.option("--min-nights", type=click.IntRange(1), default=3, show_default=True, help="nights that a range needs")
@click.option(
    "--up-to", type=click.Choice(list(_LEVELS)), default="unknown", show_default=True,
    help="worst verdict of a camera that is learned from",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="replace the ranges of the same first night")
def learn_command(
    redux: Path | None,
    store: str | None,
    config: Path | None,
    nights: list[tuple[int, int]] | None,
    valid_from: int | None,
    out: Path | None,
    minimum: int,
    min_nights: int,
    up_to: str,
    overwrite: bool,
) -> None:
    """Learn the range of every metric for each camera, amplifier, flavor and program from past exposures.

    Normal is within 3 robust standard deviations of the median, WARNING within 5; what the written ranges call ALARM
    stays an ALARM. The result judges nights from --valid-from on, until a newer file does.
    """
    settings, opened = _open(redux, store, config)
    written = Ranges.from_settings(settings)
    with opened:
        stored = sorted(row["night"] for row in query.nights(opened))
        chosen = [n for n in stored if any(a <= n <= b for a, b in nights)] if nights else stored[-_NEWEST:]
        if not chosen:
            there = f"{stored[0]} to {stored[-1]}" if stored else "no night yet"
            raise click.ClickException(f"no stored night is among the chosen ones; {opened.name} holds {there}")
        first = valid_from or _day_after(stored[-1])
        if first <= chosen[-1]:
            raise click.ClickException(
                f"--valid-from {first}: these ranges come from nights up to {chosen[-1]}, which they must not judge; "
                f"take {_day_after(chosen[-1])} or later, or leave out nights"
            )
        folder = learned_folder(settings)
        assert folder is not None  # there is a production
        path = out or learned_path(folder, first)
        if path.exists() and not overwrite:
            raise click.ClickException(
                f"{path} exists: nights have been judged by it; take another --valid-from, or --overwrite"
            )
        values = past_values(opened, chosen, lambda name: _instrument(settings, name), _LEVELS[up_to])
        lesson = learn(values, written, minimum, min_nights)
    console = Console(width=None if sys.stdout.isatty() else 120)
    _print_lesson(console, lesson, minimum, min_nights)
    if not lesson.rules:
        raise click.ClickException("nothing learned; give more --nights, or see --minimum, --min-nights and --up-to")
    if stored[-1] >= first:
        console.print(
            f"night {first} and later are stored already: a replay would be judged by these ranges, unlike then"
        )
    provenance = Provenance(
        made_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        by=f"qlstream {__version__}",
        nights=lesson.nights,
        exposures=lesson.exposures,
        taken=f"cameras with verdict {up_to.upper()} or better",
        around=written.written_version,
    )
    LearnedRanges(first, provenance, lesson.rules).write(path)
    console.print(f"wrote {path}: {len(lesson.rules)} ranges, valid from {first} on", highlight=False, soft_wrap=True)


@ranges.command()
@redux_options
@click.argument("metric")
@click.option("--camera", required=True, metavar="CAMERA", help="such as r3")
@click.option("--night", type=Night(), help="as judged on this night; default today")
@click.option("--flavor", type=click.Choice(FLAVORS), help="only this kind of exposure")
@click.option("--instrument", default="desi", show_default=True, help="name of the instrument")
def show(
    redux: Path | None,
    store: str | None,
    config: Path | None,
    metric: str,
    camera: str,
    night: int | None,
    flavor: str | None,
    instrument: str,
) -> None:
    """Print what judges METRIC (such as NOISE_AMP) of a camera, and where that range comes from."""
    settings = load_settings(config, {"redux": redux, "store": store})
    night = night or int(datetime.now(UTC).strftime("%Y%m%d"))
    there = Ranges.from_settings(settings).on(night)
    if metric in there.unjudged and metric not in there:
        click.echo(f"{metric} is not judged: {there.unjudged[metric]}")
        return
    if metric not in there:
        close = difflib.get_close_matches(metric, [*there.metrics, *there.unjudged], n=1)
        raise click.ClickException(f"no range for {metric!r}" + (f"; did you mean {close[0]}?" if close else ""))
    title = f"{metric} of {camera} on {night} ({there.version})"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("flavor", "program", "element", "normal", "warning", "from"):
        table.add_column(column)
    for kind in [flavor] if flavor else FLAVORS:
        for program in _PROGRAMS if kind == "science" else ("",):
            place = {
                "instrument": instrument, "camera": camera.lower(), "arm": camera[:1].lower(), "flavor": kind,
                "program": program,
            }  # fmt: skip
            for element, rule in _elements(there, metric, place):
                table.add_row(kind, program, element, _shown(rule.normal), _shown(rule.warn), _origin(there, rule))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@ranges.command("list")
@redux_options
def list_command(redux: Path | None, store: str | None, config: Path | None) -> None:
    """List the learned ranges of this production: from which night on, and what they were made of."""
    settings = load_settings(config, {"redux": redux, "store": store})
    settings.require("redux")
    folder = learned_folder(settings)
    assert folder is not None
    table = Table(title=str(folder), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("valid from", "nights", "exposures", "ranges", "made"):
        table.add_column(column)
    for night in learned_nights(folder):
        learned = LearnedRanges.load(learned_path(folder, night))
        made = learned.provenance
        nights = f"{len(made.nights)}: {made.nights[0]} to {made.nights[-1]}"
        table.add_row(str(night), nights, str(made.exposures), str(len(learned.rules)), f"{made.made_utc} {made.by}")
    if table.row_count == 0:
        click.echo(f"{folder}: no learned ranges yet; see `qlstream ranges learn --help`")
        return
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _open(redux: Path | None, store: str | None, config: Path | None) -> tuple[Settings, Store]:
    settings = load_settings(config, {"redux": redux, "store": store})
    settings.require("redux")
    assert settings.redux is not None
    if settings.store is None and not (settings.redux / "qlstream.db").exists():
        raise click.ClickException(f"no night is stored in {settings.redux}: it has no qlstream.db; check --redux")
    return settings, Store.open(settings.store, settings.redux)


def _instrument(settings: Settings, name: str | None) -> str:
    return instrument_of({"INSTRUME": name or ""}, settings.instrument).name


def _day_after(night: int) -> int:
    return int((validate_night(str(night)) + timedelta(days=1)).strftime("%Y%m%d"))


def _print_lesson(console: Console, lesson: Lesson, minimum: int, min_nights: int) -> None:
    learned = Counter(rule.metric for rule in lesson.rules)
    table = Table("metric", "learned", "too few", box=None, pad_edge=False, header_style="bold")
    for metric in sorted({*learned, *lesson.too_few}):
        table.add_row(metric, str(learned[metric]), str(lesson.too_few.get(metric, 0) or ""))
    if table.row_count:
        console.print(table)
    if lesson.too_few:
        console.print(
            f"too few: under {minimum} exposures or {min_nights} nights; the written range stays", style="dim"
        )
    for sentence in lesson.outside[:20]:
        console.print(f"not learned: {sentence}", style="yellow", highlight=False, soft_wrap=True)
    if len(lesson.outside) > 20:
        console.print(f"... and {len(lesson.outside) - 20} more that are usually an ALARM", style="yellow")


def _elements(there: Ranges, metric: str, place: dict[str, str]) -> list[tuple[str, Rule]]:
    """What judges the metric here: the rule for all its elements, or one each where they differ."""
    found: list[tuple[str, Rule]] = []
    whole = there.find(metric, place)
    for kind, name in there.elements_of(metric, place):
        rule = there.find(metric, {**place, kind: name})
        if rule is not None and rule != whole:
            found.append((name, rule))
    rest = [] if whole is None else [("" if not found else "others", whole)]
    return found + rest


def _origin(there: Ranges, rule: Rule) -> str:
    if isinstance(rule, LearnedRule):
        learned = rule.learned
        return f"learned: {learned.n} exposures, median {learned.median:g}, sigma {learned.sigma:.3g}"
    return "written"


def _shown(interval: Interval) -> str:
    return f"{interval[0]:g} to {interval[1]:g}"
