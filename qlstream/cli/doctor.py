"""`qlstream doctor`: what this machine lacks, and what to do about it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import click
from rich.console import Console

from qlstream.cli.options import calib_option, raw_option, redux_options
from qlstream.engine.dashboard_process import PortTaken, settle_port
from qlstream.engine.kernel_cache import find_cache, is_warm
from qlstream.engine.lock import AlreadyRunning, sole_service
from qlstream.engine.warmup import plan_modules
from qlstream.io.filesystem import filesystem_type, is_network_filesystem
from qlstream.pipeline.plan import PlanError, load_plans
from qlstream.settings import Settings, load_settings
from qlstream.store.database import Store, StoreAway, StoreError

GOOD, HINT, BAD = "good", "hint", "bad"  # hint: works, but could be better, or is only needed for some things
_LOOKS = {GOOD: ("●", "green"), HINT: ("▲", "yellow"), BAD: ("■", "bold red")}
_WATCHES = 8192  # inotify watches that a season of nights may need
_FREE_GB = 20  # of a night's quick products


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    state : good, hint or bad
    text : what is so
    todo : what to do about it, "" if nothing
    """

    state: str
    text: str
    todo: str = ""


@click.command()
@raw_option
@calib_option
@redux_options
@click.option("--port", type=int, metavar="N", help="port that the dashboard shall have")
def doctor(
    raw: Path | None, calib: Path | None, redux: Path | None, store: str | None, config: Path | None, port: int | None
) -> None:
    """Check this machine and, if they are given, the folders and the store; status 1 if something is missing."""
    flags = {"raw": raw, "calib": calib, "redux": redux, "store": store, "dashboard.port": port}
    settings = load_settings(config, flags)
    console = Console()
    worst = GOOD
    for title, look in CHECKS.items():
        for finding in look(settings):
            shape, style = _LOOKS[finding.state]
            console.print(f"[{style}]{shape}[/] {title:12} {finding.text}", highlight=False, soft_wrap=True)
            if finding.todo:
                console.print(f"  {'':12} → {finding.todo}", style=style, highlight=False, soft_wrap=True)
            worst = max(worst, finding.state, key=(GOOD, HINT, BAD).index)
    if worst == BAD:
        raise SystemExit(1)


def _python(_: Settings) -> Iterator[Finding]:
    text = f"Python {sys.version.split()[0]} in {sys.prefix}"
    good = sys.version_info >= (3, 11)
    yield Finding(GOOD if good else BAD, text, "" if good else "qlstream needs Python 3.11 or later")


def _packages(_: Settings) -> Iterator[Finding]:
    try:
        needed = [text for text in requires("qlstream") or [] if "extra ==" not in text]
    except PackageNotFoundError:
        yield Finding(BAD, "qlstream is not installed", "pip install . in the checkout")
        return
    lacking = []
    for text in needed:
        name = text.split(";")[0].split("<")[0].split(">")[0].split("=")[0].split("[")[0].strip()
        try:
            version(name)
        except PackageNotFoundError:
            lacking.append(text)
    if lacking:
        yield Finding(BAD, f"{', '.join(lacking)} missing", f"pip install {' '.join(repr(text) for text in lacking)}")
    else:
        yield Finding(GOOD, f"all {len(needed)} that qlstream {version('qlstream')} needs")


def _kernels(settings: Settings) -> Iterator[Finding]:
    try:
        plans = load_plans(settings.engine.plans)
    except PlanError as error:
        yield Finding(BAD, str(error), "correct the plans")
        return
    yield Finding(GOOD, f"plans for {', '.join(plans)} exposures are sound")
    cache = find_cache()
    if is_warm(plan_modules(plans.values())):
        yield Finding(GOOD, f"kernels are compiled, in {cache}")
    else:
        yield Finding(HINT, "kernels are not compiled yet", "`qlstream warmup`, or the first start does it")


def _machine(settings: Settings) -> Iterator[Finding]:
    cores = os.cpu_count() or 1
    workers = settings.engine.workers or cores
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    need = workers * 700
    enough = memory > need
    text = f"{cores} cores, {memory / 1024:.0f} GB of memory for {workers} workers"
    yield Finding(GOOD if enough else HINT, text, "" if enough else f"{need} MB are needed; give --workers N")
    watches = Path("/proc/sys/fs/inotify/max_user_watches")
    if watches.exists():
        count = int(watches.read_text())
        todo = (
            "" if count >= _WATCHES else f"sysctl fs.inotify.max_user_watches={_WATCHES}; until then scans find files"
        )
        yield Finding(HINT if todo else GOOD, f"{count} inotify watches", todo)


