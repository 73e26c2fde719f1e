"""`qlstream dashboard`: the pages of stored nights, without a service beside them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from qlstream.cli.options import redux_options
from qlstream.engine.dashboard_process import serve, settle_port, url_of
from qlstream.logging import start_logging
from qlstream.settings import load_settings
from qlstream.store.database import Store


@click.command()
@redux_options
@click.option("--port", type=int, metavar="N", help="port to listen on; 0 takes a free one")
@click.option("--host", help="address to listen on; others than loopback can be reached from outside")
def dashboard(redux: Path | None, store: str | None, config: Path | None, port: int | None, host: str | None) -> None:
    """Serve the pages of stored nights until Ctrl-C."""
    flags = {"redux": redux, "store": store, "dashboard.port": port, "dashboard.host": host}
    settings = load_settings(config, flags)
    settings.require("redux")
    assert settings.redux is not None
    if settings.store is None and not (settings.redux / "qlstream.db").exists():
        raise click.ClickException(
            f"no night is stored in {settings.redux}: it has no qlstream.db; check --redux, or give --store"
        )
    start_logging(settings.logging.level, settings.logging.file)
    Store.open(settings.store, settings.redux).close()  # says what is wrong before a page does
    settings = settle_port(settings)
    click.echo(f"dashboard: {url_of(settings)} (Ctrl-C ends it)")
    asyncio.run(serve(settings))
