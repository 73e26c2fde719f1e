"""`qlstream run` and `qlstream replay`: ingest, engine and dashboard in one command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from qlstream.cli.options import Night, Speed, service_options
from qlstream.engine.hub import Tally, run_service
from qlstream.engine.service import Intake
from qlstream.ingest.replay import Replay
from qlstream.ingest.service import Ingest
from qlstream.logging import start_logging
from qlstream.production.downstream import Downstream
from qlstream.settings import Settings, load_settings
from qlstream.store.database import Store


@click.command()
@service_options
def run(once: bool, **options: Any) -> None:
    """Process raw exposures as they arrive, and show the results on the live dashboard."""
    _serve(settings_of(**options), Ingest, once)


@click.command()
@click.argument("night", type=Night())
@click.option("--speed", type=Speed(), default=1.0, show_default=True, help="times the real cadence, or max")
@service_options
def replay(night: int, speed: float, once: bool, **options: Any) -> None:
    """Stream the stored NIGHT (YYYYMMDD) through the pipeline as if it arrived now."""
    settings = settings_of(**options, more={"ingest.only_nights": (night,)})
    _serve(settings, lambda given, store: Replay(given, store, night, speed), once)


def settings_of(
    raw: Path | None,
    calib: Path | None,
    redux: Path | None,
    store: str | None,
    config: Path | None,
    port: int | None,
    no_dashboard: bool,
    offline: bool | None,
    workers: int | None,
    instrument: str | None,
    log_level: str | None,
    more: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings of a command with `service_options`; `more` are further ones by dotted key."""
    flags = {
        "raw": raw,
        "calib": calib,
        "redux": redux,
        "store": store,
        "instrument": instrument,
        "dashboard.port": port,
        "dashboard.enabled": False if no_dashboard else None,
        "engine.workers": workers,
        "offline.enabled": offline,
        "logging.level": log_level,
    }
    settings = load_settings(config, {**flags, **(more or {})})
    settings.require("raw", "redux")
    return settings


def _serve(settings: Settings, intake: Callable[[Settings, Store], Intake], once: bool) -> None:
    """Serve, say how it went, and with `once` end with a status that tells whether anything failed."""
    start_logging(settings.logging.level, settings.logging.file)
    tally: Tally = run_service(settings, intake, once, Downstream if settings.offline.enabled else None)
    click.echo(f"qlstream: {tally}")
    if once and not tally.is_good:
        raise SystemExit(1)