def _raw(settings: Settings) -> Iterator[Finding]:
    if settings.raw is None:
        yield Finding(HINT, "no raw folder given", "--raw DIR checks it")
    elif not settings.raw.is_dir():
        yield Finding(HINT, f"{settings.raw} is not there yet", "it is watched for, but check the name")
    else:
        remote = is_network_filesystem(settings.raw)
        kind = filesystem_type(settings.raw) or "unknown"
        text = f"{settings.raw} ({kind}): " + ("scanned, since file events do not reach here" if remote else "watched")
        yield Finding(GOOD, text)


def _calib(settings: Settings) -> Iterator[Finding]:
    if settings.calib is None:
        yield Finding(HINT, "no calibration tree given", "--calib DIR; without, stages that need one are skipped")
    elif not any((settings.calib / "spec").glob("**/*.yaml")):
        yield Finding(BAD, f"{settings.calib} holds no spec/**/*.yaml", "give the folder that DESI_SPECTRO_CALIB names")
    else:
        count = sum(1 for _ in (settings.calib / "spec").glob("**/*.yaml"))
        yield Finding(GOOD, f"{settings.calib}: {count} YAML files")


def _redux(settings: Settings) -> Iterator[Finding]:
    redux = settings.redux
    if redux is None:
        yield Finding(HINT, "no production folder given", "--redux DIR checks folder, disk and store")
        return
    folder = next(p for p in (redux.absolute(), *redux.absolute().parents) if p.exists())
    if not os.access(folder, os.W_OK):
        yield Finding(BAD, f"{folder} cannot be written", "give another --redux, or the right to write there")
        return
    free = shutil.disk_usage(folder).free / 2**30
    low = settings.engine.low_water_mb / 1024
    state = BAD if free < low else HINT if free < _FREE_GB else GOOD
    todo = "" if state == GOOD else f"make room: a night may need {_FREE_GB} GB, below {low:.1f} GB everything pauses"
    yield Finding(state, f"{redux} ({filesystem_type(folder) or 'unknown'}): {free:.0f} GB free", todo)
    if not redux.exists():
        return
    try:
        with sole_service(redux):
            yield Finding(GOOD, "no service works on it")
    except AlreadyRunning as error:
        yield Finding(HINT, str(error))


def _store(settings: Settings) -> Iterator[Finding]:
    if settings.redux is None:
        return
    if settings.store is None and not (settings.redux / "qlstream.db").exists():
        state = BAD if is_network_filesystem(settings.redux) else GOOD
        todo = "SQLite's locks do not hold there: give --store postgresql://..." if state == BAD else ""
        yield Finding(state, "there is none yet; it will be SQLite in the production folder", todo)
        return
    try:
        with Store.open(settings.store, settings.redux) as store, store.read():
            yield Finding(GOOD, f"{store.name} answers")
    except (StoreError, StoreAway) as error:
        yield Finding(BAD, str(error), "start the database, or check --store")


def _dashboard(settings: Settings) -> Iterator[Finding]:
    try:
        given = settle_port(settings, wait_s=0)
        yield Finding(GOOD, f"port {given.dashboard.port} of {given.dashboard.host} is free")
    except PortTaken as error:
        yield Finding(HINT, str(error))


def _options(_: Settings) -> Iterator[Finding]:
    browsers = [name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)]
    if browsers:
        yield Finding(GOOD, f"{browsers[0]} for the browser tests")
    else:
        yield Finding(HINT, "no chromium", "only the browser tests need it: apt-get install chromium")
    if importlib.util.find_spec("psycopg"):
        yield Finding(GOOD, "psycopg, for a store in PostgreSQL")
    else:
        yield Finding(HINT, "no psycopg", "only a store in PostgreSQL needs it: pip install 'qlstream[postgres]'")


CHECKS: dict[str, Callable[[Settings], Iterator[Finding]]] = {
    "python": _python,
    "packages": _packages,
    "pipeline": _kernels,
    "machine": _machine,
    "raw": _raw,
    "calibration": _calib,
    "production": _redux,
    "store": _store,
    "dashboard": _dashboard,
    "optional": _options,
}
